"""Files below a folder, and what of it is left out, counted. In: a folder. Out: paths, and a `LeftOut`."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(slots=True)
class LeftOut:
    """What was not used, by reason."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, Path] = field(default_factory=dict)

    def add(self, reason: str, path: Path) -> None:
        """Count a path."""
        self.counts[reason] += 1
        self.first.setdefault(reason, path)

    def __str__(self) -> str:
        return "; ".join(
            f"{count} {reason} ({self.first[reason]}{', …' * (count > 1)})" for reason, count in self.counts.items()
        )


def files_in(folder: Path, left_out: LeftOut) -> Iterator[Path]:
    """All files below a folder, sorted by folder and name, through links too; hidden ones are left out."""
    yield from _walk(folder, frozenset({_identity(folder)}), left_out)


def _walk(folder: Path, above: frozenset[tuple[int, int]], left_out: LeftOut) -> Iterator[Path]:
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 - names, in one call
    except OSError:
        left_out.add("folders that cannot be read", folder)
        return
    for name in names:
        path = folder / name
        if name.startswith("."):
            left_out.add("hidden", path)
        elif path.is_dir():
            identity = _identity(path)
            if identity in above:
                left_out.add("links to a folder that holds them", path)
            else:
                yield from _walk(path, above | {identity}, left_out)
        elif path.is_file():
            yield path
        else:
            left_out.add("links to nothing" if path.is_symlink() else "neither file nor folder", path)


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
