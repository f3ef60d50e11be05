"""What counts along while a data set is predicted. In: samples and maps, one by one. Out: scores of the set."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist

from panfpn.data import Dataset
from panfpn.engine.distributed import Ranks
from panfpn.labels import IGNORE
from panfpn.metrics import (
    BoundaryCounts,
    ConfusionMatrix,
    ImageRows,
    InstanceRecords,
    PanopticQuality,
    PanopticScores,
    SemanticScores,
)
from panfpn.tasks import AnyTask, PanopticTask, SemanticTask
from panfpn.types import Example, Sample


class SemanticScorer:
    """Confusion matrix, counts of each image, and outlines where they are asked for."""

    def __init__(self, task: SemanticTask, dataset: Dataset, boundary: BoundaryCounts | None = None) -> None:
        self.names, self.boundary = task.table.names, boundary
        self.images = tuple(map(dataset.name, range(len(dataset))))
        self.matrix = ConfusionMatrix(task.table.num_classes, len(dataset))

    def add(self, number: int, sample: Sample, found: Any) -> Example:
        """Count the SemanticMap of the image with this number in the set."""
        miou = self.matrix.update(found.labels, sample.target, number)
        if self.boundary:
            self.boundary.update(found.labels, sample.target)
        return Example(name=sample.name, image=sample.image, prediction=found.labels, target=sample.target, score=miou)

    def scores(self, ranks: Ranks, device: torch.device) -> SemanticScores:
        """The scores of what all ranks have counted."""
        counts = [self.matrix.counts, self.matrix.rows, *([self.boundary.counts] if self.boundary else [])]
        _add_up(counts, ranks, device)
        images = ImageRows(self.images, self.matrix.rows)
        return replace(self.matrix.scores(self.names), images=images, boundary=self.boundary)


class PanopticScorer:
    """Panoptic Quality, confusion of the merged map and of the semantic branch, and AP where it is asked for."""

    def __init__(self, task: PanopticTask, records: InstanceRecords | None = None) -> None:
        self.table, self.records = task.table, records
        self.things = np.array([c.thing for c in task.table.classes])
        self.quality = PanopticQuality(task.table.num_classes)
        self.merged = ConfusionMatrix(task.table.num_classes)
        self.channels = task.semantic_channels
        self.branch_names = task.semantic_names
        self.branch = ConfusionMatrix(len(self.branch_names))

    def add(self, number: int, sample: Sample, found: Any) -> Example:
        """Count the PanopticMap of the image with this number in the set; ValueError for a sample without segments."""
        if sample.segments is None:
            raise ValueError(f"{sample.name}: has no segments; open its data set with panoptic=True")
        segments = found.as_segments()
        pq = self.quality.update(segments, sample.segments)
        self.merged.update(segments.labels, sample.target)
        self.branch.update(self._channels(found.semantic, 0), self._channels(sample.target, IGNORE))
        if self.records:
            self.records.update(number, found.detections, sample.segments, self.table)
        return Example(name=sample.name, image=sample.image, prediction=segments, target=sample.segments, score=pq)

    def _channels(self, labels: npt.NDArray[np.integer], ignored: int) -> npt.NDArray[np.int16]:
        """Train ids as the semantic branch numbers them, and what IGNORE is."""
        return np.asarray(np.append(self.channels, np.int16(ignored))[labels])  # IGNORE is -1: the last entry

    def scores(self, ranks: Ranks, device: torch.device) -> PanopticScores:
        """The scores of what all ranks have counted."""
        _add_up([*self.quality.sums, self.merged.counts, self.branch.counts], ranks, device)
        scores = replace(
            self.quality.scores(self.table.names, self.things),
            merged=self.merged.scores(self.table.names),
            branch=self.branch.scores(self.branch_names),
        )
        if not self.records:
            return scores
        if ranks.world > 1:
            everyone: list[Any] = [None] * ranks.world
            dist.all_gather_object(everyone, self.records)
            self.records = InstanceRecords()
            self.records.extend(everyone)
        box, mask = self.records.scores(self.table)
        return replace(scores, box_ap=box, mask_ap=mask)


def scorer_for(
    task: AnyTask, dataset: Dataset, *, boundary: BoundaryCounts | None = None, records: InstanceRecords | None = None
) -> SemanticScorer | PanopticScorer:
    """The scorer of a task's maps; ValueError where it cannot count what is asked for."""
    if isinstance(task, PanopticTask):
        if boundary:
            raise ValueError("Boundary IoU is counted for Semantic FPN only; leave --boundary out")
        return PanopticScorer(task, records)
    if records:
        raise ValueError("AP is of instances, which Semantic FPN does not find; leave --ap out")
    assert isinstance(task, SemanticTask)
    return SemanticScorer(task, dataset, boundary)


def _add_up(counts: list[npt.NDArray[Any]], ranks: Ranks, device: torch.device) -> None:
    """Sum over the ranks, in place."""
    if ranks.world > 1:
        for part in counts:
            part[...] = ranks.total(torch.from_numpy(part).to(device)).cpu().numpy()
