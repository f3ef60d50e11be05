"""How far mIoU would move on other images like these. In: counts of each image. Out: intervals.

The bootstrap resamples images with replacement and takes mIoU of their summed counts (Efron & Tibshirani 1993, ch. 13).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from panfpn.metrics.counts import Floats, iou, mean, means
from panfpn.metrics.images import ImageRows

if TYPE_CHECKING:
    from panfpn.metrics.semantic_scores import SemanticScores

_CELLS = 1 << 22  # float64 numbers held at a time


@dataclass(frozen=True, slots=True)
class Interval:
    """A score and the bounds of its 95 % percentile interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models on the same images."""

    a: Interval
    b: Interval
    difference: Interval  # b - a
    b_better: float  # share of the resamples in which b has the higher mIoU
    moved: tuple[tuple[str, float, float], ...]  # image, its mIoU by a and by b; largest change first


def miou_interval(images: ImageRows, *, resamples: int = 1000, seed: int = 0) -> Interval:
    """The mIoU of the set and its interval; nan where nothing is labelled."""
    values, drawn = _resampled([images], resamples, seed)
    return _interval(float(values[0]), drawn[:, 0])


def compare(
    a: "SemanticScores",
    b: "SemanticScores",
    *,
    sources: tuple[object, object] = ("A", "B"),
    resamples: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Paired comparison: both models are scored on the same resamples, which removes what the choice of images adds.

    Raises:
        ValueError: classes, images or truth that differ, or scores without images; it names `sources`.
    """
    first, second = _paired(a, b, sources)
    values, drawn = _resampled([first, second], resamples, seed)
    difference = drawn[:, 1] - drawn[:, 0]
    known = difference[~np.isnan(difference)]
    mious_a, mious_b = first.miou, second.miou
    change = np.nan_to_num(np.abs(mious_b - mious_a), nan=-1.0)
    order = [i for i in np.argsort(-change, kind="stable") if change[i] > 0]
    return Comparison(
        a=_interval(float(values[0]), drawn[:, 0]),
        b=_interval(float(values[1]), drawn[:, 1]),
        difference=_interval(float(values[1] - values[0]), difference),
        b_better=mean((known > 0).astype(np.float64)),
        moved=tuple((first.names[i], float(mious_a[i]), float(mious_b[i])) for i in order),
    )


def _paired(a: "SemanticScores", b: "SemanticScores", sources: tuple[object, object]) -> tuple[ImageRows, ImageRows]:
    """The images of both in one order."""
    for scores, source in zip((a, b), sources, strict=True):
        if scores.images is None:
            raise ValueError(
                f"{source}: has no key 'images', the counts of each image; write it with panfpn eval --json"
            )
    if a.names != b.names:
        odd = next((pair for pair in zip(a.names, b.names, strict=False) if pair[0] != pair[1]), None)
        what = f"{odd[0]!r} and {odd[1]!r}" if odd else f"{len(a.names)} and {len(b.names)} of them"
        raise ValueError(f"{sources[0]} and {sources[1]}: the classes differ ({what})")
    first, second = a.images, b.images
    assert first is not None and second is not None
    index = {name: i for i, name in enumerate(second.names)}
    unpaired = sorted(set(first.names) ^ index.keys())
    if unpaired or len(first.names) != len(second.names) or len(index) != len(second.names):
        what = f"{unpaired[0]!r} is only in one" if unpaired else "a name stands twice"
        raise ValueError(f"{sources[0]} and {sources[1]}: the images differ ({what}); score both on the same split")
    second = ImageRows(first.names, second.rows[[index[name] for name in first.names]])
    same = (first.areas[2] == second.areas[2]).all(1) & (first.pixels == second.pixels)
    if not same.all():
        name = first.names[int(np.argmin(same))]
        raise ValueError(
            f"{sources[0]} and {sources[1]}: the truth of image {name!r} differs; score both on the same data"
        )
    return first, second


def _resampled(models: Sequence[ImageRows], resamples: int, seed: int) -> tuple[Floats, Floats]:
    """The mIoU of each model on all images [models], and on each resample [resamples, models]."""
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; it must be positive")
    rows = np.stack([m.rows[:, :-1] for m in models], 1).astype(np.float64)  # [N, models, 3K]
    count, width = len(rows), rows[0].size if len(rows) else 1
    if not count:
        return np.full(len(models), np.nan), np.full((resamples, len(models)), np.nan)
    rng, flat = np.random.default_rng(seed), rows.reshape(count, -1)
    step = max(1, _CELLS // max(count, width))
    parts = []
    for start in range(0, resamples, step):
        # How often each image is drawn says all about a resample: [step, N] @ [N, models × 3K].
        times = rng.multinomial(count, np.full(count, 1 / count), min(step, resamples - start))
        parts.append(_mious((times @ flat).reshape(-1, *rows.shape[1:])))
    return _mious(rows.sum(0)), np.concatenate(parts)


def _mious(sums: Floats) -> Floats:
    """The mIoU [...] of summed rows [..., 3K]."""
    return means(iou(*np.split(sums, 3, axis=-1)))


def _interval(value: float, drawn: Floats) -> Interval:
    known = drawn[~np.isnan(drawn)]
    low, high = np.quantile(known, (0.025, 0.975)) if known.size else (np.nan, np.nan)
    return Interval(value, float(low), float(high))
