"""Which result belongs to which input. In: names and inputs. Out: predictions.json in the folder of results.

A later call finds there what it must not take for an input.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from panfpn.files import write_json

FILE = "predictions.json"
_FORMAT = "panfpn predictions 1"
_LONGEST = 1 << 28  # bytes
WRITTEN_SUFFIXES = (".png", ".jpg", ".json")  # of results


def written_stems(name: str) -> tuple[str, ...]:
    """Stems of the files that may be written for an image: two images must not share one."""
    return name, *(f"{name}_{output}" for output in ("overlay", "confidence", "labels", "instances"))


def written_files(folder: Path, name: str) -> Iterator[Path]:
    """All files that may be written for an image."""
    for stem in written_stems(name):
        for suffix in WRITTEN_SUFFIXES:
            yield folder / f"{stem}{suffix}"


def write_manifest(folder: Path, inputs: Mapping[str, str], videos: Iterable[str]) -> None:
    """Add inputs by the names of their results to the folder's manifest; of `videos`, the results lie in a folder."""
    old = _read(folder)
    named = old.get("inputs", {}) | dict(inputs)
    folders = sorted({*old.get("videos", ()), *videos})
    write_json(folder / FILE, {"format": _FORMAT, "inputs": named, "videos": folders})


def results_in(folder: Path) -> tuple[set[Path], set[Path]]:
    """What earlier calls wrote into a folder: files, and folders of frames."""
    manifest = _read(folder)
    files = {path for name in manifest.get("inputs", {}) for path in written_files(folder, name)}
    return files | ({folder / FILE} if manifest else set()), {folder / name for name in manifest.get("videos", ())}


def _read(folder: Path) -> dict:  # type: ignore[type-arg]
    """The manifest in a folder; empty if there is none, or a file of that name of somebody else's."""
    path = folder / FILE
    try:
        if path.stat().st_size > _LONGEST:
            return {}
        data = json.loads(path.read_bytes())
        ours = data["format"] == _FORMAT and isinstance(data["inputs"], dict) and isinstance(data["videos"], list)
        return data if ours else {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
