"""Data sets of the Hugging Face Hub as a folder of ours. In: hf:OWNER/NAME, or a folder of `save_to_disk`. Out: files.

Needs the extra `datasets`. The image column and the mask column are recognised by their types and names; classes are
named by the repository's id2label.json, else by the values in the masks.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from panfpn.data.formats.header import format_of
from panfpn.data.proposal import propose
from panfpn.files import read_json
from panfpn.labels import LabelTable
from panfpn.progress import progress_bar

PREFIX = "hf:"
_IMAGES = ("image", "pixel_values", "img")
_MASKS = ("label", "annotation", "mask", "labels", "annotations", "segmentation_mask", "semantic_segmentation", "masks")
_SPLITS = {"validation": "val", "valid": "val", "dev": "val"}
_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "TIFF": ".tif"}
_NAMES = "id2label.json"
_SAVED = ("dataset_dict.json", "state.json")


def is_hub(path: Path) -> bool:
    """Whether it names a data set of the Hub, or one that `save_to_disk` wrote."""
    return str(path).startswith(PREFIX) or any((path / name).is_file() for name in _SAVED)


def write_hub(
    path: Path, folder: Path, say: Callable[[str], object], *, progress: bool
) -> tuple[dict[str, int], LabelTable]:
    """Write all splits below `folder`; how many images each has, and the classes.

    Raises:
        ImportError: without the extra.
        ValueError: no columns of images and masks, an image or mask that is none.
        ConnectionError: the Hub cannot be reached, or has no such data set.
    """
    data = _loaded(path)
    image, mask = _columns(next(iter(data.values())).features, path)
    say(f"{path}: Hugging Face data set; images in column {image!r}, masks in {mask!r}")
    counts: dict[str, int] = {}
    for name, rows in data.items():
        split = _SPLITS.get(name, name)
        if split in counts or "/" in split or split.startswith("."):
            raise ValueError(f"{path}: has a split {name!r}, which cannot be written as {split!r}")
        counts[split] = len(rows)
        with progress_bar(split, len(rows), show=progress) as advance:
            for number, (picture, labels) in enumerate(_bytes(rows, image, mask)):
                for part, content in (("images", picture), ("masks", labels)):
                    where = f"{path}: row {number} of {name}"
                    form = format_of(content) if content else None
                    if form is None:
                        raise ValueError(f"{where} has no {part[:-1]} of a known format")
                    file = folder / part / split / f"{number:06d}{_SUFFIXES.get(form, f'.{form.lower()}')}"
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_bytes(content)
                advance(number + 1)
    named = _id2label(path)
    if named:
        table = _table(named, path)
    else:
        proposal = propose(sorted((folder / "masks").rglob("*.*")))
        table = proposal.table
        say(f"{path}: has no {_NAMES}, so classes have numbers; name them in labels.yaml")
        if proposal.note:
            say(f"note: {proposal.note}")
    plain = yaml.safe_dump(table.to_dict(), sort_keys=False, allow_unicode=True)
    (folder / "labels.yaml").write_text(plain, "utf-8")
    return counts, table


def _loaded(path: Path) -> Mapping[str, Any]:
    try:
        import datasets  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ImportError("data sets of the Hugging Face Hub need `pip install 'panfpn[datasets]'`") from error
    try:
        if str(path).startswith(PREFIX):
            data: Any = datasets.load_dataset(str(path).removeprefix(PREFIX))
        else:
            data = datasets.load_from_disk(str(path))
    except (OSError, ConnectionError) as error:
        raise ConnectionError(f"{path}: cannot be had from the Hub ({error})") from error
    except Exception as error:  # whatever a loader of anyone's stumbles over
        raise ValueError(f"{path}: cannot be loaded as a data set ({type(error).__name__}: {error})") from error
    return data if isinstance(data, Mapping) else {"train": data}


def _columns(features: Mapping[str, Any], path: Path) -> tuple[str, str]:
    """The columns of images and masks, which are both pictures."""
    pictures = [name for name, feature in features.items() if type(feature).__name__ == "Image"]
    image = next((name for name in _IMAGES if name in pictures), None)
    mask = next((name for name in _MASKS if name in pictures), None)
    if image is None or mask is None:
        there = f"{', '.join(pictures) or 'none'} (of {', '.join(features)})"
        raise ValueError(f"{path}: has the columns of pictures {there}; an image is called {' or '.join(_IMAGES)}, its "
                         f"mask {', '.join(_MASKS[:4])} or the like")  # fmt: skip
    return image, mask


def _bytes(rows: Any, image: str, mask: str) -> Iterator[tuple[bytes, bytes]]:
    """The files of each row as they are stored."""
    import datasets  # noqa: PLC0415

    for column in (image, mask):
        rows = rows.cast_column(column, datasets.Image(decode=False))
    for row in rows:
        yield _content(row[image]), _content(row[mask])


def _content(stored: Mapping[str, Any] | None) -> bytes:
    """The bytes of a picture; none where a row has none."""
    held, path = (stored.get("bytes"), stored.get("path")) if stored else (None, None)
    if held is None and path is not None and Path(path).is_file():
        held = Path(path).read_bytes()
    return bytes(held or b"")


def _id2label(path: Path) -> dict[str, Any] | None:
    """Names by value, of the folder or of the repository."""
    if not str(path).startswith(PREFIX):
        return read_json(path / _NAMES) if (path / _NAMES).is_file() else None
    from huggingface_hub import hf_hub_download  # noqa: PLC0415
    from huggingface_hub.errors import EntryNotFoundError  # noqa: PLC0415

    try:
        return read_json(Path(hf_hub_download(str(path).removeprefix(PREFIX), _NAMES, repo_type="dataset")))
    except (EntryNotFoundError, OSError):
        return None


def _table(names: Mapping[str, Any], path: Path) -> LabelTable:
    try:
        values = {int(value): str(name) for value, name in names.items()}
    except ValueError as error:
        raise ValueError(f"{path}: {_NAMES} has keys that are no numbers ({json.dumps(list(names)[:3])})") from error
    classes = [{"name": name if list(values.values()).count(name) == 1 else f"{name} {value}", "value": value}
               for value, name in sorted(values.items())]  # fmt: skip
    plain = {"name": path.name, "ignore": [] if 255 in values else [255], "classes": classes}
    return LabelTable.from_dict(plain, f"{path}: {_NAMES}")
