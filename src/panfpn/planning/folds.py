"""Few images, each of which validates once. In: a plan in folds. Out: a run for each fold, and one on all images.

The folder of the last run holds the others (fold-0, fold-1, …) and folds.json: the settings, and how each fold ended.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from panfpn.config import TrainConfig
from panfpn.engine import RunResult, train
from panfpn.engine.history import read_history
from panfpn.engine.run_folder import claimed_folder
from panfpn.engine.run_settings import MAY_CHANGE
from panfpn.files import read_json, write_json
from panfpn.parsing import parse

FILE = "folds.json"


@dataclass(frozen=True, kw_only=True)
class Folds:
    """Settings of the runs, and what has ended; `config` is the first fold's, but for its folder."""

    config: TrainConfig
    count: int
    val_split: str  # that the last run validates on: the training images where there is no other
    values: tuple[float, ...] = ()  # of the folds that have ended: the score after the last step

    @classmethod
    def read(cls, folder: Path) -> "Folds | None":
        """The folds of a folder that has some; ValueError for a damaged file."""
        file = folder / FILE
        if not file.is_file():
            return None
        try:
            data = read_json(file)
            return cls(config=parse(TrainConfig, data["config"]), count=data["count"], val_split=data["val_split"],
                       values=tuple(data["values"]))  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{file}: is damaged ({error}); begin again in another run.dir") from error

    def write(self, folder: Path) -> None:
        """Keep them for a run that goes on."""
        write_json(folder / FILE, {"config": self.config.to_dict(), "count": self.count, "val_split": self.val_split,
                                   "values": list(self.values)})  # fmt: skip

    def of(self, fold: int, folder: Path) -> TrainConfig:
        """Settings of one run: of a fold, or (`count`) of the last, on all images."""
        if fold < self.count:
            return self.config.changed(data__fold=fold, run__dir=folder / f"fold-{fold}")
        return self.config.changed(data__split=None, data__fold=0, data__val_split=self.val_split, run__dir=folder)

    def seen_in_training(self) -> bool:
        """Whether the last run validates on the images that it learns from."""
        return self.val_split == self.config.data.train_split

    def summary(self) -> str:
        """The mean over the folds, in percent."""
        spread = f" ± {100 * stdev(self.values):.2f}" if len(self.values) > 1 else ""
        each = ", ".join(f"{100 * value:.2f}" for value in self.values)
        return f"{100 * mean(self.values):.2f}{spread} % on images that were not learnt from ({each} in the folds)"


def train_folds(
    folds: Folds, *, loggers: Sequence[Any] = (), begun: float | None = None, say: Callable[[str], Any]
) -> tuple[RunResult, Folds]:
    """Train each fold and then on all images; a run that is interrupted is the last, and `resume_folds` goes on."""
    with claimed_folder(folds.config) as folder:
        folds.write(folder)
    return _trained(folds, folder, {}, loggers, begun, say)


def resume_folds(folder: Path, changes: Mapping[str, Any], *, say: Callable[[str], Any]) -> tuple[RunResult, Folds]:
    """Go on with the folds in a folder; ValueError for changes that cannot be made."""
    folds = Folds.read(folder)
    if folds is None:
        raise ValueError(f"{folder}: holds no folds to go on with (no {FILE})")
    for key in changes:
        if key not in MAY_CHANGE or key in ("train.steps", "train.minutes"):
            raise ValueError(f"--{key} cannot change when folds go on: each has what the first one had")
    return _trained(folds, folder, changes, (), None, say)


def _trained(
    folds: Folds, folder: Path, changes: Mapping[str, Any], loggers: Sequence[Any], begun: float | None,
    say: Callable[[str], Any],
) -> tuple[RunResult, Folds]:  # fmt: skip
    for fold in range(len(folds.values), folds.count + 1):
        last = fold == folds.count
        config = folds.of(fold, folder).changed(**changes)
        where = config.run.dir
        assert where is not None, "it is set above"
        images = "all images" if last else f"fold {fold + 1} of {folds.count}"
        say(f"{images}: {config.train.minutes:g} minutes in {where}")
        if (where / "config.yaml").is_file():
            result = train(resume=where, changes=changes)
        else:
            result = train(config, loggers=loggers if last else (), begun=begun or time.monotonic())
        begun = None
        if result.interrupted:
            say(f"all of it goes on with: panfpn train --resume {folder}")
            break
        if not last:
            folds = Folds(config=folds.config, count=folds.count, val_split=folds.val_split,
                          values=(*folds.values, _last_value(where, result)))  # fmt: skip
            folds.write(folder)
    return result, folds


def _last_value(folder: Path, result: RunResult) -> float:
    """The score after the last step: the best of several would flatter a fold, as it was chosen on its images."""
    assert result.scores is not None, "the run has ended"
    key = result.scores.headline.lower()
    rows = [row for row in read_history(folder / "metrics.jsonl") if row["kind"] == "val"]
    value = float(rows[-1][key])
    return value if math.isfinite(value) else 0.0
