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


def test_numbers_of_things_are_one_class_of_things(tmp_path: Path) -> None:
    found, table = proposed(tmp_path, [things(count) for count in (1, 3, 0, 5, 2)])
    assert "instances/" in found.text()
    assert [(c.name, c.thing) for c in table.classes] == [("background", False), ("thing", True)]
    np.testing.assert_array_equal(table.encode(things(5), "m"), things(5) > 0)


@pytest.mark.parametrize("masks", [
    [blob(5, 1) + blob(25, 2), blob(10, 1)],  # of two classes one is not everywhere
    [things(5), things(5)],  # five classes, which all masks have
    [blob(5, 3), things(2), things(5), things(1), things(3)],  # one mask does not begin with 1
    [blob(5, 128) | blob(20, 255)],  # three grey levels
    [np.where(blob(5) > 0, 255, np.arange(80)[None] % 30)],  # thirty classes, and 255 for what is ignored
], ids=["two", "five", "gap", "grey", "thirty"])  # fmt: skip
def test_classes_stay_classes(masks: list[np.ndarray], tmp_path: Path) -> None:
    found, table = proposed(tmp_path, masks)
    values = sorted({int(v) for mask in masks for v in np.unique(mask)} - set(table.ignore))
    assert [c.values for c in table.classes] == [(v,) for v in values] and not found.note
