"""The run folder: config.yaml, metrics.jsonl, last.safetensors (resumes), model.safetensors (predicts), report.html.

In: a run in progress, or a folder that holds one. Out: the folder, or the run's state.
"""

import itertools
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from panfpn.build import load_weights
from panfpn.checkpoint import read_checkpoint, write_checkpoint
from panfpn.config import TrainConfig, parse
from panfpn.engine.optim import WeightAverage, load_optimizer, optimizer_tensors
from panfpn.files import write_text

_LAST = "last.safetensors"
_NEEDED_BYTES = 500 << 20  # a run writes its state twice over (the old stays until the new is whole)


@dataclass(kw_only=True)
class RunState:
    """Where a run stands. Tensors are only there between reading a checkpoint and restoring it."""

    step: int = 0
    best_miou: float | None = None
    best_step: int = 0
    bad_validations: int = 0
    scaler: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    source: Path = Path()

    def restore(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, average: WeightAverage | None,
        scaler: torch.amp.GradScaler,
    ) -> None:  # fmt: skip
        """Put the checkpoint's tensors where they belong; ValueError if they do not fit."""
        load_weights(model, self._part("model"), self.source)
        load_optimizer(optimizer, model, self._part("optim"))
        if average:
            saved = self._part("average")
            if saved.keys() != average.tensors.keys():
                raise ValueError(f"{self.source}: holds no weight average, but optim.ema_decay is set")
            for name, tensor in average.tensors.items():
                tensor.copy_(saved[name])
        scaler.load_state_dict(self.scaler)
        self.tensors = {}

    def _part(self, prefix: str) -> dict[str, torch.Tensor]:
        return {n.removeprefix(f"{prefix}/"): t for n, t in self.tensors.items() if n.startswith(f"{prefix}/")}


def choose_folder(config: TrainConfig) -> Path:
    """`run.dir`, or the first of runs/NAME, runs/NAME-2, … that is not there yet."""
    if config.run.dir is not None:
        return config.run.dir.expanduser()
    numbered = (Path("runs") / (config.run.name + (f"-{k}" if k > 1 else "")) for k in itertools.count(1))
    return next(folder for folder in numbered if not folder.exists())


def prepare_folder(config: TrainConfig, folder: Path) -> None:
    """Make the run folder and write `config.yaml`, which trains again as it stands (into a folder of its own).

    Raises:
        ValueError: a folder that already holds a run, cannot be written, or lies on a full disk.
    """
    for name in ("config.yaml", _LAST, "model.safetensors", "metrics.jsonl"):
        if (folder / name).exists():
            raise ValueError(
                f"{folder}: already holds a run ({name}); choose another run.dir, or go on with --resume {folder}"
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < _NEEDED_BYTES:
            raise ValueError(f"{folder}: only {free >> 20} MiB free on its disk; a run needs {_NEEDED_BYTES >> 20} MiB")
        write_text(folder / "config.yaml", config.changed(**{"run.dir": None}).to_yaml())
    except OSError as error:
        raise ValueError(f"{folder}: the run folder cannot be written ({error.strerror or error})") from error


def save_run(
    folder: Path, config: TrainConfig, state: RunState, model: nn.Module, optimizer: torch.optim.Optimizer,
    average: WeightAverage | None, scaler: torch.amp.GradScaler,
) -> None:  # fmt: skip
    """Write the run's checkpoint over the last one, atomically."""
    tensors = {f"model/{n}": t for n, t in model.state_dict().items()}
    tensors |= {f"optim/{n}": t for n, t in optimizer_tensors(optimizer, model).items()}
    if average:
        tensors |= {f"average/{n}": t for n, t in average.tensors.items()}
    header = {
        "config": config.to_dict(), "step": state.step, "best_miou": state.best_miou, "best_step": state.best_step,
        "bad_validations": state.bad_validations, "scaler": scaler.state_dict(),
    }  # fmt: skip
    write_checkpoint(folder / _LAST, tensors, header, kind="run")


def load_run(folder: Path) -> tuple[TrainConfig, RunState]:
    """Configuration and state of the run in `folder`; one that was stopped before its first checkpoint starts anew."""
    if not (folder / "config.yaml").is_file():
        raise ValueError(f"{folder}: holds no run to resume (no config.yaml)")
    if not (folder / _LAST).is_file():
        return TrainConfig.from_yaml(folder / "config.yaml"), RunState()
    tensors, header = read_checkpoint(folder / _LAST, kind="run")
    config = parse(TrainConfig, header["config"])
    keys = ("step", "best_miou", "best_step", "bad_validations", "scaler")
    return config, RunState(**{key: header[key] for key in keys}, tensors=tensors, source=folder / _LAST)
