"""A probe's page: one HTML file with the picture of score against latency, and the table. In: rows. Out: HTML."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from panfpn.files import write_text
from panfpn.report.page import POLICY, environment

_ROOM = 0.06  # of an axis, left free at its ends
_TICKS = (1, 2, 5)
_FEWEST = 3  # ticks that an axis should have


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mark:
    """One backbone in the picture, in % of its sides from the left and from below."""

    name: str
    x: float
    y: float
    low: float
    high: float
    best: bool
    title: str


def write_page(path: Path, probe: Mapping[str, Any]) -> None:
    """Write the page of a probe: `title`, `steps`, `batch`, `frozen`, `size`, `pareto` and its `rows`, best first."""
    scored = [row for row in probe["rows"] if row["miou"] is not None]
    page = environment().get_template("probe.html.j2").render(
        policy=POLICY, **probe, picture=_picture(scored, probe["pareto"]) if scored else None, scored=scored,
        failed=[row for row in probe["rows"] if row["problem"]],
    )  # fmt: skip
    write_text(path, page)


def _picture(rows: Sequence[Mapping[str, Any]], pareto: frozenset[str]) -> dict[str, Any]:
    """Marks, the line through the best, and ticks; latency is logarithmic."""
    times = [math.log(row["latency_ms"]) for row in rows]
    left, right = _span(min(times), max(times), 0.2)
    low, high = _span(min(row["low"] for row in rows), max(row["high"] for row in rows), 0.01)

    def across(milliseconds: float) -> float:
        return 100 * (math.log(milliseconds) - left) / (right - left)

    def up(score: float) -> float:
        return 100 * (score - low) / (high - low)

    marks = [
        _Mark(
            name=row["name"], x=across(row["latency_ms"]), y=up(row["miou"]), low=up(row["low"]), high=up(row["high"]),
            best=row["name"] in pareto,
            title=f"{row['name']}: mIoU {100 * row['miou']:.2f} ({100 * row['low']:.2f} to {100 * row['high']:.2f}), "
            f"{row['latency_ms']:.1f} ms",
        )
        for row in rows
    ]  # fmt: skip
    best = sorted((mark for mark in marks if mark.best), key=lambda mark: mark.x)
    return {
        "marks": marks, "line": " ".join(f"{mark.x:.2f},{100 - mark.y:.2f}" for mark in best),
        "below": [(across(ms), f"{ms:g} ms") for ms in _log_ticks(math.exp(left), math.exp(right))],
        "left": [(up(score), f"{100 * score:g}") for score in _even_ticks(low, high)],
    }  # fmt: skip


def _span(low: float, high: float, least: float) -> tuple[float, float]:
    room = max(_ROOM * (high - low), least)
    return low - room, high + room


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**k for k in decades for step in _TICKS if low <= step * 10.0**k <= high]
    return ticks if len(ticks) >= _FEWEST else _even_ticks(low, high)


def _even_ticks(low: float, high: float) -> list[float]:
    wanted = (high - low) / 5
    decade = 10.0 ** math.floor(math.log10(wanted))
    step = next(s * decade for s in (*_TICKS, 10) if s * decade >= wanted)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
