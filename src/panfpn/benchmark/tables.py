"""Figures for people and for files. In: figures. Out: a table on the terminal, plain data for JSON."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from panfpn.benchmark.inference import InferenceFigures
from panfpn.benchmark.loading import LoadingFigures
from panfpn.benchmark.machine import describe_machine
from panfpn.benchmark.training import TrainingFigures
from panfpn.weights.zoo import PUBLISHED

Figures = InferenceFigures | TrainingFigures | LoadingFigures
Rows = list[dict[str, str]]  # heading -> cell

_WIDEST = 400  # characters that a table may take


def document(measured: str, figures: Sequence[Figures], device: torch.device) -> dict[str, Any]:
    """What `panfpn benchmark --json` writes: the machine, versions, commit, and one entry of figures a row."""
    return {"benchmark": measured, **describe_machine(device), "rows": [figure.to_dict() for figure in figures]}


def inference_rows(figures: Sequence[InferenceFigures]) -> Rows:
    """Cells by heading; the published speed (one V100) where one of the models has one."""
    published = any(figure.job.model in PUBLISHED for figure in figures)
    rows = []
    for figure in figures:
        job = figure.job
        assert job.size is not None
        row = {
            "model": job.model, "image": _size(job.size), "network": _size(figure.network_size),
            "batch": str(job.batch), "precision": job.precision,
            "engine": f"{figure.engine} compiled" if job.compile else figure.engine,
            "p50 ms": f"{1e3 * figure.percentile(50):.1f}",
            "p95 ms": f"{1e3 * figure.percentile(95):.1f}", "images/s": f"{figure.images_per_second:.2f}",
            "peak GB": gigabytes(figure.memory), "GFLOP": f"{figure.flops / 1e9:.1f}",
            "of ceiling": "–" if math.isnan(figure.share) else f"{100 * figure.share:.0f} %",
        }  # fmt: skip
        if published:
            known = PUBLISHED.get(job.model)
            row["published fps, V100"] = f"{known.fps:.2f}" if known else "–"
        rows.append(row)
    return rows


def training_rows(figures: Sequence[TrainingFigures]) -> Rows:
    """Cells by heading; the published memory (of one of four V100) where one of the models has one."""
    published = any(figure.config.run.name in PUBLISHED for figure in figures)
    rows = []
    for figure in figures:
        train = figure.config.train
        row = {
            "model": figure.config.run.name, "crop": _size(figure.config.data.crop), "batch": str(train.batch_size),
            "precision": train.precision, "compiled": "yes" if train.compile else "no",
            "steps/s": f"{figure.steps_per_second:.3f}", "images/s": f"{figure.images_per_second:.2f}",
            "peak GB": gigabytes(figure.memory),
        }  # fmt: skip
        if published:
            known = PUBLISHED.get(figure.config.run.name)
            row["published GB, V100"] = f"{known.train_gb}" if known else "–"
        rows.append(row)
    return rows


def loading_rows(figures: Sequence[LoadingFigures]) -> Rows:
    """Cells by heading."""
    return [
        {
            "data set": figure.data.dataset, "crop": _size(figure.data.crop), "batch": str(figure.batch_size),
            "workers": str(figure.data.num_workers), "images/s": f"{figure.images_per_second:.1f}",
        }
        for figure in figures
    ]  # fmt: skip


def print_rows(rows: Rows, device: torch.device, notes: Sequence[str] = ()) -> None:
    """The table, then on what it was measured, then `notes`."""
    table = Table()
    for k, name in enumerate(rows[0]):
        table.add_column(name, justify="right" if k else "left")
    for row in rows:
        table.add_row(*row.values())
    console = Console()
    wanted = console.measure(table, options=console.options.update(width=_WIDEST)).maximum
    console.width = max(console.width, wanted)  # rather a long line than a cut number
    console.print(table, markup=False)
    for line in (machine_line(device), *notes):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def markdown(rows: Rows) -> str:
    """The rows as a Markdown table."""
    lines = [list(rows[0]), ["---"] + ["--:"] * (len(rows[0]) - 1), *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def machine_line(device: torch.device) -> str:
    """Hardware, versions and commit in one line."""
    machine = describe_machine(device)
    hardware, versions = machine["hardware"], machine["versions"]
    parts = [hardware["gpu"]] if hardware["gpu"] else []
    memory = f", {hardware['memory_gb']:.0f} GB" if hardware["memory_gb"] else ""
    parts.append(f"{hardware['cores']} cores of {hardware['cpu']}{memory}, {hardware['threads']} threads")
    kept = ("panfpn", "python", "torch", "timm", "openvino", "onnxruntime")
    parts.append(", ".join(f"{name} {versions[name]}" for name in kept if name in versions))
    parts.append(f"commit {machine['commit'] or 'unknown'}")
    return "; ".join(parts)


def gigabytes(size: float) -> str:
    """Bytes as GB (10⁹ bytes) with two digits."""
    return "–" if math.isnan(size) else f"{size / 1e9:.2f}"


def _size(size: Sequence[int] | None) -> str:
    return "whole" if size is None else f"{size[0]}×{size[1]}"
