"""How far a score would move on other images like these. In: counts of each image. Out: intervals.

The bootstrap resamples images with replacement and takes mIoU, or PQ, of their summed counts (Efron & Tibshirani 1993,
ch. 13).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from panfpn.metrics.counts import Floats, mean
from panfpn.metrics.images import ImageRows, Resampled

if TYPE_CHECKING:
    from panfpn.metrics.panoptic_scores import PanopticScores
    from panfpn.metrics.semantic_scores import SemanticScores

    Scored: TypeAlias = SemanticScores | PanopticScores

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
    a: "Scored | Sequence[Scored]", b: "Scored | Sequence[Scored]", *, sources: Sequence[object] = (),
    resamples: int = 1000, seed: int = 0,
) -> Comparison:  # fmt: skip
    """Paired comparison: all are scored on the same resamples, which removes what the choice of images adds.

    Several scores of a side are trainings with other seeds: their mean is compared, and they are drawn with replacement
    too, so that the interval has both. `sources` names them all, those of `a` first.

    Raises:
        ValueError: classes, images or truth that differ, or scores without images; it names `sources`.
    """
    sides = [list(side) if isinstance(side, Sequence) else [side] for side in (a, b)]
    scores = [one for side in sides for one in side]
    rows = _paired(scores, sources or ["A"] * len(sides[0]) + ["B"] * len(sides[1]))
    values, drawn = _resampled(rows, resamples, seed)
    count, rng = len(sides[0]), np.random.default_rng((seed, 1))
    first, second = (_of_side(part, rng) for part in (drawn[:, :count], drawn[:, count:]))
    by_image = np.stack([one.score(one.sums) for one in rows])  # [models, N]
    with np.errstate(invalid="ignore"):
        scores_a, scores_b = by_image[:count].mean(0), by_image[count:].mean(0)
    difference = second - first
    known = difference[~np.isnan(difference)]
    change = np.nan_to_num(np.abs(scores_b - scores_a), nan=-1.0)
    order = [i for i in np.argsort(-change, kind="stable") if change[i] > 0]
    mean_a, mean_b = float(values[:count].mean()), float(values[count:].mean())
    return Comparison(
        headline=scores[0].headline,
        a=_interval(mean_a, first),
        b=_interval(mean_b, second),
        difference=_interval(mean_b - mean_a, difference),
        detectable=float(_POWER * known.std()) if known.size else float("nan"),
        b_better=mean((known > 0).astype(np.float64)),
        moved=tuple((rows[0].names[i], float(scores_a[i]), float(scores_b[i])) for i in order),
    )


def _of_side(drawn: Floats, rng: np.random.Generator) -> Floats:
    """The mean score of as many seeds, drawn anew for each resample; [resamples, seeds] -> [resamples]."""
    seeds = rng.integers(drawn.shape[1], size=drawn.shape)
    mean_of_seeds: Floats = np.take_along_axis(drawn, seeds, 1).mean(1)
    return mean_of_seeds


def _paired(scores: "Sequence[Scored]", sources: Sequence[object]) -> list[Resampled]:
    """The images of all in the order of the first."""
    paired: list[Resampled] = []
    for one, source in zip(scores, sources, strict=True):
        if type(one) is not type(scores[0]):
            raise ValueError(f"{sources[0]} holds {scores[0].headline} and {source} {one.headline}; compare models of "
                             "one kind")  # fmt: skip
        if one.images is None:
            raise ValueError(
                f"{source}: has no key 'images', the counts of each image; write it with panfpn eval --json"
            )
        if one.names != scores[0].names:
            odd = next((pair for pair in zip(scores[0].names, one.names, strict=False) if pair[0] != pair[1]), None)
            what = f"{odd[0]!r} and {odd[1]!r}" if odd else f"{len(scores[0].names)} and {len(one.names)} of them"
            raise ValueError(f"{sources[0]} and {source}: the classes differ ({what})")
        paired.append(_in_order(one.images, paired[0], (sources[0], source)) if paired else one.images)
    return paired


def _in_order(rows: Resampled, first: Resampled, sources: tuple[object, object]) -> Resampled:
    """The rows in the order of the first."""
    index = {name: i for i, name in enumerate(rows.names)}
    unpaired = sorted(set(first.names) ^ index.keys())
    if unpaired or len(first.names) != len(rows.names) or len(index) != len(rows.names):
        what = f"{unpaired[0]!r} is only in one" if unpaired else "a name stands twice"
        raise ValueError(f"{sources[0]} and {sources[1]}: the images differ ({what}); score both on the same split")
    rows = rows.ordered([index[name] for name in first.names])
    same = (first.truth == rows.truth).all(1)
    if not same.all():
        name = first.names[int(np.argmin(same))]
        raise ValueError(
            f"{sources[0]} and {sources[1]}: the truth of image {name!r} differs; score both on the same data"
        )
    return rows


def _resampled(models: Sequence[Resampled], resamples: int, seed: int) -> tuple[Floats, Floats]:
    """The score of each model on all images [models], and on each resample [resamples, models]."""
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; it must be positive")
    rows, score = np.stack([m.sums for m in models], 1), models[0].score  # [N, models, F]
    count, width = len(rows), rows[0].size if len(rows) else 1
    if count < 2:  # one image is every resample of itself
        value = score(rows.sum(0)) if count else np.full(len(models), np.nan)
        return value, np.full((resamples, len(models)), np.nan)
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
