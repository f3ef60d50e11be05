"""CamVid: images and masks of a split side by side."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from panfpn.data import open_dataset


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels)


def test_camvid(shared: Path) -> None:
    train, val = (open_dataset("camvid", shared / "data" / "camvid", split) for split in ("train", "val"))
    assert (len(train), len(val)) == (367, 101)
    sample = val.read(0)
    assert sample.image.shape == (360, 480, 3) and sample.target.max() <= 10
    assert sample.image[0].mean() > 100  # a bright sky is at the top


def test_no_instances(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="data set 'camvid' has no maps of instances, so things cannot be told apart"):
        open_dataset("camvid", tmp_path, "train", panoptic=True)
