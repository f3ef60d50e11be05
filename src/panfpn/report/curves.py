"""Curves of numbers over steps. In: points. Out: where a chart puts its lines, ticks and labels; a template draws it.

The lines are SVG stretched to the page and the labels HTML beside them, so that text keeps its size on a phone and
colours follow the reader's light or dark scheme.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]
_MOST_POINTS = 300  # of one curve: more than a screen resolves


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Points in the order of x; `style` is the CSS class; `right` measures them on the right-hand axis."""

    name: str
    points: Sequence[Point]
    style: str
    right: bool = False
    dots: bool = False


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis."""

    at: float  # % of the axis
    text: str


@dataclass(frozen=True, slots=True)
class Dot:
    """One point that can be pointed at."""

    path: str
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A curve as SVG draws it, in a square of 100 × 100."""

    name: str
    style: str
    path: str
    dots: tuple[Dot, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Lines and axes."""

    label: str  # in words, for who cannot see it
    lines: tuple[Line, ...]
    grid: str  # SVG path of the horizontal lines
    left: tuple[Tick, ...]
    right: tuple[Tick, ...]
    below: tuple[Tick, ...]


@dataclass(frozen=True, slots=True)
class _Scale:
    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def __call__(self, value: float) -> float:
        """Where `value` lies, from 0 (low) to 100 (high); nan where it has no position."""
        if not math.isfinite(value) or (self.log and value <= 0):
            return math.nan
        if self.log:
            return max(0.0, 100 * math.log(value / self.low) / math.log(self.high / self.low))
        return 100 * (value - self.low) / (self.high - self.low)


def chart(curves: Sequence[Curve], x_max: float, *, label: str, unit: str = "", log: bool = False) -> Chart | None:
    """The chart of curves from step 0 to `x_max`; None if none of them has a finite value.

    `log` allows a logarithmic axis on the left, which is taken where the first curve needs one.
    """
    curves = [curve for curve in curves if any(math.isfinite(y) for _, y in curve.points)]
    if not curves:
        return None
    across = _linear(x_max, 4)
    across = _Scale(0.0, max(1.0, x_max), tuple(t for t in across.ticks if t <= max(1.0, x_max)))
    main, aside = [curve for curve in curves if not curve.right], [curve for curve in curves if curve.right]
    left = _loss_axis(main) if log and main else _linear(_highest(main))
    right = _linear(_highest(aside), 4)
    return Chart(
        label=label, lines=tuple(_line(curve, across, right if curve.right else left) for curve in curves),
        grid="".join(f"M0 {100 - left(t):.2f}H100" for t in left.ticks),
        left=tuple(Tick(left(t), _number(t) + unit) for t in left.ticks),
        right=tuple(Tick(right(t), _number(t)) for t in right.ticks) if aside else (),
        below=tuple(Tick(across(t), _steps(t)) for t in across.ticks),
    )  # fmt: skip


def _linear(high: float, parts: int = 5) -> _Scale:
    """An axis from 0 that ends at a round number at or above `high`."""
    if not (math.isfinite(high) and high > 0):
        high = 1.0
    rough = high / parts
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= rough * 0.999)
    count = math.ceil(high / step - 1e-6)
    return _Scale(0.0, step * count, tuple(step * k for k in range(count + 1)))


def _logarithmic(low: float, high: float) -> _Scale:
    """A logarithmic axis with ticks at 1, 2, 5 × 10ⁿ, or at the powers of ten where those would be too many."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for marks in ((1, 2, 5), (1, 3), (1,)):
        ticks = [m * 10.0**n for n in range(first, last + 1) for m in marks]
        start = max((k for k, t in enumerate(ticks) if t <= low), default=0)
        stop = min((k for k, t in enumerate(ticks) if t >= high), default=len(ticks) - 1)
        if stop - start <= 6:
            break
    ticks = ticks[start : stop + 1]
    thinned = ticks[:: max(1, math.ceil(len(ticks) / 8))]
    return _Scale(ticks[0], ticks[-1], tuple(thinned), log=True)


def _loss_axis(curves: Sequence[Curve]) -> _Scale:
    """Logarithmic where the first curve falls far: on a linear axis all but its start would be a flat line."""
    values = [y for curve in curves for _, y in curve.points if math.isfinite(y)]
    first = [y for _, y in curves[0].points if math.isfinite(y)]
    if min(values) > 0 and max(first) > 20 * min(first):
        return _logarithmic(max(min(values), 1e-4 * max(values)), max(values))
    return _linear(max(values))


def _highest(curves: Sequence[Curve]) -> float:
    return max((y for curve in curves for _, y in curve.points if math.isfinite(y)), default=1.0)


def _line(curve: Curve, across: _Scale, scale: _Scale) -> Line:
    command, parts, dots = "M", [], []
    for x, y in curve.points:
        height = scale(y)
        if math.isnan(height):
            command = "M"
            continue
        spot = f"{across(x):.2f} {100 - height:.2f}"
        parts.append(f"{command}{spot}" + ("h0" if command == "M" else ""))  # h0: a point by itself is drawn as a dot
        dots.append(Dot(f"M{spot}h0", f"step {x:,.0f}: {y:.4g}"))
        command = "L"
    return Line(name=curve.name, style=curve.style, path="".join(parts), dots=tuple(dots) if curve.dots else ())


def _number(value: float) -> str:
    return f"{value:.6g}" if value == 0 or abs(value) >= 1e-4 else f"{value:.2g}".replace("e-0", "e-")


def _steps(value: float) -> str:
    return f"{value / 1000:g}k" if value >= 1000 and value % 100 == 0 else f"{value:g}"


def thin(points: Sequence[Point]) -> list[Point]:
    """At most `_MOST_POINTS` points: means over runs of neighbours; a run without a finite value stays a gap."""
    size = math.ceil(len(points) / _MOST_POINTS) or 1
    thinned = []
    for start in range(0, len(points), size):
        run = points[start : start + size]
        finite = [y for _, y in run if math.isfinite(y)]
        thinned.append((run[-1][0], sum(finite) / len(finite) if finite else math.nan))
    return thinned


def smooth(points: Sequence[Point]) -> list[Point]:
    """The centred moving mean over a twentieth of the curve; gaps stay gaps."""
    half = len(points) // 40
    smoothed = []
    for k, (x, y) in enumerate(points):
        reach = min(half, k, len(points) - 1 - k)  # symmetric at the ends too: a one-sided mean would bend the curve
        near = [v for _, v in points[k - reach : k + reach + 1] if math.isfinite(v)]
        smoothed.append((x, sum(near) / len(near) if math.isfinite(y) else math.nan))
    return smoothed
