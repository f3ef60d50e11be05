"""Panoptic Quality from running sums over segments. In: pairs of panoptic maps. Out: PQ, SQ, RQ, per class and mean.

The counts are those of panopticapi (Kirillov et al., CVPR 2019, arXiv 1801.00868), to its treatment of void and crowd.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from panfpn.labels import IGNORE
from panfpn.metrics.average_precision import AveragePrecision
from panfpn.metrics.confusion import SemanticScores
from panfpn.metrics.counts import Counts, Floats, check_sizes, mean, plain, share
from panfpn.types import Segments

GROUPS = ("all", "things", "stuff")
_COUNTS = ("true_positives", "false_positives", "false_negatives")

Masks = npt.NDArray[np.bool_]


class Means(NamedTuple):
    """Means over the classes of a group that occur; nan where none does."""

    pq: float
    sq: float
    rq: float
    n: int  # classes that occur


class PanopticQuality:
    """Sums per class over a set, which add up over parts of it: `iou_sum` float64 [K], the others int64 [K]."""

    def __init__(self, num_classes: int) -> None:
        self.iou_sum = np.zeros(num_classes)
        self.true_positives = np.zeros(num_classes, np.int64)
        self.false_positives = np.zeros(num_classes, np.int64)
        self.false_negatives = np.zeros(num_classes, np.int64)

    @property
    def sums(self) -> tuple[Floats, Counts, Counts, Counts]:
        """The four arrays themselves, to be added up over ranks in place."""
        return self.iou_sum, self.true_positives, self.false_positives, self.false_negatives

    def update(self, found: Segments, truth: Segments) -> float:
        """Add one image; returns its own mean PQ (nan if no segment counts).

        A true segment without a pixel is missed, as panopticapi counts it; a predicted one is none. ValueError if the
        sizes differ or a segment has no class.
        """
        classes = len(self.iou_sum)
        for name, segments in (("predicted", found), ("true", truth)):
            bad = np.flatnonzero((segments.classes < 0) | (segments.classes >= classes))
            if bad.size:
                raise ValueError(
                    f"{name} segment {segments.ids[bad[0]]} has class {segments.classes[bad[0]]}, which is not one of "
                    f"the {classes} classes; leave it void"
                )
        overlaps = count_overlaps(found, truth)
        shares = matched_iou(overlaps, found, truth)  # [T, P]
        hit, hit_by = np.nonzero(shares)
        missed = ~truth.crowd
        missed[hit] = False
        wrong = ~_excused(overlaps, found, truth)
        wrong[hit_by] = False
        own = (
            np.bincount(truth.classes[hit], shares[hit, hit_by], classes),
            np.bincount(truth.classes[hit], minlength=classes),
            np.bincount(found.classes[wrong], minlength=classes),
            np.bincount(truth.classes[missed], minlength=classes),
        )
        for total, part in zip(self.sums, own, strict=True):
            total += part
        return mean(_quality(*own)[0])

    def scores(self, names: Sequence[str], things: npt.ArrayLike) -> "PanopticScores":
        """The scores so far; `things` [K] says which classes are things."""
        iou_sum, hits, wrong, missed = self.sums
        return PanopticScores(
            names=tuple(names), things=np.array(things, bool), iou_sum=iou_sum.copy(), true_positives=hits.copy(),
            false_positives=wrong.copy(), false_negatives=missed.copy(),
        )  # fmt: skip


def count_overlaps(found: Segments, truth: Segments) -> Counts:
    """Pixels [T + 1, P + 1] that a true and a predicted segment share; row and column 0 are void."""
    check_sizes(found.index, truth.index)
    shape = len(truth.classes) + 1, len(found.classes) + 1
    # One count over both maps, without a sort: 32,767 segments each way still fit into int32.
    index = np.multiply(truth.index, shape[1], dtype=np.int32)  # [H, W]
    index += found.index
    index += 1 - IGNORE * shape[1]
    return np.bincount(index.ravel(), minlength=shape[0] * shape[1]).reshape(shape)


def matched_iou(overlaps: Counts, found: Segments, truth: Segments) -> Floats:
    """IoU [T, P] of the pairs that match, 0 elsewhere: no crowd, of one class, IoU over a half without void pixels.

    Segments do not overlap, so a row and a column hold at most one match.
    """
    shared = overlaps[1:, 1:]
    void = overlaps[0, 1:]
    union = overlaps[1:].sum(1)[:, None] + overlaps[:, 1:].sum(0) - shared - void
    able = (2 * shared > union) & (truth.classes[:, None] == found.classes) & ~truth.crowd[:, None]
    return np.where(able, share(shared, union), 0)


def _excused(overlaps: Counts, found: Segments, truth: Segments) -> Masks:
    """Predicted segments [P] that are no false positives: over a half lies in void and the class's crowd, or no pixel.

    Of several crowd segments of a class the last one counts, as in panopticapi.
    """
    crowds = np.flatnonzero(truth.crowd)
    last = np.full(1 + max(truth.classes.max(initial=0), found.classes.max(initial=0)), IGNORE)  # by class
    last[truth.classes[crowds]] = crowds
    row = last[found.classes] + 1  # [P], 0 (void) for a class without a crowd
    places = np.arange(1, len(found.classes) + 1)
    inside = overlaps[0, 1:] + np.where(row > 0, overlaps[row, places], 0)
    area = overlaps[:, 1:].sum(0)
    return np.asarray((2 * inside > area) | (area == 0))


def _quality(iou_sum: Any, hits: Any, wrong: Any, missed: Any) -> tuple[Floats, Floats, Floats]:
    """PQ, SQ, RQ [K]; nan for a class that does not occur, SQ 0 for one that does and is never matched."""
    weight = hits + wrong / 2 + missed / 2
    sq = np.where((weight > 0) & (hits == 0), 0, share(iou_sum, hits))
    return share(iou_sum, weight), sq, share(hits, weight)


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

    headline: ClassVar[str] = "PQ"

    @property
    def _qualities(self) -> tuple[Floats, Floats, Floats]:
        return _quality(self.iou_sum, self.true_positives, self.false_positives, self.false_negatives)

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
        return PanopticScores(
            names=names, things=things.astype(bool), iou_sum=iou_sum.astype(np.float64), true_positives=hits,
            false_positives=wrong, false_negatives=missed, branch=branch, merged=merged, box_ap=box, mask_ap=mask,
        )  # fmt: skip
