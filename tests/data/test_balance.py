"""Weights and crops for rare classes: as their formulas say, and functions of (seed, draw)."""

from pathlib import Path

import numpy as np
import pytest

import panfpn
from foreign_sets import photos, write_coco, write_list
from panfpn import recipes
from panfpn.build import build_datasets, build_transform, resolve
from panfpn.config import Data
from panfpn.data import open_dataset, train_loader
from panfpn.data.balance import RareCrops, count_classes, effective_number, grouped, median_frequency, root_frequency
from panfpn.data.loader import DrawSampler

COUNTS = np.array([[900, 90, 10, 0], [800, 200, 0, 0], [1000, 0, 0, 0], [500, 490, 10, 0]])


def test_median_frequency() -> None:
    weights = np.array(median_frequency(COUNTS))
    frequency = np.array([3200 / 4000, 780 / 3000, 20 / 2000])
    raw = np.minimum(np.median(frequency) / frequency, 10)
    pixels = COUNTS.sum(0)[:3]
    expected = raw * pixels.sum() / (raw * pixels).sum()
    assert np.allclose(weights[:3], expected, atol=1e-3) and weights[3] == 1
    assert (weights * COUNTS.sum(0)).sum() / COUNTS.sum() == pytest.approx(1, abs=1e-3)


def test_root_frequency_is_half_way() -> None:
    weights, whole = np.array(root_frequency(COUNTS)), np.array(median_frequency(COUNTS))
    ratios = weights[:3] / weights[0]
    assert np.allclose(ratios, np.sqrt(whole[:3] / whole[0]), rtol=1e-2)
    assert (weights * COUNTS.sum(0)).sum() / COUNTS.sum() == pytest.approx(1, abs=1e-3) and weights[3] == 1


def test_effective_number() -> None:
    weights = np.array(effective_number(COUNTS))
    number = np.array([(1 - 0.75**n) / 0.25 for n in (4, 3, 2)])
    raw, pixels = np.median(number) / number, COUNTS.sum(0)[:3]
    assert np.allclose(weights[:3], raw * pixels.sum() / (raw * pixels).sum(), atol=1e-3)


def test_things_together() -> None:
    both = grouped(COUNTS, ("a", "b", "c", "d"), ("things", "b", "a"), 0)
    assert both.tolist() == [[10, 90, 900], [0, 200, 800], [0, 0, 1000], [10, 490, 500]]


@pytest.mark.parametrize("panoptic", [False, True])
def test_counts_are_those_of_the_masks(tmp_path: Path, panoptic: bool) -> None:
    pictures = photos(8)
    (write_coco if panoptic else write_list)(tmp_path, "train", pictures)
    data = build_datasets(Data(dataset="coco" if panoptic else "list", root=tmp_path, split=0.3), segments=panoptic)[0]
    by_name = {p.name: p for p in pictures}
    for row, i in zip(count_classes(data), range(len(data)), strict=True):
        truth = by_name[data.name(i).rpartition("/")[2]].truth()[0]
        assert row.tolist() == [int((truth == k).sum()) for k in range(4)]


def test_rare_crops_show_what_they_are_drawn_for() -> None:
    rare = RareCrops(np.array([[9900, 100, 0], [10000, 0, 0], [9000, 0, 1000]]), 0.5, 7)
    drawn = [rare(draw, 1) for draw in range(2000)]
    assert drawn == [rare(draw, 1) for draw in range(2000)]
    wanted = [k for _, k in drawn if k is not None]
    assert 0.45 < len(wanted) / 2000 < 0.55
    assert all(index == {1: 0, 2: 2}[k] for index, k in drawn if k)
    share = np.bincount(wanted, minlength=3) / len(wanted)
    f = np.array([28900, 100, 1000]) / 30000
    expected = np.exp(-f / 0.01) / np.exp(-f / 0.01).sum()
    assert np.allclose(share, expected, atol=0.04)


def test_a_training_sees_rare_classes_oftener(tmp_path: Path) -> None:
    pictures = photos(12, seed=3)
    for photo in pictures[1:]:
        photo.things = [t for t in photo.things if t.name != "washer"] or photo.things[:1]
    write_list(tmp_path, "train", pictures)
    write_list(tmp_path, "val", pictures[:2])
    seen = {}
    for share in (0.0, 1.0):
        data = Data(dataset="list", root=tmp_path, crop=(32, 32), rare_crops=share, cat_max_ratio=1.0)
        train = build_datasets(data)[0]
        counts = count_classes(train)
        rare = RareCrops(counts, share, 0) if share else None
        sampler = DrawSampler(steps=range(30), batch_size=4)
        batches = list(train_loader(train, build_transform(data), sampler, seed=0, num_workers=0, rare=rare))
        seen[share] = np.mean(
            [[(b.targets == k).flatten(1).any(1).float().mean() for k in range(4)] for b in batches], 0
        )
        again = list(train_loader(train, build_transform(data), DrawSampler(steps=range(20, 30), batch_size=4), seed=0,
                                  num_workers=0, rare=rare))  # fmt: skip
        assert all(bool((a.images == b.images).all()) for a, b in zip(again, batches[20:], strict=True))
    rarest = int(np.where(counts.sum(0) > 0, counts.sum(0), 1 << 60).argmin())
    assert seen[1.0][rarest] > 1.5 * seen[0.0][rarest]


def test_weights_are_numbers_in_the_configuration_of_a_run(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_list(tmp_path, split, photos(4, seed=5))
    config = recipes.folder(**{
        "data.dataset": "list", "data.root": tmp_path, "loss.class_weights": "auto", "model.start_from": None,
        "model.backbone": "test_resnet", "model.pretrained": False,
    })  # fmt: skip
    train, _ = build_datasets(config.data)
    weights = resolve(config, train.table, images=train).loss.class_weights
    assert weights == median_frequency(count_classes(train)) and isinstance(weights, tuple)
    with pytest.raises(ValueError, match="counted in training images; there are none"):
        resolve(config, train.table)
    for wrong in ("heavy", (1.0, -1.0)):
        with pytest.raises(ValueError, match=r"loss\.class_weights is"):
            config.changed(loss__class_weights=wrong)
    assert panfpn.__version__


def test_many_images_are_counted_in_part(folder_data: Path) -> None:
    data = open_dataset("folder", folder_data, "train")
    every = count_classes(data)
    np.testing.assert_array_equal(count_classes(data, most=6), every)
    np.testing.assert_array_equal(count_classes(data, most=4), every[::2])
    np.testing.assert_array_equal(count_classes(data, most=1), every[:1])
