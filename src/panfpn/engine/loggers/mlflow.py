"""MLflow: a run there for each run here (pip install 'panfpn[mlflow]').

The server is MLFLOW_TRACKING_URI, the experiment MLFLOW_EXPERIMENT_NAME or "panfpn". The extra holds MLflow's client;
to log into a data base in the current folder, without a server, install mlflow itself.
"""

import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from panfpn.engine.loggers import LoggedRun
from panfpn.extras import optional

_AT_ONCE = 100  # parameters that a server takes in one request
_LONGEST = 500  # characters of a parameter that every server takes


class MLflowLogger:
    """Curves, pictures as artifacts, and the settings as parameters; ImportError if mlflow is not installed.

    It uses a client of its own, so that runs which the caller has open in MLflow are left alone.
    """

    def __init__(self, *, tracking_uri: str | None = None, experiment: str | None = None) -> None:
        self._mlflow = optional("mlflow", "mlflow", "run.loggers has 'mlflow', which needs")
        self._uri = tracking_uri
        self._experiment = experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "panfpn"

    def start(self, run: LoggedRun) -> None:
        """A new run, or the one that `run.state` names."""
        self._client = self._mlflow.MlflowClient(self._uri)
        if "run_id" in run.state:
            self._id = run.state["run_id"]
            self._client.update_run(self._id, status="RUNNING")
            return
        experiment = self._client.get_experiment_by_name(self._experiment)
        number = experiment.experiment_id if experiment else self._client.create_experiment(self._experiment)
        self._id = run.state["run_id"] = self._client.create_run(number, run_name=run.name).info.run_id
        param = self._mlflow.entities.Param
        params = [param(key, value[:_LONGEST]) for key, value in _flat(run.config)]
        for start in range(0, len(params), _AT_ONCE):
            self._client.log_batch(self._id, params=params[start : start + _AT_ONCE])

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers over the step."""
        metric, now = self._mlflow.entities.Metric, int(1000 * time.time())
        self._client.log_batch(self._id, metrics=[metric(name, v, now, step) for name, v in values.items()])

    def image(self, step: int, name: str, picture: npt.NDArray[np.uint8]) -> None:
        """A PNG in the folder of its name."""
        self._client.log_image(self._id, picture, artifact_file=f"{name}/{step:08d}.png")

    def end(self) -> None:
        """Mark the run as finished."""
        self._client.set_terminated(self._id)


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Settings as `train.steps`, and their values as text."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)
