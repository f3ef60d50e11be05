"""How far a score would move on other images like these. In: counts of each image. Out: intervals.

The bootstrap resamples images with replacement and takes mIoU, or PQ, of their summed counts (Efron & Tibshirani 1993,
ch. 13).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Union

import numpy as np

from panfpn.metrics.counts import Floats, mean
from panfpn.metrics.images import ImageRows, Resampled

if TYPE_CHECKING:
    from panfpn.metrics.panoptic_scores import PanopticScores
    from panfpn.metrics.semantic_scores import SemanticScores

_POWER = 2.8  # standard errors that a test of level 5 % finds in 80 % of all sets (1.96 + 0.84)
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

    headline: str  # mIoU or PQ
    a: Interval
    b: Interval
    difference: Interval  # b - a
    detectable: float  # the smallest difference that so many such images would show in four of five sets
    b_better: float  # share of the resamples in which b has the higher score
    moved: tuple[tuple[str, float, float], ...]  # image, its score by a and by b; largest change first


def miou_interval(images: ImageRows, *, resamples: int = 1000, seed: int = 0) -> Interval:
    """The mIoU of the set and its interval; nan where nothing is labelled."""
    values, drawn = _resampled([images], resamples, seed)
    return _interval(float(values[0]), drawn[:, 0])


def compare(
    a: Union["SemanticScores", "PanopticScores"],
    b: Union["SemanticScores", "PanopticScores"],
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
    scores_a, scores_b = (rows.score(rows.sums) for rows in (first, second))
    change = np.nan_to_num(np.abs(scores_b - scores_a), nan=-1.0)
    order = [i for i in np.argsort(-change, kind="stable") if change[i] > 0]
    return Comparison(
        headline=a.headline,
        a=_interval(float(values[0]), drawn[:, 0]),
        b=_interval(float(values[1]), drawn[:, 1]),
        difference=_interval(float(values[1] - values[0]), difference),
        detectable=float(_POWER * known.std()) if known.size else float("nan"),
        b_better=mean((known > 0).astype(np.float64)),
        moved=tuple((first.names[i], float(scores_a[i]), float(scores_b[i])) for i in order),
    )


def _paired(
    a: Union["SemanticScores", "PanopticScores"], b: Union["SemanticScores", "PanopticScores"],
    sources: tuple[object, object],
) -> tuple[Resampled, Resampled]:  # fmt: skip
    """The images of both in one order."""
    if type(a) is not type(b):
        raise ValueError(f"{sources[0]} holds {a.headline} and {sources[1]} {b.headline}; compare models of one kind")
    for scores, source in zip((a, b), sources, strict=True):
        if scores.images is None:
            raise ValueError(
                f"{source}: has no key 'images', the counts of each image; write it with panfpn eval --json"
            )
    if a.names != b.names:
        odd = next((pair for pair in zip(a.names, b.names, strict=False) if pair[0] != pair[1]), None)
        what = f"{odd[0]!r} and {odd[1]!r}" if odd else f"{len(a.names)} and {len(b.names)} of them"
        raise ValueError(f"{sources[0]} and {sources[1]}: the classes differ ({what})")
    first: Resampled | None = a.images
    second: Resampled | None = b.images
    assert first is not None and second is not None
    index = {name: i for i, name in enumerate(second.names)}
    unpaired = sorted(set(first.names) ^ index.keys())
    if unpaired or len(first.names) != len(second.names) or len(index) != len(second.names):
        what = f"{unpaired[0]!r} is only in one" if unpaired else "a name stands twice"
        raise ValueError(f"{sources[0]} and {sources[1]}: the images differ ({what}); score both on the same split")
    second = second.ordered([index[name] for name in first.names])
    same = (first.truth == second.truth).all(1)
    if not same.all():
        name = first.names[int(np.argmin(same))]
        raise ValueError(
            f"{sources[0]} and {sources[1]}: the truth of image {name!r} differs; score both on the same data"
        )
    return first, second


def _resampled(models: Sequence[Resampled], resamples: int, seed: int) -> tuple[Floats, Floats]:
    """The score of each model on all images [models], and on each resample [resamples, models]."""
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; it must be positive")
    rows, score = np.stack([m.sums for m in models], 1), models[0].score  # [N, models, F]
    count, width = len(rows), rows[0].size if len(rows) else 1
    if not count:
        return np.full(len(models), np.nan), np.full((resamples, len(models)), np.nan)
    rng, flat = np.random.default_rng(seed), rows.reshape(count, -1)
    step = max(1, _CELLS // max(count, width))
    parts = []
    for start in range(0, resamples, step):
        # How often each image is drawn says all about a resample: [step, N] @ [N, models × F].
        times = rng.multinomial(count, np.full(count, 1 / count), min(step, resamples - start))
        parts.append(score((times @ flat).reshape(-1, *rows.shape[1:])))
    return score(rows.sum(0)), np.concatenate(parts)


def _interval(value: float, drawn: Floats) -> Interval:
    known = drawn[~np.isnan(drawn)]
    low, high = np.quantile(known, (0.025, 0.975)) if known.size else (np.nan, np.nan)
    return Interval(value, float(low), float(high))
