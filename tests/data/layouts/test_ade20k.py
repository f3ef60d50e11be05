"""ADE20K: 0 is no class."""

from pathlib import Path

import cv2
import numpy as np

from panfpn.data import open_dataset


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels)


def test_ade20k(tmp_path: Path) -> None:
    mask = np.arange(16, dtype=np.uint8).reshape(4, 4)
    write(tmp_path / "images/validation/ADE_val_00000001.jpg", np.zeros((4, 4, 3), np.uint8))
    write(tmp_path / "annotations/validation/ADE_val_00000001.png", mask)
    data = open_dataset("ade20k", tmp_path, "val")
    assert np.array_equal(data.read(0).target, mask.astype(np.int16) - 1)  # 0 is ignored, c becomes c - 1
