"""Where the numbers of a run go besides its folder. In: scalars and pictures by step. Out: whatever a logger makes.

A logger of one's own is an object with the four methods of `Logger`: `panfpn.train(config, loggers=[MyLogger()])`.
By name, `run.loggers: [tensorboard, wandb, mlflow]`: a file here and its line in panfpn.choices.LOGGERS.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from panfpn.choices import LOGGERS, lookup


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedRun:
    """What a logger is told of a run when it starts, and when it goes on."""

    folder: Path
    name: str
    config: dict[str, Any]  # plain data, nested
    first_step: int  # steps done before: 0, or where a resumed run goes on; what was logged beyond it comes again
    state: dict[str, Any]  # plain data of the logger's, kept in the run folder: an id, by which a resumed run goes on


class Logger(Protocol):
    """Gets the numbers of a run on the first rank. What it raises is said once, and never stops the run."""

    def start(self, run: LoggedRun) -> None:
        """Called once before the first step, also of a resumed run; what it puts into `run.state` is there again."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of one step by name, as train/loss or val/miou; some may be nan."""

    def image(self, step: int, name: str, picture: npt.NDArray[np.uint8]) -> None:
        """A picture RGB [H, W, 3]: truth and prediction of a validation image."""

    def end(self) -> None:
        """Called once when the run ends, is interrupted or fails; not when it is killed."""


def make_loggers(names: Sequence[str]) -> list[Logger]:
    """The loggers of `run.loggers`; ImportError names the extra of one that is not installed."""
    return [lookup(LOGGERS, name, "run.loggers")() for name in names]
