"""The run folder: config.yaml, metrics.jsonl, last.safetensors (resumes), model.safetensors (predicts), report.html.

objects.json names the arguments of `train` that were objects of the user's.

In: a run in progress, or a folder that holds one. Out: the folder, or the run's state.
"""

import itertools
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from panfpn.build import load_state
from panfpn.config import TrainConfig
from panfpn.engine.optim import WeightAverage, load_optimizer, optimizer_tensors
from panfpn.files import read_json, write_json, write_text
from panfpn.metrics import Scores
from panfpn.parsing import parse
from panfpn.tasks import task_type
from panfpn.weights.files import read_checkpoint, read_header, write_checkpoint

_LAST, _BEST, _OBJECTS = "last.safetensors", "model.safetensors", "objects.json"


@dataclass(kw_only=True)
class RunState:
    """Where a run stands. Tensors are only there between reading a checkpoint and restoring it."""

    step: int = 0
    best: float | None = None  # mIoU or PQ
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
        load_state(model, self._part("model"), self.source)
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
    return free_folder(Path("runs") / config.run.name)


def free_folder(folder: Path) -> Path:
    """`folder`, or the first of folder-2, folder-3, … that is not there yet."""
    numbered = (folder.with_name(f"{folder.name}-{k}") for k in itertools.count(2))
    return folder if not folder.exists() else next(other for other in numbered if not other.exists())


def prepare_folder(config: TrainConfig, folder: Path, *, needed_bytes: int) -> None:
    """Make the run folder and write `config.yaml`, which trains again as it stands (into a folder of its own).

    Raises:
        ValueError: a folder that already holds a run, cannot be written, or lies on a full disk.
    """
    for name in ("config.yaml", _LAST, _BEST, "metrics.jsonl"):
        if (folder / name).exists():
            raise ValueError(
                f"{folder}: already holds a run ({name}); choose another run.dir, or go on with --resume {folder}"
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < needed_bytes:
            raise ValueError(
                f"{folder}: only {free >> 20} MiB free on its disk; this run needs {needed_bytes >> 20} MiB"
            )
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
        "config": config.to_dict(), "step": state.step, "best": state.best, "best_step": state.best_step,
        "bad_validations": state.bad_validations, "scaler": scaler.state_dict(),
    }  # fmt: skip
    write_checkpoint(folder / _LAST, tensors, header, role="run")


def load_run(folder: Path) -> tuple[TrainConfig, RunState]:
    """Configuration and state of the run in `folder`; one that was stopped before its first checkpoint starts anew.

    What a kill left half-written is cleared away.
    """
    if not (folder / "config.yaml").is_file():
        raise ValueError(f"{folder}: holds no run to resume (no config.yaml)")
    for name in (_LAST, _BEST, "metrics.jsonl", "report.html"):
        for leftover in folder.glob(f".{name}.*"):
            leftover.unlink(missing_ok=True)  # another rank may be faster
    if not (folder / _LAST).is_file():
        return TrainConfig.from_yaml(folder / "config.yaml"), RunState()
    tensors, header = read_checkpoint(folder / _LAST, role="run")
    keys = ("step", "best", "best_step", "bad_validations", "scaler")
    try:
        state = RunState(**{key: header[key] for key in keys}, tensors=tensors, source=folder / _LAST)
        return parse(TrainConfig, header["config"]), state
    except (KeyError, ValueError) as error:
        raise ValueError(f"{folder / _LAST}: its header does not describe a run ({error})") from error


def note_objects(folder: Path, objects: Mapping[str, object]) -> None:
    """Keep which arguments of `train` were objects of the user's own, so that the run is not resumed without them."""
    passed = {name: type(value).__qualname__ for name, value in objects.items() if value is not None}
    if passed:
        write_json(folder / _OBJECTS, passed)


def resume_command(folder: Path) -> str:
    """What goes on with the run in `folder`."""
    passed = read_json(folder / _OBJECTS) if (folder / _OBJECTS).is_file() else {}
    if not passed:
        return f"panfpn train --resume {folder}"
    return f"panfpn.train(resume={str(folder)!r}, {', '.join(f'{name}=…' for name in passed)})"


def check_objects(folder: Path, objects: Mapping[str, object]) -> None:
    """ValueError unless a run in `folder` goes on with the kinds of objects that it was started with."""
    passed = read_json(folder / _OBJECTS) if (folder / _OBJECTS).is_file() else {}
    if missing := [f"{name}=… (a {passed[name]})" for name in passed if objects.get(name) is None]:
        raise ValueError(f"{folder}: this run was started with objects of your own, which no file holds; resume it by "
                         f"panfpn.train(resume=…, {', '.join(missing)})")  # fmt: skip
    if extra := [name for name, value in objects.items() if value is not None and name not in passed]:
        raise ValueError(f"{folder}: this run was started without {' and '.join(extra)}; resume it without")


def released_scores(folder: Path) -> Scores:
    """The validation scores of the run's `model.safetensors`, as its header holds them."""
    header = read_header(folder / _BEST)
    names = tuple(entry["name"] for entry in header["table"]["classes"])
    score_type = task_type(header["architecture"]).score_type
    return score_type.from_dict(header["scores"], names, folder / _BEST)  # a header's own keys are sorted
