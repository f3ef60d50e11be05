"""From plain data to dataclasses and back. In: what YAML or a header held. Out: a checked dataclass, or a sentence."""

import difflib
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

T = TypeVar("T")


def parse(kind: type[T], data: Any, prefix: str = "") -> T:
    """Build the dataclass `kind` of plain data; ValueError names the key, its value and what was wanted."""
    import pydantic  # noqa: PLC0415 - only where text enters

    if not isinstance(data, dict):
        raise ValueError(f"{prefix.rstrip('.') or 'the file'} holds {data!r}; a mapping of settings was wanted")
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, value in data.items():
        check_key(str(key), fields(kind), prefix)  # type: ignore[arg-type]
        hint = hints[key]
        if is_dataclass(hint):
            values[key] = parse(hint, value, f"{prefix}{key}.")  # type: ignore[arg-type]
            continue
        try:
            values[key] = pydantic.TypeAdapter(hint).validate_python(value)
        except pydantic.ValidationError as error:
            raise ValueError(f"{prefix}{key} is {value!r}; {error.errors()[0]['msg'].lower()}") from error
    return kind(**values)


def check_key(key: str, known: Any, prefix: str) -> None:
    """ValueError unless `key` is one of the dataclass fields `known`; it names the nearest."""
    names = [f.name for f in known]
    if key not in names:
        inside = [f"{f.name}.{key}" for f in known if any(g.name == key for g in _fields_of(f.default_factory))]
        near = inside or difflib.get_close_matches(key, names, n=1, cutoff=0.4)
        hint = f"did you mean {prefix}{near[0]}?" if near else f"known here: {', '.join(names)}"
        raise ValueError(f"unknown key {prefix}{key}; {hint}")


def _fields_of(kind: Any) -> tuple[Any, ...]:
    return fields(kind) if is_dataclass(kind) else ()


def plain(value: Any) -> Any:
    """The same in str, int, float, bool, None, list and dict."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value
