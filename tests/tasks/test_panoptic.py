from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from panfpn.config import Inference
from panfpn.data import open_dataset
from panfpn.data.loader import DrawSampler, train_loader
from panfpn.labels import IGNORE
from panfpn.models import PanopticFPN
from panfpn.models.panoptic import DenseMaps
from panfpn.tasks.panoptic import PanopticTask, describe
from panfpn.types import Batch, Preprocess
from transforming import train_transform

TERMS = {"cross_entropy", "rpn_class", "rpn_box", "class", "box", "mask"}
SCENES = open_dataset("scenes", None, "train", panoptic=True, scene_count=8, scene_size=(64, 96))


def make(**settings: object) -> PanopticTask:
    torch.manual_seed(0)
    model = PanopticFPN("test_resnet", SCENES.table, fpn_channels=32, head_channels=32, box_channels=32,
                        mask_channels=16, anchor_scale=4.0, **{"norm": "group", "dropout": 0.0} | settings)  # type: ignore[arg-type] # fmt: skip
    preprocess = Preprocess(mean=(120.0, 120.0, 120.0), std=(60.0, 60.0, 60.0), size_divisor=32)
    task = PanopticTask(model, SCENES.table, preprocess, inference=Inference(stuff_area=16, confidence=0.05))
    task.rois = 32
    return task


@pytest.fixture
def task() -> PanopticTask:
    return make()


@pytest.fixture(scope="module")
def batch() -> Batch:
    transform = train_transform(crop=(64, 96), cat_max_ratio=1.0)
    return next(train_loader(SCENES, transform, DrawSampler(steps=range(1), batch_size=3), seed=0, num_workers=0))


@pytest.fixture(scope="module")
def learned(batch: Batch) -> PanopticTask:
    """A task that has seen a little, so that it detects something."""
    task = make()
    optimizer = torch.optim.AdamW(task.parameters(), 2e-3)
    for _ in range(30):
        sum(task(batch).values()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return task.eval()


def images(count: int = 2) -> list[np.ndarray]:
    return [SCENES.read(i).image for i in range(count)]


def test_a_batch_gives_every_term_and_every_weight_a_gradient(task: PanopticTask, batch: Batch) -> None:
    terms = task(batch)
    assert set(terms) == TERMS and all(torch.isfinite(t) and t > 0 for t in terms.values())
    sum(terms.values()).backward()
    assert [n for n, p in task.model.named_parameters() if p.grad is None] == []


def test_weights_of_the_two_branches(task: PanopticTask, batch: Batch) -> None:
    torch.manual_seed(1)
    whole = task(batch)
    task.instance_weight = 0.5
    torch.manual_seed(1)
    half = task(batch, share=0.5)
    for name in TERMS - {"cross_entropy"}:
        torch.testing.assert_close(half[name], whole[name] / 4)
    torch.testing.assert_close(half["cross_entropy"], whole["cross_entropy"])


def test_images_without_things_learn(task: PanopticTask, batch: Batch) -> None:
    assert batch.instances is not None
    empty = [replace(t, boxes=t.boxes[:0], classes=t.classes[:0], bits=t.bits[:0]) for t in batch.instances]
    terms = task(replace(batch, instances=tuple(empty)))
    assert terms["mask"] == terms["box"] == terms["rpn_box"] == 0 < terms["class"]
    sum(terms.values()).backward()
    assert [n for n, p in task.model.named_parameters() if p.grad is None] == []  # or ranks would wait for it


def test_a_batch_of_a_semantic_data_set_is_refused(task: PanopticTask, batch: Batch) -> None:
    with pytest.raises(ValueError, match="panoptic=True"):
        task(replace(batch, instances=None))


def test_channels_of_the_semantic_branch(task: PanopticTask) -> None:
    names = SCENES.table.names
    assert task.semantic_names == ("things", "sky", "building", "road", "sidewalk", "vegetation")
    channels = dict(zip(names, task.semantic_channels.tolist(), strict=True))
    assert channels["sky"] == 1 and channels["vegetation"] == 5 and channels["car"] == channels["person"] == 0
    assert make(semantic_things="all").semantic_names == names


def test_maps_of_any_size(learned: PanopticTask) -> None:
    image = np.ascontiguousarray(np.pad(images(1)[0], ((0, 7), (0, 0), (0, 0)))[:, :83])
    (found,) = learned.predict([image], names=["a"])
    assert found.segments.shape == image.shape[:2] and found.name == "a" and len(found.info) > 1
    assert sorted(np.unique(found.segments[found.segments > 0]).tolist()) == [s.id for s in found.info]
    for segment in found.info:
        y, x = np.nonzero(found.segments == segment.id)
        assert segment.area == len(y)
        assert segment.box == (x.min(), y.min(), x.max() + 1 - x.min(), y.max() + 1 - y.min())
        assert segment.name == SCENES.table.names[segment.train_id]
        assert (segment.score is not None) == segment.thing
    stuff = [s for s in found.info if not s.thing]
    for segment in stuff:
        assert (found.semantic[found.segments == segment.id] == segment.train_id).all()


def test_images_do_not_depend_on_their_neighbours(learned: PanopticTask) -> None:
    together = learned.predict(images(3), batch_size=3)
    alone = [learned.predict([image])[0] for image in images(3)]
    for a, b in zip(together, alone, strict=True):
        assert (a.segments == b.segments).mean() > 0.999  # convolutions of a batch may round in another way
    by_one = learned.predict(images(3))
    for a, b in zip(by_one, alone, strict=True):
        np.testing.assert_array_equal(a.segments, b.segments)


def test_masks_only_of_what_can_enter_the_map(learned: PanopticTask) -> None:
    learned.inference = replace(learned.inference, confidence=0.3)
    few, every = (learned.predict(images(1), every_mask=flag)[0] for flag in (False, True))
    learned.inference = replace(learned.inference, confidence=0.05)
    assert len(every.detections.masks) == len(every.detections.scores) > len(few.detections.masks)
    assert len(few.detections.masks) == (few.detections.scores >= 0.3).sum()
    np.testing.assert_array_equal(few.segments, every.segments)


def test_a_mirrored_image_has_the_mirrored_map(learned: PanopticTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """With flip both orders of the two views average to the same."""
    monkeypatch.setattr(learned, "inference", replace(learned.inference, flip=True))
    (image,) = images(1)
    (a,), (b,) = learned.predict([image]), learned.predict([np.ascontiguousarray(image[:, ::-1])])
    assert (a.semantic == b.semantic[:, ::-1]).mean() > 0.999
    assert (a.labels == b.labels[:, ::-1]).mean() > 0.98


def test_scales_see_the_same_things(learned: PanopticTask, monkeypatch: pytest.MonkeyPatch) -> None:
    (image,) = images(1)
    (one,) = learned.predict([image])
    monkeypatch.setattr(learned, "inference", replace(learned.inference, ratios=(1.0, 1.5)))
    (two,) = learned.predict([image])
    assert (one.semantic == two.semantic).mean() > 0.7
    monkeypatch.setattr(learned, "inference", replace(learned.inference, ratios=(1.0, 1.0)))
    (twice,) = learned.predict([image])
    np.testing.assert_array_equal(twice.semantic, one.semantic)
    assert (twice.segments == one.segments).mean() > 0.999  # doubles are dropped


def test_windows_are_refused(task: PanopticTask) -> None:
    task.inference = replace(task.inference, mode="slide")
    with pytest.raises(ValueError, match=r"inference.mode is 'slide'"):
        task.predict(images(1))


def test_two_scales_reach_the_network_in_their_sizes(task: PanopticTask, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Sequence[int]] = []
    forward = task.pixels.forward

    def spy(pixels: torch.Tensor) -> DenseMaps:
        seen.append(tuple(pixels.shape[1:3]))
        return forward(pixels)  # type: ignore[no-any-return]

    monkeypatch.setattr(task.pixels, "forward", spy)
    task.inference = replace(task.inference, ratios=(1.0, 0.5), flip=True)
    task.eval().predict(images(1))
    assert seen == [(64, 96), (64, 96), (32, 48), (32, 48)]


def test_describing_segments() -> None:
    segments = np.array([[1, 1, 0], [2, 1, 2]], np.int32)
    thing, stuff = describe(segments, [(5, 0), (2, -1)], np.array([0.75], np.float32), SCENES.table)
    assert (thing.id, thing.train_id, thing.name, thing.thing, thing.area, thing.box, thing.score) == (
        1, 5, "car", True, 3, (0, 0, 2, 2), 0.75)  # fmt: skip
    assert (stuff.id, stuff.area, stuff.box, stuff.score) == (2, 2, (0, 1, 3, 1), None)


def test_void_is_ignored(task: PanopticTask, batch: Batch) -> None:
    blank = replace(batch, targets=torch.full_like(batch.targets, IGNORE))
    assert task(blank)["cross_entropy"] == 0
