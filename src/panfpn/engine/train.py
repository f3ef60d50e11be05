"""Training. In: a TrainConfig. Out: a run folder (checkpoints, metrics, report, model.safetensors) and a RunResult.

Everything is a function of (seed, step): a run that is killed and resumed ends as one that was never killed.
"""

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from panfpn import build
from panfpn.checkpoint import tensors_digest
from panfpn.config import TrainConfig
from panfpn.data import Dataset, train_loader
from panfpn.data.loader import DrawSampler
from panfpn.engine.distributed import Ranks, joined_ranks
from panfpn.engine.evaluate import score_dataset
from panfpn.engine.optim import WeightAverage, build_optimizer, lr_at, set_lr
from panfpn.engine.progress import RunLog, SilentLog, read_history
from panfpn.engine.report import Shown, write_report
from panfpn.engine.run_folder import RunState, choose_folder, load_run, prepare_folder, save_run
from panfpn.files import write_json
from panfpn.metrics import SemanticScores
from panfpn.tasks import SemanticTask
from panfpn.types import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How a run ended. `scores` are of the released weights on the validation split; None if it was interrupted."""

    dir: Path
    step: int
    miou: float
    scores: SemanticScores | None
    interrupted: bool
    minutes: float


def train(config: TrainConfig | None = None, *, resume: str | Path | None = None) -> RunResult:
    """Train as `config` says, or go on with the run in folder `resume`.

    Raises:
        ValueError: data, settings or a run folder that cannot be used; nothing has been trained or overwritten then.
        FloatingPointError: a loss that is not finite; the files of the batch are in `non_finite.json`.
    """
    if (config is None) == (resume is None):
        raise ValueError("train takes a configuration or a run folder to resume, and not both")
    state: RunState | None = None
    if config is None:
        config, state = load_run(Path(str(resume)))
    with joined_ranks(config.run.device) as (ranks, device), torch.random.fork_rng():
        config = config.changed(**{"run.device": device})
        train_data, val_data = build.build_datasets(config.data)
        config = build.resolve(config, train_data.table)
        _check_batch(config, ranks)
        folder = Path(str(resume)) if resume is not None else ranks.agreed(choose_folder(config))
        if resume is None and ranks.first:
            prepare_folder(config, folder)
        ranks.wait()
        return _Trainer(config, folder, ranks, train_data, val_data, state).run()


def _check_batch(config: TrainConfig, ranks: Ranks) -> None:
    parts = ranks.world * config.train.accumulate
    if config.train.batch_size % parts:
        raise ValueError(f"train.batch_size is {config.train.batch_size}; it must be a multiple of {parts} "
                         f"({ranks.world} ranks × train.accumulate {config.train.accumulate})")  # fmt: skip


class _Trainer:
    """One run in progress."""

    def __init__(
        self, config: TrainConfig, folder: Path, ranks: Ranks, train_data: Dataset, val_data: Dataset,
        state: RunState | None,
    ) -> None:  # fmt: skip
        self.config, self.folder, self.ranks, self.train_data, self.val_data = (
            config,
            folder,
            ranks,
            train_data,
            val_data,
        )
        self.device = torch.device(config.run.device)
        torch.manual_seed(config.train.seed)  # what is not pretrained starts the same on every rank
        self.task = build.build_task(
            config.model, config.data.scale, train_data.table, loss=config.loss, precision=config.train.precision,
            load=state is None or not state.tensors,
        )  # fmt: skip
        self._place_model()
        self.optimizer = build_optimizer(self.task.model, config.optim)
        self.average = WeightAverage(self.task.model, config.optim.ema_decay) if config.optim.ema_decay else None
        # float16 needs its small gradients scaled up; for the other types this does nothing
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.train.precision == "float16")
        self.state = state or RunState()
        if self.state.tensors:
            self.state.restore(self.task.model, self.optimizer, self.average, self.scaler)
        self.wrapped: nn.Module = DistributedDataParallel(self.task) if ranks.world > 1 else self.task
        self.log: RunLog | SilentLog = SilentLog()
        if ranks.first:
            self.log = RunLog(folder, steps=config.train.steps, start=self.state.step,
                              images_per_step=config.train.batch_size, device=self.device)  # fmt: skip
            if state is None:
                counts = f"{len(train_data)} training and {len(val_data)} validation images"
                self.log.say(f"{config.to_yaml()}\n{counts}; run folder {folder}")
        self.pending: list[tuple[tuple[str, ...], dict[str, torch.Tensor]]] = []  # losses still on the device

    def _place_model(self) -> None:
        train = self.config.train
        if train.frozen_bn:
            freeze_batch_norm(self.task.model.backbone)
        if self.ranks.world > 1 and train.sync_bn and self.device.type == "cuda":
            from timm.layers import convert_sync_batchnorm  # noqa: PLC0415 - knows timm's own norm layers too

            self.task.model = convert_sync_batchnorm(self.task.model)
        layout = torch.channels_last if train.channels_last else torch.contiguous_format
        self.task.to(self.device).to(memory_format=layout)
        self.task.dense = torch.compile(self.task.model) if train.compile else self.task.model  # type: ignore[assignment]

    def run(self) -> RunResult:
        """Steps from the state's to the last, with validations and checkpoints between."""
        steps, run = self.config.train.steps, self.config.run
        batches = self._batches()
        scores: SemanticScores | None = None
        try:
            with _stop_on_signals() as stopped:
                while self.state.step < steps:
                    self._step(batches)
                    done = self.state.step
                    stop = self.ranks.any(stopped(), self.device)
                    check = done % run.val_every == 0 or done == steps
                    save = check or stop or done % run.checkpoint_every == 0
                    if save or done % run.log_every == 0:
                        self._report_losses()
                    if check:
                        scores = self._validate()
                    if save and self.ranks.first:
                        save_run(
                            self.folder,
                            self.config,
                            self.state,
                            self.task.model,
                            self.optimizer,
                            self.average,
                            self.scaler,
                        )
                    if stop and done < steps:
                        return self._interrupted()
                    if run.patience and self.state.bad_validations >= run.patience:
                        self.log.say(f"no better mIoU in {run.patience} validations: stopped at step {done}")
                        break
            return self._finish(scores)
        finally:
            self.log.close()

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

    def _step(self, batches: Iterator[Batch]) -> None:
        config, step = self.config, self.state.step
        set_lr(self.optimizer, lr_at(step, config.train.steps, config.optim))
        torch.manual_seed(step_seed(config.train.seed, step, self.ranks.rank))
        self.task.train()
        if config.train.frozen_bn:
            freeze_batch_norm(self.task.model.backbone)
        micro = [next(batches).to(self.device) for _ in range(config.train.accumulate)]
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
        finite = table.isfinite().all(1)
        table = self.ranks.total(table) / self.ranks.world
        if not table.isfinite().all():
            first = int(finite.logical_not().nonzero()[0]) if not finite.all() else -1
            self._stop_non_finite(first)
        done = self.state.step
        lr = lr_at(done - 1, self.config.train.steps, self.config.optim)
        self.log.train(done, dict(zip(names, table.mean(0).tolist(), strict=True)), lr)
        self.pending.clear()

    def _stop_non_finite(self, place: int) -> None:
        """Save the names of this rank's first bad batch and stop; the last checkpoint is from before it."""
        step = self.state.step - len(self.pending) + place
        message = "the loss became non-finite on another rank"
        if place >= 0:
            file = self.folder / ("non_finite.json" if self.ranks.first else f"non_finite_{self.ranks.rank}.json")
            names, sums = self.pending[place]
            losses = {name: float(value) for name, value in sums.items()}
            write_json(file, {"step": step, "samples": names, "losses": {n: str(v) for n, v in losses.items()}})
            message = (f"the loss at step {step} is not finite ({losses}); the names of its samples are in {file}. "
                       "Look at them, or lower optim.lr, or set optim.clip_norm")  # fmt: skip
        raise FloatingPointError(message)

    def _released(self) -> Mapping[str, torch.Tensor]:
        """The weights that are evaluated and released: the average where one is kept."""
        return self.average.tensors if self.average else self.task.model.state_dict()

    @contextmanager
    def _evaluated(self) -> Iterator[SemanticTask]:
        """The task holding the released weights, for the time of the block."""
        if not self.average:
            yield self.task
            return
        own = {name: t.clone() for name, t in self.task.model.state_dict().items()}
        self.task.model.load_state_dict(dict(self.average.tensors))
        try:
            yield self.task
        finally:
            self.task.model.load_state_dict(own)

    def _validate(self) -> SemanticScores:
        run = self.config.run
        with self._evaluated() as task:
            scores, shown = score_dataset(
                task,
                self.val_data,
                batch_size=run.val_batch_size,
                num_workers=self.config.data.num_workers,
                ranks=self.ranks,
            )
        better = self.state.best_miou is None or scores.miou > self.state.best_miou
        self.state.bad_validations = 0 if better else self.state.bad_validations + 1
        step = self.state.step
        self.log.validation(step, scores.to_dict(), shown, self.train_data.table)
        mark = "  (best so far)" if better else ""
        self.log.say(f"step {step}: mIoU {scores.miou:.4f}  mAcc {scores.macc:.4f}  aAcc {scores.aacc:.4f}{mark}")
        if better:
            self.state.best_miou, self.state.best_step = scores.miou, step
            if self.ranks.first:
                self._release(self.folder / "model.safetensors", scores)
        if self.ranks.first:
            self._write_report(scores, shown)
        return scores

    def _release(self, path: Path, scores: SemanticScores) -> None:
        weights = dict(self._released())
        source = {"run": self.folder.name, "step": self.state.step, "sha256": tensors_digest(weights)}
        build.write_release(path, weights, self.config, self.train_data.table, scores=scores.to_dict(), source=source)

    def _write_report(self, scores: SemanticScores, shown: list[Shown]) -> None:
        write_report(
            self.folder / "report.html", title=self.folder.name, config=self.config.to_yaml(), scores=scores,
            history=read_history(self.folder / "metrics.jsonl"), table=self.train_data.table, shown=shown,
        )  # fmt: skip

    def _interrupted(self) -> RunResult:
        self.log.say(f"stopped after step {self.state.step}; go on with: panfpn train --resume {self.folder}")
        return self._result(None, interrupted=True)

    def _finish(self, scores: SemanticScores | None) -> RunResult:
        return self._result(scores, interrupted=False)

    def _result(self, scores: SemanticScores | None, *, interrupted: bool) -> RunResult:
        miou = float("nan") if self.state.best_miou is None else self.state.best_miou
        return RunResult(dir=self.folder, step=self.state.step, miou=miou, scores=scores,
                         interrupted=interrupted, minutes=self.log.minutes)  # fmt: skip


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


@contextmanager
def _stop_on_signals() -> Iterator[Any]:
    """SIGTERM and SIGINT ask for a stop after the current step; a second SIGINT is heard at once."""
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield flag.is_set
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if flag.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        flag.set()

    old = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield flag.is_set
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
