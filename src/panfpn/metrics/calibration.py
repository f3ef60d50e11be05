"""Whether probabilities are what they say. In: probabilities and truth of pixels. Out: calibration errors, thresholds.

Expected calibration error with bins of equal width (Guo et al. 2017, "On Calibration of Modern Neural Networks"), its
mean over classes (Kull et al. 2019, "Beyond temperature scaling"), and risk against coverage (El-Yaniv & Wiener 2010).
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from panfpn.metrics.counts import plain

Floats = npt.NDArray[np.floating]
_BINS = 15
_RISKS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5)


@dataclass(frozen=True, slots=True)
class Bin:
    """The pixels whose winner has a probability from `low` on."""

    low: float
    count: int
    confidence: float  # mean; nan where there are none
    accuracy: float


@dataclass(frozen=True, slots=True)
class Threshold:
    """Labels whose probability is at least `confidence` are `coverage` of all, and wrong in a share of `risk`."""

    risk: float
    confidence: float
    coverage: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A temperature, and how sure the labels of a set are before and after it."""

    temperature: float
    bias: tuple[float, ...]  # added to the classes' logits; zeros but with `bias`, as it moves labels
    pixels: int
    images: int
    error: tuple[float, float]  # expected calibration error, before and after
    class_error: tuple[float, float]
    diagram: tuple[tuple[Bin, ...], tuple[Bin, ...]]
    thresholds: tuple[Threshold, ...]
    absent: tuple[str, ...] = ()  # classes without a labelled pixel, which get no bias

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as releases keep it."""
        data = asdict(self)
        for b in (b for bins in data["diagram"] for b in bins):  # JSON has no nan
            b |= {key: plain(b[key]) for key in ("confidence", "accuracy")}
        return data


def reliability(confidence: Floats, correct: npt.NDArray[np.bool_]) -> tuple[Bin, ...]:
    """The diagram of the winners' probabilities [N] and whether they are right [N]."""
    place = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    counts = np.bincount(place, minlength=_BINS)
    with np.errstate(invalid="ignore"):
        means = np.bincount(place, confidence, _BINS) / counts
        shares = np.bincount(place, correct, _BINS) / counts
    return tuple(Bin(k / _BINS, int(counts[k]), float(means[k]), float(shares[k])) for k in range(_BINS))


def calibration_error(confidence: Floats, correct: npt.NDArray[np.bool_]) -> float:
    """The mean distance of probability and accuracy over pixels, by bins; nan without pixels."""
    bins = [b for b in reliability(confidence, correct) if b.count]
    total = sum(b.count for b in bins)
    return sum(b.count * abs(b.confidence - b.accuracy) for b in bins) / total if total else float("nan")


def classwise_error(probabilities: Floats, labels: npt.NDArray[np.integer]) -> float:
    """The mean over classes of the calibration error of that class's probability; [N, K] and [N]."""
    errors = [calibration_error(probabilities[:, k], labels == k) for k in range(probabilities.shape[1])]
    return float(np.mean(errors))


def thresholds(confidence: Floats, correct: npt.NDArray[np.bool_]) -> tuple[Threshold, ...]:
    """For each of some risks the lowest probability from which on the labels are wrong in at most that share."""
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # equal probabilities stay or go together
    risk = np.cumsum(~correct[order])[ends] / (ends + 1)
    found = []
    for wanted in _RISKS:
        fits = np.flatnonzero(risk <= wanted)
        if len(fits):
            last = ends[fits[-1]]
            found.append(Threshold(wanted, float(ranked[last]), float((last + 1) / len(ranked))))
    return tuple(found)
