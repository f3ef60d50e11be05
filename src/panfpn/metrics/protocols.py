"""Other evaluators' scores, equal to their own functions. In: our counts. Out: their names, units and conventions.

They differ in what an absent class, a predicted value that is no class, and an unknown true value cost. Each was
compared with the peer itself by benchmarks/protocols.py.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from panfpn.metrics.confusion import SemanticScores
from panfpn.metrics.counts import Floats, areas, iou, mean, share

_Scores = tuple[dict[str, float], dict[str, Floats]]


@dataclass(frozen=True, slots=True, eq=False)
class ProtocolScores:
    """One evaluator's scores under its own names."""

    name: str
    percent: bool  # its unit; else shares from 0 to 1
    summary: dict[str, float]
    classes: dict[str, Floats]  # [K] each


def score(scores: SemanticScores, protocol: str) -> ProtocolScores:
    """The scores of `protocol`, one of NAMES; ValueError for another name, or where it needs images that are not there.

    With K = 1, mmseg and smp themselves count values that are no class as the class (an accident of torch.histc), which
    is not reproduced.
    """
    if protocol not in NAMES:
        raise ValueError(f"no protocol {protocol!r}; choose from {', '.join(NAMES)}")
    percent, function = _PROTOCOLS[protocol]
    summary, classes = function(scores)
    scale = 100 if percent else 1
    return ProtocolScores(
        name=protocol,
        percent=percent,
        summary={key: scale * value for key, value in summary.items()},
        classes={key: scale * values for key, values in classes.items()},
    )


def _mmseg(scores: SemanticScores) -> _Scores:
    """IoUMetric of mmsegmentation 1.2.2: F-score is nan, and left out of its mean, for a class without a hit."""
    hits, found, true = areas(scores.counts)
    precision, recall = share(hits, found), share(hits, true)
    classes = {
        "IoU": iou(hits, found, true), "Acc": recall, "Dice": share(2 * hits, found + true),
        "Fscore": share(2 * precision * recall, precision + recall), "Precision": precision, "Recall": recall,
    }  # fmt: skip
    return {"aAcc": scores.aacc} | {f"m{key}": mean(values) for key, values in classes.items()}, classes


def _detectron2(scores: SemanticScores) -> _Scores:
    """SemSegEvaluator of detectron2 (main): only classes that are true count, only where a class is predicted."""
    inner = scores.counts[:-1, :-1]
    hits, found, true = np.diag(inner), inner.sum(0), inner.sum(1)
    accuracy = share(hits, true)
    union = np.where(true > 0, iou(hits, found, true), np.nan)
    weights = share(true, true.sum())
    summary = {
        "mIoU": mean(union), "fwIoU": float(np.nansum(union * weights)), "mACC": mean(accuracy),
        "pACC": float(share(hits.sum(), true.sum())),
    }  # fmt: skip
    return summary, {"IoU": union, "ACC": accuracy}


def _cityscapes(scores: SemanticScores) -> _Scores:
    """cityscapesScripts, pixel level: a prediction is wrong only where the truth is a class; a miss always is."""
    rows = scores.counts[:-1]
    classes = {"classScores": iou(np.diag(rows), rows.sum(0)[:-1], rows.sum(1))}
    return {"averageScoreClasses": mean(classes["classScores"])}, classes


def _hf(scores: SemanticScores) -> _Scores:
    """Hugging Face evaluate, mean_iou."""
    classes = {"per_category_iou": scores.iou, "per_category_accuracy": scores.accuracy}
    return {"mean_iou": scores.miou, "mean_accuracy": scores.macc, "overall_accuracy": scores.aacc}, classes


def _smp(scores: SemanticScores) -> _Scores:
    """segmentation_models_pytorch: get_stats(mode="multiclass") of each image, four reductions, zero_division=1."""
    if scores.images is None:
        raise ValueError("protocol 'smp' needs the counts of each image, which these scores do not have")
    hits, found, true = scores.images.areas
    wrong, missed = found - hits, true - hits
    rest = scores.images.pixels[:, None] - hits - wrong - missed
    stats = np.stack([hits, wrong, missed, rest])  # [4, N, K]
    summary: dict[str, float] = {}
    classes: dict[str, Floats] = {}
    for name, ratio in _SMP.items():
        classes[name] = _filled(ratio(*stats.sum(1)))
        summary |= {
            f"{name}/micro": float(ratio(*stats.sum((1, 2)))),  # the only one that stays nan
            f"{name}/macro": mean(classes[name]),
            f"{name}/micro-imagewise": mean(_filled(ratio(*stats.sum(2)))),
            f"{name}/macro-imagewise": mean(_filled(ratio(*stats))),
        }
    return summary, classes


def _filled(values: Floats) -> Floats:
    return np.nan_to_num(values, nan=1.0)


_SMP: dict[str, Callable[..., Floats]] = {
    "iou_score": lambda hits, wrong, missed, _: share(hits, hits + wrong + missed),
    "f1_score": lambda hits, wrong, missed, _: share(2 * hits, 2 * hits + wrong + missed),
    "accuracy": lambda hits, wrong, missed, rest: share(hits + rest, hits + wrong + missed + rest),
    "precision": lambda hits, wrong, *_: share(hits, hits + wrong),
    "recall": lambda hits, _, missed, __: share(hits, hits + missed),
}

_PROTOCOLS: dict[str, tuple[bool, Callable[[SemanticScores], _Scores]]] = {
    "mmseg": (True, _mmseg), "detectron2": (True, _detectron2), "cityscapes": (False, _cityscapes), "hf": (False, _hf),
    "smp": (False, _smp),
}  # fmt: skip
NAMES = tuple(_PROTOCOLS)
