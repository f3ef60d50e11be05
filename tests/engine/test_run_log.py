"""The log of a run: rows on disk, numbers and pictures to the loggers, and no rows beyond where it goes on."""

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from panfpn.engine.loggers import LoggedRun
from panfpn.engine.loggers.tensorboard import TensorBoardLogger
from panfpn.engine.run_log import RunLog
from panfpn.labels import LabelClass, LabelTable
from panfpn.metrics import ConfusionMatrix
from panfpn.types import Example

TABLE = LabelTable(
    name="toy", classes=tuple(LabelClass(name=n, color=(9, 99, 199), values=(k,)) for k, n in enumerate("ab"))
)


class Broken:
    def start(self, run: LoggedRun) -> None:
        self.config = run.config

    def scalars(self, *_: Any) -> None:
        raise ConnectionError("gone")

    image = scalars

    def end(self) -> None:
        raise ConnectionError("gone")


def log_of(folder: Path, start: int, *loggers: Any, seconds: float | None = None) -> RunLog:
    return RunLog(
        folder,
        steps=9,
        start=start,
        images_per_step=4,
        device=torch.device("cpu"),
        config={"a": 1},
        loggers=loggers,
        seconds=seconds,
    )


def validate(log: RunLog, step: int) -> None:
    matrix = ConfusionMatrix(2)
    labels, target = np.array([[0, 1, 1]], np.uint8), np.array([[0, 1, 0]], np.int16)
    score = matrix.update(labels, target)
    image = np.full((1, 3, 3), 50, np.uint8)
    examples = [Example(name=n, image=image, prediction=labels, target=target, score=score) for n in "xyz"]
    log.validation(step, matrix.scores(TABLE.names), examples, TABLE)


@pytest.mark.parametrize("known", [False, True])
def test_the_time_that_is_left(known: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = log_of(tmp_path, 0, seconds=330.0 if known else None)
    log.train(1, {"ce": 1.0}, 0.1)  # at once: by its pace the run is all but over
    log.close()
    assert ("  5 min left" if known else "  0 min left") in capfd.readouterr().err


def test_rows_and_curves_of_a_resumed_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    broken = Broken()
    log = log_of(tmp_path, 0, broken, TensorBoardLogger())
    for step in (1, 2, 3):
        log.train(step, {"ce": 1.0, "dice": math.nan if step == 3 else 0.5}, 0.1)
    validate(log, 3)
    log.close()
    assert broken.config == {"a": 1}
    assert capfd.readouterr().err.count("Broken: ConnectionError: gone") == 1
    time.sleep(1.1)  # event files are read in the order of their names, which begin with the second
    log = log_of(tmp_path, 2, TensorBoardLogger())  # killed after step 3, goes on from the checkpoint of step 2
    log.train(3, {"ce": 0.25, "dice": 0.25}, 0.1)
    log.close()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["kind"], row["step"], row["loss"]) for row in rows] == [
        ("train", 1, 1.5), ("train", 2, 1.5), ("train", 3, 0.5),
    ]  # fmt: skip
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in board.Scalars("train/loss")] == [(1, 1.5), (2, 1.5), (3, 0.5)]
    assert {"train/loss/ce", "train/lr", "train/memory_gb", "train/minutes"} <= set(board.Tags()["scalars"])


def test_pictures_of_a_validation(tmp_path: Path) -> None:
    log = log_of(tmp_path, 0, TensorBoardLogger())
    validate(log, 1)
    log.close()
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert board.Tags()["images"] == ["validation/x", "validation/y", "validation/z"]
    picture = board.Images("validation/x")[0]
    assert (picture.width, picture.height) == (3 + 4 + 3, 1)
    assert board.Scalars("val/miou")[0].value == pytest.approx(0.5)
