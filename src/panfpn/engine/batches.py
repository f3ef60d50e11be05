"""What a training learns from, in its order. In: data, settings, a step. Out: batches on the device from there on."""

import math
import os
from collections.abc import Iterator

import torch

from panfpn import build
from panfpn.config import TrainConfig
from panfpn.data import Dataset, prefetched, train_loader
from panfpn.data.balance import RareCrops, count_classes
from panfpn.data.loader import DrawSampler
from panfpn.engine.distributed import Ranks
from panfpn.engine.features import FeatureCache
from panfpn.engine.time_budget import OPEN
from panfpn.memory import free_memory
from panfpn.types import Batch


def batches_from(
    step: int, config: TrainConfig, dataset: Dataset, ranks: Ranks, device: torch.device, *, segments: bool,
    cache: FeatureCache | None = None,
) -> Iterator[Batch]:  # fmt: skip
    """This rank's micro-batches from a step on, those of a `cache` where there is one; with things or without."""
    train, data = config.train, config.data
    sampler = DrawSampler(
        steps=range(step, OPEN if train.minutes else train.steps), batch_size=train.batch_size,
        accumulate=train.accumulate, rank=ranks.rank, world=ranks.world,
    )  # fmt: skip
    if cache is not None:
        return _cached(cache, sampler, ranks, device)
    batches = train_loader(
        dataset, build.build_transform(data), sampler, seed=train.seed, num_workers=data.num_workers,
        variants=data.variants, rare=_rare_crops(config, dataset), pin=device.type == "cuda",
        needs_segments=segments, channels=config.model.in_channels, memory=_memory(data.memory_gb, ranks),
    )  # fmt: skip
    return prefetched(batches, device)


def _cached(cache: FeatureCache, sampler: DrawSampler, ranks: Ranks, device: torch.device) -> Iterator[Batch]:
    """The batches of a cache, filled when the first is wanted: by then stops are heard, and errors are named."""
    cache.fill(ranks)
    yield from prefetched(cache.batches(sampler), device)


def _memory(allowed_gb: float, ranks: Ranks) -> int:
    """Bytes for decoded images in this process: its share of what is allowed, and of a quarter of what is free."""
    free, allowed = free_memory(torch.device("cpu")), 1e9 * allowed_gb
    most = min(allowed, free / 4) if math.isfinite(free) else allowed
    return int(most) // int(os.environ.get("LOCAL_WORLD_SIZE", ranks.world))


def _rare_crops(config: TrainConfig, dataset: Dataset) -> RareCrops | None:
    if not config.data.rare_crops:
        return None
    counts = count_classes(dataset, channels=config.model.in_channels)
    return RareCrops(counts, config.data.rare_crops, config.train.seed)
