import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from panfpn.data import check_dataset, open_dataset
from panfpn.data.images import read_mask
from panfpn.files import rgb_to_ids
from panfpn.labels import IGNORE, LabelTable

PERSON, SKY = {"id": 1, "name": "person", "isthing": 1}, {"id": 187, "name": "sky-other-merged", "isthing": 0}


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels[..., ::-1] if pixels.ndim == 3 else pixels)


def ids_png(ids: np.ndarray) -> np.ndarray:
    return np.stack([ids & 255, ids >> 8 & 255, ids >> 16], -1).astype(np.uint8)


def small_ids() -> np.ndarray:
    ids = np.full((6, 8), 0x123456)
    ids[:2] = 300
    ids[4:, :3] = 7
    ids[5, 7] = 0
    return ids


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Two images; each has a person, a crowd of persons, sky, and one void pixel."""
    annotations, images = [], []
    for number in (12, 5):
        records = [
            {"id": 300, "category_id": 187, "area": 16, "iscrowd": 0, "bbox": [0, 0, 8, 2]},
            {"id": 0x123456, "category_id": 1, "area": 25, "iscrowd": 1, "bbox": [0, 2, 8, 4]},
            {"id": 7, "category_id": 1, "area": 6, "iscrowd": 0, "bbox": [0, 4, 3, 2]},
        ]
        annotations.append({"image_id": number, "file_name": f"{number:012}.png", "segments_info": records})
        images.append({"id": number, "file_name": f"{number:012}.jpg", "height": 6, "width": 8})
        write(tmp_path / f"annotations/panoptic_val2017/{number:012}.png", ids_png(small_ids()))
        write(tmp_path / f"val2017/{number:012}.jpg", np.full((6, 8, 3), number, np.uint8))
    data = {"images": images, "annotations": annotations, "categories": [PERSON, SKY]}
    (tmp_path / "annotations/panoptic_val2017.json").write_text(json.dumps(data))
    return tmp_path


def test_segments(coco: Path) -> None:
    data = open_dataset("coco_panoptic", coco, "val", panoptic=True)
    assert [data.name(i) for i in range(len(data))] == ["000000000005", "000000000012"]
    sample = data.read(0)
    segments = sample.segments
    assert segments is not None and sample.image[0, 0, 0] == 5
    assert np.array_equal(np.append(segments.ids, 0)[segments.index], small_ids())
    sky = LabelTable.named("coco_panoptic").names.index("sky-other-merged")
    assert (segments.classes.tolist(), segments.crowd.tolist()) == ([sky, 0, 0], [False, True, False])
    assert sample.target[0, 0] == sky and sample.target[4, 0] == 0 and sample.target[5, 7] == IGNORE
    assert np.array_equal(data.open(0)[1][1:3, :], sample.target[1:3])


def test_without_segments_a_target_of_133_classes(coco: Path) -> None:
    data = open_dataset("coco_panoptic", coco, "val2017")
    sample = data.read(1)
    assert data.table.num_classes == 133 and sample.segments is None
    assert np.array_equal(sample.target, open_dataset("coco_panoptic", coco, "val", panoptic=True).read(1).target)
    assert isinstance(data.open(1)[1], np.ndarray)


def test_folder_of_pngs_beside_annotations(coco: Path) -> None:
    (coco / "annotations/panoptic_val2017").rename(coco / "panoptic_val2017")
    assert len(open_dataset("coco_panoptic", coco, "val")) == 2
    assert list(check_dataset("coco_panoptic", coco, "val")) == []


@pytest.mark.parametrize("split", ["train", "val"])
def test_real_images(split: str, shared: Path) -> None:
    root = shared / "data" / "coco_panoptic"
    assert list(check_dataset("coco_panoptic", root, split, progress=False)) == []
    data = open_dataset("coco_panoptic", root, split, panoptic=True)
    file = root / f"annotations/panoptic_{split}2017.json"
    listed = json.loads(file.read_text())["annotations"]
    wanted = {a["file_name"][:-4]: {(s["id"], s["area"], s["iscrowd"]) for s in a["segments_info"]} for a in listed}
    assert len(data) == len(wanted) > 25
    for i in range(len(data)):
        segments = data.read(i).segments
        assert segments is not None
        areas = np.bincount(segments.index.ravel() + 1)[1:]
        assert set(zip(segments.ids, areas, segments.crowd, strict=True)) == wanted[data.name(i)]
        png = read_mask(file.with_suffix("") / f"{data.name(i)}.png")
        assert np.array_equal(np.append(segments.ids, 0)[segments.index], rgb_to_ids(np.asarray(png, np.uint8)))


Spoil = Callable[[Path, dict[str, Any]], None]


def first(data: dict[str, Any]) -> dict[str, Any]:
    """The first record of image 12."""
    found: dict[str, Any] = data["annotations"][0]["segments_info"][0]
    return found


def repaint(root: Path, value: int) -> None:
    """The person of image 12 gets another id."""
    ids = small_ids()
    ids[ids == 7] = value
    write(root / "annotations/panoptic_val2017/000000000012.png", ids_png(ids))


BROKEN: dict[str, tuple[Spoil, str]] = {
    "segment id 9 (6 pixels, the first in row 4, column 0) not in": (lambda root, _: repaint(root, 9), "both"),
    "000000000012.png: has no pixel of segment id 7, which": (lambda root, _: repaint(root, 300), "check"),
    "000000000012.png: segment 300 has 16 pixels, but area 17 in": (lambda _, d: first(d).update(area=17), "check"),
    "000000000012.png: segment 300 has the unknown category 999": (
        lambda _, d: first(d).update(category_id=999), "open"),
    "lists two segments with id 7, which so overlap": (lambda _, d: first(d).update(id=7), "open"),
    "lists a segment with id 0, which means void": (lambda _, d: first(d).update(id=0), "open"),
    "lists the segment id '7'; ids are whole": (lambda _, d: first(d).update(id="7"), "open"),
    "category 1 (person) is declared as stuff, but label table 'coco_panoptic' has 'person' as a thing": (
        lambda _, d: d["categories"].__setitem__(0, PERSON | {"isthing": 0}), "open"),
    "category 500 (ghost) is not in label table": (
        lambda _, d: d["categories"].append({"id": 500, "name": "ghost", "isthing": 1}), "open"),
    "000000000012.png: uint8 pixels of one channel; a panoptic PNG is 8-bit RGB": (
        lambda root, _: write(root / "annotations/panoptic_val2017/000000000012.png", small_ids() % 200), "both"),
    "000000000012.jpg is 9×6 pixels but its mask": (
        lambda root, _: write(root / "val2017/000000000012.jpg", np.zeros((6, 9, 3), np.uint8)), "both"),
    "000000000012.jpg is 8×6 pixels, but 9×6 in": (lambda _, d: d["images"][0].update(width=9), "check"),
    "000000000012.png: no such PNG, but": (
        lambda root, _: (root / "annotations/panoptic_val2017/000000000012.png").unlink(), "open"),
    "000000000012.jpg: no such image, but": (lambda root, _: (root / "val2017/000000000012.jpg").unlink(), "open"),
    "000000000012.jpg: has no annotation in": (lambda _, d: d["annotations"].pop(0), "open"),
    "000000000012.png: is of image 12, which `images`": (lambda _, d: d["images"].pop(0), "open"),
    "000000000005.png: a second annotation of image 5": (
        lambda _, d: d["annotations"].append(d["annotations"][1]), "open"),
    "stray.png: no annotation of this name is listed in": (
        lambda root, _: write(root / "annotations/panoptic_val2017/stray.png", ids_png(small_ids())), "check"),
    "stray.jpg: no image of this name is listed in": (
        lambda root, _: write(root / "val2017/stray.jpg", np.zeros((6, 8, 3), np.uint8)), "check"),
    "not in COCO's format (KeyError: 'categories')": (lambda _, d: d.pop("categories"), "open"),
    "not in COCO's format (TypeError": (lambda _, d: d.update(annotations=7), "open"),
    "000000000012.jpg: not a readable image": (
        lambda root, _: (root / "val2017/000000000012.jpg").write_bytes(b"no"), "both"),
}  # fmt: skip


@pytest.mark.parametrize(("sentence", "spoil", "seen"), [(s, *rest) for s, rest in BROKEN.items()])
def test_what_is_wrong_is_named(sentence: str, spoil: Spoil, seen: str, coco: Path) -> None:
    """`seen`: by open_dataset (open), by reading the sample too (both), or only by the check that reads it all."""
    file = coco / "annotations/panoptic_val2017.json"
    data = json.loads(file.read_text())
    spoil(coco, data)
    file.write_text(json.dumps(data))
    problems = list(check_dataset("coco_panoptic", coco, "val", progress=False))
    assert any(sentence in problem for problem in problems), problems
    assert all(problem.startswith(str(coco)) for problem in problems)
    if seen == "open":
        with pytest.raises(ValueError) as caught:
            open_dataset("coco_panoptic", coco, "val", panoptic=True)
    elif seen == "both":
        with pytest.raises(ValueError) as caught:
            open_dataset("coco_panoptic", coco, "val", panoptic=True).open(1)
    else:
        open_dataset("coco_panoptic", coco, "val", panoptic=True).read(1)
        return
    assert sentence in str(caught.value)


def test_all_problems_are_listed(coco: Path) -> None:
    file = coco / "annotations/panoptic_val2017.json"
    data = json.loads(file.read_text())
    for annotation in data["annotations"]:
        annotation["segments_info"][0]["area"] = 1
    data["annotations"][0]["segments_info"][2]["category_id"] = 5000
    file.write_text(json.dumps(data))
    repaint(coco, 11)
    problems = list(check_dataset("coco_panoptic", coco, "val", progress=False))
    assert len(problems) == 5  # a category, an id here, an id there, two areas


@pytest.mark.parametrize("missing", ["annotations/panoptic_val2017.json", "annotations/panoptic_val2017", "val2017"])
def test_missing_parts(missing: str, coco: Path) -> None:
    (coco / missing).rename(coco / "elsewhere")
    with pytest.raises(ValueError, match=f"{missing}: no such file or folder"):
        open_dataset("coco_panoptic", coco, "val")
    assert len(list(check_dataset("coco_panoptic", coco, "val", progress=False))) == 1
