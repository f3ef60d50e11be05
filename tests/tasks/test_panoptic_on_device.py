"""Panoptic FPN on a CUDA device: no wait of the host in a training step, no mixed devices, the CPU's numbers."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from fake_cuda import CUDA, FakeCuda, on_cpu
from panfpn.config import Inference
from panfpn.data import open_dataset
from panfpn.data.loader import DrawSampler, train_loader
from panfpn.data.targets import no_instances
from panfpn.models import PanopticFPN
from panfpn.tasks.panoptic import PanopticTask
from panfpn.types import Batch, Preprocess
from transforming import train_transform

TERMS = {"cross_entropy", "rpn_class", "rpn_box", "class", "box", "mask"}
SCENES = open_dataset("scenes", None, "train", panoptic=True, scene_count=8, scene_size=(64, 96))


def make(precision: torch.dtype = torch.float32) -> PanopticTask:
    torch.manual_seed(0)
    network = PanopticFPN(
        "test_resnet", SCENES.table, fpn_channels=32, head_channels=32, norm="group", dropout=0.0, box_channels=32,
        mask_channels=16, anchor_scale=4.0,
    )  # fmt: skip
    preprocess = Preprocess(mean=(120.0,) * 3, std=(60.0,) * 3, size_divisor=32)
    task = PanopticTask(network, SCENES.table, preprocess, precision=precision)
    task.rois = 32
    return task


def make_batch(count: int, crop: tuple[int, int] | None = (64, 96)) -> Batch:
    """The first image has things, the second none, the third also a crowd; without a crop sizes differ."""
    transform = train_transform(crop=crop, ratio=(0.8, 1.2), cat_max_ratio=1.0)
    sampler = DrawSampler(steps=range(1), batch_size=count)
    batch = next(train_loader(SCENES, transform, sampler, seed=0, num_workers=0))
    assert batch.instances is not None
    first, _, *rest = batch.instances
    return replace(batch, instances=(first, no_instances(), *(replace(t, num_crowds=1) for t in rest)))


def step(task: PanopticTask, batch: Batch) -> dict[str, torch.Tensor]:
    task.zero_grad()
    terms = task(batch)
    sum(terms.values()).backward()  # type: ignore[union-attr]
    return terms


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rounds of the suppression are alike, and slow without a GPU."""
    monkeypatch.setattr("panfpn.ops.nms.ROUNDS", 4)


@pytest.mark.parametrize(
    ("precision", "count", "crop"),
    [(torch.float32, 2, (64, 96)), (torch.bfloat16, 2, (64, 96)), (torch.float16, 2, (64, 96)),
     (torch.float32, 3, None), (torch.bfloat16, 3, (32, 64))],
)  # fmt: skip
def test_the_host_never_waits_in_a_step(
    precision: torch.dtype, count: int, crop: tuple[int, int] | None, fake_cuda: FakeCuda
) -> None:
    task = make(precision).to(CUDA).to(memory_format=torch.channels_last)
    batch = make_batch(count, crop).pin_memory()
    step(task, batch.to(CUDA))  # the first one uploads constants
    fake_cuda.reset()
    terms = step(task, batch.to(CUDA))
    assert not fake_cuda.waits, fake_cuda.report()
    assert set(terms) == TERMS
    assert all(on_cpu(t).isfinite() and on_cpu(t) > 0 and t.dtype == torch.float32 for t in terms.values())
    gradients = {name: p.grad for name, p in task.model.named_parameters()}
    assert [name for name, g in gradients.items() if g is None or not on_cpu(g).isfinite().all()] == []


def test_images_without_instances_learn_on_a_device(fake_cuda: FakeCuda) -> None:
    task = make().to(CUDA)
    batch = replace(make_batch(2), instances=(no_instances(),) * 2).pin_memory().to(CUDA)
    step(task, batch)
    fake_cuda.reset()
    terms = on_cpu(step(task, batch))
    assert not fake_cuda.waits, fake_cuda.report()
    assert terms["mask"] == terms["box"] == terms["rpn_box"] == 0 < terms["class"]
    assert [n for n, p in task.model.named_parameters() if p.grad is None] == []  # or ranks would wait for it


def test_a_device_learns_what_a_cpu_learns(fake_cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """With so many slots that every anchor and box is drawn, the random choice decides nothing."""
    monkeypatch.setattr("panfpn.ops.nms.ROUNDS", 64)
    monkeypatch.setattr("panfpn.losses.instance.ANCHORS", 8192)
    task, batch = make(), make_batch(3, (32, 64))
    task.rois = 2 * 8192
    wanted, gradients = step(task, batch), {n: p.grad for n, p in task.model.named_parameters()}
    moved = make().to(CUDA)
    moved.rois = task.rois
    terms = on_cpu(step(moved, batch.pin_memory().to(CUDA)))
    torch.testing.assert_close(terms, dict(wanted), rtol=1e-5, atol=1e-6)
    for name, parameter in moved.model.named_parameters():
        torch.testing.assert_close(on_cpu(parameter.grad), gradients[name], rtol=1e-3, atol=1e-5)


@pytest.fixture(scope="module")
def learned() -> PanopticTask:
    """A task that has learnt a little, so that it detects something."""
    task, batch = make(), make_batch(3)
    optimizer = torch.optim.AdamW(task.parameters(), 2e-3)
    for _ in range(20):
        step(task, batch)
        optimizer.step()
    return task.eval()


@pytest.mark.parametrize(
    ("inference", "waits"), [(Inference(stuff_area=16, confidence=0.05), 9),
                             (Inference(stuff_area=16, confidence=0.05, flip=True, ratios=(1.0, 1.25)), 14)],
)  # fmt: skip
def test_a_device_predicts_the_cpus_map(
    learned: PanopticTask, inference: Inference, waits: int, fake_cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("panfpn.ops.nms.ROUNDS", 64)
    learned.inference = inference
    image = SCENES.read(0).image
    (wanted,) = learned.predict([image], every_mask=True)
    moved = copy.deepcopy(learned).to(CUDA).to(memory_format=torch.channels_last)
    moved.predict([image])
    fake_cuda.reset()
    (found,) = moved.predict([image], every_mask=True)
    assert sum(fake_cuda.waits.values()) <= waits, fake_cuda.report()
    assert len(wanted.info) > 2 and len(found.detections.scores) == len(wanted.detections.scores) > 4
    assert (found.segments == wanted.segments).mean() > 0.999 and len(found.info) == len(wanted.info)
    np.testing.assert_allclose(found.detections.scores, wanted.detections.scores, atol=1e-5)
    np.testing.assert_allclose(found.detections.boxes, wanted.detections.boxes, atol=1e-3)
