"""Semantic scores. In: a confusion matrix. Out: IoU, accuracy, F-score, per class and mean, for people and for files.

mIoU, mAcc and aAcc are those of mmsegmentation: counts over the whole set, absent classes left out of the mean.
protocols.py has its other scores and those of other evaluators. A score of this package's own is a property of
SemanticScores and its line in `_MEANS` or `_CLASS_SCORES`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from panfpn.choices import PROTOCOLS, lookup
from panfpn.labels import LabelTable
from panfpn.metrics.bootstrap import miou_interval
from panfpn.metrics.boundary import BoundaryCounts
from panfpn.metrics.counts import Counts, Floats, Labels, areas, iou, mean, plain, share
from panfpn.metrics.images import MOST_PIXELS, ImageRows
from panfpn.metrics.layers import Layers, label_layers
from panfpn.metrics.scores import ClassTable, Column, Line
from panfpn.types import Example

if TYPE_CHECKING:
    from panfpn.metrics.protocols import ProtocolScores

_MEANS = {"miou": "mIoU", "macc": "mAcc", "aacc": "aAcc", "fwiou": "fwIoU", "mfscore": "mean F"}
_CLASS_SCORES = {"iou": "IoU", "accuracy": "accuracy", "precision": "precision", "fscore": "F"}
_SECOND_NAMES = ("Dice", "Recall")  # of Fscore and Acc in mmseg, which a table does without


@dataclass(frozen=True, eq=False)
class SemanticScores:
    """Scores of a data set, each as a share from 0 to 1; nan for a class that never occurs."""

    names: tuple[str, ...]
    counts: Counts  # [K + 1, K + 1], true class by predicted class; the last row and column: no class
    images: ImageRows | None = None
    boundary: BoundaryCounts | None = None

    headline: ClassVar[str] = "mIoU"
    curves: ClassVar[tuple[tuple[str, str], ...]] = (("mIoU", "miou"), ("mAcc", "macc"))

    @property
    def pixels(self) -> Counts:
        """True pixels per class [K]."""
        return areas(self.counts)[2]

    @property
    def iou(self) -> Floats:
        """Intersection over union per class [K]."""
        return iou(*areas(self.counts))

    @property
    def accuracy(self) -> Floats:
        """Share of each true class that is predicted (recall) [K]."""
        hits, _, true = areas(self.counts)
        return share(hits, true)

    @property
    def precision(self) -> Floats:
        """Share of each predicted class that is true [K]."""
        hits, predicted, _ = areas(self.counts)
        return share(hits, predicted)

    @property
    def fscore(self) -> Floats:
        """Harmonic mean of precision and recall (Dice) per class [K]."""
        hits, predicted, true = areas(self.counts)
        return share(2 * hits, predicted + true)

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that occur in truth or prediction."""
        return mean(self.iou)

    @property
    def macc(self) -> float:
        """Mean accuracy over the classes that occur in the truth."""
        return mean(self.accuracy)

    @property
    def mfscore(self) -> float:
        """Mean F-score over the classes that occur in the truth, 0 for one that is never hit (mmseg leaves it out)."""
        return mean(np.where(self.pixels > 0, self.fscore, np.nan))

    @property
    def aacc(self) -> float:
        """Share of all pixels of a true class that are right."""
        hits, _, true = areas(self.counts)
        return float(share(hits.sum(), true.sum()))

    @property
    def fwiou(self) -> float:
        """IoU weighted by how often a class is true."""
        return float(share(np.nansum(self.iou * self.pixels), self.pixels.sum()))

    @property
    def value(self) -> float:
        """The mean IoU, by which the best weights are chosen."""
        return self.miou

    def summary(self) -> str:
        """One line for a log."""
        return f"mIoU {self.miou:.4f}  mAcc {self.macc:.4f}  aAcc {self.aacc:.4f}"

    @property
    def confusion(self) -> "SemanticScores":
        """Themselves."""
        return self

    def figures(self) -> dict[str, float]:
        """The means by their names."""
        return {name: getattr(self, key) for key, name in _MEANS.items()}

    def class_table(self, protocol: str | None = None) -> ClassTable:
        """IoU and the rest of each class, as `protocol` names and counts them; None: by the properties above.

        ValueError for an unknown protocol, or one that needs counts of each image that are not there.
        """
        absent = np.isnan(self.iou)
        if protocol is None:
            scores = {name: getattr(self, key) for key, name in _CLASS_SCORES.items()}
        else:
            scores = {k: v for k, v in self.by_protocol(protocol).class_scores.items() if k not in _SECOND_NAMES}
            scores |= self._outlines()
        scores["pixels"] = self.pixels / max(1, self.pixels.sum())
        columns = tuple(Column(name, np.where(absent, np.nan, values)) for name, values in scores.items())
        return ClassTable(
            names=self.names, columns=columns, score=columns[0], absent=absent,
            note="Pixels: share of the labelled pixels that truly are of the class.",
            absent_note="neither in the truth nor predicted; left out of the means",
        )  # fmt: skip

    def lines(self, protocol: str) -> tuple[Line, ...]:
        """The means of `protocol`, of the outlines, and the bootstrap interval of mIoU, where they were counted."""
        lines = [Line(protocol, self.by_protocol(protocol).means)]
        if self.boundary:
            lines.append(Line("mean", {name: mean(values) for name, values in self._outlines().items()}))
        if self.images and len(self.images.names) > 1:
            interval = miou_interval(self.images)
            note = f"in 95 % of bootstrap resamples of the {len(self.images.names)} images"
            lines.append(Line("mmseg mIoU", {"from": interval.low, "to": interval.high}, note))
        return tuple(lines)

    def percent(self, protocol: str) -> bool:
        """Whether `protocol` gives percent; else shares."""
        return self.by_protocol(protocol).percent

    def by_protocol(self, protocol: str) -> "ProtocolScores":
        """The scores as another evaluator (panfpn.choices.PROTOCOLS) gives them.

        ValueError for one that does not exist, or that needs counts of each image which are not there.
        """
        scores: ProtocolScores = lookup(PROTOCOLS, protocol, "protocol")(self)
        return scores

    def _outlines(self) -> dict[str, Floats]:
        boundary = self.boundary
        return {"Boundary IoU": boundary.boundary_iou, "trimap IoU": boundary.trimap_iou} if boundary else {}

    def layers(self, example: Example, table: LabelTable) -> Layers:
        """How an example of train ids is drawn."""
        prediction, target = cast("tuple[Labels, Labels]", (example.prediction, example.target))
        return label_layers(prediction, target, table)

    def row(self) -> dict[str, Any]:
        """What metrics.jsonl holds of one validation: means, and IoU of each class."""
        return self._means() | {"iou": dict(zip(self.names, map(plain, self.iou), strict=True))}

    def _means(self) -> dict[str, float | None]:
        return {key: plain(getattr(self, key)) for key in _MEANS}

    def to_dict(self) -> dict[str, Any]:
        """Plain data, without the images and boundaries; a class that never occurs has null scores."""
        rows = zip(*(map(plain, getattr(self, key)) for key in _CLASS_SCORES), strict=True)
        classes = {
            name: dict(zip(_CLASS_SCORES, values, strict=True)) | {"pixels": int(pixels)}
            for name, values, pixels in zip(self.names, rows, self.pixels, strict=True)
        }
        return self._means() | {"classes": classes, "confusion": self.counts.tolist()}

    def to_json(self, protocol: str) -> dict[str, Any]:
        """`to_dict()`, the scores of `protocol`, and boundary, interval and images where they were counted."""
        data = self.to_dict() | {"protocol": self.by_protocol(protocol).to_dict()}
        if self.boundary:
            data["boundary"] = self.boundary.to_dict(self.names)
        if self.images:
            interval = miou_interval(self.images)
            data["interval"] = {"low": plain(interval.low), "high": plain(interval.high)}
            data["images"] = self.images.to_list()
        return data

    @staticmethod
    def from_dict(
        data: Mapping[str, Any], names: Sequence[str] | None = None, source: object = "scores"
    ) -> "SemanticScores":
        """The scores of plain data, with the images if it has any; `names` where the data may have lost their order.

        A confusion `[K][K]`, as older files hold it, counts no value that is no class. ValueError names `source` and
        the key that is missing or wrong.
        """
        missing = [key for key in ("classes", "confusion") if key not in data]
        if missing and "pq" in data:
            raise ValueError(f"{source}: holds the scores of a Panoptic FPN (PQ), not those of a Semantic FPN")
        if missing:
            raise ValueError(f"{source}: has no key {missing[0]!r}, so it holds no scores")
        if not isinstance(data["classes"], Mapping | Sequence) or isinstance(data["classes"], str):
            raise ValueError(f"{source}: key 'classes' is no list of classes")
        names = tuple(data["classes"] if names is None else names)
        try:
            table = np.array(data["confusion"])
            if table.size and (table.dtype.kind not in "iu" or table.min() < 0 or table.max() > MOST_PIXELS):
                raise ValueError("counts are whole numbers from 0 on")
            counts = table.astype(np.int64)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{source}: key 'confusion' is not a table of counts ({error})") from error
        classes = len(names)
        if counts.shape == (classes, classes):
            counts = np.pad(counts, (0, 1))
        if counts.shape != (classes + 1, classes + 1):
            raise ValueError(f"{source}: key 'confusion' is {list(counts.shape)}, which does not fit {classes} classes")
        images = ImageRows.from_list(data["images"], classes, source) if "images" in data else None
        return SemanticScores(names=names, counts=counts, images=images)
