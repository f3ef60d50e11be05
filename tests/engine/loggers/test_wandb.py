"""Weights & Biases: which calls a run makes there, and that a resumed run goes on in the same one."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from panfpn.engine.loggers.group import LoggerGroup
from panfpn.engine.loggers.wandb import WandbLogger

PICTURE = np.full((20, 30, 3), 100, np.uint8)


class FakeWandb:
    """The part of the module that is called."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.Image = lambda picture: ("image", picture.shape)

    def init(self, **arguments: Any) -> Any:
        self.calls.append(("init", arguments))

        def log(row: dict[str, Any]) -> None:
            self.calls.append(("log", row))

        return SimpleNamespace(
            id=arguments["id"] or "made1", log=log, finish=lambda: self.calls.append(("finish", None)),
            define_metric=lambda *a, **k: self.calls.append(("define_metric", (a, k))),
        )  # fmt: skip


def log_a_run(folder: Path, first_step: int, **arguments: Any) -> list[str]:
    said: list[str] = []
    group = LoggerGroup([WandbLogger(**arguments)], folder, said.append)
    group.start({"train": {"steps": 5}}, first_step)
    group.scalars(first_step + 1, {"train/loss": 0.5})
    group.image(first_step + 1, "validation/a/b", PICTURE)
    group.end()
    return said


def test_a_resumed_run_goes_on_in_the_same_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setenv("WANDB_PROJECT", "streets")
    assert log_a_run(tmp_path / "run", 0, entity="me") == []
    common = {"project": "streets", "entity": "me", "name": "run", "dir": str(tmp_path / "run"), "resume": "allow"}
    assert fake.calls == [
        ("init", common | {"id": None, "config": {"train": {"steps": 5}}}),
        ("define_metric", (("*",), {"step_metric": "step"})),
        ("log", {"step": 1, "train/loss": 0.5}),
        ("log", {"step": 1, "validation/a/b": ("image", (20, 30, 3))}),
        ("finish", None),
    ]
    fake.calls.clear()
    assert log_a_run(tmp_path / "run", 3, project="other") == []
    init = fake.calls[0][1]
    assert (init["id"], init["resume"], init["project"]) == ("made1", "allow", "other")
    assert fake.calls[2] == ("log", {"step": 4, "train/loss": 0.5})


def test_wandb_itself_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="extra `wandb` is not installed")
    for key, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}.items():
        monkeypatch.setenv(key, value)
    folder = tmp_path / "run"
    folder.mkdir()
    assert log_a_run(folder, 0) == [] and log_a_run(folder, 3) == []
    runs = [path.name.rpartition("-")[2] for path in (folder / "wandb").glob("offline-run-*")]
    assert len(runs) >= 1 and len(set(runs)) == 1
    assert runs[0] in (folder / "loggers.json").read_text()
