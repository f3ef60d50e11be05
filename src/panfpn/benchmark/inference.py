"""Prediction, image in memory -> label map. In: a model, size, batch, precision. Out: times, memory, FLOPs, share."""

import contextlib
import copy
import importlib
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from panfpn import recipes
from panfpn.benchmark.machine import measure_ceiling
from panfpn.benchmark.settings import is_yaml, starting_config, table_for, test_size, without_weights
from panfpn.build import build_task, resolve
from panfpn.choices import ENGINES, no_choice
from panfpn.deploy.predictor import Predictor, use_engine
from panfpn.deploy.runtime import engine_precisions
from panfpn.device import on_device, resolve_device, resolve_precision
from panfpn.memory import PeakMemory
from panfpn.ops import Size, grown
from panfpn.tasks import Task, view_sizes, window_starts


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceJob:
    """What is to be measured; ValueError for what cannot be.

    `model` is a recipe or YAML file (random weights), or what `Predictor.from_file` takes. `size` None is a typical
    image of the model's data set.
    """

    model: str
    size: Size | None = None
    batch: int = 1  # images given in one call
    precision: str = "auto"
    engine: str = "torch"
    compile: bool = False  # torch.compile, of engine torch
    device: str = "auto"
    repeats: int = 20
    warmup: int = 3
    num_classes: int | None = None  # of a recipe, in place of its data set's

    def __post_init__(self) -> None:
        if self.size is not None and min(self.size) < 1:
            raise ValueError(f"size is {self.size[0]} {self.size[1]}; it must be a height and a width in pixels")
        for name in ("batch", "repeats", "warmup"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.engine not in ENGINES:
            raise ValueError(no_choice("engine", self.engine, ENGINES))

    @property
    def runs_on(self) -> torch.device:
        """Where it runs: `auto` is the CPU for engines that know nothing else."""
        return resolve_device("cpu" if self.device == "auto" and self.engine != "torch" else self.device)

    @property
    def random_weights(self) -> bool:
        """Whether the model is a recipe, which has no weights of its own."""
        return self.model in recipes.NAMES or is_yaml(self.model)


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceFigures:
    """What was measured; `job` has every open choice made."""

    job: InferenceJob
    engine: str  # that ran: an exported file is its own
    seconds: tuple[float, ...]  # of each call
    memory: float  # peak bytes above the loaded program: weights and work
    flops: int  # of the network in one call, two per multiply-add
    parameters: int  # of the network
    network_size: Size  # the largest size that the network ran at: its preprocessing may resize the image
    ceiling: float  # FLOP/s that this device reaches; NaN where it was not measured

    def percentile(self, share: float) -> float:
        """Seconds within which `share` percent of the calls ended."""
        return float(np.percentile(self.seconds, share))

    @property
    def images_per_second(self) -> float:
        """Images over the whole time of all calls."""
        return self.job.batch * len(self.seconds) / sum(self.seconds)

    @property
    def share(self) -> float:
        """The network's FLOPs over the median time of the whole call, as a share of the ceiling."""
        return self.flops / self.percentile(50) / self.ceiling

    def to_dict(self) -> dict[str, Any]:
        """Settings and figures as plain data; times in seconds, memory in bytes."""
        job = self.job
        return {
            "model": job.model, "random_weights": job.random_weights, "size": job.size,
            "network_size": self.network_size, "batch": job.batch,
            "precision": job.precision, "engine": self.engine,
            "compile": job.compile, "device": job.device, "num_classes": job.num_classes,
            "warmup": job.warmup, "repeats": job.repeats, "p50_s": self.percentile(50), "p95_s": self.percentile(95),
            "images_per_s": self.images_per_second, "peak_memory_bytes": self.memory, "flops": self.flops,
            "parameters": self.parameters,
            "ceiling_flops_per_s": self.ceiling, "share_of_ceiling": self.share, "seconds": list(self.seconds),
        }  # fmt: skip


def measure_inference(job: InferenceJob, ceiling: bool = True) -> InferenceFigures:
    """Predict in this process and take the figures; see `in_child` for a peak that is the model's own.

    `ceiling` False leaves out what the device could reach, which takes some seconds.

    Raises:
        ValueError: a model, device or precision that cannot be had.
    """
    device = job.runs_on
    if job.engine != "torch":
        with contextlib.suppress(ImportError):  # a part of the program, not of the job's memory
            importlib.import_module(job.engine)
    with on_device(device):
        meter = PeakMemory(device)
        predictor = make_predictor(job)
        task = predictor.task
        size = job.size or test_size(task.table)
        image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
        images = [image] * job.batch
        for _ in range(job.warmup):
            task.predict(images, batch_size=job.batch)
        seconds = []
        for _ in range(job.repeats):
            start = time.perf_counter()
            task.predict(images, batch_size=job.batch)  # ends with labels on the CPU: a GPU is done too
            seconds.append(time.perf_counter() - start)
    precision = str(task.pixels.precision).removeprefix("torch.")
    done = replace(job, size=size, device=str(device), precision=precision, num_classes=task.table.num_classes)
    return InferenceFigures(
        job=done, engine=task.program.engine if task.program else job.engine, seconds=tuple(seconds),
        memory=meter.peak(), flops=job.batch * count_flops(task, size),
        parameters=sum(p.numel() for p in task.model.parameters()), network_size=max(_passes(task, size)),
        ceiling=measure_ceiling(device, getattr(torch, precision)) if ceiling else float("nan"),
    )  # fmt: skip


def make_predictor(job: InferenceJob) -> Predictor:
    """The predictor of a job: a recipe's with random weights, a model file's with its own."""
    if not job.random_weights:
        return Predictor.from_file(job.model, str(job.runs_on), job.precision, engine=job.engine, compile=job.compile)
    config = without_weights(starting_config(job.model))
    table = table_for(config, job.num_classes)
    config = config.changed(
        model__num_classes=None,
        run__device=str(job.runs_on),
        train__precision=resolve_precision(job.precision, job.runs_on, engine_precisions(job.engine)),
    )
    config = resolve(config, table)
    task = build_task(config, table, load_weights=False)
    task.to(job.runs_on).to(memory_format=torch.channels_last).eval()
    use_engine(task, job.engine, compile=job.compile)
    return Predictor(task)


def count_flops(task: Task, size: Size) -> int:
    """FLOPs (two per multiply-add) of the network for one image of `size`, all its views and windows together.

    Convolutions and matrix products count, as in `torch.utils.flop_counter`; nothing is computed (meta tensors). Of a
    Panoptic FPN it is the dense part: how many boxes are looked at depends on the image.
    """
    shadow = copy.deepcopy(task.model).to("meta").eval()
    total = 0
    for (height, width), count in _passes(task, size).items():
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            shadow(torch.zeros(1, 3, height, width, device="meta"))
        total += count * counter.get_total_flops()
    return total


def _passes(task: Task, size: Size) -> Counter[Size]:
    """How often the network runs at which size for one image."""
    settings, divisor = task.inference, task.preprocess.size_divisor
    passes: Counter[Size] = Counter()
    for view in view_sizes(*size, task.preprocess, settings):
        count, window = 1 + settings.flip, view
        if settings.mode == "slide":
            window = (min(settings.window[0], view[0]), min(settings.window[1], view[1]))
            for length, side, stride in zip(view, window, settings.stride, strict=True):
                count *= len(window_starts(length, side, stride))
        passes[grown(window, divisor)] += count
    return passes
