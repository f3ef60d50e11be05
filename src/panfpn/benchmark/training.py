"""The training step, without data loading. In: a configuration. Out: times of the steps, peak memory."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from panfpn.benchmark.machine import synchronize
from panfpn.benchmark.settings import table_for, without_weights
from panfpn.build import resolve
from panfpn.config import TrainConfig
from panfpn.data.layouts.scenes import SceneDataset
from panfpn.data.targets import instances_of
from panfpn.device import on_device, resolve_device, tuned_backend
from panfpn.engine.distributed import Ranks
from panfpn.engine.train import check_batch
from panfpn.engine.trainer import Trainer
from panfpn.heap import kept_heap
from panfpn.labels import IGNORE, LabelTable
from panfpn.memory import PeakMemory
from panfpn.tasks import task_type
from panfpn.types import Batch, Instances, Segments

_THINGS = 7  # in an image of COCO, on average


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingFigures:
    """What was measured; `config` has every open choice made."""

    config: TrainConfig
    seconds: tuple[float, ...]  # of each step
    memory: float  # peak bytes above the loaded program: weights, moments, work

    @property
    def steps_per_second(self) -> float:
        """Steps over the whole time of all steps."""
        return len(self.seconds) / sum(self.seconds)

    @property
    def images_per_second(self) -> float:
        """The same in images."""
        return self.steps_per_second * self.config.train.batch_size

    def to_dict(self) -> dict[str, Any]:
        """Figures as plain data, and the whole configuration; times in seconds, memory in bytes."""
        return {
            "model": self.config.run.name, "steps_per_s": self.steps_per_second,
            "images_per_s": self.images_per_second, "peak_memory_bytes": self.memory, "seconds": list(self.seconds),
            "config": self.config.to_dict(),
        }  # fmt: skip


def measure_training(
    config: TrainConfig, repeats: int = 10, warmup: int = 3, num_classes: int | None = None
) -> TrainingFigures:
    """Train on one batch in memory by the trainer's own step and take the figures; weights are random.

    Raises:
        ValueError: settings that cannot be used, among them fewer than one step.
    """
    if min(repeats, warmup) < 1:
        raise ValueError(f"{repeats} steps after {warmup} to warm up; both must be at least 1")
    device = resolve_device(config.run.device)
    config = config.changed(train__steps=max(config.train.steps, warmup + repeats), train__minutes=None)
    with on_device(device), tuned_backend(device, fixed_sizes=config.data.crop is not None), kept_heap():
        meter = PeakMemory(device)
        trainer, batches = prepare_training(config, num_classes)
        for _ in range(warmup):
            trainer.step(batches)
        synchronize(device)
        marks = [_mark(device)]
        for _ in range(repeats):
            trainer.step(batches)
            marks.append(_mark(device))
        synchronize(device)
        seconds = tuple(_between(a, b) for a, b in itertools.pairwise(marks))
        return TrainingFigures(config=trainer.config, seconds=seconds, memory=meter.peak())


def prepare_training(config: TrainConfig, num_classes: int | None = None) -> tuple[Trainer, Iterator[Batch]]:
    """A trainer with random weights, and the one micro-batch, again and again, that its `step` takes.

    Raises:
        ValueError: settings that cannot be used.
    """
    table = table_for(config, num_classes)
    config = resolve(without_weights(config.changed(model__num_classes=None)), table)
    check_batch(config, Ranks())
    nothing = SceneDataset(table=table, split="", count=0, size=(0, 0))  # brings the classes only
    device = resolve_device(config.run.device)
    trainer = Trainer(config, Path(), Ranks(), nothing, nothing, None, device=device)
    batch = synthetic_batch(config, table)
    return trainer, itertools.repeat(batch.pin_memory() if device.type == "cuda" else batch)


def synthetic_batch(config: TrainConfig, table: LabelTable) -> Batch:
    """One micro-batch of random crops with random labels (and things), as the loader would deliver it."""
    count = config.train.batch_size // config.train.accumulate
    height, width = config.data.crop or sorted(config.data.scale or (512, 512))  # None: a whole image
    random = torch.Generator().manual_seed(0)
    bands = config.model.in_channels
    images = torch.randint(0, 256, (count, height, width, bands), dtype=torch.uint8, generator=random)
    targets = torch.randint(0, table.num_classes, (count, height, width), dtype=torch.int16, generator=random)
    things = task_type(config.model.architecture).needs_segments
    return Batch(
        images=images.permute(0, 3, 1, 2), targets=targets, sizes=((height, width),) * count,
        names=tuple(f"random {i}" for i in range(count)),
        instances=(_things(height, width, table),) * count if things else None,
    )  # fmt: skip


def _things(height: int, width: int, table: LabelTable) -> Instances:
    """A row of filled boxes, about as many and as large as COCO's."""
    classes = np.flatnonzero([c.thing for c in table.classes]).astype(np.int16)
    index = np.full((height, width), IGNORE, np.int16)
    for k in range(_THINGS):
        index[height // 4 : height // 2, k * width // _THINGS + 1 : (k + 1) * width // _THINGS] = k
    return instances_of(Segments(
        index=index, classes=classes[np.arange(_THINGS) % len(classes)], crowd=np.zeros(_THINGS, bool),
        ids=np.arange(1, _THINGS + 1),
    ), table)  # fmt: skip


def _mark(device: torch.device) -> Any:
    """Now; on CUDA in the device's own queue, so that no step waits for being timed."""
    if device.type != "cuda":
        synchronize(device)
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def _between(first: Any, second: Any) -> float:
    return float(second - first if isinstance(first, float) else first.elapsed_time(second) / 1000)
