"""A prediction beside its target, ready to be drawn. In: train ids or segments of both. Out: colours, error masks."""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from panfpn.draw import overlay, segment_colors
from panfpn.labels import IGNORE, LabelTable
from panfpn.metrics.matching import count_overlaps, matched_iou
from panfpn.types import Segments

Masks = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """What is drawn over an image."""

    index: npt.NDArray[np.integer]  # [H, W] rows of `colors`, IGNORE where nothing is drawn
    colors: npt.NDArray[np.uint8]  # [N, 3] RGB

    def over(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """RGB [h, w, 3]: an image of any size [h, w, 3] tinted by `overlay`."""
        size = image.shape[1], image.shape[0]
        index = cv2.resize(self.index.astype(np.int16), size, interpolation=cv2.INTER_NEAREST)  # [h, w]
        return overlay(image, index, self.colors)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Layers:
    """How one image's prediction and target are drawn, and where they differ."""

    prediction: Layer
    target: Layer
    wrong: Masks  # [H, W] another class than the target's
    unmatched: Masks  # [H, W] the right class perhaps, but segments that do not match
    ignored: Masks  # [H, W] not scored
    wrong_share: float  # of the labelled pixels; nan if there are none
    legend: str  # what the masks mean, in words: `wrong` is drawn red, `unmatched` orange, `ignored` dark


def label_layers(prediction: npt.NDArray[np.integer], target: npt.NDArray[np.integer], table: LabelTable) -> Layers:
    """Layers of train ids [H, W], in the colours of `table`."""
    wrong = np.asarray(prediction != target)
    return Layers(
        prediction=Layer(prediction, table.palette), target=Layer(target, table.palette), wrong=wrong,
        unmatched=np.zeros_like(wrong), ignored=np.asarray(target == IGNORE), wrong_share=_share(wrong, target),
        legend="wrong pixels red, unlabelled pixels dark",
    )  # fmt: skip


def segment_layers(prediction: Segments, target: Segments, table: LabelTable) -> Layers:
    """Layers of segments: a predicted one has the shade of the true one it matches."""
    matches = matched_iou(count_overlaps(prediction, target), prediction, target) > 0  # [T, P]
    things = np.array([c.thing for c in table.classes])
    colors, true_colors = (segment_colors(s.classes, table.palette, things) for s in (prediction, target))
    true, predicted = np.nonzero(matches)
    colors[predicted] = true_colors[true]
    labels, true_labels = prediction.labels, target.labels
    wrong = np.asarray(labels != true_labels)
    padded = np.pad(matches, (0, 1))  # void: the last row and column, as index -1
    return Layers(
        prediction=Layer(prediction.index, colors), target=Layer(target.index, true_colors), wrong=wrong,
        unmatched=np.asarray(~padded[target.index, prediction.index]),
        ignored=np.append(target.crowd, True)[target.index], wrong_share=_share(wrong, true_labels),
        legend="pixels of the wrong class red, those of segments that match none of the truth orange, void and crowds "
        "dark",
    )  # fmt: skip


def _share(wrong: Masks, target: npt.NDArray[np.integer]) -> float:
    labelled = target >= 0
    return float(wrong[labelled].mean()) if labelled.any() else math.nan
