"""What lies in a folder. In: a path. Out: the layout of the data there, and their splits.

A layout says so itself: by `splits(root)`, or by `described_by(root)`, which names the file of each split.
"""

import sys
from pathlib import Path
from typing import Any

from panfpn.choices import LAYOUTS, lookup

_ARCHIVES = (".zip", ".gz", ".tgz", ".tar", ".7z", ".rar")


def recognise(path: Path) -> tuple[str, Path]:
    """The layout of the data under a folder, or of the folder of a file that describes it; and that folder.

    ValueError if there is none, nothing of it is known, or another file than the one that is named would be read.
    """
    path = path.expanduser()
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder")
    if path.suffix.lower() in _ARCHIVES:
        raise ValueError(f"{path}: is an archive; unpack it, and name the folder")
    root = path if path.is_dir() else path.parent.parent if path.parent.name == "annotations" else path.parent
    ours = (root / "labels.yaml").is_file() and any((root / part).is_dir() for part in ("masks", "instances"))
    order = ["folder", *LAYOUTS] if ours else [*LAYOUTS]
    layout = next((name for name in order if splits_of(name, root)), None)
    if layout is None:
        known = ", ".join(sorted(LAYOUTS))
        raise ValueError(f"{path}: none of the layouts that are known ({known}); name one, or arrange the files as "
                         "images/SPLIT, masks/SPLIT and labels.yaml")  # fmt: skip
    described_by = _member(layout, "described_by")
    if path.is_file() and described_by is not None and path not in described_by(root).values():
        read = ", ".join(map(str, dict.fromkeys(described_by(root).values())))
        raise ValueError(f"{path}: of layout {layout!r}, {read} is read there; call it so, or move the other away")
    return layout, root


def splits_of(layout: str, root: Path) -> list[str]:
    """The splits of a layout that lie under a folder; none of a layout that cannot tell."""
    tell = _member(layout, "splits") or _member(layout, "described_by")
    return [] if tell is None else list(tell(root))


def _member(layout: str, name: str) -> Any:
    """What a layout's opener has under a name, or the file that it stands in."""
    opener = lookup(LAYOUTS, layout, "data.dataset")
    return getattr(opener, name, None) or getattr(sys.modules[opener.__module__], name, None)
