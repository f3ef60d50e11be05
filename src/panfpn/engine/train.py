"""Training. In: a TrainConfig, or a run folder to go on with. Out: the run folder and a RunResult."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch

from panfpn import build
from panfpn.config import TrainConfig
from panfpn.engine.distributed import Ranks, joined_ranks
from panfpn.engine.run_folder import RunState, choose_folder, load_run, prepare_folder, released_scores
from panfpn.engine.trainer import Trainer
from panfpn.metrics import Scores


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How a run ended.

    `scores` and `value` (mIoU of a Semantic FPN, PQ of a Panoptic FPN) are of the released weights
    (`model.safetensors`: the best of all validations) on the validation split; `scores` is None if the run was
    interrupted, and on all ranks but the first.
    """

    dir: Path
    step: int
    value: float
    scores: Scores | None
    interrupted: bool
    minutes: float


def train(config: TrainConfig | None = None, *, resume: str | Path | None = None) -> RunResult:
    """Train as `config` says, or go on with the run in folder `resume`.

    Raises:
        ValueError: data, settings or a run folder that cannot be used; nothing has been trained or overwritten then.
        FloatingPointError: a loss that is not finite; the names of the batch's samples are in `non_finite.json`.
    """
    if (config is None) == (resume is None):
        raise ValueError("train takes a configuration or a run folder to resume, and not both")
    state: RunState | None = None
    if config is None:
        config, state = load_run(Path(str(resume)))
    with joined_ranks(config.run.device) as (ranks, device), _own_generators(device):
        config = config.changed(**{"run.device": device})
        train_data, val_data = build.build_datasets(config.data, config.model.architecture == "PanopticFPN")
        config = build.resolve(config, train_data.table)
        check_batch(config, ranks)
        folder = Path(str(resume)) if resume is not None else ranks.agreed(choose_folder(config))
        trainer = Trainer(config, folder, ranks, train_data, val_data, state)
        if resume is None and ranks.first:
            prepare_folder(config, folder, needed_bytes=2 * trainer.num_bytes())
        ranks.wait()
        interrupted = trainer.run(announce=resume is None)
        scores = None if interrupted or not ranks.first else released_scores(folder)
        best = trainer.state.best if scores is None else scores.value
        return RunResult(
            dir=folder, step=trainer.state.step, value=float("nan") if best is None else best, scores=scores,
            interrupted=interrupted, minutes=trainer.log.minutes,
        )  # fmt: skip


def _own_generators(device: str) -> AbstractContextManager[None]:
    """Torch's generators are seeded at every step; afterwards the caller's are as they were."""
    cuda = torch.cuda.is_available() and not device.startswith("cpu")
    return torch.random.fork_rng([torch.cuda.current_device()] if cuda else [])


def check_batch(config: TrainConfig, ranks: Ranks) -> None:
    """ValueError unless the batch divides into equal micro-batches."""
    parts = ranks.world * config.train.accumulate
    if config.train.batch_size % parts:
        raise ValueError(f"train.batch_size is {config.train.batch_size}; it must be a multiple of {parts} "
                         f"({ranks.world} ranks × train.accumulate {config.train.accumulate})")  # fmt: skip
