"""Procedural scenes as a data set."""

import numpy as np

from panfpn.data import open_dataset


def test_scenes_are_a_function_of_split_and_number() -> None:
    train, val = (open_dataset("scenes", None, s, scene_count=4, scene_size=(64, 96)) for s in ("train", "val"))
    assert len(train) == 4 and train.table.num_classes == 9
    assert np.array_equal(train.read(1).image, train.read(1).image)
    assert not np.array_equal(train.read(1).image, val.read(1).image)


def test_segments() -> None:
    data = open_dataset("scenes", None, "val", panoptic=True, scene_count=2)
    sample, plain = data.read(1), open_dataset("scenes", None, "val", scene_count=2).read(1)
    assert sample.segments is not None and plain.segments is None
    assert np.array_equal(sample.target, plain.target) and np.array_equal(sample.segments.labels, plain.target)
    stuff = [k for k in sample.segments.classes if not data.table.classes[k].thing]
    assert len(set(stuff)) == len(stuff) < len(sample.segments.ids)  # one segment of each class of stuff, and things
