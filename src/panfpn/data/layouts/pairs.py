"""Images and masks wherever they lie, found by their names and pixels; and labels.yaml.

    training/images/a.jpg   PNGImages/a.png       leftImg8bit/train/7/a_image.jpg   base/a.jpg
    training/labels/a.png   PedMasks/a_mask.png   gtFine/train/7/a_label.png        base/a.png

Two folders belong together if their paths differ in one name and their files are called alike; else both lie in the
same folders, as JPEG and PNG or with an ending. Pixels tell which are masks: most are as the one on their right.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, islice, permutations
from pathlib import Path

import numpy as np

from panfpn.data.dataset import FileDataset
from panfpn.data.header import read_header
from panfpn.data.images import IMAGE_SUFFIXES, mask_of
from panfpn.data.layouts.folder import of_masks
from panfpn.data.layouts.listing import SPLITS, Files, divided, kinds, names_of_split, paired
from panfpn.data.layouts.request import SplitRequest
from panfpn.data.segments import PanopticDataset
from panfpn.files import read_bytes, rgb_to_ids
from panfpn.listing import LeftOut, files_in

_MOST_FILES = 500_000  # that are listed to find out
_DEEPEST = 3  # names of a path, of which one tells images from masks
_MOST_FOLDERS = 16  # beside each other, of which two are images and masks; more are cities or films
_EVEN = 0.8  # of a mask's pixels are as their right neighbour, at least
_LOOKED_AT = 3  # files of a folder
_LARGEST = 1 << 26  # pixels of a file that is looked at
_COLORS = 1 << 16  # values that colours count for more than numbers
_PHOTOS = frozenset({".jpg", ".jpeg", ".jpe", ".jfif"})

_Looking = Callable[[Path], tuple[float, int]]


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """Images and masks by the names that they share."""

    images: Files
    masks: Files
    others: tuple[Path, ...] = ()  # of each other kind of masks a file


def open_split(request: SplitRequest) -> FileDataset | PanopticDataset:
    """The pairs of a split.

    ValueError if nothing pairs, for what is alone, and for a missing labels.yaml.
    """
    root, own = request.folder, request.own_table()
    if own is None:
        raise ValueError(f"{root / 'labels.yaml'}: no such file; it must name each raw mask value, its class or "
                         f"`ignore` (panfpn data check {root} proposes one)")  # fmt: skip
    found = _find(root)
    if request.split not in found:
        there = f"only of {', '.join(found)}" if found else "nor of another"
        raise ValueError(f"{root}: no images and masks of split {request.split!r} that are called alike, {there}")
    pair = found[request.split]
    for other in pair.others:
        request.left_out.add("kinds of files that could be masks too", other)
    return of_masks(request, request.fitting(own), paired(request, pair.images, pair.masks))


def splits(root: Path) -> list[str]:
    """The splits of which images and masks lie there; all are `train` where no folder is called like a split."""
    found = _find(root)
    return [split for split in SPLITS if split in found]


def mask_files(root: Path, splits: Sequence[str]) -> list[Path]:
    """All masks of splits, whatever their values mean."""
    found = _find(root)
    return [path for split in splits if split in found for path in found[split].masks.values()]


def _find(root: Path) -> dict[str, _Pair]:
    """By split, what belongs together; empty where nothing does."""
    files = [p for p in islice(files_in(root, LeftOut()), _MOST_FILES) if p.suffix.lower() in IMAGE_SUFFIXES]
    parts = {path: path.relative_to(root).with_suffix("").parts for path in files}
    look = cache(_look)
    for depth in range(_DEEPEST):
        levels: dict[tuple[str, ...], dict[str, Files]] = defaultdict(lambda: defaultdict(dict))
        for path, names in parts.items():
            if len(names) > depth + 1:
                levels[names[:depth]][names[depth]]["/".join(names[depth + 1 :])] = path
        pairs = [pair for folders in levels.values() for pair in _among(folders, look)]
        if pairs:
            return _by_split(parts, pairs)
    forms: tuple[Files, Files] = ({}, {})  # in the same folders: photos, and what may be masks
    for path, names in parts.items():
        forms[path.suffix.lower() not in _PHOTOS]["/".join(names)] = path
    pair = _chosen(kinds(*forms) if forms[0] else [divided(forms[1])], look)
    return {} if pair is None else _by_split(parts, [pair])


def _among(folders: Mapping[str, Files], look: _Looking) -> Iterator[_Pair]:
    """Of folders beside each other, those that are called alike; one of images goes with one of masks."""
    left = dict(folders) if len(folders) <= _MOST_FOLDERS else {}
    splits = {name for split in SPLITS for name in names_of_split(split)}
    while True:
        both = (kinds(left[a], left[b]) for a, b in permutations(left, 2) if not {a, b} <= splits)
        pair = _chosen(chain.from_iterable(both), look)
        if pair is None:
            return
        yield pair
        taken = {*pair.images.values(), *pair.masks.values(), *pair.others}
        left = {name: files for name, files in left.items() if taken.isdisjoint(files.values())}


def _chosen(candidates: Iterable[tuple[Files, Files]], look: _Looking) -> _Pair | None:
    """The least even images, with the masks of the fewest values; numbers go before colours."""

    def evenness(files: Files) -> float:
        return float(np.median([look(path)[0] for path in _some(files)]))

    fitting = [(i, m) for i, m in candidates if i and m and (even := evenness(m)) >= _EVEN and even > evenness(i)]
    if not fitting:
        return None
    first = set(min((images for images, _ in fitting), key=evenness).values())
    ours = [both for both in fitting if not first.isdisjoint(both[0].values())]
    images, masks = min(ours, key=lambda both: (sum(look(p)[1] for p in _some(both[1])), *_called(both[1])))
    others = tuple(_called(other)[1] for _, other in ours if other is not masks)
    return _Pair(images=images, masks=masks, others=others)


def _by_split(parts: Mapping[Path, Sequence[str]], pairs: Iterable[_Pair]) -> dict[str, _Pair]:
    """By the split that a folder on the way to an image is called, named by that way."""
    split_of = {name: split for split in SPLITS for name in names_of_split(split)}
    found: dict[str, _Pair] = {}
    for pair in pairs:
        for name in sorted(pair.images.keys() | pair.masks.keys()):
            way = parts[pair.images.get(name) or pair.masks[name]]
            split = next((split_of[folder] for folder in way[:-1] if folder in split_of), "train")
            into = found.setdefault(split, _Pair(images={}, masks={}, others=pair.others))
            into.images.update({"/".join(way): pair.images[name]} if name in pair.images else {})
            into.masks.update({"/".join(way): pair.masks[name]} if name in pair.masks else {})
    return found


def _called(files: Files) -> tuple[int, Path]:
    """The shortest path, and its length: of two kinds with equal values, the one of plainer names is taken."""
    return min((len(path.as_posix()), path) for path in files.values())


def _some(files: Files) -> list[Path]:
    """A few files, spread evenly."""
    paths = [files[name] for name in sorted(files)]
    return paths[:: max(1, len(paths) // _LOOKED_AT)][:_LOOKED_AT]


def _look(path: Path) -> tuple[float, int]:
    """Share of a file's pixels that are as their right neighbour, and how many values they have; 0 if it is no mask."""
    try:
        header = read_header(data := read_bytes(path), path)
        if header.width * header.height > _LARGEST:
            return 0.0, 0
        pixels = mask_of(header, data, path)
    except (ValueError, ImportError):
        return 0.0, 0
    colors = pixels.ndim == 3
    packed = rgb_to_ids(np.asarray(pixels, np.uint8)) if colors else pixels
    return float((packed[:, 1:] == packed[:, :-1]).mean()), len(np.unique(packed)) + _COLORS * colors
