"""A labels.yaml proposed for masks that have none. In: mask files. Out: their values with counts, and the text."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from panfpn.data.images import decode_mask
from panfpn.files import read_bytes, rgb_to_ids
from panfpn.labels import LabelTable

_MOST = 256  # different values beyond which masks hold something else than classes
_BINARY = 255
_NEAR = 32  # to 0 or 255: what compression makes of them
_APART = 4  # values of soft edges, at most, by the median
_STANDS_OUT = 0.4  # of the pixels between have one value: then it is a class
_SOFT = 8  # values between 0 and 255, from which on they are soft edges of two classes
_SOFT_SHARE = 1 / 3  # of the pixels at most
_EDGES = "values between 0 and 255 are soft edges, as of masks that were scaled or were JPEGs: divided in the middle"
_NUMBERS = (
    "1, 2, 3 … seem to number the things of each mask; with one class of things that has all of these values, each is "
    "told apart"
)
_NUMBERED = 4  # things of a mask, from which on numbers that always begin with 1 are those of things


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """What values masks have, and a table that names them."""

    pixels: dict[int, int]  # by value; a colour's is R + 256 G + 65536 B
    masks: dict[int, int]  # how many masks have each value
    table: LabelTable
    note: str = ""  # what else is to be known

    def text(self) -> str:
        """A labels.yaml, in which names are still to be given."""
        if not self.pixels:
            entries = (
                f"  - {{name: {c.name}, value: {_runs(c.values)}{', thing: true' * c.thing}}}"
                for c in self.table.classes
            )
            return "\n".join(("classes:", *entries)) + "\n"
        total = max(1, sum(self.pixels.values()))
        lines = ["classes:"]
        if self.table.masks == "colors":
            lines.insert(0, "masks: colors")
        if self.note:
            lines.insert(0, f"# {self.note}")
        for c in self.table.classes:
            values = [v for v in c.values if v in self.pixels]
            shown = _runs(c.values)
            if self.table.masks == "colors":
                shown = f'"{self.table.show(c.values[0])}"'
            part, most = sum(self.pixels[v] for v in values) / total, max(self.masks[v] for v in values)
            entry = f"{{name: {c.name}, value: {shown}{', thing: true' * c.thing}}}"
            lines.append(f"  - {entry}   # {part:.2%} of the pixels, in {most} masks")
        ignored = [v for v in self.table.ignore if v in self.pixels]
        share = f"   # {self.pixels[ignored[0]] / total:.2%} of the pixels" if ignored else ""
        lines.append(f"ignore: [{', '.join(map(str, ignored))}]{share}")
        return "\n".join(lines) + "\n"


def _runs(values: Sequence[int]) -> str:
    """Values of a class as labels.yaml has them: 7, or 1-255."""
    return str(values[0]) if len(values) == 1 else f"{values[0]}-{values[-1]}"


def propose(files: Sequence[Path]) -> Proposal:
    """The values of masks, each a class, but for 255 beside others, which is taken for ignored.

    Few pixels of many values between 0 and 255 are soft edges of two classes; values that always begin with 1, end
    anywhere and lie beside a 0 are numbers of things.

    ValueError for masks that hold more values than classes are probable, and for files that are none.
    """
    pixels: Counter[int] = Counter()
    masks: Counter[int] = Counter()
    ends: list[int] = []  # of masks whose values are 1, 2, 3, … and perhaps 0
    colors = any(map(_has_colors, files))
    for file in files:
        mask = _mask(file)
        if mask is None:
            continue
        grey = np.repeat(mask[:, :, None], 3, 2) if colors and mask.ndim == 2 else mask
        raw = rgb_to_ids(np.asarray(grey, np.uint8)) if colors else mask if mask.ndim == 2 else mask[:, :, 0]
        values, counts = np.unique(raw, return_counts=True)
        pixels.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        masks.update(values.tolist())
        things = values[(values != 0) & (values != _BINARY)]
        numbered = not colors and np.array_equal(things, np.arange(1, len(things) + 1)) and _begin_at_the_ground(raw)
        ends.append(len(things) if numbered else -1)
        if len(pixels) > _MOST:
            raise ValueError(f"{file}: the masks have more than {_MOST} values; these are no classes, but photos, ids "
                             "of instances, or masks that were saved as JPEG once")  # fmt: skip
    if not pixels:
        raise ValueError(f"{files[0]}: neither this nor another of {len(files)} masks can be read")
    if not colors and _soft(pixels):
        return _two(pixels, masks, range(_BINARY + 1), _BINARY // 2 + 1, thing=False, note=_EDGES)
    if 0 in pixels and min(ends) >= 0 and len(set(ends)) >= _NUMBERED <= max(ends) < _BINARY - 1:
        return _two(pixels, masks, range(_BINARY + (_BINARY not in pixels)), 1, thing=True, note=_NUMBERS)
    ignored = () if colors or set(pixels) <= {0, _BINARY} or _BINARY not in pixels else (_BINARY,)
    classes = [v for v in sorted(pixels) if v not in ignored]
    values = (f"#{v & 255:02x}{v >> 8 & 255:02x}{v >> 16 & 255:02x}" if colors else v for v in classes)
    plain = {
        "name": "proposed", "masks": "colors" if colors else "values", "ignore": list(ignored),
        "classes": [{"name": f"class_{k}", "value": value} for k, value in enumerate(values)],
    }  # fmt: skip
    table = LabelTable.from_dict(plain, "the proposed labels.yaml")
    return Proposal(pixels=dict(pixels), masks=dict(masks), table=table)


def _soft(pixels: Mapping[int, int]) -> bool:
    """Whether most is 0 or 255, and the rest anything between, no value of it (but near those two) more than others."""
    between = [v for v in pixels if 0 < v < _BINARY]
    if not set(pixels) >= {0, _BINARY} or min(pixels) < 0 or max(pixels) > _BINARY or not between:
        return False
    if sum(pixels[v] for v in between) > _SOFT_SHARE * sum(pixels.values()) or max(between) < _BINARY - _NEAR:
        return False
    middle = [v for v in between if _NEAR < v < _BINARY - _NEAR]
    if len(between) < _SOFT:
        return not middle  # what compression leaves beside 0 and 255
    dense = np.median(np.diff(sorted(between))) <= _APART
    counts = [pixels[v] for v in middle]
    return bool(dense) and max(counts, default=0) <= _STANDS_OUT * sum(counts)


def _begin_at_the_ground(mask: npt.NDArray[np.generic]) -> bool:
    """Whether nearly all numbers of a mask have pixels beside a 0 (or void): things do, levels within levels do not."""
    around = (mask == 0) | (mask == _BINARY)
    ground = cv2.dilate(around.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    numbers = np.unique(mask[~around])
    return len(np.intersect1d(numbers, mask[ground])) >= 0.8 * len(numbers)


def _two(
    pixels: Mapping[int, int], masks: Mapping[int, int], values: range, first: int, *, thing: bool, note: str
) -> Proposal:
    """Two classes: the values below `first`, and the others; what else there is, is ignored."""
    background = {"name": "background" if thing else "class_0", "value": [*values[:first]]}
    other = {"name": "thing" if thing else "class_1", "value": [*values[first:]], "thing": thing}
    ignored = [v for v in pixels if v not in values]
    plain = {"name": "proposed", "classes": [background, other], "ignore": ignored}
    table = LabelTable.from_dict(plain, "the proposed labels.yaml")
    return Proposal(pixels=dict(pixels), masks=dict(masks), table=table, note=note)


def of_instances() -> Proposal:
    """Where there are maps of instances and no masks: things of one class before a background."""
    entries = [{"name": "background", "value": 0}, {"name": "thing", "value": 1, "thing": True}]
    return Proposal(pixels={}, masks={}, table=LabelTable.from_dict({"classes": entries}, "the proposed labels.yaml"))


def _mask(file: Path) -> npt.NDArray[np.generic] | None:
    """The values of a mask; none of one that cannot be read, as the doctor says so."""
    try:
        return decode_mask(read_bytes(file), file)
    except ValueError:
        return None


def _has_colors(file: Path) -> bool:
    mask = _mask(file)
    return mask is not None and mask.ndim == 3 and not (mask == mask[:, :, :1]).all()
