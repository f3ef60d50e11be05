from collections.abc import Sequence

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from panfpn.data import open_dataset, train_loader
from panfpn.data.loader import DrawSampler
from panfpn.data.targets import instances_of
from panfpn.data.transforms import Geometry, cut
from panfpn.labels import IGNORE, LabelClass, LabelTable
from panfpn.types import Instances, Segments
from transforming import train_transform

TABLE = LabelTable(
    name="toy",
    classes=tuple(
        LabelClass(name=name, color=(0, 0, 0), thing=thing, values=(k,))
        for k, (name, thing) in enumerate((("cat", True), ("road", False), ("dog", True)))
    ),
)


def a_map(index: np.ndarray, classes: Sequence[int], crowd: Sequence[bool] | None = None) -> Segments:
    count = len(classes)
    return Segments(
        index=index.astype(np.int16), classes=np.array(classes, np.int16),
        crowd=np.zeros(count, np.bool_) if crowd is None else np.array(crowd, np.bool_), ids=10 * np.arange(count),
    )  # fmt: skip


def masks_of(instances: Instances) -> list[np.ndarray]:
    """The bits of each, as [h, w]."""
    found, place = [], 0
    for left, top, right, bottom in instances.boxes.long().tolist():
        size = (bottom - top) * (right - left)
        found.append(instances.bits[place : place + size].reshape(bottom - top, right - left).numpy())
        place += size
    assert place == len(instances.bits)
    return found


SHAPES = arrays.array_shapes(min_dims=2, max_dims=2, max_side=9)
segments = st.integers(0, 6).flatmap(
    lambda count: st.builds(
        a_map,
        arrays.arrays(np.int16, SHAPES, elements=st.integers(-1, count - 1)),
        st.lists(st.integers(0, 2), min_size=count, max_size=count),
        st.lists(st.booleans(), min_size=count, max_size=count),
    )
)  # fmt: skip


@given(segments)
@settings(deadline=None, max_examples=200)
def test_things_are_what_a_slow_search_finds(given: Segments) -> None:
    instances = instances_of(given, TABLE)
    wanted = [k for k in np.lexsort((given.classes, given.crowd)) if TABLE.classes[given.classes[k]].thing]
    wanted = [k for k in wanted if (given.index == k).any()]
    assert instances.classes.tolist() == [given.classes[k] for k in wanted]
    assert instances.num_crowds == sum(given.crowd[k] for k in wanted)
    assert (instances.boxes.dtype, instances.bits.dtype) == (torch.float32, torch.uint8)
    for k, box, mask in zip(wanted, instances.boxes.tolist(), masks_of(instances), strict=True):
        rows, columns = np.nonzero(given.index == k)
        assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        left, top, right, bottom = map(int, box)
        assert np.array_equal(mask, given.index[top:bottom, left:right] == k)


@given(segments, st.integers(1, 20), st.integers(1, 20), st.booleans(), st.integers(0, 3), st.data())
@settings(deadline=None, max_examples=200)
def test_a_cut_keeps_the_id_of_every_pixel(
    given: Segments, height: int, width: int, flip: bool, turns: int, draw: st.DataObject
) -> None:
    size = height, width
    window = tuple(draw.draw(st.integers(0, side - 1)) for side in size)
    window += tuple(draw.draw(st.integers(1, side - start)) for side, start in zip(size, window, strict=True))
    geometry = Geometry(size=size, window=window, flip=flip, turns=turns)
    image = np.zeros((*given.shape, 3), np.uint8)
    shown = cut(image, given, geometry)[1]
    for name in ("classes", "crowd", "ids"):
        before, after = (np.append(getattr(s, name), -1) for s in (given, shown))
        assert np.array_equal(after[shown.index], cut(image, before[given.index].astype(np.int16), geometry)[1])
    assert np.array_equal(shown.labels, cut(image, given.labels, geometry)[1])
    assert set(np.unique(shown.index)) - {IGNORE} == set(range(len(shown.ids)))  # none is left without a pixel


def test_no_things() -> None:
    for nothing in (a_map(np.full((3, 4), -1), []), a_map(np.zeros((3, 4)), [1])):
        instances = instances_of(nothing, TABLE)
        assert instances.boxes.shape == (0, 4) and instances.num_crowds == len(instances.classes) == 0
        assert instances.bits.shape == (0,)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((480, 640), (800, 1067)), ((640, 427), (1199, 800)), ((300, 900), (444, 1333)), ((800, 1333), (800, 1333))],
)
def test_shorter_side_as_in_detectron2(size: tuple[int, int], expected: tuple[int, int]) -> None:
    """ResizeShortestEdge: shorter side 800, longer at most 1333, rounded half up."""
    transform = train_transform(crop=None, scale=(1333, 800), short_sides=(800,))
    geometry = transform.draw_geometry(np.zeros(size, np.int16), np.random.default_rng(0))
    assert geometry.size == expected and geometry.window == (0, 0, *expected)


def test_all_shorter_sides_are_drawn() -> None:
    transform = train_transform(crop=(32, 32), scale=(200, 100), short_sides=(40, 50, 60), cat_max_ratio=1.0)
    target, rng = np.zeros((80, 100), np.int16), np.random.default_rng(0)
    geometries = [transform.draw_geometry(target, rng) for _ in range(50)]
    assert {g.size for g in geometries} == {(40, 50), (50, 63), (60, 75)}
    assert {g.window[2:] for g in geometries} == {(32, 32)}


@pytest.mark.parametrize("crop", [(96, 128), None])
def test_batches_carry_the_things_of_what_they_show(crop: tuple[int, int] | None) -> None:
    data = open_dataset("scenes", None, "train", panoptic=True, scene_count=4, scene_size=(80, 112))
    transform = train_transform(crop=crop, scale=(130, 100), short_sides=(60, 90))
    batches = []
    for workers in (0, 1):
        sampler = DrawSampler(steps=range(2), batch_size=3)
        batches.append(list(train_loader(data, transform, sampler, seed=3, num_workers=workers)))
    for one, two in zip(*batches, strict=True):
        assert torch.equal(one.images, two.images) and torch.equal(one.targets, two.targets)
        assert one.instances is not None and two.instances is not None and len(one.instances) == 3
        assert one.images.shape[2:] == (crop or (96, 128))  # the largest is 90×126: grown to multiples of 32
        for i, (instances, same) in enumerate(zip(one.instances, two.instances, strict=True)):
            assert instances.num_crowds == same.num_crowds == 0
            assert all(torch.equal(getattr(instances, n), getattr(same, n)) for n in ("boxes", "classes", "bits"))
            shown = torch.full_like(one.targets[i], -1)
            for k, (box, mask) in enumerate(zip(instances.boxes.long().tolist(), masks_of(instances), strict=True)):
                left, top, right, bottom = box
                shown[top:bottom, left:right][torch.from_numpy(mask) > 0] = instances.classes[k].to(torch.int16)
            is_thing = torch.tensor([*(c.thing for c in data.table.classes), False])[one.targets[i].long()]
            assert torch.equal(shown, torch.where(is_thing, one.targets[i], -1))
    assert sum(len(instances.classes) for batch in batches[0] for instances in batch.instances or ()) > 5


def test_panoptic_or_not_the_pictures_are_the_same() -> None:
    found = []
    for panoptic in (False, True):
        data = open_dataset("scenes", None, "train", panoptic=panoptic, scene_count=3, scene_size=(80, 112))
        sampler = DrawSampler(steps=range(2), batch_size=2)
        found.append(list(train_loader(data, train_transform(crop=(64, 64)), sampler, seed=0, num_workers=0)))
    for plain, rich in zip(*found, strict=True):
        assert torch.equal(plain.images, rich.images) and torch.equal(plain.targets, rich.targets)
        assert plain.instances is None and rich.instances is not None
