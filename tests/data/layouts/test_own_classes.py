"""A labels.yaml of one's own in the root of a known layout renames and merges its classes."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from panfpn.data import open_dataset
from panfpn.labels import IGNORE, LabelTable

STREET = """classes:
  - {name: ground, value: [7, 8]}
  - {name: vehicle, value: [26, 27, 28], thing: true}
ignore: [4, 11]
"""


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels[..., ::-1] if pixels.ndim == 3 else pixels)


def photo(path: Path) -> None:
    write(path, np.zeros((4, 6, 3), np.uint8))


RAW = np.array([[7, 8, 26, 27, 28, 4], [7, 7, 7, 26, 11, 11]] * 2, np.uint8)
EXPECTED = np.array([[0, 0, 1, 1, 1, IGNORE], [0, 0, 0, 1, IGNORE, IGNORE]] * 2)


@pytest.mark.parametrize("train_ids", [False, True])
def test_cityscapes(tmp_path: Path, train_ids: bool) -> None:
    photo(tmp_path / "leftImg8bit/val/ulm/a_leftImg8bit.png")
    write(tmp_path / "gtFine/val/ulm/a_gtFine_labelIds.png", RAW)
    if train_ids:  # the values of labels.yaml are those of labelIds nevertheless
        write(tmp_path / "gtFine/val/ulm/a_gtFine_labelTrainIds.png", np.full((4, 6), 255, np.uint8))
    (tmp_path / "labels.yaml").write_text(STREET)
    data = open_dataset("cityscapes", tmp_path, "val")
    assert data.table.names == ("ground", "vehicle") and np.array_equal(data.read(0).target, EXPECTED)


def test_things_of_cityscapes(tmp_path: Path) -> None:
    photo(tmp_path / "leftImg8bit/val/ulm/a_leftImg8bit.png")
    ids = np.array([[7, 8, 26001, 27000, 28, 4]] * 4, np.uint16)
    write(tmp_path / "gtFine/val/ulm/a_gtFine_instanceIds.png", ids)
    (tmp_path / "labels.yaml").write_text(STREET)
    segments = open_dataset("cityscapes", tmp_path, "val", panoptic=True).read(0).segments
    assert segments is not None
    assert segments.labels[0].tolist() == [0, 0, 1, 1, 1, IGNORE]
    assert segments.crowd[segments.index[0, :5]].tolist() == [False, False, False, False, True]


@pytest.mark.parametrize(
    ("layout", "image", "mask"),
    [
        ("ade20k", "images/training/a.jpg", "annotations/training/a.png"),
        ("camvid", "train/a.png", "trainannot/a.png"), ("kitti", "training/image_2/a.png", "training/semantic/a.png"),
    ],
)  # fmt: skip
def test_others(layout: str, image: str, mask: str, tmp_path: Path) -> None:
    photo(tmp_path / image)
    write(tmp_path / mask, RAW)
    (tmp_path / "labels.yaml").write_text(STREET)
    assert np.array_equal(open_dataset(layout, tmp_path, "train").read(0).target, EXPECTED)
    table = LabelTable.from_dict({"classes": [{"name": "all", "value": sorted({*RAW.ravel().tolist()})}]})
    assert (open_dataset(layout, tmp_path, "train", table=table).read(0).target == 0).all()  # and in Python


def test_categories_of_coco(tmp_path: Path) -> None:
    photo(tmp_path / "val2017/a.jpg")
    ids = np.zeros((4, 6, 3), np.uint8)
    ids[..., 0] = np.array([[1, 1, 2, 2, 3, 3]] * 4)
    write(tmp_path / "annotations/panoptic_val2017/a.png", ids)
    categories = [{"id": 3, "name": "car", "isthing": 1}, {"id": 8, "name": "truck", "isthing": 1},
                  {"id": 149, "name": "road", "isthing": 0}]  # fmt: skip
    records = [{"id": k, "category_id": c, "area": 8, "iscrowd": 0} for k, c in ((1, 3), (2, 8), (3, 149))]
    data = {"images": [{"id": 1, "file_name": "a.jpg", "height": 4, "width": 6}], "categories": categories,
            "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": records}]}  # fmt: skip
    (tmp_path / "annotations/panoptic_val2017.json").write_text(json.dumps(data))
    (tmp_path / "labels.yaml").write_text(
        "classes:\n  - {name: vehicle, value: [3, 8], thing: true}\n  - {name: street, value: 149}\n"
    )
    sample = open_dataset("coco_panoptic", tmp_path, "val", panoptic=True).read(0)
    assert sample.target[0].tolist() == [0, 0, 0, 0, 1, 1]
    assert sample.segments is not None and len(sample.segments.ids) == 3
