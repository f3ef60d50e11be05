"""Files of a layout. In: folders. Out: their images by name, and images paired with what describes them."""

from collections.abc import Callable
from pathlib import Path

from panfpn.data.images import IMAGE_SUFFIXES
from panfpn.data.layouts.request import SplitRequest
from panfpn.listing import files_in


def listed(
    request: SplitRequest, folder: Path, fits: Callable[[Path], bool] = lambda _: True, *, ending: str = ""
) -> dict[str, Path]:
    """Images below `folder` that fit, by their relative path without suffix, and without an `ending` before it.

    What is there besides is counted in `request.left_out`. ValueError for a folder without images, or with two of one
    name.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder, so the split is empty{_beside(folder)}")
    paths: dict[str, Path] = {}
    for path in files_in(folder, request.left_out):
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            request.left_out.add(f"no image ({path.suffix or 'no suffix'})", path)
        elif fits(path):
            name = path.relative_to(folder).with_suffix("").as_posix().removesuffix(ending)
            if name in paths:
                raise ValueError(f"{paths[name]} and {path}: two files of one name; rename one of them")
            paths[name] = path
    if not paths:
        raise ValueError(f"{folder}: holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}), so the split is empty")
    return paths


def _beside(folder: Path) -> str:
    """What is there in place of a folder, for an error."""
    parent = folder.parent
    others = sorted(p.name for p in parent.iterdir() if p.is_dir())[:8] if parent.is_dir() else []
    return f" ({parent} holds {', '.join(others)})" if others else ""


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
            raise ValueError(f"{where} {verb} no {other_word}: {names}; {_hint(alone[0], paths, others, other_word)}")
    pairs = tuple((name, images[name], masks[name]) for name in sorted(images.keys() & masks.keys()))
    if not pairs:
        raise ValueError(f"{request.root}: no image of split {request.split!r} has a {what} of its name")
    return pairs


def _hint(name: str, paths: dict[str, Path], others: dict[str, Path], what: str) -> str:
    """What was looked for, and what is there in its place."""
    near = min(others, key=lambda other: (not other.startswith(name), abs(len(other) - len(name)), other))
    return f"for {paths[name].name} a {what} named {Path(name).name} was looked for, and there is {others[near].name}"
