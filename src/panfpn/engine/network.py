"""A network as it is trained: where it lies, and what of it stays as it is. In: a task. Out: the same, prepared."""

import math

import torch
from torch import nn

from panfpn.config import Train, TrainConfig
from panfpn.models.backbone import freeze
from panfpn.models.recompute import recompute_stages
from panfpn.tasks import Task


def prepare_network(task: Task, train: Train, device: torch.device, *, world: int) -> None:
    """Freeze, synchronise, move and compile as the settings say, on one of `world` ranks."""
    pixels = task.pixels
    if train.frozen_bn:
        freeze_batch_norm(task.model.backbone)
    freeze(task.model.backbone, train.freeze_at)
    if world > 1 and train.sync_bn and device.type == "cuda":
        from timm.layers import convert_sync_batchnorm  # noqa: PLC0415 - knows timm's own norm layers too

        pixels.network = convert_sync_batchnorm(pixels.network)
    if train.recompute:
        recompute_stages(task.model.backbone)
    pixels.channels_last = train.channels_last
    task.to(device).to(memory_format=pixels.layout)
    if train.compile:
        pixels.compile()
        pixels.decoded = torch.compile(pixels.decoded)  # type: ignore[method-assign] # where features are stored


def check_batch_norm(task: Task, config: TrainConfig, world: int) -> None:
    """ValueError where batch norm would see one value of a channel, of which there is no variance."""
    crop = config.data.crop
    if crop is None or config.train.frozen_bn or config.train.freeze_at == "all":
        return
    samples = config.train.batch_size // (world * config.train.accumulate)
    values = samples * math.prod(-(-side // 32) for side in crop)
    kinds = nn.modules.batchnorm._BatchNorm
    if values < 2 and any(isinstance(module, kinds) for module in task.model.backbone.modules()):
        raise ValueError(
            f"data.crop {crop[0]}×{crop[1]} and {samples} sample a step and rank leave batch norm "
            "one value of each channel at stride 32; raise one of them, or set train.frozen_bn"
        )


def freeze_batch_norm(module: nn.Module) -> None:
    """Keep batch norm as a fixed affine: statistics and weights stay as they are (paper §3.1)."""
    for child in module.modules():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            child.eval()
            for parameter in child.parameters():
                parameter.requires_grad_(False)
