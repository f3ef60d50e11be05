"""One run in progress: steps, validations, checkpoints.

Everything is a function of (seed, step): a run that is killed and resumed ends as one that was
never killed.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from panfpn import build
from panfpn.config import TrainConfig
from panfpn.data import Dataset
from panfpn.data.identity import Identity
from panfpn.device import tuned_backend
from panfpn.engine.advice import about_data, about_settings
from panfpn.engine.batches import batches_from
from panfpn.engine.distributed import CommonStop, Ranks
from panfpn.engine.evaluate import score_dataset
from panfpn.engine.features import FeatureCache
from panfpn.engine.history import read_history
from panfpn.engine.lineage import lineage
from panfpn.engine.loggers import Logger
from panfpn.engine.network import check_batch_norm, freeze_batch_norm, prepare_network
from panfpn.engine.optim import WeightAverage, build_optimizer, lr_at, num_moments, set_lr
from panfpn.engine.pending_losses import PendingLosses
from panfpn.engine.run_folder import RunState, resume_command, save_run
from panfpn.engine.run_log import RunLog, SilentLog
from panfpn.engine.time_budget import OPEN, Plan, Stopwatch, replanned
from panfpn.losses import CallableLoss
from panfpn.metrics import Scores
from panfpn.report.page import write_report
from panfpn.tasks import Task
from panfpn.types import Batch, Example
from panfpn.weights import first_not_finite, to_host, write_release
from panfpn.weights.files import tensors_digest

_PLANNED = 10  # steps between two looks at the time of several ranks
_TRIED = 8  # images that tell how long a validation takes


@dataclass(frozen=True, eq=False, kw_only=True)
class Parts:
    """Objects of the user's in place of what a configuration describes."""

    network: nn.Module | None = None
    loss: Callable[..., Any] | None = None
    loggers: Sequence[Logger] = ()
    named_data: bool = True  # whether the configuration names the data set


class Trainer:
    """The network, the optimiser and where they stand; `panfpn.train` holds the loop."""

    def __init__(
        self, config: TrainConfig, folder: Path, ranks: Ranks, train_data: Dataset, val_data: Dataset,
        state: RunState | None, *, device: torch.device,
        identities: Mapping[str, Identity] = {}, parts: Parts = Parts(), begun: float | None = None,
    ) -> None:  # fmt: skip
        self.config, self.folder, self.ranks, self.device = config, folder, ranks, device
        self.train_data, self.val_data, self.identities, self.parts = train_data, val_data, identities, parts
        self.state = state or RunState()
        minutes, pace = config.train.minutes, self.state.pace
        if minutes is None:
            self.state.plan = Plan(steps=config.train.steps)
        elif pace is not None and pace.minutes != minutes:
            if pace.step:
                self.state.plan = replanned(self.state.step, pace, minutes, config.run.val_every)
            self.state.pace = replace(pace, minutes=minutes)
        self.begun = begun  # of a new run, on time.monotonic()
        self.watch: Stopwatch | None = None
        self.lineage = {} if parts.network is not None else lineage(config.model, folder)
        self.notes: list[str] = []  # what the person who starts the run should know
        torch.manual_seed(config.train.seed)  # what is not pretrained starts the same on every rank
        self.task = build.build_task(
            config, train_data.table, network=parts.network, load_weights=not self.state.tensors,
            loss=None if parts.loss is None else CallableLoss(parts.loss), say=self.notes.append,
        )  # fmt: skip
        check_batch_norm(self.task, config, ranks.world)
        prepare_network(self.task, config.train, device, world=ranks.world)
        self.optimizer = build_optimizer(self.task.model, config.optim)
        self.average = WeightAverage(self.task.model, config.optim.ema_decay) if config.optim.ema_decay else None
        # float16 needs its small gradients scaled up; for the other types this does nothing
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.train.precision == "float16")
        if state is None:
            self.notes += [*about_data(train_data, val_data, config), *about_settings(config)]
        if self.state.tensors:
            self.state.restore(self.task.model, self.optimizer, self.average, self.scaler)
        self.wrapped: nn.Module = DistributedDataParallel(self.task) if ranks.world > 1 else self.task
        self.cache: FeatureCache | None = None
        if config.train.cache_gb:
            self.cache = FeatureCache(folder, self.task, train_data, build.build_transform(config.data), config)
        self.log: RunLog | SilentLog = SilentLog()
        self.waiting: Callable[[], AbstractContextManager[None]] = nullcontext  # around waits for data
        self.stopping = CommonStop(ranks, device, self.state.step)
        self.losses = PendingLosses(ranks, device, folder)
        self.lr = 0.0  # of the last step

    def num_bytes(self) -> int:
        """Size of a checkpoint: weights, their average, and the optimiser's moments."""
        weights = sum(t.numel() * t.element_size() for t in self.task.model.state_dict().values())
        copies = 1 + bool(self.average) + num_moments(self.config.optim)
        return int(weights * copies)

    @contextmanager
    def logged(self, *, announce: bool) -> Iterator[Iterator[Batch]]:
        """The batches from the state's step on; for the time of the block the run is logged.

        `announce` prints the settings.
        """
        if self.ranks.first:
            self._start_watch()
            self.log = RunLog(self.folder, steps=self.state.plan.steps, start=self.state.step,
                              images_per_step=self.config.train.batch_size, device=self.device,
                              config=self.config.to_dict(), loggers=self.parts.loggers,
                              seconds=self.watch.left if self.watch else None)  # fmt: skip
        try:
            if announce:
                counts = f"{len(self.train_data)} training and {len(self.val_data)} validation images"
                notes = "".join(f"{note}\n" for note in self.notes)
                self.log.say(f"{self.config.to_yaml()}\n{notes}{counts}; run folder {self.folder}")
            else:
                for note in self.notes:
                    self.log.say(note)
            yield batches_from(self.state.step, self.config, self.train_data, self.ranks, self.device,
                               segments=self.task.needs_segments, cache=self.cache)  # fmt: skip
        finally:
            self.log.close()

    def ended(self) -> bool:
        """Whether the last step is done, or patience is at its end, which is then said."""
        if self.state.step >= self.state.plan.steps:
            return True
        patience = self.config.run.patience
        if not patience or self.state.bad_validations < patience:
            return False
        self.log.say(f"no better score in {patience} validations: ended at step {self.state.step}")
        return True

    def after_step(self, stop: bool) -> bool:
        """Between two steps: log, validate and save where it is time; returns whether the run is interrupted."""
        run, done = self.config.run, self.state.step
        stop = self.stopping.agreed(self.state.step, stop)
        changed = self._planned_anew()
        check = done % run.val_every == 0 or done == self.state.plan.steps
        save = check or changed or stop or done % run.checkpoint_every == 0
        if save or done % run.log_every == 0:
            self._report_losses()
        if save:
            self._check_weights()
        if check:
            with self.watch.validating() if self.watch else nullcontext():
                self._validate()
        if save and self.ranks.first:
            with self.watch.apart() if self.watch and changed else nullcontext():
                self._save()
        if not stop or done == self.state.plan.steps:
            return False
        self._say_how_to_go_on()
        return True

    def _start_watch(self) -> None:
        """The time of a run that has a limit: of a new one from where `train` was called."""
        if self.config.train.minutes is None:
            return
        now = time.monotonic()
        self.watch = Stopwatch(
            self.config.train.minutes, val_every=self.config.run.val_every, pace=self.state.pace,
            begun=now if self.begun is None or self.state.step else self.begun, estimate=self._validation_seconds,
        )  # fmt: skip

    def _planned_anew(self) -> bool:
        """Whether the plan has changed, on all ranks: as the first of them finds by its clock."""
        before = self.state.plan
        seldom = self.ranks.world > 1 and before.steps < OPEN  # ranks must agree
        if self.config.train.minutes is None or (seldom and self.state.step % _PLANNED):
            return False
        self.state.plan = self.ranks.agreed(self.watch.look(self.state.step, before) if self.watch else before)
        if self.state.plan == before:
            return False
        self.log.planned(self.state.plan.steps)
        if self.watch:
            warmup, pace = self.config.optim.warmup_steps, self.watch.pace
            self.log.say(f"{self.watch.minutes:g} minutes are {self.state.plan.steps} steps of {pace.step:.3g} s and "
                         f"validations of {pace.validation:.3g} s")  # fmt: skip
            if self.watch.late:
                self.log.say(f"note: a validation seems to take {pace.validation + self.watch.late:.3g} s, so that the "
                             f"run may end {self.watch.late:.3g} s late; run.val_images makes it shorter")  # fmt: skip
            if warmup > self.state.plan.steps // 4:
                self.log.say(f"note: {warmup} of these steps are warm-up (optim.warmup_steps)")
        return True

    def _validation_seconds(self) -> float:
        """What a validation will take, by its first images."""
        data = self.val_data
        with self._evaluated(alone=True) as task, tuned_backend(self.device, fixed_sizes=False):
            score_dataset(task, data, most=1)  # kernels are chosen, files come into memory
            before = time.monotonic()
            score_dataset(task, data, batch_size=self.config.run.val_batch_size, most=_TRIED)
        count = self.config.run.val_images or len(data)
        return (time.monotonic() - before) * max(1.0, min(count, len(data)) / (_TRIED * self.ranks.world))

    def stop(self) -> None:
        """End before a step whose data did not come: what was done is saved."""
        if self.state.step and self.ranks.first:
            self._report_losses()
            self._check_weights()
            self._save()
        self._say_how_to_go_on()

    def _say_how_to_go_on(self) -> None:
        again = resume_command(self.folder, self.ranks.world)
        self.log.say(f"stopped after step {self.state.step}; go on with: {again}")

    def step(self, batches: Iterator[Batch]) -> None:
        """One step of the optimiser, on the next `train.accumulate` batches."""
        config, step = self.config, self.state.step
        self.lr = lr_at(step, self.state.plan, config.optim)
        set_lr(self.optimizer, self.lr)
        with self.waiting():
            micro = [next(batches) for _ in range(config.train.accumulate)]
        # Only now: a loader that starts (in the first step after a restart) draws from the global generator too.
        torch.manual_seed(step_seed(config.train.seed, step, self.ranks.rank))
        self.task.train()
        if config.train.freeze_at == "all":
            self.task.model.backbone.eval()
        elif config.train.frozen_bn:
            freeze_batch_norm(self.task.model.backbone)
        pixels = torch.stack([self.task.loss.count(b.targets) for b in micro]).sum()
        # Gradients are averaged over ranks, so each divides by its share of the global count.
        pixels = self.ranks.total(pixels).clamp(min=1) / self.ranks.world
        sums: dict[str, torch.Tensor] = {}
        for i, batch in enumerate(micro):
            last = i == len(micro) - 1
            with nullcontext() if last or self.ranks.world == 1 else self.wrapped.no_sync():  # type: ignore[operator]
                terms = self.wrapped(batch, pixels=pixels, share=1 / len(micro))
                self.scaler.scale(sum(terms.values())).backward()
            for name, value in terms.items():
                sums[name] = sums.get(name, 0) + value.detach()
        if config.optim.clip_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.task.model.parameters(), config.optim.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average:
            self.average.update(self.task.model, step)
        self.losses.add(tuple(n for b in micro for n in b.names), sums)
        self.state.step += 1

    def _report_losses(self) -> None:
        """Log the means of the losses since the last time, for which the host waits."""
        if (means := self.losses.means(self.state.step)) is not None:
            self.log.train(self.state.step, means, self.lr)

    def _check_weights(self) -> None:
        """A finite loss can have a gradient that is not: such weights must not replace the last good checkpoint."""
        name = first_not_finite(self.task.model.state_dict())
        if name is not None:
            raise FloatingPointError(
                f"{name} is not finite after step {self.state.step}, so nothing was saved over the last "
                "checkpoint; lower optim.lr or set optim.clip_norm"
            )

    def _save(self) -> None:
        self.state.pace = self.watch.measured() if self.watch else None
        save_run(
            self.folder, self.config, self.state, self.task.model, self.optimizer, self.average, self.scaler,
            self.identities,
        )  # fmt: skip

    def _released(self) -> Mapping[str, torch.Tensor]:
        """The weights that are evaluated and released: the average where one is kept."""
        return self.average.tensors if self.average else self.task.model.state_dict()

    @contextmanager
    def _evaluated(self, *, alone: bool = False) -> Iterator[Task]:
        """The task holding the released weights, for the time of the block; `alone`, on this rank only."""
        if not alone:
            self.ranks.share(self._released().values())  # every rank gathers batch statistics of its own
        if not self.average:
            yield self.task
            return
        trained = {name: t.clone() for name, t in self.task.model.state_dict().items()}
        self.task.model.load_state_dict(dict(self.average.tensors))
        try:
            yield self.task
        finally:
            self.task.model.load_state_dict(trained)

    def _validate(self) -> None:
        step, data = self.state.step, self.config.data
        with self._evaluated() as task, tuned_backend(self.device, fixed_sizes=False):
            scores, examples = score_dataset(
                task, self.val_data, batch_size=self.config.run.val_batch_size, num_workers=data.num_workers,
                ranks=self.ranks, most=self.config.run.val_images,
            )  # fmt: skip
        better = self.state.best is None or scores.value > self.state.best
        self.state.bad_validations = 0 if better else self.state.bad_validations + 1
        self.log.validation(step, scores, examples, self.train_data.table)
        mark = "  (best so far)" if better else ""
        self.log.say(f"step {step}: {scores.summary()}{mark}")
        if better:
            # Nothing to score (nan) is a beginning that every score betters.
            self.state.best = scores.value if math.isfinite(scores.value) else None
            self.state.best_step = step
        if self.ranks.first:
            if better:
                self._release(scores)
            self._write_report(scores, examples)

    def _release(self, scores: Scores) -> None:
        weights = to_host(self._released())  # once, for the digest and the file
        source = {"run": self.folder.name, "step": self.state.step, "sha256": tensors_digest(weights), **self.lineage}
        write_release(
            self.folder / "model.safetensors", weights, self.config, self.train_data.table, scores=scores.to_dict(),
            source=source, named_data=self.parts.named_data,
        )  # fmt: skip

    def _write_report(self, scores: Scores, examples: list[Example]) -> None:
        write_report(
            self.folder / "report.html", title=self.folder.name, config=self.config.to_yaml(), scores=scores,
            history=read_history(self.folder / "metrics.jsonl"), table=self.train_data.table, examples=examples,
            lineage=self.lineage,
        )  # fmt: skip


def step_seed(seed: int, step: int, rank: int) -> int:
    """Seed of torch's generators (dropout, stochastic depth) at one step of one rank."""
    return int(np.random.SeedSequence((seed, 2, step, rank)).generate_state(1, np.uint64)[0])
