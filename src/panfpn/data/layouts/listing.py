"""Files of a layout. In: folders. Out: their images by name, and images paired with what describes them."""

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from panfpn.data.images import IMAGE_SUFFIXES
from panfpn.data.layouts.request import SplitRequest
from panfpn.listing import LeftOut, files_in

Files = dict[str, Path]  # by name: the path below a folder, without suffix

SPLITS = ("train", "val", "test")  # that most layouts have
# What names may begin with, and say no more by it.
_HEADS = ("img", "image", "photo", "rgb", "mask", "label", "gt", "seg", "truth", "annotation")
_MOST_PIXELS = 1 << 28
_SPLITS = {
    "train": ("train", "training", "train2017"), "val": ("val", "valid", "validation", "val2017"),
    "test": ("test", "testing", "test2017"),
}  # fmt: skip


def listed(
    request: SplitRequest, folder: Path, fits: Callable[[Path], bool] = lambda _: True, *, ending: str = ""
) -> Files:
    """Images below `folder` that fit, by their relative path without suffix, and without an `ending` before it.

    What is there besides is counted in `request.left_out`. ValueError for a folder without images, or with two of one
    name.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder, so the split is empty{_beside(folder)}")
    paths: Files = {}
    other: Path | None = None
    for path in files_in(folder, request.left_out):
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            request.left_out.add(f"no image ({path.suffix or 'no suffix'})", path)
        elif fits(path):
            name = path.relative_to(folder).with_suffix("").as_posix().removesuffix(ending)
            if name in paths:
                raise ValueError(f"{paths[name]} and {path}: two files of one name; rename one of them")
            paths[name] = path
        else:
            other = path
    if not paths and other is not None and ending:
        raise ValueError(f"{folder}: holds no images whose names end in {ending}, so the split is empty (there is "
                         f"{other.relative_to(folder)})")  # fmt: skip
    if not paths:
        raise ValueError(f"{folder}: holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}), so the split is empty")
    return paths


def alike(images: Files, masks: Files) -> tuple[Files, Files]:
    """Both by the names that they share: without an ending or a word such as img that all masks, or all images, have.

    As they are where any names agree, or nothing makes them agree.
    """
    if images.keys() & masks.keys():
        return images, masks
    whole = (both for both in kinds(images, masks) if len(both[1]) == len(masks))
    return next(whole, (images, masks))


def kinds(images: Files, masks: Files) -> Iterator[tuple[Files, Files]]:
    """Images and one kind of masks, by the names that they share, for each kind (a_color.png and a_label.png are two).

    As they are called, with endings of the masks, or without an ending or a word such as img that all of them have.
    """
    if not images or not masks:
        return
    for ours, theirs in ((images, masks), (_cores(images), masks), (_cores(images), _cores(masks))):
        ends = {end for end, count in _endings(theirs, ours).items() if 2 * count > min(len(ours), len(theirs))}
        if 2 * len(ours.keys() & theirs.keys()) > min(len(ours), len(theirs)):
            ends.add("")
        for end in sorted(ends):
            kind = {name.removesuffix(end): path for name, path in theirs.items() if name.endswith(end)}
            others = kind.keys() - ours.keys()
            further = {
                name for name in others if any(sign in "_-." and name[:i] in ours for i, sign in enumerate(name))
            }
            yield ours, {name: path for name, path in kind.items() if name not in further}
        if ends:
            return


def beside(paths: Files, folder: Path) -> tuple[Files, Files]:
    """Images and masks that lie together: a mask is called as an image, with an ending that all masks have.

    ValueError names the `folder` where masks were looked for, if none lie there.
    """
    images, masks = divided(paths)
    if not masks:
        raise ValueError(f"{folder}: no such folder, and no masks lie beside the images (such as "
                         f"{next(iter(paths))}_mask.png)")  # fmt: skip
    return images, masks


def divided(paths: Files) -> tuple[Files, Files]:
    """Images, and those that are called as one of these with the most frequent ending."""
    ending = next((ending for ending, _ in _endings(paths, paths).most_common(1)), None)
    if ending is None:
        return paths, {}
    masks = {name.removesuffix(ending): path for name, path in paths.items() if name.endswith(ending)}
    return {name: path for name, path in paths.items() if not name.endswith(ending)}, masks


def by_form(request: SplitRequest, folder: Path) -> tuple[Files, Files] | None:
    """Photos (JPEG) and masks (PNG) that lie together and are called the same; None where not all have both."""
    if not folder.is_dir():
        return None
    found: dict[str, Files] = {"jpg": {}, "png": {}}
    for path in files_in(folder, LeftOut()):
        form = path.suffix.lower().lstrip(".").replace("jpeg", "jpg")
        if form in found:
            found[form][path.relative_to(folder).with_suffix("").as_posix()] = path
    photos, masks = found.values()
    if not photos or photos.keys() != masks.keys():
        return None
    listed(request, folder, lambda path: path.suffix.lower() != ".png")  # counts what is left out
    return photos, masks


def _endings(longer: Iterable[str], names: Container[str]) -> Counter[str]:
    """What follows on one of `names`, from a sign between words on, and how often."""
    return Counter(n[cut:] for n in longer for cut in range(1, len(n)) if n[cut] in "_-." and n[:cut] in names)


def _cores(paths: Files) -> Files:
    """By their names without an ending of all, or a word such as img or mask; as they are if one would be empty."""
    end = _ending(paths)
    split = {name: name.removesuffix(end).rpartition("/") for name in paths}
    start = _beginning([base for *_, base in split.values()])
    if start.strip("_-. ").lower() not in _HEADS:
        start = ""
    cores = {name: base.removeprefix(start) for name, (*_, base) in split.items()}
    if not all(cores.values()):
        return paths
    return {f"{split[name][0]}{split[name][1]}{core}": paths[name] for name, core in cores.items()}


def _beginning(names: Sequence[str]) -> str:
    """What all names begin with, up to a sign between words or a number."""
    common = _common_start(names)
    before = common.rstrip("0123456789")
    if all(name[len(before) :][:1].isdigit() for name in names):
        return before
    return common[: max((common.rfind(sign) + 1 for sign in "_-. "), default=0)]


def _common_start(names: Sequence[str]) -> str:
    first, last = min(names), max(names)
    return first[: next((i for i, sign in enumerate(first) if last[i : i + 1] != sign), len(first))]


def _ending(names: Iterable[str]) -> str:
    """What all names end in, from a sign between words on."""
    common = _common_start([name[::-1] for name in names])[::-1]
    cuts = [common.index(sign) for sign in "_-." if sign in common]
    return common[min(cuts) :] if cuts else ""


def names_of_split(split: str) -> tuple[str, ...]:
    """What folders and files of a split are called, its own name first."""
    names = (split, *(name for name in _SPLITS.get(split, ()) if name != split))
    return (*names, *(name.capitalize() for name in names if not name[0].isupper()))


def first_existing(paths: Iterable[Path]) -> Path | None:
    """The first of these files and folders that is there."""
    return next((path for path in paths if path.exists()), None)


def inside(name: str) -> bool:
    """Whether a path that a file names stays below the folder that it starts from."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return bool(parts) and ".." not in parts and not parts[0].startswith("/") and ":" not in parts[0]


def check_size(height: object, width: object, what: str) -> None:
    """ValueError, beginning with `what`, for sides that are none, or of more pixels than memory should be taken for."""
    fits = type(height) is int and type(width) is int and min(height, width) > 0 and height * width <= _MOST_PIXELS
    if not fits:
        raise ValueError(f"{what} has height {height!r} and width {width!r}; give its size in pixels "
                         f"({_MOST_PIXELS >> 20} megapixels at most)")  # fmt: skip


def begins_with(file: Path, mark: bytes) -> bool:
    """Whether the first character of a JSON is { or [, without reading on."""
    with file.open("rb") as stream:
        return stream.read(64).lstrip(b"\xef\xbb\xbf \r\n\t")[:1] == mark


def _beside(folder: Path) -> str:
    """What is there in place of a folder, for an error."""
    parent = folder.parent
    others = sorted(p.name for p in parent.iterdir() if p.is_dir())[:8] if parent.is_dir() else []
    return f" ({parent} holds {', '.join(others)})" if others else ""


def paired(
    request: SplitRequest, images: Files, masks: Files, what: str = "mask"
) -> tuple[tuple[str, Path, Path], ...]:
    """(name, image, mask) of all names.

    ValueError names those that only one side has; where the request collects the `unpaired`, they go there instead.
    """
    for word, paths, others, other_word in (("image", images, masks, what), (what, masks, images, "image")):
        alone = sorted(paths.keys() - others.keys())
        if request.unpaired is not None:
            for name in alone:
                request.unpaired.append(f"{paths[name]}: {word} of split {request.split!r} that has no {other_word}")
        elif alone:
            names = ", ".join(alone[:5]) + (", …" if len(alone) > 5 else "")
            verb, plural = ("has", "") if len(alone) == 1 else ("have", "s")
            where = f"{request.root}: {len(alone)} {word}{plural} of split {request.split!r}"
            raise ValueError(f"{where} {verb} no {other_word}: {names}; {_hint(alone[0], paths, others, other_word)}")
    pairs = tuple((name, images[name], masks[name]) for name in sorted(images.keys() & masks.keys()))
    if not pairs:
        raise ValueError(f"{request.root}: no image of split {request.split!r} has a {what} of its name")
    return pairs


def _hint(name: str, paths: Files, others: Files, what: str) -> str:
    """What was looked for, and what is there in its place."""
    if not others:
        return f"for {paths[name].name} a {what} named {Path(name).name} was looked for, and there is none"
    near = min(others, key=lambda other: (not other.startswith(name), abs(len(other) - len(name)), other))
    return f"for {paths[name].name} a {what} named {Path(name).name} was looked for, and there is {others[near].name}"
