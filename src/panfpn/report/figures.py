"""The figures of a run's report. In: numbers, label maps. Out: HTML fragments that need no script and no network.

Curves are inline SVG stretched to the page with labels in HTML, so that text keeps its size on a phone and colours
follow the reader's light or dark scheme; matplotlib's SVG can do neither.
"""

import base64
import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from panfpn.draw import overlay, segment_colors
from panfpn.labels import IGNORE, LabelTable
from panfpn.metrics.panoptic_quality import count_overlaps, matched_iou
from panfpn.types import Segments

DASH = "\u2013"  # where a number would stand
Point = tuple[float, float]
Map = npt.NDArray[np.integer]  # [H, W]
Masks = npt.NDArray[np.bool_]
Colored = tuple[Map, npt.NDArray[np.uint8]]  # places [H, W] in a list of colours [N, 3]
MANY = 24  # classes above which bars are thin and in columns
_MOST_POINTS = 300  # of one curve: more than a screen resolves
_PANEL_PIXELS = 640 * 320
_PICTURE_BYTES = 1_900_000  # of all JPEGs together; base64 adds a third


def text(value: object) -> str:
    """`value` as HTML text or a quoted attribute; bytes of a file name that are no UTF-8 become question marks."""
    return html.escape(str(value).encode("utf-8", "replace").decode("utf-8"))


def percent(value: float, digits: int = 1) -> str:
    """A share from 0 to 1 in percent, without the sign; a dash where there is none."""
    return f"{100 * value:.{digits}f}" if math.isfinite(value) else DASH


def css_color(color: Sequence[int] | npt.NDArray[np.uint8]) -> str:
    """An RGB colour in CSS."""
    return "#{:02x}{:02x}{:02x}".format(*(int(c) for c in color))


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One curve: points in the order of x; `style` is its CSS class; `right` measures it on the right-hand axis."""

    name: str
    points: Sequence[Point]
    style: str
    right: bool = False
    dots: bool = False


@dataclass(frozen=True, slots=True)
class _Scale:
    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def __call__(self, value: float) -> float:
        """Place of `value` from 0 (low) to 100 (high); nan where it has none."""
        if not math.isfinite(value) or (self.log and value <= 0):
            return math.nan
        if self.log:
            return max(0.0, 100 * math.log(value / self.low) / math.log(self.high / self.low))
        return 100 * (value - self.low) / (self.high - self.low)


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
    thin = ticks[:: max(1, math.ceil(len(ticks) / 8))]
    return _Scale(ticks[0], ticks[-1], tuple(thin), log=True)


def _loss_axis(lines: Sequence[Line]) -> _Scale:
    """Logarithmic where the first curve falls far: on a linear axis all but its start would be a flat line."""
    values = [y for line in lines for _, y in line.points if math.isfinite(y)]
    first = [y for _, y in lines[0].points if math.isfinite(y)]
    if min(values) > 0 and max(first) > 20 * min(first):
        return _logarithmic(max(min(values), 1e-4 * max(values)), max(values))
    return _linear(max(values))


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


def line_chart(lines: Sequence[Line], x_max: float, *, label: str, unit: str = "", log: bool = False) -> str:
    """Curves over steps, with a legend; `label` says in words what is drawn.

    `log` allows a logarithmic axis on the left, which is taken where the first curve needs one.
    """
    lines = [line for line in lines if any(math.isfinite(y) for _, y in line.points)]
    if not lines:
        return ""
    across = _linear(x_max, 4)
    across = _Scale(0.0, max(1.0, x_max), tuple(t for t in across.ticks if t <= max(1.0, x_max)))
    main, aside = [line for line in lines if not line.right], [line for line in lines if line.right]
    left = _loss_axis(main) if log and main else _linear(_highest(main))
    right = _linear(_highest(aside), 4)
    grid = "".join(f"M0 {100 - left(t):.2f}H100" for t in left.ticks)
    drawn = [f'<path class="grid" d="{grid}"/>']
    drawn += [_path(line, across, right if line.right else left) for line in lines]
    marks = [f'<span class="y" style="bottom:{left(t):.2f}%">{_number(t)}{unit}</span>' for t in left.ticks]
    marks += [f'<span class="x" style="left:{across(t):.2f}%">{_steps(t)}</span>' for t in across.ticks]
    if aside:
        marks += [f'<span class="r" style="bottom:{right(t):.2f}%">{_number(t)}</span>' for t in right.ticks]
    named = [f'<span class="{line.style}">{text(line.name)}</span>' for line in lines if line.name]
    return (
        f'<figure class="chart{" twin" if aside else ""}"><figcaption>{"".join(named)}</figcaption><div class="plot">'
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" aria-label="{text(label)}">'
        f"{''.join(drawn)}</svg>{''.join(marks)}</div></figure>"
    )


def _highest(lines: Sequence[Line]) -> float:
    return max((y for line in lines for _, y in line.points if math.isfinite(y)), default=1.0)


def _path(line: Line, across: _Scale, scale: _Scale) -> str:
    command, parts, dots = "M", [], []
    for x, y in line.points:
        place = scale(y)
        if math.isnan(place):
            command = "M"
            continue
        spot = f"{across(x):.2f} {100 - place:.2f}"
        parts.append(f"{command}{spot}" + ("h0" if command == "M" else ""))  # h0: a lone point is drawn as a dot
        dots.append(f'<path class="dot" d="M{spot}h0"><title>step {x:,.0f}: {y:.4g}</title></path>')
        command = "L"
    body = f'<path d="{"".join(parts)}"/>' + ("".join(dots) if line.dots else "")
    return f'<g class="{line.style}">{body}</g>'


def _number(value: float) -> str:
    return f"{value:.6g}" if value == 0 or abs(value) >= 1e-4 else f"{value:.2g}".replace("e-0", "e-")


def _steps(value: float) -> str:
    return f"{value / 1000:g}k" if value >= 1000 and value % 100 == 0 else f"{value:g}"


def beside(*parts: str) -> str:
    """Parts next to each other where the screen is wide enough, else one below the other."""
    return f'<div class="beside">{"".join(f"<div>{part}</div>" for part in parts)}</div>'


def bars(names: Sequence[str], values: npt.NDArray[np.float64], palette: npt.NDArray[np.uint8]) -> str:
    """Horizontal bars of shares, best first, in class colours; classes without a value come last, as absent."""
    rows = []
    for k in np.argsort(-np.nan_to_num(values, nan=-1), kind="stable"):
        name, present = text(names[k]), math.isfinite(values[k])
        bar = f'<i style="width:{percent(values[k], 2)}%;background:{css_color(palette[k])}"></i>' if present else ""
        number = percent(values[k]) if present else "absent"
        kind = "" if present else ' class="absent"'
        rows.append(f'<li{kind}><span title="{name}">{name}</span><b>{bar}</b><em>{number}</em></li>')
    return f'<ol class="bars{" many" if len(rows) > MANY else ""}">{"".join(rows)}</ol>'


def legend(names: Sequence[str], palette: npt.NDArray[np.uint8]) -> str:
    """Every class with its colour."""
    pairs = zip(names, palette, strict=True)
    return '<ul class="legend">' + "".join(f"<li>{swatch(color)}{text(n)}</li>" for n, color in pairs) + "</ul>"


def swatch(color: npt.NDArray[np.uint8]) -> str:
    """A small square in a class's colour."""
    return f'<i class="swatch" style="background:{css_color(color)}"></i>'


def heat_map(names: Sequence[str], shares: npt.NDArray[np.float64], label: Callable[[float], str]) -> str:
    """A table of shares [n, n] (rows: truth) shaded by size, hits and errors in two colours; nan rows stay blank."""
    head = "".join(f'<th scope="col" title="{text(n)}"><span>{text(n)}</span></th>' for n in names)
    rows = []
    for i, row in enumerate(shares):
        cells = []
        for j, share in enumerate(row):
            if not share >= 0.0005:  # nan too
                cells.append("<td></td>")
                continue
            # The root lifts errors of a few percent, which is where a confusion matrix is read, above the background.
            strength = max(0.08, math.sqrt(share))
            kind = ("hit" if i == j else "miss") + (" strong" if strength > 0.7 else "")
            hint = text(f"{names[i]} → {names[j]}: {percent(share, 2)} %")
            cells.append(f'<td class="{kind}" style="--v:{strength:.2f}" title="{hint}">{label(share)}</td>')
        rows.append(f'<tr><th scope="row" title="{text(names[i])}">{text(names[i])}</th>{"".join(cells)}</tr>')
    return (
        '<div class="wide"><table class="heat"><thead><tr><td class="corner">truth ↓ predicted →</td>'
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def colored(found: Map | Segments, truth: Map | Segments, table: LabelTable) -> tuple[Colored, Colored]:
    """What `overlay` draws prediction and truth with; a predicted segment has the shade of the true one it matches."""
    if not isinstance(found, Segments) or not isinstance(truth, Segments):
        assert not isinstance(found, Segments) and not isinstance(truth, Segments)
        return (found, table.palette), (truth, table.palette)
    things = np.array([c.thing for c in table.classes])
    found_colors, true_colors = (segment_colors(s.classes, table.palette, things) for s in (found, truth))
    true, predicted = np.nonzero(matched_iou(count_overlaps(found, truth), found, truth))
    found_colors[predicted] = true_colors[true]
    return (found.index, found_colors), (truth.index, true_colors)


def panels(
    image: npt.NDArray[np.uint8], found: Map | Segments, truth: Map | Segments, table: LabelTable, pictures: int
) -> list[tuple[str, str]]:
    """(caption, data URI) of image, truth, prediction and errors, small enough for `pictures` such rows on one page."""
    height, width = image.shape[:2]
    scale = min(1.0, math.sqrt(_PANEL_PIXELS / (height * width)))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    wrong, lost, ignored = (
        cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0 for mask in _errors(found, truth)
    )
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    errors = (110 + grey * 0.55).astype(np.uint8)
    errors[lost] = (grey[lost] * 0.25 + np.array([190, 120, 10])).astype(np.uint8)
    errors[wrong] = (grey[wrong] * 0.25 + np.array([180, 20, 20])).astype(np.uint8)
    errors[ignored] = grey[ignored] // 5  # last: an ignored pixel is never wrong
    predicted, true = (
        overlay(image, cv2.resize(index.astype(np.int16), size, interpolation=cv2.INTER_NEAREST), colors)
        for index, colors in colored(found, truth, table)
    )
    drawn = {"image": image, "truth": true, "prediction": predicted, "errors": errors}
    budget = _PICTURE_BYTES // (len(drawn) * pictures)
    return [(name, _data_uri(picture, budget)) for name, picture in drawn.items()]


def _errors(found: Map | Segments, truth: Map | Segments) -> tuple[Masks, Masks, Masks]:
    """Where the class is wrong, where the segment matches none, and what does not count [H, W]."""
    if not isinstance(found, Segments) or not isinstance(truth, Segments):
        return np.asarray(found != truth), np.zeros(truth.shape, bool), np.asarray(truth == IGNORE)
    matched = np.pad(matched_iou(count_overlaps(found, truth), found, truth) > 0, (0, 1))  # void: the last, as index -1
    lost = ~matched[truth.index, found.index]
    crowd = np.append(truth.crowd, True)
    return found.labels != truth.labels, lost, crowd[truth.index]


def _data_uri(picture: npt.NDArray[np.uint8], budget: int) -> str:
    pixels = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    for quality in (85, 75, 60, 45, 30, 15):
        data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        if len(data) <= budget:
            break
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode('ascii')}"
