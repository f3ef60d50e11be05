"""Which result belongs to which input. In: names and inputs. Out: predictions.json in the folder of results.

A later call finds there what it must not take for an input, and what it may write over.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from panfpn.files import write_json

FILE = "predictions.json"
_FORMAT = "panfpn predictions 1"
_LONGEST = 1 << 28  # bytes
_OUTPUTS = ("overlay", "confidence", "labels", "instances")
_SUFFIXES = (".png", ".jpg", ".json")  # of results


def written_stems(name: str) -> tuple[str, ...]:
    """Stems of the files that may be written for an image: two images must not share one."""
    return name, *(f"{name}_{output}" for output in _OUTPUTS)


def possible_files(folder: Path, name: str) -> Iterator[Path]:
    """All files that may be written for an image, whatever is saved of it."""
    return (folder / f"{stem}{suffix}" for stem in written_stems(name) for suffix in _SUFFIXES)


@dataclass(slots=True)
class Manifest:
    """What calls have written, or begun to write, into a folder."""

    inputs: dict[str, str] = field(default_factory=dict)  # address of the input by the name of its results
    files: set[str] = field(default_factory=set)  # paths of results, from the folder
    videos: set[str] = field(default_factory=set)  # folders of frames, from the folder
    made_by: str = ""  # digest of the model that labelled all of them; empty: several, or nobody knows

    def write(self, folder: Path) -> None:
        """Into the folder."""
        lists = {"files": sorted(self.files), "videos": sorted(self.videos)}
        about = {"format": _FORMAT, "made_by": self.made_by, "inputs": self.inputs}
        write_json(folder / FILE, about | lists)

    def holds(self, path: str) -> bool:
        """Whether a path (from the folder) is a result, or the manifest itself."""
        folders = ("/".join(path.split("/")[:k]) for k in range(1, path.count("/") + 1))
        return path in self.files or path == FILE or any(folder in self.videos for folder in folders)

    @staticmethod
    def of(folder: Path) -> "Manifest | None":
        """That of a folder; None if there is none, or a file of that name of somebody else's."""
        path = folder / FILE
        try:
            if path.stat().st_size > _LONGEST:
                return None
            data = json.loads(path.read_bytes())
            texts: list[Any] = [*data["inputs"].items(), *data["files"], *data["videos"]]
            if data["format"] != _FORMAT or not all(isinstance(text, str | tuple) for text in texts):
                return None
            made_by = str(data.get("made_by", ""))
            return Manifest(dict(data["inputs"]), set(data["files"]), set(data["videos"]), made_by)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
