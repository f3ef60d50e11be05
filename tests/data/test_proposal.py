"""A labels.yaml proposed for masks of kinds that people bring: classes, soft edges, numbers of things."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from panfpn.data.proposal import Proposal, propose
from panfpn.labels import LabelTable


def proposed(folder: Path, masks: list[np.ndarray]) -> tuple[Proposal, LabelTable]:
    """The proposal for some masks, and the table that its text gives when it is read back."""
    files = [folder / f"{k}.png" for k in range(len(masks))]
    for file, mask in zip(files, masks, strict=True):
        cv2.imwrite(str(file), mask.astype(np.uint8))
    found = propose(files)
    (folder / "labels.yaml").write_text(found.text(), "utf-8")
    return found, LabelTable.from_yaml(folder / "labels.yaml")


def blob(row: int, value: int = 255) -> np.ndarray:
    mask = np.zeros((60, 80), np.uint8)
    mask[row : row + 30, 20:60] = value
    return mask


def things(count: int) -> np.ndarray:
    mask = np.zeros((60, 80), np.uint8)
    for k in range(count):
        mask[5:30, 8 * k : 8 * k + 6] = k + 1
    return mask


def test_soft_edges_are_two_classes(tmp_path: Path) -> None:
    soft = [cv2.GaussianBlur(blob(row), (0, 0), 2) for row in (5, 12, 20)]
    found, table = proposed(tmp_path, soft)
    assert len(found.pixels) > 8 and "soft edges" in found.text()
    assert table.num_classes == 2
    np.testing.assert_array_equal(table.encode(soft[0], "m"), soft[0] >= 128)
    table.encode(np.arange(256, dtype=np.uint8)[None], "m")  # other masks may have other values


def jpeg(mask: np.ndarray, quality: int) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", mask, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_GRAYSCALE)


@pytest.mark.parametrize("quality", [30, 75, 98])
def test_masks_that_were_jpegs_are_two_classes(quality: int, tmp_path: Path) -> None:
    disc = cv2.circle(np.zeros((120, 160), np.uint8), (70, 60), 40, 255, -1)
    _, table = proposed(tmp_path, [jpeg(disc, quality)])
    assert table.num_classes == 2 and not table.ignore
    np.testing.assert_array_equal(table.encode(disc, "m"), disc > 0)


def rings(levels: int) -> np.ndarray:
    mask = np.zeros((60, 80), np.uint8)
    for level in range(1, levels + 1):
        mask[4 * level : 60 - 4 * level, 5 * level : 80 - 5 * level] = level
    return mask


def test_numbers_of_things_are_one_class_of_things(tmp_path: Path) -> None:
    found, table = proposed(tmp_path, [things(count) for count in (1, 3, 0, 5, 2)])
    assert "each is told apart" in found.text() and "{name: thing, value: 1-255, thing: true}" in found.text()
    assert [(c.name, c.thing) for c in table.classes] == [("background", False), ("thing", True)]
    np.testing.assert_array_equal(table.encode(things(5), "m"), things(5) > 0)


def test_void_beside_numbers_of_things_stays_void(tmp_path: Path) -> None:
    masks = [things(count) for count in (1, 3, 6, 5, 2)]
    for mask in masks:  # a line around each thing
        mask[(cv2.dilate(mask, np.ones((3, 3))) > 0) & (mask == 0)] = 255
    found, table = proposed(tmp_path, masks)
    assert "value: 1-254, thing: true" in found.text() and table.ignore == (255,)
    np.testing.assert_array_equal(table.encode(masks[2], "m"), np.where(masks[2] == 255, -1, masks[2] > 0))


@pytest.mark.parametrize("masks", [
    [blob(5, 1) + blob(25, 2), blob(10, 1)],  # of two classes one is not everywhere
    [things(5), things(5)],  # five classes, which all masks have
    [blob(5, 3), things(2), things(5), things(1), things(3)],  # one mask does not begin with 1
    [blob(5, 128) | blob(20, 255)],  # three grey levels
    [np.where(blob(5) > 0, 255, np.arange(80)[None] % 30)],  # thirty classes, and 255 for what is ignored
    [rings(count) for count in (0, 1, 2, 3, 4, 2, 5)],  # levels within levels
    [things(count) + 1 for count in (1, 3, 0, 5, 2)],  # no background
    [blob(5) | np.where(np.arange(60)[:, None] > 50, 25 * (np.arange(80)[None] % 10), 0).astype(np.uint8)],
    [cv2.GaussianBlur(blob(5, 128) | blob(25, 255), (0, 0), 1)[:, 10:]],  # soft edges of three
], ids=["two", "five", "gap", "grey", "thirty", "rings", "whole", "levels", "three"])  # fmt: skip
def test_classes_stay_classes(masks: list[np.ndarray], tmp_path: Path) -> None:
    found, table = proposed(tmp_path, masks)
    values = sorted({int(v) for mask in masks for v in np.unique(mask)} - set(table.ignore))
    assert [c.values for c in table.classes] == [(v,) for v in values] and not found.note
