"""Evaluation. In: a model or its file, and a data set. Out: scores from one confusion matrix, and counts per image."""

import heapq
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from panfpn.build import build_dataset, load_task
from panfpn.config import Data
from panfpn.data import Dataset, evaluation_loader
from panfpn.engine.distributed import Ranks
from panfpn.engine.report import Shown
from panfpn.metrics import BoundaryCounts, ConfusionMatrix, ImageRows, SemanticScores
from panfpn.progress import progress_bar
from panfpn.tasks import SemanticTask

_SHOWN = 6  # best and worst images kept for the report


class _Extremes:
    """The best and the worst images seen so far; holds 2 × `_SHOWN` of them, however many pass by."""

    def __init__(self) -> None:
        self._best: list[tuple[float, int, Shown]] = []
        self._worst: list[tuple[float, int, Shown]] = []

    def add(self, number: int, shown: Shown) -> None:
        if np.isnan(shown.miou):
            return
        for heap, key in ((self._best, shown.miou), (self._worst, -shown.miou)):
            heapq.heappush(heap, (key, -number, shown))
            if len(heap) > _SHOWN:
                heapq.heappop(heap)

    def all(self) -> list[Shown]:
        found = {shown.name: shown for _, _, shown in self._best + self._worst}
        return sorted(found.values(), key=lambda shown: shown.miou)


def score_dataset(
    task: SemanticTask,
    dataset: Dataset,
    *,
    batch_size: int = 1,
    num_workers: int = 0,
    ranks: Ranks = Ranks(),  # noqa: B008 - frozen
    boundary: BoundaryCounts | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[SemanticScores, list[Shown]]:
    """Scores of `task` on every image at its own size, and its best and worst images (of this rank).

    `progress` is called with the number of images done. Each image is predicted by itself, so neither `batch_size` nor
    the order changes a count. `boundary` counts along, if given.
    """
    matrix, extremes = ConfusionMatrix(task.table.num_classes, len(dataset)), _Extremes()
    indices = range(ranks.rank, len(dataset), ranks.world)
    was_training = task.training
    task.eval()
    done = 0
    for samples in evaluation_loader(dataset, indices, batch_size=batch_size, num_workers=num_workers):
        maps = task.predict([s.image for s in samples], names=[s.name for s in samples])
        for sample, found in zip(samples, maps, strict=True):
            miou = matrix.update(found.labels, sample.target, indices[done])
            if boundary:
                boundary.update(found.labels, sample.target)
            shown = Shown(name=sample.name, image=sample.image, labels=found.labels, target=sample.target, miou=miou)
            extremes.add(done, shown)
            done += 1
        if progress:
            progress(done)
    task.train(was_training)
    for counts in (matrix.counts, matrix.rows, *([boundary.counts] if boundary else [])):
        if ranks.world > 1:
            counts[...] = ranks.total(torch.from_numpy(counts).to(task.get_buffer("mean").device)).cpu().numpy()
    images = ImageRows(tuple(map(dataset.name, range(len(dataset)))), matrix.rows)
    return replace(matrix.scores(task.table.names), images=images, boundary=boundary), extremes.all()


def evaluate(
    model: Any,
    data: "Data | Dataset",
    *,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int = 1,
    trimap_width: int | None = None,
    progress: bool = True,
) -> SemanticScores:
    """Scores of a release file, run folder, Predictor or task on a data set's validation split.

    With `trimap_width`, `boundary` of the scores holds Boundary IoU and the IoU that near to a change of label.

    Raises:
        ValueError: a file or data set that cannot be used, or label tables that disagree.
    """
    if isinstance(model, str | Path):
        model = load_task(model, device=device, precision=precision)[0]
    task = getattr(model, "task", model)  # a Predictor holds one
    if not isinstance(task, SemanticTask):
        raise ValueError(f"evaluate takes a file, a run folder, a Predictor or a task, not a {type(model).__name__}")
    for key in ("scale", "size_divisor"):
        wanted, own = getattr(data, key, None), getattr(task.preprocess, key)
        if isinstance(data, Data) and wanted not in (getattr(Data(), key), own):
            raise ValueError(f"data.{key} is {wanted}, but the model's own is {own}, which it is scored with")
    dataset = build_dataset(data, data.val_split) if isinstance(data, Data) else data
    if task.table.names != dataset.table.names:
        model_table, data_table = (f"{t.name!r} ({t.num_classes} classes)" for t in (task.table, dataset.table))
        raise ValueError(f"the model's label table {model_table} is not that of the data, {data_table}")
    workers = data.num_workers if isinstance(data, Data) else 0
    classes = task.table.num_classes
    boundary = None if trimap_width is None else BoundaryCounts(classes, trimap_width=trimap_width)
    with progress_bar("evaluating", len(dataset), show=progress) as advance:
        return score_dataset(
            task, dataset, batch_size=batch_size, num_workers=workers, boundary=boundary, progress=advance
        )[0]
