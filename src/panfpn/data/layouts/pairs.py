"""Images and masks wherever they lie, found by their names and pixels; and labels.yaml.

    training/images/a.jpg   PNGImages/a.png       leftImg8bit/train/7/a_image.jpg   base/a.jpg
    training/labels/a.png   PedMasks/a_mask.png   gtFine/train/7/a_label.png        base/a.png

Two folders belong together if their paths differ in one name and their files are called alike; else both lie in the
same folders, as JPEG and PNG or with an ending. Words tell which are masks, or pixels: most are as the one on their
right. What remains open is refused, and whatever belongs to no pair is counted.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice, permutations
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
_DEEPEST = 4  # names of a path, of which one tells images from masks
_MOST_FOLDERS = 16  # beside each other, of which two are images and masks; more are cities or films
_EVEN = 0.8  # of a mask's pixels are as their right neighbour, at least
_LOOKED_AT = 3  # files of a folder
_LARGEST = 1 << 26  # pixels of a file that is looked at
_COLORS = 1 << 16  # values that colours count for more than numbers
_PHOTOS = frozenset({".jpg", ".jpeg", ".jpe", ".jfif"})
_OF_MASKS = {
    "mask", "masks", "label", "labels", "labelled", "gt", "truth", "groundtruth", "annotation", "annotations", "seg",
    "segmentation", "segmentations", "semantic", "instance", "instances", "trimap", "trimaps",
}  # fmt: skip
_OF_SPLIT = {name.lower(): split for split in SPLITS for name in names_of_split(split)}

_Looking = Callable[[Path], tuple[float, int]]
_Parts = Mapping[Path, tuple[str, ...]]  # of the way to a file, below the root, without its suffix


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """Images and masks by the names that they share."""

    images: Files
    masks: Files

    @property
    def both(self) -> set[str]:
        """Names that have an image and a mask."""
        return self.images.keys() & self.masks.keys()


def open_split(request: SplitRequest) -> FileDataset | PanopticDataset:
    """The pairs of a split.

    ValueError if nothing pairs or several folders could be the images, for what is alone, and for a missing
    labels.yaml.
    """
    root, own = request.folder, request.own_table()
    if own is None:
        raise ValueError(f"{root / 'labels.yaml'}: no such file; it must name each raw mask value, its class or "
                         f"`ignore` (panfpn data check {root} proposes one)")  # fmt: skip
    found = _find(root, request.left_out, request.split)
    if request.split not in found:
        there = f"only of {', '.join(found)}" if found else "nor of another"
        raise ValueError(f"{root}: no images and masks of split {request.split!r} that are called alike, {there}")
    pair = found[request.split]
    return of_masks(request, request.fitting(own), paired(request, pair.images, pair.masks))


def splits(root: Path) -> list[str]:
    """The splits of which images and masks lie there; all are `train` where no folder is called like a split."""
    found = _find(root)
    return [split for split in SPLITS if split in found]


def mask_files(root: Path, splits: Sequence[str]) -> list[Path]:
    """All masks of splits, whatever their values mean."""
    found = _find(root)
    return [path for split in splits if split in found for path in found[split].masks.values()]


def _find(root: Path, left_out: LeftOut | None = None, split: str = "") -> dict[str, _Pair]:
    """By split, what belongs together; empty where nothing does.

    `left_out` gets what does not: of that `split`, and with the first one also of those that have no pair.
    """
    left_out = left_out or LeftOut()
    parts: dict[Path, tuple[str, ...]] = {}
    for path in islice(files_in(root, left_out), _MOST_FILES):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            parts[path] = path.relative_to(root).with_suffix("").parts
        elif path.parent != root:
            left_out.add(f"no image ({path.suffix or 'no suffix'})", path)
    found = _by_split(parts, _pairs(root, parts))
    used = {path for pair in found.values() for files in (pair.images, pair.masks) for path in files.values()}
    for path in sorted(parts.keys() - used) if found and split else ():
        of = _split_of(parts[path]) or "train"
        if (of if of in found else next(iter(found))) == split:
            left_out.add("images that belong to no pair", path)
    return found


def _pairs(root: Path, parts: _Parts) -> list[_Pair]:
    look, of_name = cache(_look), Counter(parts.values())
    for depth in range(_DEEPEST):
        levels: dict[tuple[str, ...], dict[str, Files]] = defaultdict(lambda: defaultdict(dict))
        for path, names in parts.items():
            if len(names) > depth + 1:
                levels[names[:depth]][names[depth]]["/".join(names[depth + 1 :])] = path
        for names, count in of_name.items():
            if count > 1 and len(names) > depth + 1:  # photo and mask in one folder, which so is not one of either
                levels[names[:depth]].pop(names[depth], None)
        pairs = [pair for folders in levels.values() for pair in _among(root, folders, look)]
        if pairs:
            return pairs
    forms: tuple[Files, Files] = ({}, {})  # in the same folders: photos, and what may be masks
    for path, names in parts.items():
        forms[path.suffix.lower() not in _PHOTOS]["/".join(names)] = path
    within = kinds(*forms) if forms[0] else [divided(forms[1])]
    candidates = [_Pair(images=images, masks=masks) for images, masks in within]
    pair = _fewest([pair for pair in candidates if pair.both and _fits(pair, look)], look)
    return [] if pair is None else [pair]


def _among(root: Path, folders: Mapping[str, Files], look: _Looking) -> Iterator[_Pair]:
    """Of folders beside each other, each of images with the masks that are called alike, of the fewest values.

    ValueError where two could be the images of the same masks.
    """
    if len(folders) > _MOST_FOLDERS:
        return
    fitting: dict[str, list[_Pair]] = defaultdict(list)
    for a, b in permutations(folders, 2):
        splits = {_split_of([a]), _split_of([b])} - {None}
        if _OF_MASKS & _words(a) or len(splits) > 1 or {a.lower(), b.lower()} <= _OF_SPLIT.keys():
            continue
        for images, masks in kinds(folders[a], folders[b]):
            pair = _Pair(images=images, masks=masks)
            if pair.both and _fits(pair, look, by_word=bool(_OF_MASKS & _words(b))):
                fitting[a].append(pair)
    as_masks = {path for pairs in fitting.values() for pair in pairs for path in pair.masks.values()}
    as_images = {name: pairs for name, pairs in fitting.items() if as_masks.isdisjoint(folders[name].values())}
    chosen = {name: best for name, pairs in as_images.items() if (best := _fewest(pairs, look))}
    owner: dict[Path, str] = {}
    for name, pair in chosen.items():
        for mask in pair.masks.values():
            if owner.setdefault(mask, name) != name:
                raise ValueError(f"{mask}: is called like images of {owner[mask]!r} and of {name!r}; move one of these "
                                 f"folders out of {root}, or list the pairs in train.txt")  # fmt: skip
    yield from chosen.values()


def _fits(pair: _Pair, look: _Looking, *, by_word: bool = False) -> bool:
    """Whether the masks are some: by the word for them, or as they are even, and more so than the images."""
    if by_word:
        return True
    evenness = min(look(path)[0] for path in _some(pair.masks))
    return evenness >= _EVEN and evenness > max(look(path)[0] for path in _some(pair.images))


def _fewest(pairs: Sequence[_Pair], look: _Looking) -> _Pair | None:
    """Of kinds of masks for most images, that of the fewest values; numbers go before colours, short names first."""
    most = max((len(pair.both) for pair in pairs), default=0)

    def rank(pair: _Pair) -> tuple[bool, int, int, Path]:
        looks = [look(path) for path in _some(pair.masks)]
        path = min(pair.masks.values())
        return min(looks)[0] < _EVEN, sum(values for _, values in looks), len(path.as_posix()), path

    return min((pair for pair in pairs if len(pair.both) == most), key=rank, default=None)


def _by_split(parts: _Parts, pairs: Iterable[_Pair]) -> dict[str, _Pair]:
    """By the split that a folder on the way to an image is called, named by that way; none of images or masks alone."""
    found: dict[str, _Pair] = {}
    for pair in pairs:
        for name in sorted(pair.images.keys() | pair.masks.keys()):
            way = parts[pair.images.get(name) or pair.masks[name]]
            into = found.setdefault(_split_of(way[:-1]) or "train", _Pair(images={}, masks={}))
            for files, own in ((into.images, pair.images), (into.masks, pair.masks)):
                if name in own:
                    files["/".join(way)] = own[name]
    return {split: pair for split, pair in found.items() if pair.both}


def _split_of(folders: Iterable[str]) -> str | None:
    """The split that the first folder names which names one; `train_val` names two, and so none."""
    for folder in folders:
        named = {_OF_SPLIT[word] for word in _words(folder) & _OF_SPLIT.keys()}
        if len(named) == 1:
            return named.pop()
    return None


def _words(name: str) -> set[str]:
    """Words of a name, in lower case: those of PedMasks are ped and masks."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)} | {name.lower()}


def _some(files: Files) -> list[Path]:
    """A few files, spread evenly."""
    paths = [files[name] for name in sorted(files)]
    return paths[:: max(1, len(paths) // _LOOKED_AT)][:_LOOKED_AT]


def _look(path: Path) -> tuple[float, int]:
    """Share of a file's pixels that are as their right neighbour, and how many values they have; 0 if it is no mask."""
    try:
        header = read_header(data := read_bytes(path), path)
        if header.width < 2 or header.width * header.height > _LARGEST:
            return 0.0, 0
        pixels = mask_of(header, data, path)
    except (ValueError, ImportError):
        return 0.0, 0
    colors = pixels.ndim == 3
    packed = rgb_to_ids(np.asarray(pixels, np.uint8)) if colors else pixels
    evenness = float((packed[:, 1:] == packed[:, :-1]).mean())
    return evenness, len(np.unique(packed)) + _COLORS * colors if evenness >= _EVEN else 0
