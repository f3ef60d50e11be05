"""Samples of a data set of one's own: four members are enough, and what is wrong is one sentence with the fix."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from panfpn.data import evaluation_loader, open_dataset, train_loader
from panfpn.data.checked import check_sample
from panfpn.data.loader import DrawSampler
from panfpn.labels import LabelTable
from panfpn.types import Batch, Sample, Segments
from transforming import train_transform

SCENES = open_dataset("scenes", None, "train", scene_count=5, scene_size=(64, 96))
PANOPTIC = open_dataset("scenes", None, "train", scene_count=5, scene_size=(64, 96), panoptic=True)
SAMPLE, SEGMENTED = SCENES.read(0), PANOPTIC.read(0)
TABLE = SCENES.table


class Mine:
    """Samples of another data set, by the four members alone; `change` is what is made of each."""

    def __init__(self, source: Any = SCENES, change: Any = None) -> None:
        self.source, self.change = source, change

    @property
    def table(self) -> LabelTable:
        return self.source.table  # type: ignore[no-any-return]

    def __len__(self) -> int:
        return len(self.source)

    def name(self, index: int) -> str:
        return str(self.source.name(index))

    def read(self, index: int) -> Sample:
        sample = self.source.read(index)
        return self.change(sample) if self.change else sample  # type: ignore[no-any-return]


def wide(sample: Sample) -> Sample:
    """The same in other types and layouts of memory."""
    image = np.asfortranarray(sample.image[:, :, ::-1])[:, :, ::-1]
    return Sample(image, np.asfortranarray(sample.target.astype(np.int64)), "another name")


def batches(data: Any, *, workers: int = 0, **options: Any) -> list[Batch]:
    sampler = DrawSampler(steps=range(3), batch_size=4)
    transform = train_transform(crop=(48, 48))
    return list(train_loader(data, transform, sampler, seed=1, num_workers=workers, **options))


@pytest.mark.parametrize(("source", "change"), [(SCENES, None), (SCENES, wide), (PANOPTIC, None)])
@pytest.mark.parametrize("workers", [0, 1])
def test_four_members_are_enough(source: Any, change: Any, workers: int) -> None:
    data = Mine(source, change)
    for one, other in zip(batches(data, workers=workers), batches(source), strict=True):
        assert one.names == other.names and torch.equal(one.images, other.images)
        assert torch.equal(one.targets, other.targets)
        assert (one.instances is None) == (source is SCENES)
        for mine, theirs in zip(one.instances or (), other.instances or (), strict=True):
            assert torch.equal(mine.boxes, theirs.boxes) and torch.equal(mine.bits, theirs.bits)
    (samples,) = evaluation_loader(data, [3, 1], batch_size=2, num_workers=workers)
    assert [sample.name for sample in samples] == [source.name(3), source.name(1)]
    for sample, index in zip(samples, (3, 1), strict=True):
        assert np.array_equal(sample.image, source.read(index).image) and sample.image.flags.c_contiguous
        assert np.array_equal(sample.target, source.read(index).target) and sample.target.dtype == np.int16


def test_segments_are_demanded_or_left_out() -> None:
    for workers in (0, 1):
        with pytest.raises(ValueError, match=r"^scene_train_0000\d: has no segments, which Panoptic FPN learns from"):
            batches(SCENES, workers=workers, needs_segments=True)
    with pytest.raises(ValueError, match=r"^scene_train_00002: has no segments"):
        list(evaluation_loader(SCENES, [2], batch_size=1, num_workers=0, needs_segments=True))
    for one, other in zip(batches(PANOPTIC, needs_segments=False), batches(SCENES), strict=True):
        assert one.instances is None and torch.equal(one.images, other.images)
        assert torch.equal(one.targets, other.targets)
    assert batches(PANOPTIC, needs_segments=True)[0].instances is not None


def test_who_opens_samples_vouches_for_them() -> None:
    class Opening(Mine):
        def open(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            sample = self.source.read(index)
            return sample.image, sample.target

        def read(self, index: int) -> Sample:
            raise AssertionError("training reads by `open`")

    assert torch.equal(batches(Opening())[0].images, batches(SCENES)[0].images)


def test_unsigned_target_with_another_ignored_value() -> None:
    """255 is no train id here: there is one place that translates, and it is not this one."""
    target = np.where(SAMPLE.target == 0, 255, SAMPLE.target).astype(np.uint8)
    row, column = np.argwhere(target == 255)[0]
    with pytest.raises(ValueError, match=rf"x: the target has 255 \({(target == 255).sum()} pixels, the first in row "
                       rf"{row}, column {column}\); train ids are 0 to 8, and -1 where .* np.where"):  # fmt: skip
        check_sample(replace(SAMPLE, target=target), TABLE, "x")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"image": SAMPLE.image.astype(np.float32)}, "x: the image has float32 pixels; an image is RGB uint8"),
        ({"image": SAMPLE.image[:, :, 0]}, r"x: the image has shape \(64, 96\); .*; repeat a grey one: np.stack"),
        ({"image": SAMPLE.image.transpose(2, 0, 1)}, r"x: the image has shape \(3, 64, 96\); .*; transpose this one"),
        ({"image": torch.from_numpy(SAMPLE.image)}, "x: the image is a Tensor; .* a NumPy array"),
        ({"image": SAMPLE.image[:0]}, r"x: the image has shape \(0, 96, 3\)"),
        ({"target": torch.from_numpy(SAMPLE.target)}, "x: the target is a Tensor; .* a NumPy array of integers"),
        ({"target": SAMPLE.target.astype(np.float64)}, r"x: the target has float64 .*: target.astype\(np.int16\)"),
        ({"target": SAMPLE.target[:, :-1]}, r"x: the target has shape \(64, 95\), but the image 64 rows of 96 pixels"),
        ({"target": SAMPLE.target[None]}, r"x: the target has shape \(1, 64, 96\)"),
        ({"target": SAMPLE.target - 2}, "x: the target has -2 .* train ids are 0 to 8, and -1"),
        ({"target": SAMPLE.target.astype(np.int64) + 70_000}, "x: the target has 7000"),
        ({"segments": "cars"}, r"x: segments is a str; give panfpn.types.Segments, or None"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        check_sample(replace(SAMPLE, **changes), TABLE, "x")
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=sentence.replace("x: ", r"scene_train_0000\d: ")):
        batches(Mine(change=lambda sample: replace(sample, **changes)))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"index": lambda s: s.index[:5]}, r"segments.index has shape \(5, 96\), but the image 64 rows of 96"),
        ({"index": lambda s: s.index.astype(np.int32)}, "segments.index is int32; give a NumPy array of int16"),
        ({"index": lambda s: s.index + np.int16(90)}, r"segments.index reaches from \d+ to \d+ with \d+ segments"),
        ({"classes": lambda s: s.classes + np.int16(9)}, "segments.classes reach from .*; train ids are 0 to 8"),
        ({"crowd": lambda s: s.crowd[1:]}, r"segments.crowd has shape .*, but there are \d+ segments"),
        ({"ids": lambda s: s.ids.tolist()}, "segments.ids is list; give a NumPy array of int64"),
        ({"classes": lambda s: np.roll(s.classes, 1)}, "target and segments disagree in row 0, column 0"),
    ],
)
def test_segments_that_do_not_fit(changes: dict[str, Any], sentence: str) -> None:
    segments = SEGMENTED.segments
    assert isinstance(segments, Segments)
    assert check_sample(SEGMENTED, TABLE, "x").segments is segments
    wrong = replace(segments, **{name: change(segments) for name, change in changes.items()})
    with pytest.raises(ValueError, match=f"^x: {sentence}"):
        check_sample(replace(SEGMENTED, segments=wrong), TABLE, "x")


def test_what_is_no_sample() -> None:
    with pytest.raises(ValueError, match=r"x: read\(\) gave a tuple; return panfpn.Sample\(image=…, "):
        check_sample((SAMPLE.image, SAMPLE.target), TABLE, "x")  # type: ignore[arg-type]
