"""Options of a verb into a dataclass, and the notes a verb prints. In: words of the command line.

An option that is true or false is a flag: `--check` is `--check True`, and `--check False` says the other.
"""

import contextlib
import io
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args, get_type_hints

import tyro

from panfpn.choices import ENGINES, FORMATS, PROTOCOLS, RASTER_FORMS, SUBMISSIONS

T = TypeVar("T")
_TRUTH = {"true": True, "false": False}
Out = Annotated[T, tyro.conf.arg(aliases=["-o"])]
"""`--out` of a verb, or `-o`."""
if TYPE_CHECKING:  # a type checker cannot read choices from a dict
    EngineName = str
    ProtocolName = str
    FormatName = str
    SubmissionName = str
    RasterForm = str
else:
    EngineName, ProtocolName = Literal[*ENGINES], Literal[*PROTOCOLS]
    FormatName, SubmissionName = Literal[*FORMATS], Literal[*SUBMISSIONS]
    RasterForm = Literal[*RASTER_FORMS]


@dataclass(frozen=True)
class ReadingOptions:
    """What image files leave open."""

    bands: tuple[int, ...] = ()
    """Which of a file's bands the network sees, numbered from 1; without, those that its header makes plain."""
    range: tuple[float, float] | Literal["percentile"] | None = None
    """What is black and white in images of more than 8 bits (0 4095 for 12 bits, 0 65535 for 16), or percentile: 2 %
    and 98 % of each band of each image."""
    pages: int | None = None
    """Which page of files with several is read, numbered from 1."""


def parse_options(options: type[T], verb: str, arguments: list[str], description: str, default: Any = None) -> T:
    """Options of one verb into a dataclass; ValueError for one that is unknown, missing or of the wrong type."""
    _check_words(arguments, verb)
    config = (tyro.conf.HelptextFromCommentsOff, tyro.conf.FlagConversionOff)
    prog = f"panfpn {verb}"
    words = _with_values(arguments, set(_flags(options)))
    box = io.StringIO()
    registry = tyro.constructors.ConstructorRegistry()
    registry.primitive_rule(_flag)
    try:
        with registry, contextlib.redirect_stderr(box):
            parsed: T = tyro.cli(
                options, prog=prog, description=description, args=words, default=default, config=config
            )
    except SystemExit as leaving:
        if leaving.code:
            raise ValueError(f"{_sentence(box.getvalue())} (see {prog} --help)") from None
        raise
    return _at_home(parsed)


def _check_words(arguments: Sequence[str], verb: str) -> None:
    """ValueError for an empty word, and for an option that stands there twice."""
    names: set[str] = set()
    for word in arguments:
        if not word.strip():
            raise ValueError(f"an argument of `panfpn {verb}` is empty (see panfpn {verb} --help)")
        name = word.partition("=")[0].replace("_", "-")
        if name.startswith("--") and name != "--":
            if name in names:
                raise ValueError(f"the option {name} stands there twice (see panfpn {verb} --help)")
            names.add(name)


def _at_home(options: T) -> T:
    """The same, with ~ in paths as the home directory, which a shell leaves as it is in --out=~/x."""
    changes: dict[str, Any] = {}
    for field in fields(options):  # type: ignore[arg-type]
        value = getattr(options, field.name)
        if isinstance(value, Path):
            changes[field.name] = value.expanduser()
        elif isinstance(value, tuple) and any(isinstance(entry, Path) for entry in value):
            changes[field.name] = tuple(e.expanduser() if isinstance(e, Path) else e for e in value)
    return replace(options, **changes) if changes else options  # type: ignore[type-var]


def _flags(options: Any, prefix: str = "") -> Iterator[str]:
    """Names of the options that are true or false, in the sections too: `check`, `inference.flip`."""
    for name, hint in get_type_hints(options, include_extras=True).items():
        option, *metadata = get_args(hint) if hasattr(hint, "__metadata__") else (hint,)
        nameless = any(getattr(entry, "name", None) == "" for entry in metadata)  # tyro.conf.arg(name="")
        if option is bool:
            yield f"{prefix}{name}"
        elif is_dataclass(option):
            yield from _flags(option, prefix if nameless else f"{prefix}{name}.")


def _with_values(arguments: Sequence[str], flags: set[str]) -> list[str]:
    """The words of the command line, with True after every flag that neither True nor False follows."""
    words: list[str] = []
    for word in [*arguments, ""]:
        if words and words[-1].startswith("--") and words[-1][2:].replace("-", "_") in flags:
            words += ["True"] * (word.lower() not in _TRUTH)
        words.append(word)
    return words[:-1]


def _flag(option: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[bool] | None:
    """How tyro reads and describes an option that is true or false."""
    if option.type is not bool:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="[True|False]",
        instance_from_str=lambda words: _TRUTH[words[0].lower()],
        is_instance=lambda value: isinstance(value, bool),
        str_from_instance=lambda value: [str(value)],
        choices=("True", "False", "true", "false"),
    )


def _sentence(framed: str) -> str:
    """What stands in tyro's framed message, without frame, title and pointer to the help text."""
    lines = [line.strip("\u2500\u2502\u256d\u256e\u2570\u256f ") for line in framed.splitlines()]
    text = " ".join(line for line in lines[1:] if line).partition("For full helptext")[0]
    return re.sub(r"Error parsing [\w.-]+: |Argument helptext: ", "", text).strip()


def num_bytes(text: str, option: str) -> int:
    """Bytes of a size like 4GB, 800 MB or 1.5GiB; ValueError names the option."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *([kMGT]?)(i?)B?", text.strip(), re.IGNORECASE)
    if not match or not float(match[1]):
        raise ValueError(f"{option} is {text!r}; give a size such as 4GB or 800MB")
    power = " KMGT".index(match[2].upper() or " ")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** power)


def check_file(path: Path | None, what: str, suffix: str = ".json") -> None:
    """ValueError unless `what` can go into the file `path`; checked before hours of work."""
    if path and (path.is_dir() or path.suffix != suffix):
        raise ValueError(f"{path}: the {what} go into a file whose name ends in {suffix}")
    if path:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        except OSError as error:
            raise ValueError(f"{path}: cannot be written ({error.strerror})") from error


def print_notes(notes: Sequence[str]) -> None:
    """What a reader of foreign checkpoints left out or assumed; beside the results, not among them."""
    for note in notes:
        sys.stderr.write(f"note: {note}\n")
