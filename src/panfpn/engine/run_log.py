"""What a run says while it works: a bar or log lines, metrics.jsonl, TensorBoard.

In: numbers at log steps. Out: files in the run folder, text on stderr. Only the first rank speaks.
"""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from panfpn.draw import side_by_side
from panfpn.files import replacing
from panfpn.labels import LabelTable
from panfpn.metrics import Scores
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


def read_history(path: Path, *, before: int | None = None) -> list[dict[str, Any]]:
    """Rows of a metrics.jsonl, those of steps up to `before`; a half-written last line is left out."""
    rows = []
    if path.is_file():
        for line in path.read_text("utf-8").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            if before is None or row["step"] <= before:
                rows.append(row)
    return rows


class RunLog:
    """The log of one run, from step `start` on; rows of a killed run beyond that step are dropped."""

    def __init__(self, folder: Path, *, steps: int, start: int, images_per_step: int, device: torch.device) -> None:
        self._device, self._images_per_step = device, images_per_step
        self._path = folder / "metrics.jsonl"
        rows = read_history(self._path, before=start)
        self._minutes = rows[-1]["minutes"] if rows else 0.0
        with replacing(self._path) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        self._file = self._path.open("a", encoding="utf-8")
        self._board = SummaryWriter(folder / "tensorboard", purge_step=start)
        self._console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
        )  # fmt: skip
        interactive = self._console.is_terminal or self._console.is_jupyter
        self._bar = Progress(*columns, console=self._console, disable=not interactive)
        self._task = self._bar.add_task("training", total=steps, completed=start, text="")
        self._bar.start()
        self._start = self._logged = time.monotonic()
        self._logged_step, self._steps, self._first_step = start, steps, start

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
        self._bar.update(self._task, completed=step, text=text)
        if self._bar.disable:
            left = (now - self._start) / max(1, step - self._first_step) * (self._steps - step)
            self._console.print(
                f"step {step}/{self._steps}  {text}  {left / 60:.0f} min left", highlight=False, soft_wrap=True
            )
        self._logged, self._logged_step = now, step

    def validation(self, step: int, scores: Scores, shown: list[Example], table: LabelTable) -> None:
        """Log one validation, with a few images for TensorBoard."""
        self._write({"kind": "val", "step": step, **scores.row()})
        for entry in shown[:2] + shown[-2:]:
            layers = scores.layers(entry, table)
            pair = side_by_side(layers.target.over(entry.image), layers.prediction.over(entry.image))
            self._board.add_image(f"validation/{entry.name}", pair, step, dataformats="HWC")
        self._logged = time.monotonic()  # validation does not count as slow training

    def say(self, text: str) -> None:
        """A line for the person who watches."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Flush and close the files."""
        self._bar.stop()
        self._board.close()
        self._file.close()

    @property
    def minutes(self) -> float:
        """Minutes of work so far, over all restarts."""
        return self._minutes + (time.monotonic() - self._start) / 60

    def _write(self, row: dict[str, Any]) -> None:
        row["minutes"] = round(self.minutes, 3)
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        for key, value in row.items():
            if isinstance(value, float):
                self._board.add_scalar(f"{row['kind']}/{key}", value, row["step"])


class SilentLog:
    """What the other ranks log: nothing."""

    minutes = 0.0

    def train(self, step: int, losses: Mapping[str, float], lr: float) -> None:
        """Nothing."""

    def validation(self, step: int, scores: Scores, shown: list[Example], table: LabelTable) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""
