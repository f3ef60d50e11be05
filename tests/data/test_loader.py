from pathlib import Path

import numpy as np
import pytest
import torch

from panfpn.data import evaluation_loader, open_dataset, train_loader
from panfpn.data.loader import DrawSampler
from panfpn.labels import IGNORE
from panfpn.types import Batch
from transforming import train_transform

TRANSFORM = train_transform(crop=(32, 40), ratio=(0.5, 1.5))


def batches(
    root: Path, steps: range, *, workers: int = 0, accumulate: int = 1, rank: int = 0, world: int = 1
) -> list[Batch]:
    sampler = DrawSampler(steps=steps, batch_size=4, accumulate=accumulate, rank=rank, world=world)
    return list(train_loader(open_dataset("folder", root, "train"), TRANSFORM, sampler, seed=5, num_workers=workers))


def assert_equal(first: list[Batch], second: list[Batch]) -> None:
    assert len(first) == len(second) > 0
    for a, b in zip(first, second, strict=True):
        assert a.names == b.names and a.sizes == b.sizes
        assert torch.equal(a.images, b.images) and torch.equal(a.targets, b.targets)


def test_shapes_and_padding(folder_data: Path) -> None:
    for batch in batches(folder_data, range(3)):
        assert batch.images.shape == (4, 3, 32, 40) and batch.images.dtype == torch.uint8
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert batch.targets.shape == (4, 32, 40) and batch.targets.dtype == torch.int16
        for target, (height, width) in zip(batch.targets, batch.sizes, strict=True):
            assert (target[height:] == IGNORE).all() and (target[:, width:] == IGNORE).all()


def test_a_restart_seeks_and_workers_change_nothing(folder_data: Path) -> None:
    whole = batches(folder_data, range(5))
    assert_equal(whole[3:], batches(folder_data, range(3, 5)))
    assert_equal(whole, batches(folder_data, range(5), workers=2))


def test_ranks_and_accumulation_share_the_same_draws(folder_data: Path) -> None:
    whole = batches(folder_data, range(4))
    parts = [batches(folder_data, range(4), rank=rank, world=2) for rank in range(2)]
    micro = batches(folder_data, range(4), accumulate=2)
    for step, batch in enumerate(whole):
        assert torch.equal(batch.images, torch.cat([parts[0][step].images, parts[1][step].images]))
        assert torch.equal(batch.images, torch.cat([m.images for m in micro[2 * step : 2 * step + 2]]))


def test_every_image_once_an_epoch_in_a_new_order(folder_data: Path) -> None:
    names = [name for batch in batches(folder_data, range(6)) for name in batch.names]  # 4 epochs of 6
    epochs = [names[i : i + 6] for i in range(0, 24, 6)]
    assert all(sorted(epoch) == [f"photo_{i}" for i in range(6)] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_reaches_the_user_as_its_sentence(folder_data: Path, workers: int) -> None:
    (folder_data / "images/train/photo_3.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"^[^\n]*photo_3\.png: not a readable image[^\n]*$"):
        batches(folder_data, range(3), workers=workers)


def test_evaluation_loader_keeps_sizes_and_order(folder_data: Path) -> None:
    data = open_dataset("folder", folder_data, "train")
    groups = list(evaluation_loader(data, [4, 1, 0], batch_size=2, num_workers=0))
    assert [[s.name for s in group] for group in groups] == [["photo_4", "photo_1"], ["photo_0"]]
    assert np.array_equal(groups[0][1].image, data.read(1).image) and groups[0][1].image.shape == (40, 56, 3)
