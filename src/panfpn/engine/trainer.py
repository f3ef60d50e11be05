"""One run in progress: steps, validations, checkpoints.

Everything is a function of (seed, step): a run that is killed and resumed ends as one that was
never killed.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from panfpn import build
from panfpn.config import TrainConfig
from panfpn.data import Dataset, train_loader
from panfpn.data.loader import DrawSampler
from panfpn.engine.distributed import Ranks
from panfpn.engine.evaluate import score_dataset
from panfpn.engine.loggers import make_loggers
from panfpn.engine.optim import WeightAverage, build_optimizer, lr_at, set_lr
from panfpn.engine.run_folder import RunState, save_run
from panfpn.engine.run_log import RunLog, SilentLog, read_history
from panfpn.engine.signals import stop_requests
from panfpn.files import write_json
from panfpn.metrics import Scores
from panfpn.models.backbone import freeze
from panfpn.models.recompute import recompute_stages
from panfpn.report.page import write_report
from panfpn.tasks import AnyTask
from panfpn.types import Batch, Example
from panfpn.weights.files import tensors_digest
from panfpn.weights.release import write_release

_ASK_EVERY = 10  # steps between two looks at the other ranks' stop requests: asking makes the device wait


class Trainer:
    """The network, the optimiser and where they stand. `run` does the work."""

    def __init__(
        self, config: TrainConfig, folder: Path, ranks: Ranks, train_data: Dataset, val_data: Dataset,
        state: RunState | None,
    ) -> None:  # fmt: skip
        self.config, self.folder, self.ranks = config, folder, ranks
        self.train_data, self.val_data = train_data, val_data
        self.device = torch.device(config.run.device)
        self.state = state or RunState()
        torch.manual_seed(config.train.seed)  # what is not pretrained starts the same on every rank
        self.task = build.build_task(
            config.model, train_data.table, scale=config.data.scale, size_divisor=config.data.size_divisor,
            inference=config.inference, loss=config.loss, precision=config.train.precision, rois=config.train.rois,
            load=not self.state.tensors,
        )  # fmt: skip
        self._place_model()
        self.optimizer = build_optimizer(self.task.model, config.optim)
        self.average = WeightAverage(self.task.model, config.optim.ema_decay) if config.optim.ema_decay else None
        # float16 needs its small gradients scaled up; for the other types this does nothing
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.train.precision == "float16")
        if self.state.tensors:
            self.state.restore(self.task.model, self.optimizer, self.average, self.scaler)
        self.wrapped: nn.Module = DistributedDataParallel(self.task) if ranks.world > 1 else self.task
        self.log: RunLog | SilentLog = SilentLog()
        self.pending: list[tuple[tuple[str, ...], dict[str, torch.Tensor]]] = []  # losses still on the device

    def _place_model(self) -> None:
        train = self.config.train
        if train.frozen_bn:
            freeze_batch_norm(self.task.model.backbone)
        freeze(self.task.model.backbone, train.freeze_at)
        if self.ranks.world > 1 and train.sync_bn and self.device.type == "cuda":
            from timm.layers import convert_sync_batchnorm  # noqa: PLC0415 - knows timm's own norm layers too

            self.task.model = convert_sync_batchnorm(self.task.model)
        if train.recompute:
            recompute_stages(self.task.model.backbone)
        self.task.layout = torch.channels_last if train.channels_last else torch.contiguous_format
        self.task.to(self.device).to(memory_format=self.task.layout)
        self.task.dense = torch.compile(self.task.model) if train.compile else self.task.model  # type: ignore[assignment]

    def num_bytes(self) -> int:
        """Size of a checkpoint: weights, their average, and the optimiser's moments."""
        weights = sum(t.numel() * t.element_size() for t in self.task.model.state_dict().values())
        copies = 1 + bool(self.average) + {"sgd": 1, "adamw": 2}[self.config.optim.name]
        return int(weights * copies)

    def run(self, *, announce: bool = True) -> bool:
        """Steps from the state's to the last; returns whether a signal stopped it. `announce` prints the settings."""
        steps = self.config.train.steps
        if self.ranks.first:
            self.log = RunLog(self.folder, steps=steps, start=self.state.step,
                              images_per_step=self.config.train.batch_size, device=self.device,
                              config=self.config.to_dict(), loggers=make_loggers(self.config.run.loggers))  # fmt: skip
        if announce:
            counts = f"{len(self.train_data)} training and {len(self.val_data)} validation images"
            self.log.say(f"{self.config.to_yaml()}\n{counts}; run folder {self.folder}")
        batches = self._batches()
        try:
            with stop_requests() as stopped:
                while self.state.step < steps and not self._exhausted():
                    self.step(batches)
                    if self._look_up(stopped()) and self.state.step < steps:
                        self.log.say(f"stopped after step {self.state.step}; go on with: "
                                     f"panfpn train --resume {self.folder}")  # fmt: skip
                        return True
            return False
        finally:
            self.log.close()

    def _look_up(self, stop: bool) -> bool:
        """Between two steps: log, validate and save where it is time; returns whether to stop."""
        run, done = self.config.run, self.state.step
        if self.ranks.world > 1:
            stop = done % _ASK_EVERY == 0 and self.ranks.any(stop, self.device)
        check = done % run.val_every == 0 or done == self.config.train.steps
        save = check or stop or done % run.checkpoint_every == 0
        if save or done % run.log_every == 0:
            self._report_losses()
        if save:
            self._check_weights()
        if check:
            self._validate()
        if save and self.ranks.first:
            save_run(self.folder, self.config, self.state, self.task.model, self.optimizer, self.average, self.scaler)
        return stop

    def _exhausted(self) -> bool:
        patience = self.config.run.patience
        if not patience or self.state.bad_validations < patience:
            return False
        self.log.say(f"no better score in {patience} validations: ended at step {self.state.step}")
        return True

    def _batches(self) -> Iterator[Batch]:
        train, data = self.config.train, self.config.data
        sampler = DrawSampler(
            steps=range(self.state.step, train.steps), batch_size=train.batch_size, accumulate=train.accumulate,
            rank=self.ranks.rank, world=self.ranks.world,
        )  # fmt: skip
        return train_loader(
            self.train_data, build.build_transform(data), sampler, seed=train.seed, num_workers=data.num_workers,
            pin=self.device.type == "cuda",
        )  # fmt: skip

    def step(self, batches: Iterator[Batch]) -> None:
        """One step of the optimiser, on the next `train.accumulate` batches."""
        config, step = self.config, self.state.step
        set_lr(self.optimizer, lr_at(step, config.train.steps, config.optim))
        micro = [next(batches).to(self.device) for _ in range(config.train.accumulate)]
        # Only now: a loader that starts (in the first step after a restart) draws from the global generator too.
        torch.manual_seed(step_seed(config.train.seed, step, self.ranks.rank))
        self.task.train()
        if config.train.frozen_bn:
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
        self.pending.append((tuple(n for b in micro for n in b.names), sums))
        self.state.step += 1

    def _report_losses(self) -> None:
        """Read the losses since the last time (the one host sync), check that they are finite, and log their means."""
        if not self.pending:
            return
        names = list(self.pending[0][1])
        table = torch.stack(
            [torch.stack([sums[n].float() for n in names]) for _, sums in self.pending]
        )  # [steps, terms]
        bad = table.isfinite().all(1).logical_not().tolist()
        own = bad.index(True) if any(bad) else len(bad)
        first = self.ranks.least(own, self.device)
        if first < len(bad):
            self._stop_non_finite(first, own == first)
        means = (self.ranks.total(table) / self.ranks.world).mean(0).tolist()
        done = self.state.step
        lr = lr_at(done - 1, self.config.train.steps, self.config.optim)
        self.log.train(done, dict(zip(names, means, strict=True)), lr)
        self.pending.clear()

    def _stop_non_finite(self, place: int, mine: bool) -> None:
        """Stop at the first bad step of all ranks; those that held it save the names of its samples."""
        step = self.state.step - len(self.pending) + place
        if not mine:
            raise FloatingPointError(f"the loss at step {step} is not finite on another rank")
        file = self.folder / ("non_finite.json" if self.ranks.world == 1 else f"non_finite_rank{self.ranks.rank}.json")
        names, sums = self.pending[place]
        losses = {name: str(float(value)) for name, value in sums.items()}
        write_json(file, {"step": step, "samples": names, "losses": losses})
        raise FloatingPointError(
            f"the loss at step {step} is not finite ({losses}); the names of its samples are in {file}; look at them, "
            "or lower optim.lr, or set optim.clip_norm"
        )

    def _check_weights(self) -> None:
        """A finite loss can have a gradient that is not: such weights must not replace the last good checkpoint."""
        for name, tensor in self.task.model.state_dict().items():
            if not tensor.isfinite().all():
                raise FloatingPointError(
                    f"{name} is not finite after step {self.state.step}, so nothing was saved over the last "
                    "checkpoint; lower optim.lr or set optim.clip_norm"
                )

    def _released(self) -> Mapping[str, torch.Tensor]:
        """The weights that are evaluated and released: the average where one is kept."""
        return self.average.tensors if self.average else self.task.model.state_dict()

    @contextmanager
    def _evaluated(self) -> Iterator[AnyTask]:
        """The task holding the released weights, for the time of the block."""
        self.ranks.share(self._released().values())  # every rank gathers batch statistics of its own
        if not self.average:
            yield self.task
            return
        own = {name: t.clone() for name, t in self.task.model.state_dict().items()}
        self.task.model.load_state_dict(dict(self.average.tensors))
        try:
            yield self.task
        finally:
            self.task.model.load_state_dict(own)

    def _validate(self) -> None:
        step, data = self.state.step, self.config.data
        with self._evaluated() as task:
            scores, shown = score_dataset(
                task, self.val_data, batch_size=self.config.run.val_batch_size, num_workers=data.num_workers,
                ranks=self.ranks,
            )  # fmt: skip
        better = self.state.best is None or scores.value > self.state.best
        self.state.bad_validations = 0 if better else self.state.bad_validations + 1
        self.log.validation(step, scores, shown, self.train_data.table)
        mark = "  (best so far)" if better else ""
        self.log.say(f"step {step}: {scores.summary()}{mark}")
        if better:
            # Nothing to score (nan) is a beginning that every score betters.
            self.state.best = scores.value if math.isfinite(scores.value) else None
            self.state.best_step = step
        if self.ranks.first:
            if better:
                self._release(scores)
            self._write_report(scores, shown)

    def _release(self, scores: Scores) -> None:
        weights = dict(self._released())
        source = {"run": self.folder.name, "step": self.state.step, "sha256": tensors_digest(weights)}
        write_release(
            self.folder / "model.safetensors", weights, self.config, self.train_data.table, scores=scores.to_dict(),
            source=source,
        )  # fmt: skip

    def _write_report(self, scores: Scores, shown: list[Example]) -> None:
        write_report(
            self.folder / "report.html", title=self.folder.name, config=self.config.to_yaml(), scores=scores,
            history=read_history(self.folder / "metrics.jsonl"), table=self.train_data.table, examples=shown,
        )  # fmt: skip


def step_seed(seed: int, step: int, rank: int) -> int:
    """Seed of torch's generators (dropout, stochastic depth) at one step of one rank."""
    return int(np.random.SeedSequence((seed, 2, step, rank)).generate_state(1, np.uint64)[0])


def freeze_batch_norm(module: nn.Module) -> None:
    """Keep batch norm as a fixed affine: statistics and weights stay as they are (paper §3.1)."""
    for child in module.modules():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            child.eval()
            for parameter in child.parameters():
                parameter.requires_grad_(False)
