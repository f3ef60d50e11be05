"""Whether an exported file predicts what torch does. In: a task with the file, and one with the network. Out: figures.

Both see drawn streets at sizes that find the usual faults: odd, wide, tall, smaller than a stride, a batch of two.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch

from panfpn.data.scenes import draw_scene
from panfpn.tasks import Image, Task
from panfpn.tasks.graph import Graph
from panfpn.types import PanopticMap, SemanticMap

SHAPES = ((1, 97, 131), (1, 64, 480), (1, 480, 64), (1, 21, 13), (2, 160, 224), (1, 256, 320))  # images, height, width
_LEAST = 0.9999  # share of what is clear that must agree
_MARGIN = 0.01  # of the logits' standard deviation: what the best class of a clear pixel leads by
_NEAR = 0.01  # to a threshold of scores: whether a thing passes it is not clear
_IOU = 0.9  # from which on two segments of one class are the same


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Of one shape: how many clear pixels (Panoptic FPN: segments) there are, and how many agree."""

    shape: tuple[int, int, int]
    clear: int
    agreeing: int
    of: int  # clear or not


def compare_files(exported: Task, task: Task, graph: Graph, shapes: Sequence[tuple[int, int, int]]) -> list[Agreement]:
    """The figures of every shape; ValueError for the first where too little agrees, and says where."""
    return [_compared(exported, task, graph, shape, seed) for seed, shape in enumerate(shapes)]


def _compared(exported: Task, task: Task, graph: Graph, shape: tuple[int, int, int], seed: int) -> Agreement:
    images = [_picture(shape[1:], seed + 100 * k, task.preprocess.reading.channels) for k in range(shape[0])]
    found, wanted = (t.predict(images, batch_size=len(images)) for t in (exported, task))
    clear = agreeing = total = 0
    fault = ""
    for index, (ours, theirs, image) in enumerate(zip(found, wanted, images, strict=True)):
        if isinstance(ours, SemanticMap) and isinstance(theirs, SemanticMap):
            counts = _pixels(ours, theirs, _margin(graph, image))
        else:
            assert isinstance(ours, PanopticMap) and isinstance(theirs, PanopticMap)
            counts = _segments(ours, theirs, task)
        clear, agreeing, total = clear + counts[0], agreeing + counts[1], total + counts[2]
        fault = fault or (counts[3] and f" of image {index + 1}, {counts[3]}")
    if agreeing < _LEAST * clear:
        what = "clear pixels" if isinstance(found[0], SemanticMap) else "segments"
        raise ValueError(
            f"the exported graph does not predict what torch does: {clear - agreeing} of {clear} {what} differ in "
            f"{shape[0]} image(s) of {shape[1]}×{shape[2]} pixels{fault}"
        )
    return Agreement(shape=shape, clear=clear, agreeing=agreeing, of=total)


def _picture(size: tuple[int, int], seed: int, channels: int) -> Image:
    """A drawn street [H, W, C]; other channels than three are repeated ones."""
    image = cv2.resize(draw_scene(seed, 0).image, size[::-1], interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(image[:, :, np.arange(channels) % 3])


@torch.no_grad()
def _margin(graph: Graph, image: Image) -> npt.NDArray[np.float32]:
    """By how much the best class leads in every pixel [H, W], in standard deviations of the logits."""
    pixels = torch.from_numpy(image[None])
    images, seen = graph.fitted(pixels)
    logits = graph.pixels(images)
    (two,) = graph.each_pixel(logits, seen, image.shape[:2], lambda strip: (strip.topk(2, 1).values,))  # [1, 2, H, W]
    return np.asarray(((two[0, 0] - two[0, 1]) / logits.std().clamp(min=1e-12)).numpy(), np.float32)


def _pixels(found: SemanticMap, wanted: SemanticMap, margin: npt.NDArray[np.float32]) -> tuple[int, int, int, str]:
    """Clear pixels, those of them that agree, all pixels, and where the first does not."""
    clear, equal = margin > _MARGIN, found.labels == wanted.labels
    wrong = clear & ~equal
    place = ""
    if wrong.any():
        row, column = np.unravel_index(np.argmax(wrong), wrong.shape)
        names = [m.table.names[int(m.labels[row, column])] for m in (found, wanted)]
        place = f"the first in row {row}, column {column} ({names[0]!r} instead of {names[1]!r})"
    return int(clear.sum()), int((clear & equal).sum()), clear.size, place


def _segments(found: PanopticMap, wanted: PanopticMap, task: Task) -> tuple[int, int, int, str]:
    """Clear segments of the wanted map, those of them that are found, all, and the first that is not."""
    rules, clear, agreeing, place = task.inference, 0, 0, ""
    for segment in wanted.info:
        limit = rules.stuff_area if segment.score is None else rules.confidence
        value = segment.area if segment.score is None else segment.score
        if abs(value - limit) <= _NEAR * limit:
            continue
        clear += 1
        mask = wanted.segments == segment.id
        numbers, counts = np.unique(found.segments[mask], return_counts=True)
        same = {s.id: s for s in found.info if s.train_id == segment.train_id}
        best = max(
            (count / (segment.area + same[n].area - count)
             for n, count in zip(numbers.tolist(), counts.tolist(), strict=True) if n in same),
            default=0.0,
        )  # fmt: skip
        if best >= _IOU:
            agreeing += 1
        elif not place:
            place = f"the first {segment.name!r} with its corner at {segment.box[:2]} (IoU {best:.2f})"
    return clear, agreeing, len(wanted.info), place
