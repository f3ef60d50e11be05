"""Files of a layout. In: folders. Out: their images by name, and images paired with what describes them."""

from collections.abc import Callable
from pathlib import Path

from panfpn.files import IMAGE_SUFFIXES, is_hidden


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
    images: dict[str, Path], masks: dict[str, Path], root: Path, split: str, what: str = "mask"
) -> tuple[tuple[str, Path, Path], ...]:
    """(name, image, mask) of all names; ValueError names those that only one side has."""
    for kind, lonely, other in (
        ("image", images.keys() - masks.keys(), what),
        (what, masks.keys() - images.keys(), "image"),
    ):
        if lonely:
            names = ", ".join(sorted(lonely)[:5]) + (", …" if len(lonely) > 5 else "")
            verb = "has" if len(lonely) == 1 else "have"
            plural = "" if len(lonely) == 1 else "s"
            raise ValueError(f"{root}: {len(lonely)} {kind}{plural} of split {split!r} {verb} no {other}: {names}")
    return tuple((name, images[name], masks[name]) for name in sorted(images))
