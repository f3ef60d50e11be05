"""What counts along while a data set is predicted. In: samples and maps, one by one. Out: scores of the set."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from panfpn.data import Dataset
from panfpn.labels import IGNORE, LabelTable
from panfpn.metrics import (
    BoundaryCounts,
    ConfusionMatrix,
    ImageRows,
    InstanceRecords,
    PanopticQuality,
    PanopticScores,
    SegmentRows,
    SemanticScores,
)
from panfpn.tasks.task import Ranks
from panfpn.types import Example, PanopticMap, Sample, SemanticMap


class SemanticScorer:
    """Confusion matrix, counts of each image, and outlines if there is a `trimap_width`."""

    def __init__(self, table: LabelTable, dataset: Dataset, trimap_width: int | None = None) -> None:
        self.options: Mapping[str, bool] = {}
        self.names = table.names
        self.images = tuple(map(dataset.name, range(len(dataset))))
        self.matrix = ConfusionMatrix(table.num_classes, len(dataset))
        self.boundary = None if trimap_width is None else BoundaryCounts(table.num_classes, trimap_width=trimap_width)

    def add(self, index: int, sample: Sample, prediction: SemanticMap) -> Example:
        """Count the map of the image with this index in the data set."""
        labels, target = prediction.labels, sample.target
        miou = self.matrix.update(labels, target, index)
        if self.boundary:
            self.boundary.update(labels, target)
        return Example(name=sample.name, image=sample.image, prediction=labels, target=target, score=miou)

    def scores(self, ranks: Ranks, device: torch.device) -> SemanticScores:
        """See `Scorer.scores`."""
        counts = [self.matrix.counts, self.matrix.rows, *([self.boundary.counts] if self.boundary else [])]
        _add_up(counts, ranks, device)
        images = ImageRows(self.images, self.matrix.rows)
        return replace(self.matrix.scores(self.names), images=images, boundary=self.boundary)


class PanopticScorer:
    """Panoptic Quality, confusion of the merged map and of the semantic branch, and AP with `average_precision`.

    `channels` [K] is the semantic branch's channel of each train id, `channel_names` what the channels are called.
    """

    def __init__(
        self, table: LabelTable, channels: npt.NDArray[np.int16], channel_names: Sequence[str],
        average_precision: bool = False, images: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.table, self.channels, self.channel_names = table, channels, tuple(channel_names)
        self.records = InstanceRecords() if average_precision else None
        self.options: Mapping[str, bool] = {"every_mask": average_precision}
        self.images = tuple(images)
        self.quality = PanopticQuality(table.num_classes, len(self.images))
        self.merged = ConfusionMatrix(table.num_classes)
        self.branch = ConfusionMatrix(len(self.channel_names))

    def add(self, index: int, sample: Sample, prediction: PanopticMap) -> Example:
        """Count the map of the image with this index in the data set; ValueError for a sample without segments."""
        if sample.segments is None:
            raise ValueError(f"{sample.name}: has no segments; open its data set with panoptic=True")
        segments = prediction.as_segments()
        pq = self.quality.update(segments, sample.segments, index if self.images else None)
        self.merged.update(segments.labels, sample.target)
        self.branch.update(self._channels(prediction.semantic, 0), self._channels(sample.target, IGNORE))
        if self.records:
            self.records.update(index, prediction.detections, sample.segments, self.table)
        return Example(name=sample.name, image=sample.image, prediction=segments, target=sample.segments, score=pq)

    def _channels(self, labels: npt.NDArray[np.integer], ignored: int) -> npt.NDArray[np.int16]:
        """Train ids as the semantic branch numbers them, and what IGNORE is."""
        return np.asarray(np.append(self.channels, np.int16(ignored))[labels])  # IGNORE is -1: the last entry

    def scores(self, ranks: Ranks, device: torch.device) -> PanopticScores:
        """See `Scorer.scores`."""
        _add_up([*self.quality.sums, self.quality.rows, self.merged.counts, self.branch.counts], ranks, device)
        things = np.array([c.thing for c in self.table.classes])
        scores = replace(
            self.quality.scores(self.table.names, things),
            merged=self.merged.scores(self.table.names),
            branch=self.branch.scores(self.channel_names),
            images=SegmentRows(self.images, self.quality.rows) if self.images else None,
        )
        if not self.records:
            return scores
        everyone = InstanceRecords()
        everyone.extend(ranks.gathered(self.records))
        box, mask = everyone.scores(self.table)
        return replace(scores, box_ap=box, mask_ap=mask)


def _add_up(counts: Sequence[npt.NDArray[Any]], ranks: Ranks, device: torch.device) -> None:
    """Sum over the ranks, in place."""
    if ranks.world > 1:
        for part in counts:
            part[...] = ranks.total(torch.from_numpy(part).to(device)).cpu().numpy()
