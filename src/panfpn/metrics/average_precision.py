"""Box and mask AP of instances, by COCO's evaluator. In: detections and panoptic truth. Out: AP per size and class.

The evaluator is faster-coco-eval (extra `coco`), which keeps pycocotools' results. Truth are the thing segments of the
panoptic map: no two of them overlap, other than in COCO's instances_*.json, so figures differ a little from those.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from panfpn.extras import optional
from panfpn.labels import LabelTable
from panfpn.metrics.counts import mean, plain
from panfpn.types import Detections, Segments

COCO_DETECTIONS = 100  # of an image, in COCO's own figure
_SIZES = ("small", "medium", "large")  # up to 32², up to 96², and more pixels


@dataclass(frozen=True, slots=True)
class AveragePrecision:
    """COCO's AP, shares from 0 to 1; nan where there is no truth."""

    ap: float  # mean over IoU 0.50, 0.55, …, 0.95
    ap50: float
    ap75: float
    small: float  # of instances of up to 32² pixels
    medium: float  # up to 96²
    large: float
    classes: dict[str, float]  # AP of each thing class
    detections: int = COCO_DETECTIONS  # of an image that count, of each class: the best

    def figures(self) -> dict[str, float]:
        """The means by their names."""
        return {"AP": self.ap, "AP50": self.ap50, "AP75": self.ap75} | {size: getattr(self, size) for size in _SIZES}

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        data = asdict(self)
        classes = {name: plain(value) for name, value in data.pop("classes").items()}
        count = data.pop("detections")
        return {key: plain(value) for key, value in data.items()} | {"classes": classes, "detections": count}

    @staticmethod
    def from_dict(data: Mapping[str, Any], source: object = "AP") -> "AveragePrecision":
        """The inverse of `to_dict`; ValueError names `source` and the key that is missing or wrong."""
        try:
            classes = {name: _number(value) for name, value in data["classes"].items()}
            means = {key: _number(data[key]) for key in ("ap", "ap50", "ap75", *_SIZES)}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{source}: holds no AP ({error!r})") from error
        return AveragePrecision(**means, classes=classes, detections=int(data.get("detections", COCO_DETECTIONS)))


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


class InstanceRecords:
    """Detections and true instances of a set, masks as run lengths; `images`, `predictions`, `targets` are plain lists.

    Lists of several ranks are joined with `extend`. ImportError if faster-coco-eval is not installed.
    """

    def __init__(self) -> None:
        _evaluator()  # now rather than after an hour of predicting
        self.images: list[dict[str, Any]] = []
        self.predictions: list[dict[str, Any]] = []
        self.targets: list[dict[str, Any]] = []

    def update(self, image_number: int, detections: Detections, target: Segments, table: LabelTable) -> None:
        """Add one image, whose number no other image has.

        ValueError for detections without masks: those that are too weak for the map count here.
        """
        count = len(detections.scores)
        if len(detections.masks) != count:
            raise ValueError(
                f"image {image_number}: {count - len(detections.masks)} of {count} detections have no mask, which mask "
                "AP needs; predict with the masks of all detections"
            )
        height, width = target.shape
        self.images.append({"id": image_number, "height": height, "width": width})
        for box, score, train_id, (top, left, mask) in zip(
            detections.boxes.tolist(), detections.scores.tolist(), detections.classes.tolist(), detections.masks,
            strict=True,
        ):  # fmt: skip
            entry = {"image_id": image_number, "category_id": train_id, "score": score}
            corners = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            self.predictions.append(
                entry | {"bbox": corners, "segmentation": run_lengths(mask, top, left, target.shape)}
            )
        self.targets += _true_instances(target, table, image_number)

    def extend(self, others: Sequence["InstanceRecords"]) -> None:
        """Add the records of other ranks."""
        for other in others:
            self.images += other.images
            self.predictions += other.predictions
            self.targets += other.targets

    def scores(self, table: LabelTable, max_detections: int | None = None) -> tuple[AveragePrecision, AveragePrecision]:
        """Box AP and mask AP of what was added; of an image at most so many detections of a class, the best, count.

        None: all of them. COCO's own figure is of 100 (COCO_DETECTIONS).
        """
        count = max_detections or self._most_detections()
        names = {k: c.name for k, c in enumerate(table.classes) if c.thing}
        # Number 0 would be taken for "no match".
        annotations = [entry | {"id": i + 1} for i, entry in enumerate(self.targets)]
        truth = {
            "images": self.images, "annotations": annotations,
            "categories": [{"id": k, "name": name} for k, name in names.items()],
        }  # fmt: skip
        # Without the other of the two: the evaluator would measure a mask's size by its box.
        boxes = [{k: v for k, v in entry.items() if k != "segmentation"} for entry in self.predictions]
        masks = [{k: v for k, v in entry.items() if k != "bbox"} for entry in self.predictions]
        return _evaluate(truth, boxes, "bbox", names, count), _evaluate(truth, masks, "segm", names, count)

    def _most_detections(self) -> int:
        return max(Counter(entry["image_id"] for entry in self.predictions).values(), default=COCO_DETECTIONS)


def run_lengths(mask: npt.NDArray[np.bool_], top: int, left: int, shape: tuple[int, int]) -> dict[str, Any]:
    """COCO's compressed run lengths of a mask [h, w] whose corner lies at (top, left) in an image of `shape`."""
    height, width = mask.shape
    columns = np.zeros((width, height + 1), np.int8)  # runs go down the columns; the 0 ends them below
    columns[:, :height] = mask.T
    edges = np.flatnonzero(np.diff(columns.ravel(), prepend=np.int8(0)))  # where a run begins or ends
    x, y = np.divmod(edges, height + 1)
    # A run that fills its column of the image ends where the next one may begin: there is no edge then.
    edges, times = np.unique((left + x) * shape[0] + top + y, return_counts=True)
    pixels = shape[0] * shape[1]
    counts = np.diff(edges[(times == 1) & (edges < pixels)], prepend=0, append=pixels)
    packed = _evaluator().mask.frPyObjects({"counts": counts.tolist(), "size": list(shape)}, *shape)
    return packed  # type: ignore[no-any-return]


def _true_instances(target: Segments, table: LabelTable, image_number: int) -> list[dict[str, Any]]:
    """The thing segments with their box and area."""
    entries = []
    for k, train_id in enumerate(target.classes.tolist()):
        whole = target.index == k  # [H, W]
        if not table.classes[train_id].thing or not whole.any():
            continue
        rows, columns = (np.flatnonzero(whole.any(axis)) for axis in (1, 0))
        top, left = int(rows[0]), int(columns[0])
        mask = whole[top : rows[-1] + 1, left : columns[-1] + 1]
        entries.append({
            "image_id": image_number, "category_id": train_id, "iscrowd": int(target.crowd[k]),
            "area": int(np.count_nonzero(mask)), "bbox": [left, top, mask.shape[1], mask.shape[0]],
            "segmentation": run_lengths(mask, top, left, target.shape),
        })  # fmt: skip
    return entries


def _evaluate(
    truth: dict[str, Any], predictions: list[dict[str, Any]], region: str, names: dict[int, str], count: int
) -> AveragePrecision:
    module = _evaluator()
    everything = module.COCO(truth, use_deepcopy=True)  # it writes into what it is given
    evaluator = module.COCOeval_faster(everything, everything.loadRes(predictions), region)
    evaluator.params.maxDets = [count]
    evaluator.evaluate()
    evaluator.accumulate()
    precision = evaluator.eval["precision"][..., -1]  # [IoU, recall, class, size]
    precision = np.where(precision > -1, precision, np.nan)
    small, medium, large = (mean(precision[:, :, :, 1 + k]) for k in range(len(_SIZES)))
    return AveragePrecision(
        ap=mean(precision[..., 0]), ap50=mean(precision[0, ..., 0]), ap75=mean(precision[5, ..., 0]),
        small=small, medium=medium, large=large, detections=count,
        classes={name: mean(precision[:, :, k, 0]) for k, name in enumerate(names.values())},
    )  # fmt: skip


def _evaluator() -> Any:
    return optional("faster_coco_eval", "coco", "box and mask AP need")
