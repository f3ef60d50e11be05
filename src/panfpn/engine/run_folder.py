"""The run folder: config.yaml, metrics.jsonl, last.safetensors (resumes), model.safetensors (predicts), report.html.

data.json lists what it is trained on; objects.json names the arguments of `train` that were objects of the user's.

In: a run in progress, or a folder that holds one. Out: the folder, or the run's state.
"""

import contextlib
import itertools
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from panfpn.build import load_state
from panfpn.config import TrainConfig
from panfpn.data.identity import Identity, differences
from panfpn.engine.history import read_history
from panfpn.engine.optim import WeightAverage, load_optimizer, optimizer_tensors
from panfpn.engine.run_lock import locked
from panfpn.engine.run_settings import LAST
from panfpn.engine.time_budget import OPEN, Pace, Plan
from panfpn.files import read_json, write_json, write_text
from panfpn.metrics import Scores
from panfpn.tasks import task_type
from panfpn.weights.files import read_checkpoint, read_header, write_checkpoint

_BEST, _OBJECTS, _LISTING = "model.safetensors", "objects.json", "data.json"


@dataclass(kw_only=True)
class RunState:
    """Where a run stands. Tensors are only there between reading a checkpoint and restoring it."""

    step: int = 0
    best: float | None = None  # mIoU or PQ
    best_step: int = 0
    bad_validations: int = 0
    plan: Plan = field(default_factory=Plan)
    pace: Pace | None = None
    scaler: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    source: Path = Path()

    def check(self) -> None:
        """ValueError for values that no run has."""
        for key in ("step", "best_step", "bad_validations"):
            value = getattr(self, key)
            if type(value) is not int or value < 0:
                raise ValueError(f"{key} is {value!r}")
        if self.best is not None and not isinstance(self.best, float | int):
            raise ValueError(f"best is {self.best!r}")
        if not isinstance(self.scaler, dict):
            raise ValueError(f"scaler is {self.scaler!r}")

    def restore(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, average: WeightAverage | None,
        scaler: torch.amp.GradScaler,
    ) -> None:  # fmt: skip
        """Put the checkpoint's tensors where they belong; ValueError if they do not fit."""
        load_state(model, self._part("model"), self.source)
        try:
            load_optimizer(optimizer, model, self._part("optim"), complete=self.step > 0)
        except ValueError as error:
            raise ValueError(f"{self.source}: {error}") from error
        if average:
            saved = self._part("average")
            if saved.keys() != average.tensors.keys():
                raise ValueError(f"{self.source}: holds no weight average, but optim.ema_decay is set")
            for name, tensor in average.tensors.items():
                if saved[name].shape != tensor.shape:
                    raise ValueError(f"{self.source}: the weight average has {name} of another shape")
                tensor.copy_(saved[name])
        try:
            scaler.load_state_dict(self.scaler)
        except (KeyError, RuntimeError, TypeError) as error:
            raise ValueError(f"{self.source}: its loss scaler is of another precision ({error})") from error
        self.tensors = {}

    def _part(self, prefix: str) -> dict[str, torch.Tensor]:
        return {n.removeprefix(f"{prefix}/"): t for n, t in self.tensors.items() if n.startswith(f"{prefix}/")}


@contextlib.contextmanager
def claimed_folder(config: TrainConfig) -> Iterator[Path]:
    """`run.dir`, or the first of runs/NAME, runs/NAME-2, … that is not there yet, made and held for the block.

    One that was made here and is still empty after an error vanishes again.

    Raises:
        ValueError: a folder that cannot be written, that another process holds, or that holds a run.
    """
    wanted = None if config.run.dir is None else config.run.dir.expanduser()
    made = wanted is None or not wanted.exists()
    with _named_errors(wanted or Path("runs") / config.run.name):
        if wanted is None:
            folder = _new_folder(Path("runs") / config.run.name)
        else:
            folder = wanted
            folder.mkdir(parents=True, exist_ok=True)
    try:
        with held_folder(folder):
            for name in ("config.yaml", LAST, _BEST, "metrics.jsonl"):
                if (folder / name).exists():
                    raise ValueError(f"{folder}: already holds a run ({name}); choose another run.dir, or go on with "
                                     f"--resume {folder}")  # fmt: skip
            yield folder
    except BaseException:
        if made:
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()
        raise


@contextlib.contextmanager
def held_folder(folder: Path) -> Iterator[Path]:
    """A run folder that no other process trains in, for the block; ValueError if one does, or it cannot be written."""
    with contextlib.ExitStack() as stack:
        with _named_errors(folder):
            stack.enter_context(locked(folder))
        yield folder


@contextlib.contextmanager
def _named_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(f"{folder}: the run folder cannot be written ({error.strerror or error})") from error


def _new_folder(folder: Path) -> Path:
    """`folder`, or the first of folder-2, folder-3, … that was not there, made: of two at once, each gets its own."""
    while True:
        free = free_folder(folder)
        try:
            free.mkdir(parents=True)
            return free
        except FileExistsError:
            continue


def free_folder(folder: Path) -> Path:
    """`folder`, or the first of folder-2, folder-3, … that is not there yet."""
    numbered = (folder.with_name(f"{folder.name}-{k}") for k in itertools.count(2))
    return folder if not folder.exists() else next(other for other in numbered if not other.exists())


def prepare_folder(config: TrainConfig, folder: Path, data: Mapping[str, Identity], *, needed_bytes: int) -> None:
    """Write `config.yaml`, which trains again as it stands (into a folder of its own), and the listings of the `data`.

    Raises:
        ValueError: a folder that cannot be written, or lies on a full disk.
    """
    with _named_errors(folder):
        free = shutil.disk_usage(folder).free
        if free < needed_bytes:
            raise ValueError(
                f"{folder}: only {free >> 20} MiB free on its disk; this run needs {needed_bytes >> 20} MiB"
            )
        write_config(folder, config)
        write_json(folder / _LISTING, {split: identity.listing for split, identity in data.items()})


def write_config(folder: Path, config: TrainConfig) -> None:
    """Write the run's `config.yaml`."""
    write_text(folder / "config.yaml", config.changed(**{"run.dir": None}).to_yaml())


def save_run(
    folder: Path, config: TrainConfig, state: RunState, model: nn.Module, optimizer: torch.optim.Optimizer,
    average: WeightAverage | None, scaler: torch.amp.GradScaler, data: Mapping[str, Identity],
) -> None:  # fmt: skip
    """Write the run's checkpoint over the last one, atomically."""
    tensors = {f"model/{n}": t for n, t in model.state_dict().items()}
    tensors |= {f"optim/{n}": t for n, t in optimizer_tensors(optimizer, model).items()}
    if average:
        tensors |= {f"average/{n}": t for n, t in average.tensors.items()}
    header = {
        "config": config.to_dict(), "step": state.step, "best": state.best, "best_step": state.best_step,
        "bad_validations": state.bad_validations, "scaler": scaler.state_dict(),
        "data": {split: identity.summary() for split, identity in data.items()},
    }  # fmt: skip
    if state.pace is not None:
        header |= {"plan": asdict(state.plan), "pace": asdict(state.pace)}
    write_checkpoint(folder / LAST, tensors, header, role="run")


def load_run(folder: Path, config: TrainConfig, data: Mapping[str, Identity]) -> RunState:
    """Where the run in `folder` stands; one that was stopped before its first checkpoint starts anew.

    What a kill left half-written is cleared away: the folder must be held.

    Raises:
        ValueError: a checkpoint that is missing, damaged, of other data, or beyond `train.steps`.
    """
    ours = (f".{name}.*" for name in ("config.yaml", LAST, _BEST, "metrics.jsonl", "report.html", _LISTING))
    for pattern in (*ours, ".tmp??????"):  # the last is safetensors' own
        for leftover in folder.glob(pattern):
            leftover.unlink(missing_ok=True)  # another rank may be faster
    if not (folder / LAST).is_file():
        _check_not_lost(folder, config)
        return RunState()
    tensors, header = read_checkpoint(folder / LAST, role="run")
    keys = ("step", "best", "best_step", "bad_validations", "scaler")
    try:
        state = RunState(**{key: header[key] for key in keys}, tensors=tensors, source=folder / LAST)
        state.check()
        if "pace" in header:
            state.plan, state.pace = Plan.from_dict(header["plan"]), Pace.from_dict(header["pace"])
    except (KeyError, ValueError) as error:
        raise ValueError(f"{folder / LAST}: its header does not describe a run ({error})") from error
    if config.train.minutes is None and state.step > config.train.steps:
        raise ValueError(f"{folder / LAST}: has done {state.step} steps, but train.steps is {config.train.steps}")
    listings = read_json(folder / _LISTING) if (folder / _LISTING).is_file() else {}
    known = header.get("data", {})
    if not isinstance(known, dict) or any(not isinstance(known.get(split, {}), dict) for split in data):
        raise ValueError(f"{folder / LAST}: its header does not describe a run (data is {known!r})")
    for split, summary in known.items():
        if change := differences(summary, listings.get(split), data[split]):
            raise ValueError(f"{folder}: its {split} data have changed since: {change}; put them back, or train anew "
                             "(model.start_from takes the weights over)")  # fmt: skip
    return state


def _check_not_lost(folder: Path, config: TrainConfig) -> None:
    """ValueError if the run must have had a checkpoint: starting anew would overwrite what it did."""
    done = max((row["step"] for row in read_history(folder / "metrics.jsonl")), default=0)
    steps = OPEN if config.train.minutes else config.train.steps
    first = min(config.run.checkpoint_every, config.run.val_every, steps)
    if done > first or (done == steps and (folder / "report.html").is_file()):
        raise ValueError(f"{folder / LAST}: is missing, but metrics.jsonl says that {done} steps were done; put it "
                         "back, or train anew in another folder")  # fmt: skip


def note_objects(folder: Path, objects: Mapping[str, object]) -> None:
    """Keep which arguments of `train` were objects of the user's own, so that the run is not resumed without them."""
    passed = {name: type(value).__qualname__ for name, value in objects.items() if value is not None}
    if passed:
        write_json(folder / _OBJECTS, passed)


def resume_command(folder: Path, world: int = 1) -> str:
    """What goes on with the run in `folder`, on `world` ranks."""
    passed = read_json(folder / _OBJECTS) if (folder / _OBJECTS).is_file() else {}
    if not passed:
        each = int(os.environ.get("LOCAL_WORLD_SIZE", world))  # ranks of a host
        hosts = f"--nnodes {world // each} … " if world > each else ""
        start = "panfpn" if world == 1 else f"torchrun {hosts}--nproc-per-node {each} -m panfpn"
        return f"{start} train --resume {folder}"
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
