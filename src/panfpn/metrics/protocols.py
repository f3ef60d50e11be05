"""Other evaluators' scores, equal to their own functions. In: our counts. Out: their names, units and conventions.

They differ in what an absent class, a predicted value that is no class, and an unknown true value cost. Each was
compared with the peer itself by benchmarks/protocols.py. With K = 1, mmseg and smp themselves count values that are no
class as the class (an accident of torch.histc), which is not reproduced. A protocol is a function here, and its line in
panfpn.choices.PROTOCOLS.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from panfpn.metrics.counts import Floats, areas, iou, mean, plain, share
from panfpn.metrics.semantic_scores import SemanticScores


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ProtocolScores:
    """One evaluator's scores under its own names, as shares."""

    name: str
    percent: bool  # its unit
    means: dict[str, float]
    class_scores: dict[str, Floats]  # [K] each

    @property
    def summary(self) -> dict[str, float]:
        """The means in the evaluator's unit."""
        return {key: self._scale * value for key, value in self.means.items()}

    @property
    def classes(self) -> dict[str, Floats]:
        """The scores of each class [K] in the evaluator's unit."""
        return {key: self._scale * values for key, values in self.class_scores.items()}

    @property
    def _scale(self) -> int:
        return 100 if self.percent else 1

    def to_dict(self) -> dict[str, Any]:
        """Plain data, in the evaluator's unit; no score is None."""
        return {
            "name": self.name, "percent": self.percent,
            "summary": {key: plain(value) for key, value in self.summary.items()},
            "classes": {key: [plain(value) for value in values] for key, values in self.classes.items()},
        }  # fmt: skip


def mmseg(scores: SemanticScores) -> ProtocolScores:
    """IoUMetric of mmsegmentation 1.2.2: F-score is nan, and left out of its mean, for a class without a hit."""
    hits, predicted, true = areas(scores.counts)
    precision, recall = share(hits, predicted), share(hits, true)
    classes = {
        "IoU": iou(hits, predicted, true), "Acc": recall, "Dice": share(2 * hits, predicted + true),
        "Fscore": share(2 * precision * recall, precision + recall), "Precision": precision, "Recall": recall,
    }  # fmt: skip
    means = {"aAcc": scores.aacc} | {f"m{key}": mean(values) for key, values in classes.items()}
    return ProtocolScores(name="mmseg", percent=True, means=means, class_scores=classes)


def detectron2(scores: SemanticScores) -> ProtocolScores:
    """SemSegEvaluator of detectron2 (main): only classes that are true count, only where a class is predicted."""
    inner = scores.counts[:-1, :-1]
    hits, predicted, true = np.diag(inner), inner.sum(0), inner.sum(1)
    accuracy = share(hits, true)
    union = np.where(true > 0, iou(hits, predicted, true), np.nan)
    weights = share(true, true.sum())
    means = {
        "mIoU": mean(union), "fwIoU": float(np.nansum(union * weights)), "mACC": mean(accuracy),
        "pACC": float(share(hits.sum(), true.sum())),
    }  # fmt: skip
    classes = {"IoU": union, "ACC": accuracy}
    return ProtocolScores(name="detectron2", percent=True, means=means, class_scores=classes)


def cityscapes(scores: SemanticScores) -> ProtocolScores:
    """cityscapesScripts, pixel level: a prediction is wrong only where the truth is a class; a miss always is."""
    rows = scores.counts[:-1]
    classes = {"classScores": iou(np.diag(rows), rows.sum(0)[:-1], rows.sum(1))}
    means = {"averageScoreClasses": mean(classes["classScores"])}
    return ProtocolScores(name="cityscapes", percent=False, means=means, class_scores=classes)


def hf(scores: SemanticScores) -> ProtocolScores:
    """Hugging Face evaluate, mean_iou."""
    classes = {"per_category_iou": scores.iou, "per_category_accuracy": scores.accuracy}
    means = {"mean_iou": scores.miou, "mean_accuracy": scores.macc, "overall_accuracy": scores.aacc}
    return ProtocolScores(name="hf", percent=False, means=means, class_scores=classes)


def smp(scores: SemanticScores) -> ProtocolScores:
    """segmentation_models_pytorch: get_stats(mode="multiclass") of each image, four reductions, zero_division=1."""
    if scores.images is None:
        raise ValueError("protocol 'smp' needs the counts of each image, which these scores do not have")
    hits, predicted, true = scores.images.areas
    wrong, missed = predicted - hits, true - hits
    rest = scores.images.pixels[:, None] - hits - wrong - missed
    stats = np.stack([hits, wrong, missed, rest])  # [4, N, K]
    means: dict[str, float] = {}
    classes: dict[str, Floats] = {}
    for name, ratio in _SMP.items():
        classes[name] = _filled(ratio(*stats.sum(1)))
        means |= {
            f"{name}/micro": float(ratio(*stats.sum((1, 2)))),  # the only one that stays nan
            f"{name}/macro": mean(classes[name]),
            f"{name}/micro-imagewise": mean(_filled(ratio(*stats.sum(2)))),
            f"{name}/macro-imagewise": mean(_filled(ratio(*stats))),
        }
    return ProtocolScores(name="smp", percent=False, means=means, class_scores=classes)


def _filled(values: Floats) -> Floats:
    return np.nan_to_num(values, nan=1.0)


_SMP: dict[str, Callable[..., Floats]] = {
    "iou_score": lambda hits, wrong, missed, _: share(hits, hits + wrong + missed),
    "f1_score": lambda hits, wrong, missed, _: share(2 * hits, 2 * hits + wrong + missed),
    "accuracy": lambda hits, wrong, missed, rest: share(hits + rest, hits + wrong + missed + rest),
    "precision": lambda hits, wrong, *_: share(hits, hits + wrong),
    "recall": lambda hits, _, missed, __: share(hits, hits + missed),
}
