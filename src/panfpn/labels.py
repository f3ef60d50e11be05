"""The label contract: what every raw value of a mask means, and back.

In: a raw mask (integers of any width, or RGB) or train ids. Out: train ids (int16, IGNORE where nothing is to be
learnt) or the raw mask. This is the one place where ids are translated; nothing else knows a raw value.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from panfpn.files import ids_to_rgb, rgb_to_ids
from panfpn.yaml_text import read_yaml

IGNORE = -1  # in train ids, everywhere
MAX_CLASSES = 32_000  # train ids are int16
MIN_VALUE, MAX_VALUE = -(2**31), 2**31 - 1  # of a raw mask
_COLORS = 1 << 24  # that RGB has
_UNKNOWN = -2
_DENSE = 1 << 16  # raw values below this are looked up in an array, larger ones (colours, 32 bits) by search


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelClass:
    """One class: its name, the colour it is drawn in, thing or stuff, and the raw values that mean it."""

    name: str
    color: tuple[int, int, int]
    thing: bool = False
    values: tuple[int, ...]  # a colour mask's value is R + 256 G + 65536 B


def free_value(used: Iterable[int]) -> int:
    """A mask value for what is ignored that none of `used` is: 255, else 65,535, else the lowest."""
    taken = {*used}
    free: int = next(value for value in (255, 65_535, *range(len(taken) + 1)) if value not in taken)
    return free


@dataclass(frozen=True, kw_only=True)
class LabelTable:
    """Raw value <-> train id <-> name, colour, thing/stuff. A class's train id is its index in `classes`."""

    name: str
    classes: tuple[LabelClass, ...]
    ignore: tuple[int, ...] = ()  # raw values that are not learnt; the first is written for IGNORE
    masks: str = "values"  # "values": one number a pixel; "colors": RGB

    def __post_init__(self) -> None:
        if not 1 <= len(self.classes) <= MAX_CLASSES:
            raise ValueError(
                f"label table {self.name!r} has {len(self.classes)} classes; 1 to {MAX_CLASSES} are possible"
            )
        if self.masks not in ("values", "colors"):
            raise ValueError(f"label table {self.name!r}: masks is {self.masks!r}; use 'values' or 'colors'")
        if len(set(self.names)) != len(self.names):
            twice = next(n for n in self.names if self.names.count(n) > 1)
            raise ValueError(f"label table {self.name!r} names two classes {twice!r}")
        for c in self.classes:
            if not c.name or not all(type(v) is int and 0 <= v < 256 for v in c.color) or len(c.color) != 3:
                raise ValueError(f"label table {self.name!r}: class {c.name!r} has colour {c.color!r}; a class has a "
                                 "name, and red, green and blue from 0 to 255")  # fmt: skip
        low, high = (0, _COLORS - 1) if self.masks == "colors" else (MIN_VALUE, MAX_VALUE)
        train_ids: dict[int, int] = {}
        for k, values in [*enumerate(c.values for c in self.classes), (IGNORE, self.ignore)]:
            for value in values:
                if not low <= value <= high:
                    raise ValueError(f"label table {self.name!r}: value {value} is not from {low} to {high}")
                if train_ids.setdefault(value, k) != k:
                    first, second = (self.classes[i].name if i >= 0 else "ignore" for i in (train_ids[value], k))
                    raise ValueError(f"label table {self.name!r}: value {value} means both {first!r} and {second!r}")

    @property
    def num_classes(self) -> int:
        """Number of classes that are learnt."""
        return len(self.classes)

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in the order of train ids."""
        return tuple(c.name for c in self.classes)

    @cached_property
    def palette(self) -> npt.NDArray[np.uint8]:
        """Colours, uint8 [K, 3] RGB, in the order of train ids."""
        return np.array([c.color for c in self.classes], np.uint8)

    @cached_property
    def _lookup(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int16]]:
        pairs = [(value, k) for k, c in enumerate(self.classes) for value in c.values]
        pairs += [(value, IGNORE) for value in self.ignore]
        pairs.sort()
        return np.array([p[0] for p in pairs], np.int64), np.array([p[1] for p in pairs], np.int16)

    @cached_property
    def _dense(self) -> npt.NDArray[np.int16]:
        values, ids = self._lookup
        table = np.full(_DENSE, _UNKNOWN, np.int16)
        small = (values >= 0) & (values < _DENSE)
        table[values[small]] = ids[small]
        return table

    def knows(self, value: int) -> bool:
        """Whether a raw value means a class, or is ignored."""
        return value in self._lookup[0]

    def encode(self, mask: npt.NDArray[np.generic], source: object = "mask") -> npt.NDArray[np.int16]:
        """Train ids, int16 [H, W], of a raw mask [H, W] or RGB [H, W, 3].

        Raises:
            ValueError: a mask of another form than the table's, or a value the table does not know; it names `source`,
                the value, how many pixels hold it, the first of them, and what the table knows.
        """
        raw = self._packed(self.in_form(mask, source))
        if raw.dtype == np.uint8 and raw.size:
            ids: npt.NDArray[np.int16] = np.asarray(cv2.LUT(raw, self._dense[:256]))  # [H, W]; 5 × numpy's speed
        elif raw.dtype in (np.uint8, np.uint16):
            ids = self._dense[raw]
        else:
            values, known = self._lookup
            index = np.searchsorted(values, raw).clip(max=len(values) - 1)
            ids = np.where(values[index] == raw, known[index], np.int16(_UNKNOWN))
        if ids.min(initial=0) == _UNKNOWN:
            raise ValueError(f"{source}: {self._describe_unknown(raw, ids == _UNKNOWN)}")
        return ids

    def in_form(self, mask: npt.NDArray[np.generic], source: object = "mask") -> npt.NDArray[np.generic]:
        """The mask as this table reads it: integers [H, W] (also of grey stored as RGB), or RGB uint8 [H, W, 3].

        ValueError names `source` and the form, if the mask has neither.
        """
        if self.masks == "colors":
            if mask.ndim != 3 or mask.shape[2] != 3 or mask.dtype != np.uint8:
                raise ValueError(f"{source}: {mask.dtype} mask of shape {mask.shape}, but label table {self.name!r} "
                                 "reads RGB colours (8-bit, three channels)")  # fmt: skip
            return mask
        if mask.ndim == 3 and (mask == mask[:, :, :1]).all():
            mask = mask[:, :, 0]
        if mask.ndim != 2 or not np.issubdtype(mask.dtype, np.integer):
            raise ValueError(f"{source}: {mask.dtype} mask of shape {mask.shape}, but label table {self.name!r} "
                             "reads one integer per pixel; for colour masks declare `masks: colors`")  # fmt: skip
        return mask

    def _packed(self, mask: npt.NDArray[np.generic]) -> npt.NDArray[np.integer[Any]]:
        if mask.ndim == 2:
            return np.asarray(mask, mask.dtype)
        return rgb_to_ids(np.asarray(mask, np.uint8))

    def _describe_unknown(self, raw: npt.NDArray[np.integer[Any]], unknown: npt.NDArray[np.bool_]) -> str:
        values, counts = np.unique(raw[unknown], return_counts=True)
        row, column = np.unravel_index(np.argmax(unknown), unknown.shape)
        shown = ", ".join(f"{self.show(int(v))} ({n} pixels)" for v, n in zip(values[:3], counts[:3], strict=True))
        more = f" and {len(values) - 3} more values" if len(values) > 3 else ""
        known = ", ".join(f"{'/'.join(map(self.show, c.values))} {c.name}" for c in self.classes[:12])
        known += ", …" if self.num_classes > 12 else ""
        ignored = "/".join(map(self.show, self.ignore)) or "none"
        return (
            f"value {shown}{more} not in label table {self.name!r} (it knows {known}; ignored: {ignored}); "
            f"the first such pixel is in row {row}, column {column}"
        )

    def show(self, value: int) -> str:
        """A raw value as a person writes it: 7, or #804080 for a colour."""
        if self.masks == "values":
            return str(value)
        return f"#{value & 255:02x}{value >> 8 & 255:02x}{value >> 16 & 255:02x}"

    def decode(self, ids: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.generic]:
        """The raw mask of train ids [H, W]: each class's first value, `ignore[0]` for IGNORE; inverse of `encode`."""
        first = np.array([c.values[0] for c in self.classes] + [self.ignore[0] if self.ignore else 0], np.int64)
        if ids.size and (ids.max() >= self.num_classes or ids.min() < IGNORE):
            raise ValueError(f"train ids reach from {ids.min()} to {ids.max()}, but label table {self.name!r} has "
                             f"{self.num_classes} classes")  # fmt: skip
        if not self.ignore and (ids < 0).any():
            raise ValueError(
                f"label table {self.name!r} declares no ignored value, so ignored pixels cannot be written"
            )
        raw = first[ids]  # IGNORE is -1: the last entry
        if self.masks == "colors":
            return ids_to_rgb(raw)
        largest = first.max()
        wide = largest >= 65536 or first.min() < 0
        return np.asarray(raw, np.int32 if wide else np.uint8 if largest < 256 else np.uint16)

    def as_train_ids(self, ignore: int = 255) -> "LabelTable":
        """The same classes for masks that already hold train ids, with `ignore` for the rest."""
        classes = tuple(replace(c, values=(k,)) for k, c in enumerate(self.classes))
        return replace(self, classes=classes, ignore=(ignore,), masks="values")

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as in `labels.yaml` and in release files."""
        classes = []
        for c in self.classes:
            entry: dict[str, Any] = {"name": c.name, "value": list(map(self._plain, c.values))}
            entry["color"] = "#{:02x}{:02x}{:02x}".format(*c.color)
            classes.append(entry | ({"thing": True} if c.thing else {}))
        return {
            "name": self.name,
            "masks": self.masks,
            "ignore": list(map(self._plain, self.ignore)),
            "classes": classes,
        }

    def _plain(self, value: int) -> int | str:
        return value if self.masks == "values" else self.show(value)

    @staticmethod
    def from_dict(data: Mapping[str, Any], source: object = "label table") -> "LabelTable":
        """The table of plain data; ValueError names `source` and what is wrong in it."""
        return _parse(data, source)

    @staticmethod
    def named(name: str) -> "LabelTable":
        """A table that ships with panfpn: ade20k, camvid, cityscapes or coco_panoptic."""
        folder = resources.files("panfpn") / "data" / "labels"
        known = sorted(entry.name.removesuffix(".json") for entry in folder.iterdir())
        if name not in known:
            raise ValueError(f"no label table {name!r} ships with panfpn; there are {', '.join(known)}")
        file = folder / f"{name}.json"
        return _parse(json.loads(file.read_text("utf-8")), f"{name}.json")

    @staticmethod
    def from_yaml(path: Path) -> "LabelTable":
        """The table of a `labels.yaml`: `classes` with `name`, `value` (or `color`), `thing`; `ignore`; `masks`."""
        data = read_yaml(path)
        if not isinstance(data, dict):
            raise ValueError(f"{path}: expected a mapping with the key `classes`, found {type(data).__name__}")
        return _parse({"name": path.parent.name or "labels"} | data, path)


def _parse(data: Mapping[str, Any], source: object) -> LabelTable:
    unknown = set(data) - {"name", "masks", "ignore", "classes"}
    if unknown:
        raise ValueError(
            f"{source}: unknown key {sorted(map(str, unknown))[0]!r}; a label table has name, masks, ignore, classes"
        )
    masks = data.get("masks", "values")
    entries = data.get("classes")
    if not isinstance(entries, Sequence) or isinstance(entries, str) or not entries:
        raise ValueError(f"{source}: `classes` must be a list with at least one class")
    classes = tuple(_parse_class(entry, k, masks, len(entries), source) for k, entry in enumerate(entries))
    ignore = tuple(
        _raw_value(v, f"{source}: ignore") for v in _as_list(data.get("ignore", ()), colors=masks == "colors")
    )
    name = data.get("name", "labels")
    if not isinstance(name, str | int) or isinstance(name, bool):
        raise ValueError(f"{source}: name: {name!r} is no text")
    try:
        return LabelTable(name=str(name), classes=classes, ignore=ignore, masks=masks)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def _parse_class(entry: Any, k: int, masks: str, total: int, source: object) -> LabelClass:
    where = f"{source}: classes[{k}]"
    if not isinstance(entry, Mapping) or "name" not in entry:
        raise ValueError(f"{where} must be a mapping with `name` and `value`, found {entry!r}")
    name = entry["name"]
    if not isinstance(name, str | int | float) or isinstance(name, bool) or not str(name).strip():
        raise ValueError(f"{where} name: {name!r} is no text; write the name in quotes")
    unknown = set(entry) - {"name", "value", "color", "thing"}
    if unknown:
        raise ValueError(
            f"{where}: unknown key {sorted(map(str, unknown))[0]!r}; a class has name, value, color, thing"
        )
    if "color" in entry and not entry["color"]:
        raise ValueError(f"{where} color: {entry['color']!r} is not a colour like '#804080' (with its quotes: a bare # "
                         "begins a comment)")  # fmt: skip
    if not isinstance(entry.get("thing", False), bool):
        raise ValueError(f"{where} thing: {entry['thing']!r} is neither true nor false")
    color = entry.get("color", entry.get("value") if masks == "colors" else None)
    value = entry.get("value", color if masks == "colors" else None)
    if value is None or value == []:
        raise ValueError(
            f"{where} ({entry['name']}): `value` is missing; name the raw mask value (or values) of this class"
        )
    if color is None:
        rgb = _spread_color(k)
    else:
        packed = _raw_value(color if masks == "values" else _as_list(color, colors=True)[0], f"{where} color")
        if not 0 <= packed < _COLORS:
            raise ValueError(f"{where} color: {packed} is no colour; it has red, green and blue from 0 to 255")
        rgb = (packed & 255, packed >> 8 & 255, packed >> 16 & 255)
    values = tuple(_raw_value(v, f"{where} value") for v in _as_list(value, colors=masks == "colors"))
    return LabelClass(name=str(name), color=rgb, thing=bool(entry.get("thing", False)), values=values)


def _as_list(value: Any, *, colors: bool = False) -> list[Any]:
    if colors and isinstance(value, Sequence) and len(value) == 3 and all(type(v) is int for v in value):
        return [value]  # one colour written as [R, G, B]
    entries = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return entries if colors else [number for entry in entries for number in _run(entry)]


def _run(entry: Any) -> Sequence[Any]:
    """The numbers of a run such as `1-255`; of anything else, itself."""
    ends = re.fullmatch(r"(\d{1,10})-(\d{1,10})", entry) if isinstance(entry, str) else None
    run = range(int(ends[1]), int(ends[2]) + 1) if ends else ()
    return run if 0 < len(run) <= _DENSE else [entry]


def _raw_value(value: Any, where: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, Sequence) and len(value) == 3 and all(type(v) is int and 0 <= v < 256 for v in value):
        return int(value[0] + 256 * value[1] + 65536 * value[2])
    text = str(value)
    if re.fullmatch("#[0-9a-fA-F]{6}", text):
        return int(text[5:7] + text[3:5] + text[1:3], 16)
    raise ValueError(f"{where}: {value!r} is neither an integer, a run like 1-255 nor a colour like '#804080'")


def _spread_color(k: int) -> tuple[int, int, int]:
    """The k-th colour of the Pascal VOC scheme (bits of k + 1 spread over the channels): distinct for any k."""
    rgb, bits = [0, 0, 0], k + 1
    for shift in range(7, -1, -1):
        for channel in range(3):
            rgb[channel] |= (bits >> channel & 1) << shift
        bits >>= 3
    return rgb[0], rgb[1], rgb[2]
