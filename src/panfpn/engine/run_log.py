"""What a run says while it works: a bar or log lines, metrics.jsonl, and whatever its loggers make.

In: numbers at log steps. Out: files in the run folder, text on stderr. Only the first rank speaks.
"""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from panfpn.draw import side_by_side
from panfpn.engine.history import read_history
from panfpn.engine.loggers import Logger
from panfpn.engine.loggers.group import LoggerGroup
from panfpn.engine.time_budget import OPEN
from panfpn.files import replacing
from panfpn.labels import LabelTable
from panfpn.metrics import Scores
from panfpn.progress import has_bars
from panfpn.types import Example


def peak_memory_gb(device: torch.device) -> float:
    """Peak memory in GB (10⁹ bytes): of the GPU's allocator, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    try:
        import resource  # noqa: PLC0415 - Windows has none
    except ImportError:
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak * 1024 / 1e9


class RunLog:
    """The log of one run, from step `start` on; rows of a killed run beyond that step are dropped.

    `config` (plain data) is for the `loggers`; `seconds` is what a run with a limit of time has left of it.
    """

    def __init__(
        self, folder: Path, *, steps: int, start: int, images_per_step: int, device: torch.device,
        config: dict[str, Any] | None = None, loggers: Sequence[Logger] = (), seconds: float | None = None,
    ) -> None:  # fmt: skip
        self._device, self._images_per_step = device, images_per_step
        self._path = folder / "metrics.jsonl"
        rows = read_history(self._path, before=start)
        self._minutes = rows[-1]["minutes"] if rows else 0.0
        with replacing(self._path) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        self._file = self._path.open("a", encoding="utf-8")
        self._console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(), *(() if seconds is not None else (TextColumn("left"), TimeRemainingColumn())),
        )  # fmt: skip
        self._bar = Progress(*columns, console=self._console, disable=not has_bars(self._console))
        total = None if steps == OPEN else steps
        self._task = self._bar.add_task("training", total=total, completed=start, text="")
        self._bar.start()
        self._start = self._logged = time.monotonic()
        self._logged_step, self._steps, self._first_step = start, steps, start
        self._end = None if seconds is None else self._start + seconds
        self._loggers = LoggerGroup(loggers, folder, self.say)
        self._loggers.start(config or {}, start)

    def train(self, step: int, losses: Mapping[str, float], lr: float) -> None:
        """Log the mean losses since the last call; `step` counts the steps done."""
        now = time.monotonic()
        speed = (step - self._logged_step) * self._images_per_step / max(1e-9, now - self._logged)
        memory = peak_memory_gb(self._device)
        row = {"kind": "train", "step": step, "loss": sum(losses.values())}
        row |= {f"loss/{name}": value for name, value in losses.items()} if len(losses) > 1 else {}
        row |= {"lr": lr, "images_per_s": round(speed, 3), "memory_gb": round(memory, 3)}
        self._write(row)
        text = f"loss {row['loss']:.4f}  lr {lr:.2e}  {speed:.1f} images/s  {memory:.1f} GB"
        if self._end is not None or self._bar.disable:  # a bar without a known end reckons by itself
            pace = (now - self._start) / max(1, step - self._first_step)
            left = pace * (self._steps - step) if self._end is None else max(0.0, self._end - now)
            text += f"  {left / 60:.0f} min left"
        self._bar.update(self._task, completed=step, text=text)
        if self._bar.disable:
            of = "" if self._steps == OPEN else f"/{self._steps}"
            self._console.print(f"step {step}{of}  {text}", highlight=False, soft_wrap=True)
        self._logged, self._logged_step = now, step

    def planned(self, steps: int) -> None:
        """Another number of steps than before."""
        self._steps = steps
        self._bar.update(self._task, total=steps)

    def validation(self, step: int, scores: Scores, examples: list[Example], table: LabelTable) -> None:
        """Log one validation, with the two worst and the two best images."""
        self._write({"kind": "val", "step": step, **scores.row()})
        drawn = {example.name: example for example in examples[:2] + examples[-2:]}
        for name, example in drawn.items():
            layers = scores.layers(example, table)
            pair = side_by_side(layers.target.over(example.image), layers.prediction.over(example.image))
            self._loggers.image(step, f"validation/{name}", pair)
        self._logged = time.monotonic()  # validation does not count as slow training

    def say(self, text: str) -> None:
        """A line for the person who watches."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Flush and close the files, and end the loggers."""
        self._bar.stop()
        self._loggers.end()
        self._file.close()

    @property
    def minutes(self) -> float:
        """Minutes of work so far, over all restarts."""
        return self._minutes + (time.monotonic() - self._start) / 60

    def _write(self, row: dict[str, Any]) -> None:
        row["minutes"] = round(self.minutes, 3)
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        numbers = {f"{row['kind']}/{key}": value for key, value in row.items() if isinstance(value, float)}
        self._loggers.scalars(row["step"], numbers)


class SilentLog:
    """What the other ranks log: nothing."""

    minutes = 0.0

    def train(self, step: int, losses: Mapping[str, float], lr: float) -> None:
        """Nothing."""

    def planned(self, steps: int) -> None:
        """Nothing."""

    def validation(self, step: int, scores: Scores, examples: list[Example], table: LabelTable) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""
