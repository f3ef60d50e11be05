"""MLflow: which calls a run makes there, and that a resumed run goes on in the same one."""

import sys
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from panfpn.engine.loggers.group import LoggerGroup
from panfpn.engine.loggers.mlflow import MLflowLogger

PICTURE = np.full((20, 30, 3), 100, np.uint8)
Param = namedtuple("Param", "key value")
Metric = namedtuple("Metric", "key value timestamp step")


class FakeClient:
    """The part of MlflowClient that is called; one server for all."""

    calls: list[tuple[Any, ...]]
    experiments: dict[str, str]

    def __init__(self, uri: str | None) -> None:
        self.calls.append(("client", uri))

    def get_experiment_by_name(self, name: str) -> Any:
        number = self.experiments.get(name)
        return number and SimpleNamespace(experiment_id=number)

    def create_experiment(self, name: str) -> str:
        self.experiments[name] = "5"
        return "5"

    def create_run(self, experiment: str, *, run_name: str) -> Any:
        self.calls.append(("create_run", experiment, run_name))
        return SimpleNamespace(info=SimpleNamespace(run_id="r1"))

    def update_run(self, run_id: str, *, status: str) -> None:
        self.calls.append(("update_run", run_id, status))

    def log_batch(self, run_id: str, *, metrics: Any = (), params: Any = ()) -> None:
        assert len(params) <= 100
        self.calls.append(("log_batch", run_id, [(m.key, m.value, m.step) for m in metrics], params))

    def log_image(self, run_id: str, picture: np.ndarray, *, artifact_file: str) -> None:
        self.calls.append(("log_image", run_id, picture.shape, artifact_file))

    def set_terminated(self, run_id: str) -> None:
        self.calls.append(("set_terminated", run_id))


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> type[FakeClient]:
    FakeClient.calls, FakeClient.experiments = [], {}
    module = SimpleNamespace(MlflowClient=FakeClient, entities=SimpleNamespace(Param=Param, Metric=Metric))
    monkeypatch.setitem(sys.modules, "mlflow", module)
    return FakeClient


def log_a_run(folder: Path, first_step: int, config: dict[str, Any], **arguments: Any) -> list[str]:
    folder.mkdir(exist_ok=True)
    said: list[str] = []
    group = LoggerGroup([MLflowLogger(**arguments)], folder, said.append)
    group.start(config, first_step)
    group.scalars(first_step + 1, {"train/loss": 0.5})
    group.image(first_step + 1, "validation/a/b", PICTURE)
    group.end()
    return said


def test_a_resumed_run_goes_on_in_the_same_one(tmp_path: Path, client: type[FakeClient]) -> None:
    config = {"train": {"steps": 5, "seed": None}, "name": "x" * 600}
    assert log_a_run(tmp_path / "run", 0, config, tracking_uri="http://localhost:5000", experiment="streets") == []
    assert client.experiments == {"streets": "5"}
    settings = [Param("train.steps", "5"), Param("train.seed", "None"), Param("name", "x" * 500)]
    ends = [("log_image", "r1", (20, 30, 3)), ("set_terminated", "r1")]
    assert [call[:3] if call[0] == "log_image" else call for call in client.calls] == [
        ("client", "http://localhost:5000"), ("create_run", "5", "run"), ("log_batch", "r1", [], settings),
        ("log_batch", "r1", [("train/loss", 0.5, 1)], ()), *ends,
    ]  # fmt: skip
    assert client.calls[-2][3] == "validation/a/b/00000001.png"
    client.calls.clear()
    assert log_a_run(tmp_path / "run", 3, config, experiment="streets") == []
    assert client.calls[:3] == [  # a parameter cannot be written twice
        ("client", None), ("update_run", "r1", "RUNNING"), ("log_batch", "r1", [("train/loss", 0.5, 4)], ()),
    ]  # fmt: skip


def test_many_settings_go_in_parts(tmp_path: Path, client: type[FakeClient], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "from the environment")
    log_a_run(tmp_path / "run", 0, {f"key{k}": k for k in range(250)})
    assert [len(call[3]) for call in client.calls if call[0] == "log_batch"] == [100, 100, 50, 0]
    assert list(client.experiments) == ["from the environment"]


def test_mlflow_itself_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="extra `mlflow` is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "mlruns").as_uri()
    for first_step in (0, 1):
        assert log_a_run(tmp_path / "run", first_step, {"train": {"steps": 5}}, tracking_uri=uri) == []
    client = mlflow.MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("panfpn").experiment_id])
    assert run.info.status == "FINISHED" and run.data.params == {"train.steps": "5"}
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.5), (2, 0.5)]
    pictures = [file.path for file in client.list_artifacts(run.info.run_id, "validation/a/b")]
    assert pictures == ["validation/a/b/00000001.png", "validation/a/b/00000002.png"]
