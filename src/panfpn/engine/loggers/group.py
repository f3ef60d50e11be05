"""Many loggers as one that never raises. In: numbers and pictures. Out: the same to each, and what each must remember.

What they remember lies in `loggers.json` in the run folder, so that a resumed run continues the same remote run.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from panfpn.engine.loggers import LoggedRun, Logger
from panfpn.files import write_json


class LoggerGroup:
    """The loggers of one run, each under the name of its class; `say` gets one line for each that fails."""

    def __init__(self, loggers: Sequence[Logger], folder: Path, say: Callable[[str], None]) -> None:
        self._folder, self._say = folder, say
        self._loggers: dict[str, Logger] = {}
        for logger in loggers:
            name = type(logger).__name__
            same = sum(type(other).__name__ == name for other in self._loggers.values())
            self._loggers[f"{name}-{same + 1}" if same else name] = logger
        self._failed: set[str] = set()
        self._states: dict[str, dict[str, Any]] = {}
        self._written = ""

    def start(self, config: dict[str, Any], first_step: int) -> None:
        """Start all; one that cannot start takes no further part."""
        self._states = _read_states(self._folder / "loggers.json") | {}
        for name in list(self._loggers):
            run = LoggedRun(
                folder=self._folder, name=self._folder.name, config=config, first_step=first_step,
                state=self._states.setdefault(name, {}),
            )  # fmt: skip
            self._call(name, partial(_start, run))
            if name in self._failed:
                del self._loggers[name]
        self._keep_states()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers for all."""
        self._each(lambda logger: logger.scalars(step, values))

    def image(self, step: int, name: str, picture: npt.NDArray[np.uint8]) -> None:
        """A picture for all."""
        self._each(lambda logger: logger.image(step, name, picture))

    def end(self) -> None:
        """The end for all."""
        self._each(lambda logger: logger.end())
        self._keep_states()

    def _each(self, call: Callable[[Logger], None]) -> None:
        for name in self._loggers:
            self._call(name, call)

    def _call(self, name: str, call: Callable[[Logger], None]) -> None:
        try:
            call(self._loggers[name])
        except Exception as error:  # whatever a service or its client may raise: days of training are worth more
            if name not in self._failed:
                first = (str(error).splitlines() or [""])[0]
                self._say(f"{name}: {type(error).__name__}: {first}; the run goes on, this is said once")
            self._failed.add(name)

    def _keep_states(self) -> None:
        """Write what changed; one that remembers nothing needs no file."""
        states = {name: state for name, state in self._states.items() if state}
        try:
            text = json.dumps(states)
            if states and text != self._written:
                write_json(self._folder / "loggers.json", states)
                self._written = text
        except (OSError, TypeError, ValueError) as error:
            self._say(f"loggers.json is not written, so a resumed run will log as a new one: {error}")


def _start(run: LoggedRun, logger: Logger) -> None:
    logger.start(run)


def _read_states(path: Path) -> dict[str, dict[str, Any]]:
    """What the loggers of the run so far wanted to remember; a file that cannot be read holds nothing."""
    try:
        states = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return (
        {name: state for name, state in states.items() if isinstance(state, dict)} if isinstance(states, dict) else {}
    )
