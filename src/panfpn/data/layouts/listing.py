"""Files of a layout. In: folders. Out: their images by name, and images paired with what describes them."""

from collections.abc import Callable
from pathlib import Path

from panfpn.data.images import IMAGE_SUFFIXES
from panfpn.data.layouts.request import SplitRequest
from panfpn.files import is_hidden


def listed(folder: Path, fits: Callable[[Path], bool] = lambda _: True, *, ending: str = "") -> dict[str, Path]:
    """Images below `folder` that fit, by their relative path without suffix, and without an `ending` before it."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder, so the split is empty")
    paths: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(path, folder) and fits(path):
            name = path.relative_to(folder).with_suffix("").as_posix().removesuffix(ending)
            if name in paths:
                raise ValueError(f"{paths[name]} and {path}: two files of one name; rename one of them")
            paths[name] = path
    if not paths:
        raise ValueError(f"{folder}: holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}), so the split is empty")
    return paths


def paired(
    request: SplitRequest, images: dict[str, Path], masks: dict[str, Path], what: str = "mask"
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
            raise ValueError(f"{where} {verb} no {other_word}: {names}")
    pairs = tuple((name, images[name], masks[name]) for name in sorted(images.keys() & masks.keys()))
    if not pairs:
        raise ValueError(f"{request.root}: no image of split {request.split!r} has a {what} of its name")
    return pairs
