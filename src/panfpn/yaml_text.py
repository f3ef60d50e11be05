"""YAML of anyone's, read in bounded time and memory. In: text. Out: plain data, or what is wrong and in which line."""

from functools import cache
from pathlib import Path
from typing import Any

from panfpn.files import read_bytes

_LONGEST = 1 << 24  # characters, of the text and of what its aliases (&a, *a) stand for
_DEEPEST = 50


def read_yaml(path: Path) -> Any:
    """The data in a YAML file; ValueError names the file, the line, and what is wrong there."""
    content = read_bytes(path)
    try:
        return parse_yaml(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not text in UTF-8 (byte {error.start})") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def parse_yaml(text: str) -> Any:
    """The data in a YAML text; ValueError names the line, and what is wrong there: also a key that stands twice."""
    import yaml  # noqa: PLC0415 - only where text enters

    if len(text) > _LONGEST:
        raise ValueError(f"cannot be read as YAML (more than {_LONGEST >> 20} MiB)")
    try:
        _check_size(text)
        return yaml.load(text, Loader=_loader())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ValueError(f"cannot be read as YAML ({error.problem}{where})") from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"cannot be read as YAML ({(str(error).splitlines() or ['?'])[0]})") from error


def _check_size(text: str) -> None:
    """ValueError for text whose aliases grow into more than memory should hold, or that is nested too deeply."""
    import yaml  # noqa: PLC0415

    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = [(None, 0)]  # anchor, and the size of what stands before
    total = 0
    for event in yaml.parse(text, Loader=_loader()):
        anchor = getattr(event, "anchor", None)
        if isinstance(event, yaml.AliasEvent):
            total += sizes.get(anchor or "", 0)
        elif isinstance(event, yaml.ScalarEvent):
            total += len(event.value) + 1
            if anchor:
                sizes[anchor] = len(event.value) + 1
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((anchor, total))
        elif isinstance(event, yaml.CollectionEndEvent):
            name, before = open_nodes.pop()
            total += 1
            if name:
                sizes[name] = total - before
        if total > _LONGEST or len(open_nodes) > _DEEPEST:
            fault = "its aliases stand for too much" if total > _LONGEST else f"nested more than {_DEEPEST} deep"
            raise ValueError(f"{fault}, in line {event.start_mark.line + 1}")  # type: ignore[union-attr]


@cache
def _loader() -> Any:
    """A safe loader that takes no key twice, and no number that people mean otherwise than YAML 1.1 does."""
    import yaml  # noqa: PLC0415

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        """YAML's safe loader; a mapping with one key twice is an error."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                    if (key.tag, key.value) in keys:
                        raise yaml.constructor.ConstructorError(
                            None, None, f"the key {key.value[:80]!r} stands there twice", key.start_mark
                        )
                    keys.add((key.tag, key.value))
            return super().construct_mapping(node, deep)

        def construct_number(self, node: Any) -> Any:
            """010 is eight to YAML, and 1:30 ninety."""
            text = node.value
            if (text.lstrip("+-")[:1] == "0" and text.lstrip("+-")[1:2].isdigit()) or ":" in text:
                raise yaml.constructor.ConstructorError(
                    None, None, f"YAML takes {text[:80]} for {self.construct_yaml_int(node)}; write that number, or "
                    f"'{text[:80]}' in quotes if it is a name", node.start_mark,
                )  # fmt: skip
            return self.construct_yaml_int(node)

    Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_number)
    return Loader
