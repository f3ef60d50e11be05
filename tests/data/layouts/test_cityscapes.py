"""Cityscapes: masks of classes or train ids, maps of instance ids, and the form of COCO."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from panfpn.data import check_dataset, open_dataset
from panfpn.labels import IGNORE, LabelTable
from panfpn.types import Segments


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels[..., ::-1] if pixels.ndim == 3 else pixels)


def ids_png(ids: np.ndarray) -> np.ndarray:
    return np.stack([ids & 255, ids >> 8 & 255, ids >> 16], -1).astype(np.uint8)


def segments_of(root: Path) -> Segments:
    segments = open_dataset("cityscapes", root, "val", panoptic=True).read(0).segments
    assert segments is not None
    return segments


def cityscapes(root: Path, ids: np.ndarray) -> Path:
    write(root / "leftImg8bit/val/ulm/ulm_000000_000019_leftImg8bit.png", np.zeros((*ids.shape, 3), np.uint8))
    write(root / "gtFine/val/ulm/ulm_000000_000019_gtFine_instanceIds.png", ids.astype(np.uint16))
    return root


@pytest.mark.parametrize("masks", ["labelIds", "labelTrainIds", "both"])
def test_cityscapes_reads_what_is_on_disk(masks: str, tmp_path: Path) -> None:
    raw = np.full((8, 8), 26, np.uint8)
    raw[:2] = 4  # static: ignored
    train_ids = np.full((8, 8), 13, np.uint8)
    train_ids[:2] = 255
    for name in ("ulm_000000_000019", "ulm_000001_000019"):
        write(tmp_path / f"leftImg8bit/val/ulm/{name}_leftImg8bit.png", np.zeros((8, 8, 3), np.uint8))
        write(tmp_path / f"gtFine/val/ulm/{name}_gtFine_instanceIds.png", raw)
        if masks in ("labelIds", "both"):
            write(tmp_path / f"gtFine/val/ulm/{name}_gtFine_labelIds.png", raw)
        if masks in ("labelTrainIds", "both"):
            write(tmp_path / f"gtFine/val/ulm/{name}_gtFine_labelTrainIds.png", train_ids)
    data = open_dataset("cityscapes", tmp_path, "val")
    assert len(data) == 2 and data.name(0) == "ulm/ulm_000000_000019"
    target = data.read(0).target
    assert (target[:2] == IGNORE).all() and (target[2:] == 13).all()
    assert (data.table.decode(target[2:]) == 26).all()  # what is written for the server is the regular id


def test_cityscapes(tmp_path: Path) -> None:
    ids = np.array([[7, 7, 26000, 26001], [24, 26, 29000, 3], [7, 24003, 26001, 26001]])
    root = cityscapes(tmp_path, ids)
    segments = segments_of(root)
    known = ids.copy()
    known[1, 2:] = -1  # a caravan and what is out of the region are ignored
    assert np.array_equal(np.append(segments.ids, -1)[segments.index], known)
    found = dict(
        zip(segments.ids.tolist(), zip(segments.classes.tolist(), segments.crowd.tolist(), strict=True), strict=True)
    )
    assert found == {
        7: (0, False), 24: (11, True), 26: (13, True), 24003: (11, False), 26000: (13, False), 26001: (13, False),
    }  # fmt: skip
    assert list(check_dataset("cityscapes", root, "val", progress=False)) == []


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (40, "id 40 in row 1, column 2 is of class 40, which label table 'cityscapes' does not know"),
        (7002, "id 7002 in row 1, column 2 counts an instance of 'road', which is stuff; its pixels are 7"),
    ],
)
def test_cityscapes_refuses(value: int, sentence: str, tmp_path: Path) -> None:
    ids = np.full((3, 4), 7)
    ids[1, 2:] = value
    root = cityscapes(tmp_path, ids)
    with pytest.raises(ValueError, match=f"instanceIds.png: {sentence}"):
        segments_of(root)
    assert len(list(check_dataset("cityscapes", root, "val", progress=False))) == 1


@pytest.mark.parametrize("train_ids", [False, True])
def test_cityscapes_in_the_form_of_coco(train_ids: bool, tmp_path: Path) -> None:
    table = LabelTable.named("cityscapes")
    numbers = range(19) if train_ids else [c.values[0] for c in table.classes]
    categories = [
        {"id": n, "name": c.name, "isthing": int(c.thing)} for n, c in zip(numbers, table.classes, strict=True)
    ]
    ids = np.full((4, 8), 7)
    ids[2:, :3], ids[3, 7] = 26001, 0
    name = "ulm_000000_000019"
    car, road = (13, 0) if train_ids else (26, 7)
    records = [{"id": 7, "category_id": road, "area": 25}, {"id": 26001, "category_id": car, "area": 6, "iscrowd": 0}]
    data = {
        "images": [{"id": name, "file_name": f"{name}_gtFine_leftImg8bit.png", "height": 4, "width": 8}],
        "annotations": [{"image_id": name, "file_name": f"{name}_gtFine_panoptic.png", "segments_info": records}],
        "categories": categories,
    }
    write(tmp_path / f"gtFine/cityscapes_panoptic_val/{name}_gtFine_panoptic.png", ids_png(ids))
    write(tmp_path / f"leftImg8bit/val/ulm/{name}_leftImg8bit.png", np.zeros((4, 8, 3), np.uint8))
    (tmp_path / "gtFine/cityscapes_panoptic_val.json").write_text(json.dumps(data))
    opened = open_dataset("cityscapes", tmp_path, "val", panoptic=True)
    assert list(check_dataset("cityscapes", tmp_path, "val", progress=False)) == []
    sample = opened.read(0)
    assert opened.name(0) == f"ulm/{name}" and sample.segments is not None
    assert sample.segments.ids.tolist() == [7, 26001] and sample.segments.classes.tolist() == [0, 13]
    assert sample.target[3].tolist() == [13] * 3 + [0] * 4 + [IGNORE]
