"""COCO's instances: one JSON of polygons and run lengths a split, as most tools export it, and images.

instances_SPLIT.json in annotations/ with images in SPLIT/, or _annotations.coco.json beside the images of SPLIT/.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from panfpn.data.images import IMAGE_SUFFIXES
from panfpn.data.layouts.coco_names import as_coco
from panfpn.data.layouts.coco_outlines import CocoOutlines, flattened
from panfpn.data.layouts.listing import SPLITS, check_size, inside, names_of_split
from panfpn.data.layouts.painting import (
    BACKGROUND,
    PaintedSegments,
    Shape,
    background_of,
    patch_of_runs,
    table_of,
    train_ids,
)  # fmt: skip
from panfpn.data.layouts.request import SplitRequest
from panfpn.data.segments import PanopticDataset, things_in
from panfpn.files import read_json
from panfpn.labels import LabelTable
from panfpn.listing import files_in

_PARTS = "images, annotations with image_id, category_id and segmentation, and categories"
ROBOFLOW = "_annotations.coco.json"
_HEAD = 1 << 16


def open_split(request: SplitRequest) -> PanopticDataset:
    """A split, its shapes painted; with `instances` "json", training takes things from the shapes themselves.

    ValueError for a JSON that is not there or of another format, an id that stands for two things or for none, a shape
    that is none, and images that only one side has.
    """
    file, folders = _find(request)
    data = read_json(file)
    with as_coco(file, _PARTS):
        entries, categories, annotations = data["images"], data["categories"], data["annotations"]
        names = _images(entries, file)
        class_of, table, notes = _classes(request, categories, annotations, file)
        order = sorted(names, key=lambda number: names[number])
        paths = _paths(request, [names[number] for number in order], folders, file)
        order = [number for number in order if names[number] in paths]
        size_of = {e["id"]: (int(e["height"]), int(e["width"])) for e in entries}
        index_of: dict[Any, int | None] = {**dict.fromkeys(names), **{number: n for n, number in enumerate(order)}}
        _check(annotations, index_of, class_of, file)
        _check_runs(annotations, size_of, file)
        outlines = flattened(annotations, index_of, class_of, len(order), file, np.dtype(np.float64))
        amodal = None
        if request.instances == "json":
            is_thing = things_in(table)  # False of what is ignored
            things = [a for a in annotations if is_thing[class_of[a["category_id"]]]]
            amodal = flattened(things, index_of, class_of, len(order), file, np.dtype(np.float32))
    sizes = np.array([size_of[number] for number in order], np.int64).reshape(-1, 2)
    source = PaintedSegments(table, CocoShapes(outlines, sizes), background_of(table, class_of))
    images = tuple((PurePosixPath(names[number]).with_suffix("").as_posix(), paths[names[number]]) for number in order)
    if outlines.crowd.any():  # some tools call whatever has run lengths a crowd, which is not learnt as a thing
        notes = (*notes, outlines.summary())
    return PanopticDataset(request.fitting(table), images, source, request.panoptic, amodal, notes=notes)


def described_by(root: Path) -> dict[str, Path]:
    """The JSON of each split that lies there."""
    return {split: file for split in SPLITS if (file := _json(root, split)) is not None}


@dataclass(frozen=True, eq=False)
class CocoShapes:
    """A `ShapeSource` of the flattened instances of a JSON."""

    outlines: CocoOutlines
    sizes: npt.NDArray[np.int64]  # [images, 2] height, width

    def file(self, index: int) -> Path:
        """The JSON."""
        return self.outlines.file

    def shapes(self, index: int) -> tuple[tuple[int, int], list[Shape]]:
        """Size and shapes of one image."""
        outlines, size = self.outlines, (int(self.sizes[index, 0]), int(self.sizes[index, 1]))
        shapes = []
        for i in range(*outlines.first[index : index + 2]):
            parts = [outlines.numbers[slice(*outlines.starts[k : k + 2])] for k in range(*outlines.parts[i : i + 2])]
            label, crowd = int(outlines.classes[i]), bool(outlines.crowd[i])
            if outlines.runs[i]:
                patch = patch_of_runs(outlines.whole_runs(parts[0], size), size)
                shapes.append(Shape(label=label, patches=[patch], crowd=crowd))
            else:
                shapes.append(
                    Shape(label=label, polygons=[p.reshape(-1, 2).astype(np.float64) for p in parts], crowd=crowd)
                )
        return size, shapes


def _json(root: Path, split: str) -> Path | None:
    """Where the JSON of a split stands."""
    names = names_of_split(split)
    places = [root / "annotations" / f"instances_{name}.json" for name in names]
    places += [root / name / ROBOFLOW for name in names]
    places += [folder / f"{name}.json" for folder in (root / "annotations", root) for name in names]
    places += [folder / f"lvis_v1_{name}.json" for folder in (root / "annotations", root) for name in names]
    if split == "train":
        places += [root / ROBOFLOW, root / "result.json"]
        places += [root / "annotations" / f"{name}.json" for name in ("instances_default", "instances")]
    return next((file for file in places if file.is_file() and _is_coco(file)), None)


def _is_coco(file: Path) -> bool:
    """Whether a JSON looks like COCO's, by its beginning alone: it may be large."""
    with file.open("rb") as stream:
        head = stream.read(_HEAD)
    keys = (b'"images"', b'"annotations"', b'"categories"', b'"info"', b'"licenses"')
    return head.lstrip(b"\xef\xbb\xbf \r\n\t")[:1] == b"{" and any(key in head for key in keys)


def _find(request: SplitRequest) -> tuple[Path, list[Path]]:
    """The JSON, and the folders where its images may be."""
    root, split = request.folder, request.split
    file = _json(root, split)
    if file is None:
        raise ValueError(f"{root}: no JSON of split {split!r}: looked for annotations/instances_{split}.json, "
                         f"{split}/{ROBOFLOW}, annotations/{split}.json and {split}.json")  # fmt: skip
    if file.parent.name not in ("annotations", root.name):
        return file, [file.parent, root]
    names = (*names_of_split(split), "default")
    folders = [*(root / name for name in names), *(root / "images" / name for name in names), root / "images", root]
    return file, [folder for folder in folders if folder.is_dir()]


def _file_name(entry: dict[str, Any]) -> Any:
    """The path of an image; LVIS has an address in its place, which ends in folder and name."""
    if "file_name" not in entry and isinstance(entry.get("coco_url"), str):
        return "/".join(PurePosixPath(entry["coco_url"]).parts[-2:])
    return entry["file_name"]


def _images(entries: Sequence[dict[str, Any]], file: Path) -> dict[Any, str]:
    """Paths of images by id; ValueError for one that stands there twice, leads outside or has no size."""
    names: dict[Any, str] = {}
    for entry in entries:
        number, name = entry["id"], _file_name(entry)
        if number in names:
            raise ValueError(f"{file}: lists two images with id {number!r}; an id is unique")
        if not isinstance(name, str) or not inside(name):
            raise ValueError(f"{file}: image {number!r} has file_name {name!r}, which is no path below the data set")
        check_size(entry["height"], entry["width"], f"{file}: image {number!r} ({name})")
        names[number] = name
    if not names:
        raise ValueError(f"{file}: lists no images, so the split is empty")
    stems = Counter(PurePosixPath(name).with_suffix("") for name in names.values())
    stem, count = stems.most_common(1)[0]
    if count > 1:
        raise ValueError(f"{file}: lists {count} images called {stem} (with one suffix or several); rename one of them")
    return names


def _paths(request: SplitRequest, names: Sequence[str], folders: Sequence[Path], file: Path) -> dict[str, Path]:
    """Where images lie, by their names; those that lie nowhere are an error, or go to the request's `unpaired`."""
    found: dict[str, Path] = {}
    missing: list[str] = []
    for name in names:
        tries = [folder / part for folder in folders for part in (name, PurePosixPath(name).name)]
        path = next((p for p in tries if p.is_file()), None)
        if path is None:
            missing.append(name)
        else:
            found[name] = path
    if request.unpaired is not None:
        request.unpaired.extend(
            f"{file}: names image {name}, which lies nowhere below {folders[0]}" for name in missing
        )
    elif missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ValueError(f"{file}: names image {missing[0]}{more}, which {'lie' if more else 'lies'} nowhere in "
                         f"{', '.join(map(str, folders[:4]))}")  # fmt: skip
    if not found:
        raise ValueError(f"{file}: none of its {len(names)} images lies in {', '.join(map(str, folders[:4]))}")
    used = {path.resolve() for path in found.values()}
    if len(used) < len(found):
        one, other = next((a, b) for a, b in pairwise(sorted(found, key=lambda n: found[n].resolve()))
                          if found[a].resolve() == found[b].resolve())  # fmt: skip
        raise ValueError(f"{file}: {one} and {other} are both {found[one]}; keep images in the folders that it names")
    for path in files_in(folders[0], request.left_out):
        if path.suffix.lower() in IMAGE_SUFFIXES and path.resolve() not in used:
            request.left_out.add("images that the JSON does not list", path)
    return found


def _classes(
    request: SplitRequest, categories: Sequence[dict[str, Any]], annotations: Sequence[dict[str, Any]], file: Path
) -> tuple[dict[Any, int], LabelTable, tuple[str, ...]]:
    """Train ids by category, the table, and what is to be said of them."""
    names: dict[Any, str] = {}
    for category in categories:
        number, name = category["id"], category["name"]
        if number in names:
            raise ValueError(f"{file}: lists two categories with id {number!r}; an id is unique")
        if not isinstance(name, str) or not name.strip() or type(number) is not int or number < 0:
            raise ValueError(f"{file}: category {number!r} is called {name!r}; ids are whole numbers, names are text")
        if name in names.values():
            raise ValueError(f"{file}: lists two categories called {name!r}; rename one")
        names[number] = name
    own = request.own_table()
    if own is not None:
        return train_ids(own), own, ()
    used = {annotation["category_id"] for annotation in annotations}
    above = {category["id"]: category.get("supercategory") for category in categories}
    notes = []
    for number, name in list(names.items()):
        parent = any(above[other] == name for other in names if other != number)
        if parent and number not in used and above[number] != name:  # Roboflow's category 0
            notes.append(f"{file}: category {number} ({name}) is only the parent of others and was left out")
            del names[number]
    order = sorted(names)
    background = [number for number in order if names[number].casefold() == BACKGROUND]
    values = [n for n in order if n not in background] if order and min(order) > 0 else []
    table = table_of([names[number] for number in order], request.folder.name, values, request.stuff)
    train_id = {name: k for k, name in enumerate(table.names)}
    return {number: train_id[names[number]] for number in order}, table, tuple(notes)


def _check_runs(annotations: Sequence[dict[str, Any]], size_of: dict[Any, tuple[int, int]], file: Path) -> None:
    """ValueError for run lengths of an image of another size: they would be sheared."""
    for a in annotations:
        shape = a["segmentation"]
        declared = shape.get("size") if isinstance(shape, dict) else None
        if declared is not None and tuple(declared) != size_of[a["image_id"]]:
            height, width = size_of[a["image_id"]]
            raise ValueError(f"{file}: annotation {a['id']} has run lengths of size {declared}, its image has "
                             f"[{height}, {width}]")  # fmt: skip


def _check(
    annotations: Sequence[dict[str, Any]], index_of: dict[Any, int | None], class_of: dict[Any, int], file: Path
) -> None:
    """ValueError for an annotation of an image or a category that the JSON does not list."""
    for problem in _problems(annotations, index_of, class_of, file):
        raise ValueError(problem)


def _problems(
    annotations: Sequence[dict[str, Any]], index_of: dict[Any, int | None], class_of: dict[Any, int], file: Path
) -> Iterator[str]:
    seen = set()
    for annotation in annotations:
        number = annotation["id"]
        if number in seen:
            yield f"{file}: lists two annotations with id {number!r}; an id is unique"
        seen.add(number)
        if annotation["image_id"] not in index_of:
            yield f"{file}: annotation {number} is of image {annotation['image_id']!r}, which the file does not list"
        if annotation["category_id"] not in class_of:
            known = ", ".join(map(str, list(class_of)[:12]))
            yield f"{file}: annotation {number} is of category {annotation['category_id']!r}; there are {known}"
        if not annotation.get("segmentation"):
            yield f"{file}: annotation {number} has no segmentation (a box alone is no mask); leave it out, or draw it"
