"""Evaluation. In: a model or its file, and a data set. Out: scores, and the best and worst images."""

import heapq
from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch

from panfpn.build import build_dataset, load_task
from panfpn.config import Data
from panfpn.data import Dataset, as_dataset, evaluation_loader
from panfpn.data.loader import named_worker_errors
from panfpn.engine.distributed import Ranks
from panfpn.heap import kept_heap
from panfpn.lanes import in_lanes
from panfpn.metrics import Scores
from panfpn.progress import progress_bar
from panfpn.tasks import Scorer, Task
from panfpn.types import Example, Sample

_EXAMPLES = 6  # best and worst images kept for the report


class _Extremes:
    """The best and the worst images so far; holds 2 × `_EXAMPLES` of them, however many pass by."""

    def __init__(self) -> None:
        self._best: list[tuple[float, int, Example]] = []
        self._worst: list[tuple[float, int, Example]] = []

    def add(self, number: int, example: Example) -> None:
        if np.isnan(example.score):
            return
        for heap, key in ((self._best, example.score), (self._worst, -example.score)):
            heapq.heappush(heap, (key, -number, example))
            if len(heap) > _EXAMPLES:
                heapq.heappop(heap)

    def all(self) -> list[Example]:
        examples = {example.name: example for _, _, example in self._best + self._worst}
        return sorted(examples.values(), key=lambda example: example.score)


def score_dataset(
    task: Task, dataset: Dataset, *, scorer: Scorer | None = None, batch_size: int = 1, num_workers: int = 0,
    ranks: Ranks = Ranks(), progress: Callable[[int], None] | None = None,  # noqa: B008 - frozen
    most: int | None = None,
) -> tuple[Scores, list[Example]]:  # fmt: skip
    """Scores of `task` on every image at its own size, and its best and worst (of this rank).

    With `most`, of at most so many (of all ranks), spread over the data set. Neighbours of one size, up to
    `batch_size`, go through the network together. `progress` is called with the number of images done. The task is left
    in the mode (training or not) that it was in, also on an error.
    """
    scorer, extremes = scorer or task.scorer(dataset), _Extremes()
    num = len(dataset) if most is None else min(most, len(dataset))
    indices = [k * len(dataset) // num for k in range(ranks.rank, num, ranks.world)]
    was_training, done = task.training, 0
    task.eval()
    try:
        loader = evaluation_loader(
            dataset, indices, batch_size=batch_size, num_workers=num_workers, needs_segments=task.needs_segments,
            channels=task.preprocess.reading.channels,
        )  # fmt: skip

        def label(samples: Sequence[Sample]) -> tuple[Sequence[Sample], Sequence[Any]]:
            images, names = [s.image for s in samples], [s.name for s in samples]
            return samples, task.predict(images, names=names, batch_size=batch_size, **scorer.options)

        threads = torch.get_num_threads()
        count = task.lanes or threads  # one a core: scores are then the same, however many cores there are
        cores = threads if task.lanes is None else threads * count
        for samples, maps in in_lanes(label, loader, count=count, cores=cores, size=_pixels):
            for sample, prediction in zip(samples, maps, strict=True):
                extremes.add(done, scorer.add(indices[done], sample, prediction))
                done += 1
            if progress:
                progress(done)
    finally:
        task.train(was_training)
    return scorer.scores(ranks, task.device), extremes.all()


def _pixels(samples: Sequence[Sample]) -> float:
    return float(sum(sample.image.shape[0] * sample.image.shape[1] for sample in samples))


def evaluate(
    model: Any, data: Any, *, device: str = "auto", precision: str = "auto", batch_size: int = 1,
    trimap_width: int | None = None, average_precision: bool = False, progress: bool = True,
    ranks: Ranks = Ranks(),  # noqa: B008 - frozen
) -> Scores:  # fmt: skip
    """Scores of a release file, run folder, Predictor or task on a data set.

    `data` is the `data` part of a configuration (its validation split is scored), or a data set of your own: what
    `panfpn.data.as_dataset` takes. With `trimap_width`, `boundary` of a Semantic FPN's scores holds Boundary IoU and
    the IoU that near to a change of label; with `average_precision`, a Panoptic FPN's hold COCO's AP of boxes and masks
    (pip install 'panfpn[coco]'). `ranks` share the images, and all get the scores of all.

    Raises:
        ValueError: a file or data set that cannot be used, or label tables that disagree.
    """
    if isinstance(model, str | Path):
        model = load_task(model, device=device, precision=precision)[0]
    task = getattr(model, "task", model)  # a Predictor holds one
    if not isinstance(task, Task):
        raise ValueError(f"evaluate takes a file, a run folder, a Predictor or a task, not a {type(model).__name__}")
    settings = data if isinstance(data, Data) else None
    for key in ("scale", "size_divisor"):
        wanted, used = getattr(settings, key, None), getattr(task.preprocess, key)
        if settings and wanted not in (getattr(Data(), key), used):
            raise ValueError(f"data.{key} is {wanted}, but the model's own is {used}, which it is scored with")
    dataset: Dataset = (
        build_dataset(
            settings, settings.val_split, segments=task.needs_segments, channels=task.preprocess.reading.channels
        )
        if settings else as_dataset(data, table=None if hasattr(data, "table") else task.table)
    )  # fmt: skip
    if task.table.names != dataset.table.names:
        model_table, data_table = (f"{t.name!r} ({t.num_classes} classes)" for t in (task.table, dataset.table))
        pairs = zip_longest(task.table.names, dataset.table.names)
        k, (ours, theirs) = next((k, pair) for k, pair in enumerate(pairs) if pair[0] != pair[1])
        raise ValueError(f"the model's label table {model_table} is not that of the data, {data_table}: train id {k} "
                         f"is {ours!r} in the first and {theirs!r} in the second")  # fmt: skip
    scorer = task.scorer(dataset, trimap_width=trimap_width, average_precision=average_precision)
    workers = settings.num_workers if settings else 0
    share = len(range(ranks.rank, len(dataset), ranks.world))
    shown = progress_bar("evaluating", share, show=progress and ranks.first)
    with shown as advance, named_worker_errors(), kept_heap():
        return score_dataset(
            task, dataset, scorer=scorer, batch_size=batch_size, num_workers=workers, progress=advance, ranks=ranks
        )[0]
