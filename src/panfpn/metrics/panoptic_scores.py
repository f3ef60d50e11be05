"""Panoptic scores. In: sums over segments. Out: PQ, SQ, RQ, per class and mean, for people and for files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from panfpn.labels import LabelTable
from panfpn.metrics.average_precision import COCO_DETECTIONS, AveragePrecision
from panfpn.metrics.counts import Counts, Floats, mean, plain, quality
from panfpn.metrics.images import SegmentRows
from panfpn.metrics.layers import Layers, segment_layers
from panfpn.metrics.scores import ClassTable, Column, Line
from panfpn.metrics.semantic_scores import SemanticScores
from panfpn.types import Example, Segments

GROUPS = ("all", "things", "stuff")
_COUNTS = ("true_positives", "false_positives", "false_negatives")

Masks = npt.NDArray[np.bool_]


class Means(NamedTuple):
    """Means over the classes of a group that occur; nan where none does."""

    pq: float
    sq: float
    rq: float
    n: int  # classes that occur


@dataclass(frozen=True, eq=False)
class PanopticScores:
    """Scores of a data set, each as a share from 0 to 1; nan for a class of which no segment counts."""

    names: tuple[str, ...]
    things: Masks  # [K]; the other classes are stuff
    iou_sum: Floats  # [K] IoU summed over the matches
    true_positives: Counts  # [K]
    false_positives: Counts  # [K]
    false_negatives: Counts  # [K]
    branch: SemanticScores | None = None  # of the semantic branch by itself
    merged: SemanticScores | None = None  # of the classes in the merged map
    box_ap: AveragePrecision | None = None
    mask_ap: AveragePrecision | None = None
    images: SegmentRows | None = None

    headline: ClassVar[str] = "PQ"
    curves: ClassVar[tuple[tuple[str, str], ...]] = (
        ("PQ", "pq"), ("things", "pq_things"), ("stuff", "pq_stuff"), ("mIoU", "miou"),
    )  # fmt: skip

    @property
    def _qualities(self) -> tuple[Floats, Floats, Floats]:
        return quality(self.iou_sum, self.true_positives, self.false_positives, self.false_negatives)

    @property
    def pq(self) -> Floats:
        """Panoptic Quality per class [K]: SQ × RQ."""
        return self._qualities[0]

    @property
    def sq(self) -> Floats:
        """Segmentation Quality per class [K]: the mean IoU of the matches, 0 if there is none."""
        return self._qualities[1]

    @property
    def rq(self) -> Floats:
        """Recognition Quality per class [K]: the F-score of the matches."""
        return self._qualities[2]

    @property
    def value(self) -> float:
        """PQ over all classes, by which the best weights are chosen."""
        return self.mean().pq

    def mean(self, group: str = "all") -> Means:
        """Means over "all", "things" or "stuff"; ValueError for another group."""
        if group not in GROUPS:
            raise ValueError(f"no group {group!r} of classes; choose from {', '.join(GROUPS)}")
        chosen = {"all": np.full(len(self.names), True), "things": self.things, "stuff": ~self.things}[group]
        pq, sq, rq = (values[chosen] for values in self._qualities)
        return Means(mean(pq), mean(sq), mean(rq), int((~np.isnan(pq)).sum()))

    def summary(self) -> str:
        """One line for a log."""
        whole, things, stuff = map(self.mean, GROUPS)
        line = f"PQ {whole.pq:.4f} (things {things.pq:.4f} stuff {stuff.pq:.4f})  SQ {whole.sq:.4f}  RQ {whole.rq:.4f}"
        return line + "".join(f"  {name} {value:.4f}" for name, value in self.others.items())

    @property
    def others(self) -> dict[str, float]:
        """What else was measured, by its name."""
        return (
            ({"mIoU": self.branch.miou} if self.branch else {})
            | ({"mIoU merged": self.merged.miou} if self.merged else {})
            | ({"box AP": self.box_ap.ap} if self.box_ap else {})
            | ({"mask AP": self.mask_ap.ap} if self.mask_ap else {})
        )

    @property
    def confusion(self) -> SemanticScores | None:
        """Those of the classes in the merged map."""
        return self.merged

    def figures(self) -> dict[str, float]:
        """PQ, its parts, and what else was measured."""
        whole, things, stuff = map(self.mean, GROUPS)
        figures = {"PQ": whole.pq, "PQ things": things.pq, "PQ stuff": stuff.pq, "SQ": whole.sq, "RQ": whole.rq}
        return figures | self.others

    def class_table(self, protocol: str | None = None) -> ClassTable:
        """PQ, its parts and counts of each class; ValueError for a protocol other than the default, "mmseg"."""
        _check_protocol(protocol)
        columns = [
            Column("type", tuple("thing" if thing else "stuff" for thing in self.things)),
            *(Column(name, values) for name, values in zip(("PQ", "SQ", "RQ"), self._qualities, strict=True)),
            *([Column("IoU merged", self.merged.iou)] if self.merged else []),
            *(Column(name, getattr(self, key)) for name, key in zip(("TP", "FP", "FN"), _COUNTS, strict=True)),
        ]
        return ClassTable(
            names=self.names, columns=tuple(columns), score=columns[1], absent=np.isnan(self.pq),
            note=("IoU merged: of the classes in the merged map. " if self.merged else "")
            + "TP, FP, FN: segments that match, predicted ones that do not, true ones that do not.",
            absent_note="no segment counts; left out of the means",
        )  # fmt: skip

    def lines(self, protocol: str) -> tuple[Line, ...]:
        """A line for each group of classes, and one for each other score that there is."""
        _check_protocol(protocol)
        lines = []
        for group in GROUPS:
            pq, sq, rq, count = self.mean(group)
            note = f"({count} {'class' if count == 1 else 'classes'})"
            lines.append(Line(group, {"PQ": pq, "SQ": sq, "RQ": rq}, note))
        maps = (("semantic branch", self.branch), ("merged map", self.merged))
        lines += [Line(name, {"mIoU": part.miou}) for name, part in maps if part]
        for name, ap in (("boxes", self.box_ap), ("masks", self.mask_ap)):
            if ap:
                more = ap.detections > COCO_DETECTIONS  # COCO's own figure counts no more of an image
                lines.append(Line(f"{name}, {ap.detections} an image" if more else name, ap.figures()))
        return tuple(lines)

    def percent(self, protocol: str) -> bool:
        """Always: as the papers do."""
        _check_protocol(protocol)
        return True

    def layers(self, example: Example, table: LabelTable) -> Layers:
        """How an example of segments is drawn."""
        prediction, target = cast("tuple[Segments, Segments]", (example.prediction, example.target))
        return segment_layers(prediction, target, table)

    def row(self) -> dict[str, Any]:
        """What metrics.jsonl holds of one validation: means, and PQ of each class."""
        whole, things, stuff = map(self.mean, GROUPS)
        means = {"pq": whole.pq, "sq": whole.sq, "rq": whole.rq, "pq_things": things.pq, "pq_stuff": stuff.pq}
        means |= {name.lower().replace(" ", "_"): value for name, value in self.others.items()}
        classes = dict(zip(self.names, map(plain, self.pq), strict=True))
        return {key: plain(value) for key, value in means.items()} | {"class_pq": classes}

    def to_dict(self) -> dict[str, Any]:
        """Plain data; a class that never occurs has null scores."""
        data = self.row()
        del data["class_pq"]
        data["groups"] = {
            group: {key: plain(value) for key, value in self.mean(group)._asdict().items()} for group in GROUPS
        }
        data["classes"] = {
            name: {"thing": bool(self.things[k])}
            | {key: plain(getattr(self, key)[k]) for key in ("pq", "sq", "rq", "iou_sum")}
            | {key: int(getattr(self, key)[k]) for key in _COUNTS}
            for k, name in enumerate(self.names)
        }
        for key, part in (("branch", self.branch), ("merged", self.merged)):
            # A release file's header sorts its keys, and with them the classes.
            data |= {key: part.to_dict() | {"names": list(part.names)}} if part else {}
        for key, ap in (("box", self.box_ap), ("mask", self.mask_ap)):
            data |= {key: ap.to_dict()} if ap else {}
        return data

    def to_json(self, protocol: str) -> dict[str, Any]:
        """`to_dict()`, and the images where they were counted; ValueError for a protocol but the default, "mmseg"."""
        _check_protocol(protocol)
        return self.to_dict() | ({"images": self.images.to_list()} if self.images else {})

    @staticmethod
    def from_dict(
        data: Mapping[str, Any], names: Sequence[str] | None = None, source: object = "scores"
    ) -> "PanopticScores":
        """The scores of plain data; `names` where the data may have lost their order.

        ValueError names `source` and the key that is missing or wrong.
        """
        if "classes" not in data:
            raise ValueError(f"{source}: has no key 'classes', so it holds no scores")
        names = tuple(data["classes"] if names is None else names)
        try:
            rows = [data["classes"][name] for name in names]
            things, iou_sum = (np.array([row[key] for row in rows]) for key in ("thing", "iou_sum"))
            hits, wrong, missed = (np.array([row[key] for row in rows], np.int64) for key in _COUNTS)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{source}: key 'classes' does not hold the counts of {len(names)} classes ({error!r})"
                             ) from error  # fmt: skip
        branch, merged = (
            SemanticScores.from_dict(data[key], data[key].get("names"), f"{source}: {key}") if key in data else None
            for key in ("branch", "merged")
        )
        box, mask = (
            AveragePrecision.from_dict(data[key], f"{source}: {key}") if key in data else None
            for key in ("box", "mask")
        )
        images = SegmentRows.from_list(data["images"], len(names), source) if "images" in data else None
        return PanopticScores(
            names=names, things=things.astype(bool), iou_sum=iou_sum.astype(np.float64), true_positives=hits,
            false_positives=wrong, false_negatives=missed, branch=branch, merged=merged, box_ap=box, mask_ap=mask,
            images=images,
        )  # fmt: skip


def _check_protocol(protocol: str | None) -> None:
    if protocol not in (None, "mmseg"):
        raise ValueError(f"protocol {protocol!r} scores semantic maps; a Panoptic FPN is scored by PQ: leave it out")
