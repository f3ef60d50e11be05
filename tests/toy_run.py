"""A training of seconds, and what it leaves, for tests."""

import json
from pathlib import Path
from typing import Any

import torch

from panfpn import TrainConfig, recipes
from panfpn.config import Data, Model
from panfpn.weights.files import read_checkpoint


def toy(root: Path, folder: Path | None, **changes: Any) -> TrainConfig:
    """Six steps of timm's smallest ResNet on a data set of layout `folder`."""
    settings = {
        "data": Data(dataset="folder", root=root, crop=(32, 48), num_workers=0),
        "model": Model(backbone="test_resnet", fpn_channels=16, head_channels=16, dropout=0.2),
        "optim.name": "adamw", "optim.lr": 1e-3, "optim.ema_decay": 0.9, "optim.warmup_steps": 0,
        "optim.clip_norm": 1.0, "train.steps": 6, "train.batch_size": 4, "train.accumulate": 2,
        "train.precision": "float32", "run.val_every": 4, "run.checkpoint_every": 1, "run.log_every": 1,
        "run.dir": folder,
    }  # fmt: skip
    return recipes.scenes(**{**settings, **changes})


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a run's checkpoint."""
    return read_checkpoint(folder / "last.safetensors", role="run")[0]


def rows(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Its notes of a kind."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]
