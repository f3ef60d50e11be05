"""Decoded images that stay in memory: the same samples, each file read once, and never more than is allowed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from panfpn.data import open_dataset, train_loader
from panfpn.data.dataset import FileDataset
from panfpn.data.loader import DrawSampler
from panfpn.data.remembered import Remembered, pixels_of
from panfpn.types import Batch
from transforming import train_transform

LIMIT = 1 << 20


def batches(root: Path, memory: int, workers: int = 0) -> list[Batch]:
    transform = train_transform(crop=(32, 40), ratio=(0.5, 1.5), photometric=1.0, flip=0.5)
    data, sampler = open_dataset("folder", root, "train"), DrawSampler(steps=range(9), batch_size=4)
    return list(train_loader(data, transform, sampler, seed=5, num_workers=workers, memory=memory))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_same_batches(folder_data: Path, workers: int) -> None:
    for ours, theirs in zip(batches(folder_data, LIMIT, workers), batches(folder_data, 0), strict=True):
        assert torch.equal(ours.images, theirs.images) and torch.equal(ours.targets, theirs.targets)


def test_each_file_is_read_once(folder_data: Path) -> None:
    data = open_dataset("folder", folder_data, "train")
    opened = Remembered(data, 3, LIMIT)
    before = [opened(i) for i in range(len(data))]
    for file in (folder_data / "images/train").iterdir():
        file.unlink()
    for i, (image, target) in enumerate(before):
        again = opened(i)
        assert again[0] is image and again[1] is target
        with pytest.raises(ValueError, match="read-only"):
            again[0][0, 0] = 0


def test_a_set_that_does_not_fit_is_not_kept(folder_data: Path) -> None:
    data = open_dataset("folder", folder_data, "train")
    image, target = Remembered(data, 3, 0)(0)
    size = image.nbytes + pixels_of(target).nbytes
    for limit, kept in ((0, 0), (size * len(data) - 1, 0), (size * len(data), len(data))):
        opened = Remembered(data, 3, limit)
        for i in (*range(len(data)), 0):
            opened(i)
        assert len(opened.kept) == kept
        assert sum(a.nbytes + pixels_of(b).nbytes for a, b in opened.kept.values()) <= limit


def test_what_is_larger_than_the_first_is_left_out(folder_data: Path) -> None:
    data = open_dataset("folder", folder_data, "train")
    assert isinstance(data, FileDataset)
    items = (data.items[1], *(data.items[0] for _ in range(4)))  # the second kind is smaller
    opened = Remembered(replace(data, items=items), 3, 5 * 40 * 56 * 4)
    for i in range(5):
        opened(i)
    assert 1 < len(opened.kept) < 5


def test_other_data_sets_are_not_kept() -> None:
    opened = Remembered(open_dataset("scenes", None, "train", scene_count=2, scene_size=(64, 64)), 3, LIMIT)
    first, second = opened(0), opened(0)
    assert first[0] is not second[0] and np.array_equal(first[0], second[0])
    assert not opened.kept
