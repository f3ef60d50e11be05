"""Loggers together: a failing one is named once and costs nothing, and each finds again what it remembered."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from panfpn.engine.loggers import LoggedRun, make_loggers
from panfpn.engine.loggers.group import LoggerGroup
from panfpn.engine.loggers.tensorboard import TensorBoardLogger

PICTURE = np.zeros((2, 3, 3), np.uint8)


class Remembers:
    """Keeps all calls, and remembers an id."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def start(self, run: LoggedRun) -> None:
        self.calls.append(("start", run.name, run.first_step, dict(run.state), run.config))
        run.state.setdefault("id", 7)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.calls.append(("scalars", step, dict(values)))

    def image(self, step: int, name: str, picture: np.ndarray) -> None:
        self.calls.append(("image", step, name, picture.shape))

    def end(self) -> None:
        self.calls.append(("end",))


class Fails(Remembers):
    """Raises in one of the methods."""

    def __init__(self, method: str) -> None:
        super().__init__()
        setattr(self, method, self.fail)

    def fail(self, *_: object) -> None:
        self.calls.append(("failed",))
        raise ConnectionError("no route\nto host")


def run_through(folder: Path, *loggers: Any, first_step: int = 0) -> list[str]:
    said: list[str] = []
    group = LoggerGroup(loggers, folder, said.append)
    group.start({"train": {"steps": 2}}, first_step)
    for step in (1, 2):
        group.scalars(step, {"train/loss": 1 / step})
    group.image(2, "validation/a", PICTURE)
    group.end()
    return said


CALLS = [
    ("start", "run", 0, {}, {"train": {"steps": 2}}), ("scalars", 1, {"train/loss": 1.0}),
    ("scalars", 2, {"train/loss": 0.5}), ("image", 2, "validation/a", (2, 3, 3)), ("end",),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


@pytest.mark.parametrize(("method", "failures"), [("start", 1), ("scalars", 2), ("image", 1), ("end", 1)])
def test_a_failing_logger_is_named_once_and_the_others_go_on(folder: Path, method: str, failures: int) -> None:
    bad, good = Fails(method), Remembers()
    assert run_through(folder, bad, good) == ["Fails: ConnectionError: no route; the run goes on, this is said once"]
    assert good.calls == CALLS
    assert bad.calls.count(("failed",)) == failures
    assert len(bad.calls) == (1 if method == "start" else 5)  # one that cannot start takes no further part


def test_what_a_logger_remembers_is_there_in_the_resumed_run(folder: Path) -> None:
    run_through(folder, Remembers(), Remembers())
    assert json.loads((folder / "loggers.json").read_text()) == {"Remembers": {"id": 7}, "Remembers-2": {"id": 7}}
    again = Remembers()
    run_through(folder, again, first_step=40)
    assert again.calls[0] == ("start", "run", 40, {"id": 7}, {"train": {"steps": 2}})


def test_nothing_to_remember_is_no_file(folder: Path) -> None:
    assert run_through(folder) == []
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("text", ["", "[]", "{", '{"Remembers": 3}'])
def test_a_broken_file_of_states_is_as_none(folder: Path, text: str) -> None:
    (folder / "loggers.json").write_text(text)
    logger = Remembers()
    assert run_through(folder, logger) == []
    assert logger.calls == CALLS


def test_what_is_no_plain_data_cannot_be_remembered(folder: Path) -> None:
    class Odd(Remembers):
        def start(self, run: LoggedRun) -> None:
            run.state["client"] = object()

    said = run_through(folder, Odd())
    assert said and all("a resumed run will log as a new one" in line for line in said)


def test_loggers_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [type(logger) for logger in make_loggers(["tensorboard"])] == [TensorBoardLogger]
    with pytest.raises(ValueError, match=r"run\.loggers is 'tensorbord'; did you mean tensorboard\?"):
        make_loggers(["tensorbord"])
    for name in ("wandb", "mlflow"):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ImportError, match=rf"run\.loggers has '{name}'.* pip install 'panfpn\[{name}\]'"):
            make_loggers([name])
