"""Weights & Biases: a run there for each run here (pip install 'panfpn[wandb]').

Project and entity are WANDB_PROJECT and WANDB_ENTITY, or arguments; without a login, WANDB_MODE=offline.
"""

import os
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from panfpn.engine.loggers import LoggedRun
from panfpn.extras import optional


class WandbLogger:
    """Curves over `step`, pictures and the settings; ImportError if wandb is not installed."""

    def __init__(self, *, project: str | None = None, entity: str | None = None) -> None:
        self._wandb = optional("wandb", "wandb", "run.loggers has 'wandb', which needs")
        self._project = project or os.environ.get("WANDB_PROJECT") or "panfpn"
        self._entity = entity

    def start(self, run: LoggedRun) -> None:
        """A new run, or the one that `run.state` names."""
        self._run = self._wandb.init(
            project=self._project, entity=self._entity, name=run.name, config=run.config, dir=str(run.folder),
            id=run.state.get("id"), resume="allow",
        )  # fmt: skip
        run.state["id"] = self._run.id
        # wandb's own counter only rises, but a run that was killed logs the steps since its checkpoint once more
        self._run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers over `step`."""
        self._run.log({"step": step, **values})

    def image(self, step: int, name: str, picture: npt.NDArray[np.uint8]) -> None:
        """One panel a name."""
        self._run.log({"step": step, name: self._wandb.Image(picture)})

    def end(self) -> None:
        """Send what is waiting."""
        self._run.finish()
