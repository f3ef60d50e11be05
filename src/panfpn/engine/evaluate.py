"""Evaluation. In: a model or its file, and a data set. Out: scores, and the best and worst images."""

import heapq
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from panfpn.build import build_dataset, load_task
from panfpn.config import Data
from panfpn.data import Dataset, evaluation_loader
from panfpn.engine.distributed import Ranks
from panfpn.engine.scorers import scorer_for
from panfpn.metrics import BoundaryCounts, InstanceRecords, Scores
from panfpn.progress import progress_bar
from panfpn.tasks import AnyTask, PanopticTask, SemanticTask
from panfpn.types import Example

_SHOWN = 6  # best and worst images kept for the report


class _Extremes:
    """The best and the worst images seen so far; holds 2 × `_SHOWN` of them, however many pass by."""

    def __init__(self) -> None:
        self._best: list[tuple[float, int, Example]] = []
        self._worst: list[tuple[float, int, Example]] = []

    def add(self, number: int, shown: Example) -> None:
        if np.isnan(shown.score):
            return
        for heap, key in ((self._best, shown.score), (self._worst, -shown.score)):
            heapq.heappush(heap, (key, -number, shown))
            if len(heap) > _SHOWN:
                heapq.heappop(heap)

    def all(self) -> list[Example]:
        found = {shown.name: shown for _, _, shown in self._best + self._worst}
        return sorted(found.values(), key=lambda shown: shown.score)


def score_dataset(
    task: AnyTask,
    dataset: Dataset,
    *,
    batch_size: int = 1,
    num_workers: int = 0,
    ranks: Ranks = Ranks(),  # noqa: B008 - frozen
    boundary: BoundaryCounts | None = None,
    records: InstanceRecords | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[Scores, list[Example]]:
    """Scores of `task` on every image at its own size, and its best and worst images (of this rank).

    `progress` is called with the number of images done. Each image is predicted by itself, so neither `batch_size` nor
    the order changes a count. `boundary` (Semantic FPN) and `records` (instances, Panoptic FPN) count along, if given.
    """
    scorer, extremes = scorer_for(task, dataset, boundary=boundary, records=records), _Extremes()
    more = {"every_mask": True} if records else {}
    indices = range(ranks.rank, len(dataset), ranks.world)
    was_training = task.training
    task.eval()
    done = 0
    for samples in evaluation_loader(dataset, indices, batch_size=batch_size, num_workers=num_workers):
        maps = task.predict([s.image for s in samples], names=[s.name for s in samples], **more)
        for sample, found in zip(samples, maps, strict=True):
            extremes.add(done, scorer.add(indices[done], sample, found))
            done += 1
        if progress:
            progress(done)
    task.train(was_training)
    return scorer.scores(ranks, task.get_buffer("mean").device), extremes.all()


def evaluate(
    model: Any,
    data: "Data | Dataset",
    *,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int = 1,
    trimap_width: int | None = None,
    average_precision: bool = False,
    progress: bool = True,
) -> Scores:
    """Scores of a release file, run folder, Predictor or task on a data set's validation split.

    With `trimap_width`, `boundary` of a Semantic FPN's scores holds Boundary IoU and the IoU that near to a change of
    label; with `average_precision`, a Panoptic FPN's hold COCO's AP of boxes and masks (pip install 'panfpn[coco]').

    Raises:
        ValueError: a file or data set that cannot be used, or label tables that disagree.
    """
    if isinstance(model, str | Path):
        model = load_task(model, device=device, precision=precision)[0]
    task = getattr(model, "task", model)  # a Predictor holds one
    if not isinstance(task, SemanticTask | PanopticTask):
        raise ValueError(f"evaluate takes a file, a run folder, a Predictor or a task, not a {type(model).__name__}")
    for key in ("scale", "size_divisor"):
        wanted, own = getattr(data, key, None), getattr(task.preprocess, key)
        if isinstance(data, Data) and wanted not in (getattr(Data(), key), own):
            raise ValueError(f"data.{key} is {wanted}, but the model's own is {own}, which it is scored with")
    panoptic = isinstance(task, PanopticTask)
    dataset = build_dataset(data, data.val_split, panoptic) if isinstance(data, Data) else data
    if task.table.names != dataset.table.names:
        model_table, data_table = (f"{t.name!r} ({t.num_classes} classes)" for t in (task.table, dataset.table))
        raise ValueError(f"the model's label table {model_table} is not that of the data, {data_table}")
    workers = data.num_workers if isinstance(data, Data) else 0
    classes = task.table.num_classes
    boundary = None if trimap_width is None else BoundaryCounts(classes, trimap_width=trimap_width)
    with progress_bar("evaluating", len(dataset), show=progress) as advance:
        return score_dataset(
            task,
            dataset,
            batch_size=batch_size,
            num_workers=workers,
            boundary=boundary,
            progress=advance,
            records=InstanceRecords() if average_precision else None,
        )[0]
