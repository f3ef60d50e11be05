"""What a run was started with, and what of it may change. In: a run folder, or two settings. Out: settings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from panfpn.config import TrainConfig
from panfpn.engine.distributed import is_elastic
from panfpn.parsing import parse
from panfpn.weights.files import read_header

LAST = "last.safetensors"  # of a run folder: the checkpoint
MAY_CHANGE = (  # of a run that goes on: the machine, and how long it goes on
    "data.root", "data.pack", "data.pack_url", "data.pack_cache", "data.pack_cache_gb", "data.num_workers",
    "data.memory_gb",
    "run.device", "run.log_every", "run.checkpoint_every", "run.val_batch_size", "run.loggers", "train.channels_last",
    "train.compile", "train.recompute", "train.steps", "train.minutes",
)  # fmt: skip
_LENGTH = ("train.steps", "train.minutes")


def resumed_config(folder: Path, changes: Mapping[str, Any] = {}) -> TrainConfig:
    """The settings of the run in `folder`, with `changes` of what may change, also in its `config.yaml`.

    Raises:
        ValueError: no run there, or another setting that would change what is trained.
    """
    if not (folder / "config.yaml").is_file():
        raise ValueError(f"{folder}: holds no run to resume (no config.yaml)")
    written = TrainConfig.from_yaml(folder / "config.yaml")
    config = _saved_config(folder) if (folder / LAST).is_file() else written
    edited = _other_settings(written, config)
    for key in [*edited, *changes]:
        if key not in MAY_CHANGE:
            where = f"{folder / 'config.yaml'}: {key} was edited, and" if key in edited else f"--{key}"
            raise ValueError(f"{where} cannot change when a run goes on; what can: {', '.join(MAY_CHANGE)}")
    changed = config.changed(**{**edited, **changes, "run.dir": folder})
    if changed.train.minutes is not None and "train.steps" in changes:
        raise ValueError("train.steps does nothing in a run that has train.minutes; give more of those, or also "
                         "train.minutes none")  # fmt: skip
    return changed


def holds_same_run(config: TrainConfig) -> bool:
    """Whether `run.dir` holds a run of these very settings, with which a command that is called again goes on.

    Raises:
        ValueError: an elastic launch without `run.dir`, or one with a run of other settings.
    """
    folder = config.run.dir
    if folder is None and not is_elastic():  # a Slurm job that began without one, and cannot be told any more
        return False
    if folder is None:
        raise ValueError("a training that its launcher starts again after a failure (torchrun --max-restarts) needs "
                         "run.dir, where it finds what it has done")  # fmt: skip
    folder = folder.expanduser()
    if not (folder / "config.yaml").is_file():
        return False
    if other := [key for key in _other_settings(resumed_config(folder), config) if key not in MAY_CHANGE]:
        raise ValueError(f"{folder}: holds a run with another {other[0]}; choose another run.dir")
    return True


def check_same_settings(config: TrainConfig, first: TrainConfig) -> None:
    """ValueError where a rank has other settings than the first, but for what may differ between two machines."""
    if other := [key for key in _other_settings(config, first) if key not in MAY_CHANGE or key in _LENGTH]:
        values = (_flat(one)[other[0]] for one in (config, first))
        raise ValueError("{} is {!r} here and {!r} on the first rank; start every host with the same settings".format(
            other[0], *values))  # fmt: skip


def _other_settings(config: TrainConfig, other: TrainConfig) -> dict[str, Any]:
    """Those of `config` that differ, by key; but for where the run lies."""
    return {key: value for key, value in _flat(config).items() if value != _flat(other)[key] and key != "run.dir"}


def _flat(config: TrainConfig) -> dict[str, Any]:
    return {f"{part}.{key}": value for part, values in config.to_dict().items() for key, value in values.items()}


def _saved_config(folder: Path) -> TrainConfig:
    try:
        return parse(TrainConfig, read_header(folder / LAST, role="run")["config"])
    except (KeyError, ValueError) as error:
        raise ValueError(f"{folder / LAST}: its header does not describe a run ({error})") from error
