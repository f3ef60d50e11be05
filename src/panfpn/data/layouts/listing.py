"""Files of a layout. In: folders. Out: their images by name, and images paired with what describes them."""

from collections.abc import Callable
from pathlib import Path

from panfpn.data.images import IMAGE_SUFFIXES
from panfpn.files import is_hidden


def listed(folder: Path, wanted: Callable[[Path], bool] = lambda _: True) -> dict[str, Path]:
    """Images below `folder` by their relative path without suffix."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder, so the split is empty")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(path, folder) and wanted(path):
            name = path.relative_to(folder).with_suffix("").as_posix()
            if name in found:
                raise ValueError(f"{found[name]} and {path}: two files of one name; rename one of them")
            found[name] = path
    if not found:
        raise ValueError(f"{folder}: holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}), so the split is empty")
    return found


def paired(
    images: dict[str, Path], masks: dict[str, Path], root: Path, split: str, what: str = "mask",
    lonely: list[str] | None = None,
) -> tuple[tuple[str, Path, Path], ...]:  # fmt: skip
    """(name, image, mask) of all names.

    ValueError names those that only one side has; given a list `lonely`, it gets a sentence for each instead.
    """
    for kind, own, others, other in (("image", images, masks, what), (what, masks, images, "image")):
        alone = sorted(own.keys() - others.keys())
        if lonely is not None:
            lonely += [f"{own[name]}: {kind} of split {split!r} that has no {other}" for name in alone]
        elif alone:
            names = ", ".join(alone[:5]) + (", …" if len(alone) > 5 else "")
            verb = "has" if len(alone) == 1 else "have"
            plural = "" if len(alone) == 1 else "s"
            raise ValueError(f"{root}: {len(alone)} {kind}{plural} of split {split!r} {verb} no {other}: {names}")
    pairs = tuple((name, images[name], masks[name]) for name in sorted(images.keys() & masks.keys()))
    if not pairs:
        raise ValueError(f"{root}: no image of split {split!r} has a {what} of its name")
    return pairs
