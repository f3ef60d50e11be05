"""Training. In: a TrainConfig, or a run folder to go on with. Out: the run folder and a RunResult."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import nn

from panfpn import build
from panfpn.config import TrainConfig
from panfpn.data import Dataset, as_dataset
from panfpn.data.identity import Identity, differences, identity_of
from panfpn.data.loader import named_worker_errors
from panfpn.device import kept_generators, on_device, resolve_device, tuned_backend
from panfpn.engine.distributed import Ranks, joined_ranks, named_loss, starts_again
from panfpn.engine.loggers import make_loggers
from panfpn.engine.run_folder import (
    RunState,
    check_objects,
    claimed_folder,
    held_folder,
    load_run,
    note_objects,
    prepare_folder,
    released_scores,
    resume_command,
    write_config,
)
from panfpn.engine.run_settings import check_same_settings, holds_same_run, resumed_config
from panfpn.engine.signals import StopRequested, stop_requests
from panfpn.engine.trainer import Parts, Trainer
from panfpn.heap import kept_heap
from panfpn.metrics import Scores
from panfpn.parsing import parse
from panfpn.tasks import architecture_of, task_type


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How a run ended.

    `scores` and `value` (mIoU of a Semantic FPN, PQ of a Panoptic FPN) are of the released weights
    (`model.safetensors`: the best of all validations) on the validation split; `scores` is None if the run was
    interrupted, and on all ranks but the first. `asked_to_stop` is also set where a request came too late to interrupt.
    """

    dir: Path
    step: int
    value: float
    scores: Scores | None
    interrupted: bool
    minutes: float
    asked_to_stop: bool = False


def train(
    config: TrainConfig | None = None, *, resume: str | Path | None = None, train_data: Any = None,
    val_data: Any = None, model: nn.Module | None = None, loss: Callable[..., Any] | None = None,
    loggers: Sequence[Any] = (), changes: Mapping[str, Any] | None = None, begun: float | None = None,
) -> RunResult:  # fmt: skip
    """Train as `config` says, or go on with the run in folder `resume`.

    A run goes on with the settings and the data it began with, wherever those lie now: `changes` (by dotted key) may
    name another `data.root`, `run.device` or `data.num_workers`, and more `train.steps`. The run folder is held
    meanwhile, so that no second process writes into it.

    What a configuration names can be an object of your own: `train_data` and `val_data` (what `panfpn.data.as_dataset`
    takes; both or none), `model` (a SemanticFPN or PanopticFPN, maybe on a backbone of your own), `loss` (stride-4
    logits [B, K, h, w] and train ids [B, H, W] -> a scalar, or scalars by name), `loggers` (`panfpn.engine.loggers`,
    beside those in `run.loggers`). A run that was started with such objects is resumed with them. `train.minutes` count
    from `begun` (a value of time.monotonic()), by default from this call.

    Raises:
        ValueError: data, settings or a run folder that cannot be used; nothing has been trained or overwritten then.
        FloatingPointError: a loss that is not finite; the names of the batch's samples are in `non_finite.json`.
    """
    if (config is None) == (resume is None):
        raise ValueError("train takes a configuration or a run folder to resume, and not both")
    if (train_data is None) != (val_data is None):
        raise ValueError("train_data and val_data go together; give both, or neither")
    start = time.monotonic() if begun is None else begun
    objects = {"train_data": train_data, "val_data": val_data, "model": model, "loss": loss}
    if config is not None and changes:
        raise ValueError("changes are for a run that is resumed; change the configuration instead")

    def settings() -> dict[str, Any]:
        if config is not None:
            return config.to_dict()
        check_objects(Path(str(resume)).expanduser(), objects)
        return resumed_config(Path(str(resume)).expanduser(), changes or {}).to_dict()

    with joined_ranks(settings, lambda first: str(first["run"]["device"])) as (ranks, first, name):
        own = config or parse(TrainConfig, first).changed(**changes or {})
        check_same_settings(own, parse(TrainConfig, first))
        device = resolve_device(name)
        with (
            on_device(device),
            kept_generators(device),
            tuned_backend(device, fixed_sizes=own.data.crop is not None),
            kept_heap(),
            named_loss(ranks, lambda: "begin again" if resume is None else f"resume {resume} again"),
        ):
            return _trained(own, ranks, device, resume is not None, objects, loggers, start)


def _trained(
    config: TrainConfig, ranks: Ranks, device: torch.device, resumed: bool, objects: Mapping[str, Any],
    loggers: Sequence[Any], begun: float,
) -> RunResult:  # fmt: skip
    """Train with what is settled, since `begun`; `resumed` goes on with the run in `run.dir`."""
    model = objects["model"]
    segments = task_type(architecture_of(model) if model else config.model.architecture).needs_segments
    own_data = objects["train_data"] is not None
    if own_data:
        data = as_dataset(objects["train_data"]), as_dataset(objects["val_data"])
        check_tables(*data)
    else:
        data = build.build_datasets(config.data, segments=segments, channels=_channels(config, model))
    config = build.resolve(config, data[0].table, model, images=data[0])
    if (precision := ranks.agreed(config.train.precision)) != config.train.precision:
        raise ValueError(f"train.precision auto is {config.train.precision} on this host and {precision} on the first "
                         "rank's; name one that both have")  # fmt: skip
    check_batch(config, ranks)
    parts = Parts(
        network=model, loss=objects["loss"], named_data=not own_data,
        loggers=[*(make_loggers(config.run.loggers) if ranks.first else ()), *loggers],
    )  # fmt: skip
    identities = {split: identity_of(one) for split, one in zip(("training", "validation"), data, strict=True)}
    check_same_data(ranks, identities)
    claim: AbstractContextManager[Path | None] = nullcontext()
    if not resumed and starts_again():
        resumed = goes_on(ranks, config, objects)
    if ranks.first:
        claim = held_folder(Path(str(config.run.dir)).expanduser()) if resumed else claimed_folder(config)
    with claim as claimed:
        folder, resumed = ranks.agreed((claimed, resumed))
        assert folder is not None, "the first rank's"
        loaded = load_run(folder, config, identities) if resumed and ranks.first else None
        state = shared_state(ranks, loaded, device)
        if config.train.cache_gb and not all(ranks.gathered(folder.is_dir())):
            raise ValueError(f"{folder}: not every host sees this folder, where train.cache_gb keeps features; choose "
                             "a run.dir on a disk that all share, or train without train.cache_gb")  # fmt: skip
        trainer = Trainer(config, folder, ranks, *data, state, device=device, identities=identities, parts=parts,
                          begun=begun)  # fmt: skip
        if ranks.first and not resumed:
            prepare_folder(config, folder, identities, needed_bytes=2 * trainer.num_bytes())
            note_objects(folder, objects)
        elif ranks.first:
            write_config(folder, config)
        ranks.wait()
        interrupted = False
        with (
            trainer.logged(announce=not resumed) as batches,
            stop_requests() as stop_requested,
            named_loss(ranks, lambda: f"go on with: {resume_command(folder, ranks.world)}"),
            named_worker_errors(),
        ):
            if ranks.world == 1:  # several stop together, between two steps
                trainer.waiting = stop_requested.heard_at_once
            while not (interrupted or trainer.ended()):
                try:
                    trainer.step(batches)
                except StopRequested:
                    trainer.stop()
                    interrupted = True
                    break
                interrupted = trainer.after_step(stop_requested())
        if trainer.cache is not None and ranks.first and not interrupted:
            trainer.cache.remove()
        scores = None if interrupted or not ranks.first else released_scores(folder)
        best = trainer.state.best if scores is None else scores.value
        return RunResult(
            dir=folder, step=trainer.state.step, value=float("nan") if best is None else best, scores=scores,
            interrupted=interrupted, minutes=trainer.log.minutes, asked_to_stop=stop_requested(),
        )  # fmt: skip


def goes_on(ranks: Ranks, config: TrainConfig, objects: Mapping[str, Any]) -> bool:
    """Whether a command that its launcher calls again finds its own run, on the first rank's host.

    ValueError where only another host has one, or it holds another run.
    """
    there = ranks.gathered(config.run.dir is not None and (config.run.dir.expanduser() / "config.yaml").is_file())
    if any(there) and not there[0]:
        raise ValueError(f"{config.run.dir}: the run lies on the host of rank {there.index(True)}, not on the first "
                         "rank's; to go on by itself a training needs run.dir on a disk that all share")  # fmt: skip
    if not ranks.first or not holds_same_run(config):
        return False
    check_objects(Path(str(config.run.dir)).expanduser(), objects)
    return True


def shared_state(ranks: Ranks, state: RunState | None, device: torch.device) -> RunState | None:
    """The first rank's state, on all: the run's folder may lie on its host alone."""
    tensors = {} if state is None else state.tensors
    shared = ranks.agreed(None if state is None else replace(state, tensors={}))
    if shared is not None:
        shared.tensors = ranks.copied(tensors, device)
    return shared


def check_same_data(ranks: Ranks, identities: Mapping[str, Identity]) -> None:
    """ValueError on a rank whose host has other data than the first rank's."""
    if ranks.world == 1:
        return
    for split, summary in ranks.agreed({split: one.summary() for split, one in identities.items()}).items():
        if change := differences(summary, None, identities[split]):
            raise ValueError(f"the {split} data of rank {ranks.rank} are not the first rank's: {change}; give every "
                             "host the same files")  # fmt: skip


def _channels(config: TrainConfig, network: Any) -> int:
    return config.model.in_channels if network is None else len(network.backbone.mean)


def check_tables(train_data: Dataset, val_data: Dataset) -> None:
    """ValueError unless both data sets mean the same by their train ids."""
    for k, (one, other) in enumerate(zip_longest(train_data.table.names, val_data.table.names)):
        if one != other:
            raise ValueError(f"train_data and val_data have other label tables: train id {k} is {one!r} in "
                             f"{train_data.table.name!r} and {other!r} in {val_data.table.name!r}")  # fmt: skip


def check_batch(config: TrainConfig, ranks: Ranks) -> None:
    """ValueError unless the batch divides into equal micro-batches."""
    parts = ranks.world * config.train.accumulate
    if config.train.batch_size % parts:
        raise ValueError(f"train.batch_size is {config.train.batch_size}; it must be a multiple of {parts} "
                         f"({ranks.world} ranks × train.accumulate {config.train.accumulate})")  # fmt: skip
