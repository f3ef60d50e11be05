"""Few images, each of which validates once. In: a plan in folds. Out: a run for each fold, and one on all images.

The folder of the last run holds the others (fold-0, fold-1, …), plan.json and folds.json: the settings, and how each
fold ended.
"""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from panfpn.build import build_dataset, resolve
from panfpn.config import TrainConfig
from panfpn.engine import RunResult, train
from panfpn.engine.history import read_history
from panfpn.engine.run_folder import claimed_folder
from panfpn.engine.run_settings import MAY_CHANGE
from panfpn.files import read_json, write_json
from panfpn.parsing import Count, check_settings, parse, plain
from panfpn.planning.plan import FILE as PLAN
from panfpn.planning.plan import TrainingPlan

FILE = "folds.json"
_NO_VALIDATION = 1_000_000_000  # steps


@dataclass(frozen=True, kw_only=True)
class Folds:
    """Settings of the runs, and what has ended; `config` is the first fold's, but for its folder."""

    config: TrainConfig
    count: Count
    val_split: str  # that the last run validates on: the training images where there is no other
    values: tuple[float | None, ...] = ()  # of folds that have ended, after their last steps; None: no score

    def __post_init__(self) -> None:
        check_settings(self, "folds.")

    @classmethod
    def read(cls, folder: Path) -> "Folds | None":
        """The folds of a folder that has some; ValueError for a damaged file."""
        file = folder / FILE
        if not file.is_file():
            return None
        try:
            folds = parse(cls, read_json(file))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{file}: is damaged ({error}); begin again in another run.dir") from error
        if len(folds.values) > folds.count:
            raise ValueError(f"{file}: is damaged (more scores than folds); begin again in another run.dir")
        return folds

    def write(self, folder: Path) -> None:
        """Keep them for a run that goes on."""
        write_json(folder / FILE, {"config": self.config.to_dict(), "count": self.count, "val_split": self.val_split,
                                   "values": list(self.values)})  # fmt: skip

    def of(self, fold: int, folder: Path) -> TrainConfig:
        """Settings of one run: of a fold, or (`count`) of the last on all images, which scores them at its end only."""
        if fold < self.count:
            return self.config.changed(data__fold=fold, run__dir=folder / f"fold-{fold}")
        minutes = self.count * (self.config.train.minutes or 0)  # as much as all folds together
        last = self.config.changed(data__split=None, data__fold=0, data__val_split=self.val_split, run__dir=folder,
                                   train__minutes=minutes)  # fmt: skip
        return last.changed(run__val_every=_NO_VALIDATION) if self.seen_in_training() else last

    def seen_in_training(self) -> bool:
        """Whether the last run validates on the images that it learns from."""
        return self.val_split == self.config.data.train_split

    def summary(self) -> str:
        """The mean over the folds, in percent."""
        found = [100 * value for value in self.values if value is not None]
        if not found:
            return "without a score: no fold has labels to validate on"
        spread = f" ± {stdev(found):.2f}" if len(found) > 1 else ""
        each = ", ".join("none" if value is None else f"{100 * value:.2f}" for value in self.values)
        return f"{mean(found):.2f}{spread} % on images that were not learnt from ({each} in the folds)"


def check_no_folds(folder: Path | None) -> None:
    """ValueError for a folder in which folds have begun."""
    if folder is not None and (folder.expanduser() / FILE).is_file():
        raise ValueError(f"{folder}: already holds a run in folds; choose another run.dir, or go on with "
                         f"--resume {folder}")  # fmt: skip


def holds_plan(folder: Path | None, given: Mapping[str, Any]) -> bool:
    """Whether a folder has a run, or folds, that `train auto` planned with these settings by key."""
    if folder is None or not (folder.expanduser() / PLAN).is_file():
        return False
    folder = folder.expanduser()
    if not any((folder / file).is_file() for file in (FILE, "config.yaml")):
        return False  # it had not begun
    plan = read_json(folder / PLAN)
    there = plan.get("given", {}) if isinstance(plan, dict) else {}
    # The folder of a file that was named is another one, and the minutes of a run may be a part of those given.
    same = {key: value for key, value in plain(dict(given)).items() if key not in ("data.root", "train.minutes")}
    return all(key in there and there[key] == value for key, value in same.items())


def train_folds(plan: TrainingPlan, *, begun: float, say: Callable[[str], Any]) -> tuple[RunResult, Folds]:
    """Train each fold and then on all images; a run that is interrupted is the last, and `resume_folds` goes on.

    Half of the minutes that are left since `begun` (on time.monotonic()) are for the folds, and half for the last run.
    """
    config = plan.config
    check_no_folds(config.run.dir)
    images = build_dataset(config.data, config.data.train_split, channels=config.model.in_channels)
    config = replace(config, data=resolve(config, images.table, images=images).data)  # whole paths
    left = max(0.1, plan.minutes - (time.monotonic() - begun) / 60)
    config = config.changed(train__minutes=round(left / (2 * plan.folds), 6))
    folds = Folds(config=config, count=plan.folds, val_split=plan.fingerprint.val_split or config.data.train_split)
    with claimed_folder(config) as folder:
        write_json(folder / PLAN, plan.to_dict())
        folds.write(folder)
    return _trained(folds, folder, {}, say)


def resume_folds(folder: Path, changes: Mapping[str, Any], *, say: Callable[[str], Any]) -> tuple[RunResult, Folds]:
    """Go on with the folds in a folder; ValueError for changes that cannot be made."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(f"{folder}: folds go on in one process; resume them without torchrun")
    folds = Folds.read(folder)
    if folds is None:
        raise ValueError(f"{folder}: holds no folds to go on with (no {FILE})")
    for key in changes:
        if key not in MAY_CHANGE or key in ("train.steps", "train.minutes"):
            raise ValueError(f"--{key} cannot change when folds go on: each has what the first one had")
    folds = replace(folds, config=folds.config.changed(**changes))
    folds.write(folder)
    return _trained(folds, folder, changes, say)


def _trained(
    folds: Folds, folder: Path, changes: Mapping[str, Any], say: Callable[[str], Any]
) -> tuple[RunResult, Folds]:
    for fold in range(len(folds.values), folds.count + 1):
        last = fold == folds.count
        config = folds.of(fold, folder)
        where = config.run.dir
        assert where is not None, "it is set above"
        images = "all images" if last else f"fold {fold + 1} of {folds.count}"
        say(f"{images}: {config.train.minutes:g} minutes in {where}")
        begun = (where / "config.yaml").is_file()
        result = train(resume=where, changes=changes) if begun else train(config)
        if not (last or result.interrupted):
            folds = replace(folds, values=(*folds.values, _last_value(where, result)))
            folds.write(folder)
        if result.interrupted or (result.asked_to_stop and not last):
            result = replace(result, interrupted=True)
            say(f"all of it goes on with: panfpn train --resume {folder}")
            break
    return result, folds


def _last_value(folder: Path, result: RunResult) -> float | None:
    """The score after the last step: the best of several would flatter a fold, as it was chosen on its images."""
    assert result.scores is not None, "the run has ended"
    rows = [row for row in read_history(folder / "metrics.jsonl") if row["kind"] == "val"]
    value: float | None = rows[-1][result.scores.headline.lower()]
    return value
