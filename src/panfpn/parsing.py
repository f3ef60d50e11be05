"""What a setting may be, and plain data into dataclasses and back.

In: dataclasses whose fields carry their bounds (`Annotated[float, Bounds(above=0)]`); what YAML, a header or a caller
gave. Out: checked values of the field's type, or one sentence with key, value and what it must be.
"""

import difflib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from panfpn.choices import no_choice

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What a number, or every number of a tuple, may be; it is finite in any case."""

    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None
    of: str = ""
    """What the numbers are, for the sentence: "a share", "sizes in pixels"."""

    def allow(self, value: Any) -> bool:
        """Whether the value, or every one of a tuple, is inside; None is, and a word in place of numbers."""
        if isinstance(value, str):
            return True
        if value is None or isinstance(value, tuple):
            return all(self.allow(entry) for entry in value or ())
        return (
            math.isfinite(value)
            and (self.above is None or value > self.above)
            and (self.at_least is None or value >= self.at_least)
            and (self.below is None or value < self.below)
            and (self.at_most is None or value <= self.at_most)
        )

    def __str__(self) -> str:
        if self.at_most is not None:
            high, low_to = f"at most {self.at_most}", f"{self.at_most}"
        else:
            high = low_to = "" if self.below is None else f"below {self.below}"
        if self.at_least is not None:
            return f"from {self.at_least} to {low_to}" if high else f"{self.at_least} or more"
        if self.above is not None:
            low = f"above {self.above}"
            return f"{low}, {high}" if high else "positive" if self.above == 0 else low
        return high or "finite"


Count = Annotated[int, Bounds(above=0)]
Width = Annotated[int, Bounds(above=0, at_most=65_536, of="a number of channels")]
NotNegative = Annotated[float, Bounds(at_least=0)]
Share = Annotated[float, Bounds(at_least=0, at_most=1, of="a share")]
BelowOne = Annotated[float, Bounds(at_least=0, below=1)]
Size = Annotated[tuple[int, int], Bounds(above=0, of="two sizes in pixels")]


@dataclass(frozen=True)
class Only:
    """Marks a setting that one architecture has: another must leave it at its default."""

    architecture: str


@dataclass(frozen=True)
class Setting:
    """A field of a dataclass: its type without the metadata, its default, and the metadata."""

    name: str
    hint: Any
    default: Any
    bounds: Bounds | None
    only: Only | None


def settings_of(cls: Any) -> tuple[Setting, ...]:
    """Every field of a dataclass."""
    return _settings_of(cls)


@cache
def _settings_of(cls: Any) -> tuple[Setting, ...]:
    plain_hints, hints = get_type_hints(cls), get_type_hints(cls, include_extras=True)
    settings = []
    for f in fields(cls):
        hint = hints[f.name]
        metadata = [m for part in (hint, *get_args(hint)) for m in getattr(part, "__metadata__", ())]
        settings.append(Setting(
            name=f.name, hint=plain_hints[f.name], default=f.default,
            bounds=next((m for m in metadata if isinstance(m, Bounds)), None),
            only=next((m for m in metadata if isinstance(m, Only)), None),
        ))  # fmt: skip
    return tuple(settings)


def check_settings(section: Any, prefix: str) -> None:
    """Convert and check the fields of a frozen dataclass, in its `__post_init__`; ValueError names the key."""
    for setting in settings_of(type(section)):
        value = getattr(section, setting.name)
        if value is setting.default:
            continue
        key = f"{prefix}{setting.name}"
        converted = convert(value, setting.hint, key)
        object.__setattr__(section, setting.name, converted)
        if setting.bounds:
            wanted = _with_type(setting.bounds, setting.hint)
            require(setting.bounds.allow(converted), key, converted, wanted)


def require(valid: bool, key: str, value: Any, wanted: str) -> None:
    """ValueError unless `valid`; it says what the value of `key` must be."""
    if not valid:
        raise ValueError(f"{key} is {value!r}; it must be {wanted}")


def _with_type(bounds: Bounds, hint: Any) -> str:
    """The bounds in words: `positive, or none`, `sizes in pixels, each positive`."""
    words = f"{bounds.of or 'numbers'}, each {bounds}" if _is_tuple(hint) else f"{bounds.of} {bounds}".strip()
    return f"{words}, or none" if type(None) in get_args(hint) else words


def _is_tuple(hint: Any) -> bool:
    return any(get_origin(part) is tuple for part in (hint, *get_args(hint)))


def convert(value: Any, hint: Any, key: str) -> Any:
    """The value as the type `hint`: text for paths and numbers, lists for tuples; ValueError names `key`."""
    if is_dataclass(hint):
        return value if isinstance(value, hint) else parse(hint, value, f"{key}.")  # type: ignore[arg-type]
    if type(value) is hint:
        return value
    import pydantic  # noqa: PLC0415 - only where a value is no default

    leaves = _leaves(hint)
    entries = value if isinstance(value, list | tuple) else (value,)
    if bool not in leaves and any(isinstance(entry, bool) for entry in entries):  # True would pass as 1
        raise ValueError(f"{key} is {value!r}; input should be no truth value")
    if isinstance(value, set | frozenset) and _is_tuple(hint):  # whose order would be a guess
        raise ValueError(f"{key} is {value!r}; input should be a valid tuple")
    if isinstance(value, os.PathLike) and str in leaves:
        value = os.fspath(value)
    try:
        return _adapter(hint).validate_python(value)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "literal_error":
            raise ValueError(no_choice(key, first["input"], _choices(hint))) from error
        message = {"missing": "tuple should have more items", "path_type": "input should be a path"}
        raise ValueError(f"{key} is {value!r}; {message.get(first['type'], first['msg'].lower())}") from error


@cache
def _adapter(hint: Any) -> Any:
    import pydantic  # noqa: PLC0415

    return pydantic.TypeAdapter(hint)


@cache
def _leaves(hint: Any) -> frozenset[Any]:
    """The types inside of a hint: {int, NoneType} of tuple[int, int] | None."""
    if get_origin(hint) is Literal:
        return frozenset({Literal})
    inner = [argument for argument in get_args(hint) if argument is not Ellipsis]
    return frozenset().union(*map(_leaves, inner)) if inner else frozenset({hint})


def _choices(hint: Any) -> tuple[Any, ...]:
    if get_origin(hint) is Literal:
        return get_args(hint)
    return tuple(choice for argument in get_args(hint) for choice in _choices(argument))


def parse(cls: type[T], data: Any, prefix: str = "") -> T:
    """Build a dataclass of plain data; ValueError names the key, its value and what was wanted."""
    if not isinstance(data, Mapping):
        raise ValueError(f"{prefix.rstrip('.') or 'the file'} holds {data!r}; a mapping of settings was wanted")
    hints = {setting.name: setting.hint for setting in settings_of(cls)}
    values: dict[str, Any] = {}
    for key, value in data.items():
        check_key(str(key), fields(cls), prefix)  # type: ignore[arg-type]
        values[key] = convert(value, hints[key], f"{prefix}{key}")
    return cls(**values)


def check_key(key: str, known: Any, prefix: str) -> None:
    """ValueError unless `key` is one of the dataclass fields `known`; it names the nearest."""
    names = [f.name for f in known]
    if key not in names:
        inside = [f"{f.name}.{key}" for f in known if any(g.name == key for g in _fields_of(f.default_factory))]
        near = inside or difflib.get_close_matches(key, names, n=1, cutoff=0.4)
        hint = f"did you mean {prefix}{near[0]}?" if near else f"known here: {', '.join(names)}"
        raise ValueError(f"unknown key {prefix}{key}; {hint}")


def _fields_of(cls: Any) -> tuple[Any, ...]:
    return fields(cls) if is_dataclass(cls) else ()


def plain(value: Any) -> Any:
    """The same in str, int, float, bool, None, list and dict."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value
