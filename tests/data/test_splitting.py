"""Validation images taken from the training images: each class divided, always in the same way."""

from pathlib import Path

import numpy as np
import pytest

from foreign_sets import photos, write_coco, write_list
from panfpn import recipes
from panfpn.build import build_datasets
from panfpn.config import Data
from panfpn.config.model import num_folds
from panfpn.data.splitting import in_fold, stratified


def test_every_class_is_divided_by_the_share() -> None:
    generator = np.random.default_rng(0)
    present = generator.random((1000, 8)) < np.array([0.9, 0.5, 0.3, 0.1, 0.05, 0.02, 0.01, 0.004])
    chosen = stratified(present, 0.2, 3)
    assert 0.17 < chosen.mean() < 0.23
    counts, taken = present.sum(0), present[chosen].sum(0)
    assert (np.abs(taken - 0.2 * counts) <= np.maximum(1, 0.04 * counts)).all(), (counts, taken)
    assert ((taken > 0) & (taken < counts))[counts > 1].all()
    assert np.array_equal(chosen, stratified(present, 0.2, 3))
    assert not np.array_equal(chosen, stratified(present, 0.2, 4))


@pytest.mark.parametrize(("share", "count"), [(0.2, 5), (0.25, 4), (0.3, 3), (0.5, 2), (0.4, 2), (0.15, 7)])
def test_each_image_validates_in_one_fold(share: float, count: int) -> None:
    assert num_folds(share) == count
    present = np.random.default_rng(0).random((211, 4)) < np.array([0.9, 0.5, 0.2, 0.05])
    folds = [in_fold(present, share, 3, k) for k in range(count)]
    assert np.array_equal(folds[0], stratified(present, share, 3))
    assert (np.sum(folds, 0) == 1).all()
    for fold in folds:
        assert abs(fold.sum() - 211 / count) <= 0.35 * 211 / count
        common = present.sum(0) >= 3 * count
        assert (present[fold].sum(0) > 0)[common].all() and (present[~fold].sum(0) > 0).all()


@pytest.mark.parametrize("count", [3, 5, 22, 26])
def test_folds_of_few_images_with_classes_of_their_own_are_of_one_size(count: int) -> None:
    present = np.random.default_rng(1).random((26, 60)) < 0.08  # a third of the classes lie in one image
    assert (present.sum(0) == 1).sum() > 10
    folds = [in_fold(present, round(1 / count, 6), 0, k) for k in range(count)]
    assert (np.sum(folds, 0) == 1).all()
    assert {int(fold.sum()) for fold in folds} <= {26 // count, -(-26 // count)}


@pytest.mark.parametrize(("share", "count"), [(0.15, 7), (0.35, 3), (0.4, 2), (0.7, 1)])
def test_a_share_that_is_more_than_an_image_leaves_one_for_each_other_fold(share: float, count: int) -> None:
    present = np.ones((max(2, count), 1), np.bool_)
    folds = [in_fold(present, share, 0, k) for k in range(count)]
    assert [int(fold.sum()) for fold in folds] == [1] * count


def test_what_one_image_alone_has_is_trained_on() -> None:
    present = np.zeros((20, 9), np.bool_)
    present[:, 0] = True
    present[np.arange(8), 1 + np.arange(8)] = True
    for seed in range(20):
        assert not stratified(present, 0.25, seed)[:8].any()


def test_rare_classes_leave_the_common_one_its_share() -> None:
    present = np.zeros((100, 11), np.bool_)
    present[np.arange(20), np.arange(20) // 2] = True  # ten classes of two images
    present[20:, 10] = True
    for seed in range(5):
        chosen = stratified(present, 0.1, seed)
        assert (chosen.sum(), chosen[20:].sum()) == (10, 8)


def test_a_fold_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.fold is 5; it must be from 0 to below 5"):
        Data(split=0.2, fold=5)
    with pytest.raises(ValueError, match=r"data\.fold is 1"):
        Data(fold=1)
    write_list(tmp_path, "train", photos(3))
    with pytest.raises(ValueError, match="3 images are fewer than 5 folds"):
        build_datasets(Data(dataset="list", root=tmp_path, split=0.2, fold=4))


def test_images_without_a_class_and_single_ones() -> None:
    assert stratified(np.zeros((10, 3), np.bool_), 0.3, 0).sum() == 3
    two = stratified(np.ones((2, 1), np.bool_), 0.1, 0)
    assert two.sum() == 1


@pytest.mark.parametrize("panoptic", [False, True])
def test_both_parts_are_all_images_and_share_none(tmp_path: Path, panoptic: bool) -> None:
    (write_coco if panoptic else write_list)(tmp_path, "train", pictures := photos(20))
    data = Data(dataset="coco" if panoptic else "list", root=tmp_path, split=0.25)
    train, val = build_datasets(data, segments=panoptic)
    names = [[part.name(i).rpartition("/")[2] for i in range(len(part))] for part in (train, val)]
    assert len(names[1]) == pytest.approx(5, abs=2) and sorted(names[0] + names[1]) == [p.name for p in pictures]
    again = build_datasets(data, segments=panoptic)[1]
    assert [again.name(i) for i in range(len(again))] == [val.name(i) for i in range(len(val))]
    by_name = {photo.name: photo for photo in pictures}
    for i, name in enumerate(names[1]):
        sample = val.read(i)
        assert np.array_equal(sample.target, by_name[name].truth()[0])
        assert (sample.segments is not None) == panoptic


def test_a_pack_is_not_divided() -> None:
    with pytest.raises(ValueError, match=r"data\.split is 0\.1; it must be none for a pack"):
        recipes.folder(data__pack=Path("x"), data__split=0.1)
