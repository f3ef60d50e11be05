"""Labels of images too large for memory, from windows. In: windows, from left to right, row by row. Out: labels.

A network's logits are blended where windows overlap (`panfpn.ops.seams`). An exported file gives labels, which are cut
in the middle of the overlap; so are the segments of Panoptic FPN, whose things are joined across the cut.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from panfpn.labels import IGNORE
from panfpn.ops.seams import Cuts, Seams
from panfpn.types import PanopticMap, Segment

Image = npt.NDArray[np.uint8]  # [h, w, C]
Arrays = dict[str, npt.NDArray[Any]]
Block = tuple[slice, slice, npt.NDArray[Any]]  # rows, columns, what lies there
_JOINED = 0.5  # IoU, within the overlap of two windows, of two parts of one thing


class Tiles(ABC):
    """What one network makes of the windows of one image."""

    dtype: np.dtype[Any]  # of what it gives: train ids, IGNORE (or the largest value) where unknown; or segment ids

    def __init__(self, task: Any, rows: Cuts, columns: Cuts) -> None:
        self.task, self.rows, self.columns = task, rows, columns

    @abstractmethod
    def add(self, i: int, j: int, image: Image | None) -> Block:
        """What is final once window `j` of band `i` is there (None: it has no data)."""

    def state(self) -> Arrays:
        """What the next band needs of those before it."""
        return {}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on behind a band whose state this is."""
        assert not state

    def segments(self) -> list[Segment] | None:
        """The segments by id, without their areas and boxes; None for semantic labels."""
        return None

    def same(self) -> npt.NDArray[np.int32] | None:
        """For each id that `add` gave the one that it became part of; None where ids are final."""
        return None


class BlendedTiles(Tiles):
    """Semantic FPN: train ids from blended logits."""

    def __init__(self, task: Any, rows: Cuts, columns: Cuts) -> None:
        super().__init__(task, rows, columns)
        self.dtype = _label_dtype(task.table.num_classes)
        self._seams = Seams(rows, columns, task.table.num_classes, task.device)

    def add(self, i: int, j: int, image: Image | None) -> Block:
        """See `Tiles.add`."""
        with torch.inference_mode():
            labels = self._seams.add(i, j, None if image is None else self._logits(image))
        return slice(*self.rows.pixels(i)), slice(*self.columns.pixels(j)), labels.cpu().numpy()

    def _logits(self, image: Image) -> torch.Tensor:
        run = self.task.engine or self.task.pixels.forward
        logits: torch.Tensor = run(torch.from_numpy(image[None]).to(self.task.device))[0]  # [K, h, w]
        return logits

    def state(self) -> Arrays:
        """See `Tiles.state`."""
        return {name: tensor.cpu().numpy() for name, tensor in self._seams.state().items()}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """See `Tiles.restore`."""
        self._seams.restore({name: torch.from_numpy(array) for name, array in state.items()})


class CutTiles(Tiles):
    """An exported Semantic FPN: its labels, cut in the middle of each overlap."""

    def __init__(self, task: Any, rows: Cuts, columns: Cuts) -> None:
        super().__init__(task, rows, columns)
        if task.preprocess.scale is not None:
            raise ValueError(f"{task.program.file}: fits what it sees into {task.preprocess.scale}, each window too; "
                             "label rasters with the model that it was made of")  # fmt: skip
        self.dtype = _label_dtype(task.table.num_classes)

    def add(self, i: int, j: int, image: Image | None) -> Block:
        """See `Tiles.add`."""
        rows, columns, inside = _middle(self.rows, self.columns, i, j)
        if image is None:
            shape = (rows.stop - rows.start, columns.stop - columns.start)
            return rows, columns, np.zeros(shape, self.dtype)
        return rows, columns, self.task.predict([image])[0].labels[inside]


class JoinedTiles(Tiles):
    """Panoptic FPN: segment ids, 0 where void; stuff is one segment a class, and things are joined across seams.

    Two things are one if they are of one class and cover each other, within the overlap of their windows, by an IoU of
    at least a half.
    """

    dtype = np.dtype(np.int32)

    def __init__(self, task: Any, rows: Cuts, columns: Cuts) -> None:
        plain = copy.copy(task)  # a window is seen at its own resolution
        plain.preprocess = replace(task.preprocess, scale=None)
        super().__init__(plain, rows, columns)
        self._parents, self._classes, self._scores = [0], [IGNORE], [0.0]  # by id
        self._stuff: dict[int, int] = {}  # id by class
        self._right = np.zeros((0, 0), np.int32)  # ids of the window before, in the overlap
        self._below: npt.NDArray[np.int32] | None = None  # of the band before, as wide as the image
        self._next: npt.NDArray[np.int32] | None = None

    def add(self, i: int, j: int, image: Image | None) -> Block:
        """See `Tiles.add`."""
        (top, bottom), (left, right) = self.rows.windows[i], self.columns.windows[j]
        ids = np.zeros((bottom - top, right - left), np.int32)
        if image is not None:
            ids = self._globally(self.task.predict([image])[0])
        if j:
            self._join(self._right, ids[:, : self._right.shape[1]])
        if j < len(self.columns.zones):
            self._right = ids[:, self.columns.windows[j + 1][0] - left :].copy()
        if j == 0:
            self._below = self._next
        if i:
            assert self._below is not None
            self._join(self._below[:, left:right], ids[: len(self._below)])
        rows, columns, inside = _middle(self.rows, self.columns, i, j)
        if i < len(self.rows.zones):
            shared = ids[self.rows.windows[i + 1][0] - top :]
            if j == 0:
                self._next = np.zeros((len(shared), self.columns.length), np.int32)
            assert self._next is not None
            self._next[:, columns] = shared[:, inside[1]]
        return rows, columns, ids[inside]

    def _globally(self, found: PanopticMap) -> npt.NDArray[np.int32]:
        """The map's segments under ids of the whole image."""
        table = np.zeros(len(found.info) + 1, np.int32)
        for segment in found.info:
            known = None if segment.thing else self._stuff.get(segment.train_id)
            if known is None:
                known = len(self._parents)
                self._parents.append(known)
                self._classes.append(segment.train_id)
                self._scores.append(segment.score or 0.0)
                if not segment.thing:
                    self._stuff[segment.train_id] = known
            table[segment.id] = known
        return table[found.segments]

    def _root(self, index: int) -> int:
        while self._parents[index] != index:
            self._parents[index] = index = self._parents[self._parents[index]]
        return index

    def _join(self, before: npt.NDArray[np.int32], after: npt.NDArray[np.int32]) -> None:
        """Make one of the things that two windows saw in the pixels that they share."""
        areas, others = (np.bincount(ids.ravel()) for ids in (before, after))  # by id
        both = before.astype(np.int64) << 32 | after
        for pair, shared in zip(*np.unique(both, return_counts=True), strict=True):
            one, other = int(pair) >> 32, int(pair) & 0xFFFFFFFF
            if not one or not other or self._classes[one] != self._classes[other]:
                continue
            if shared >= _JOINED * (areas[one] + others[other] - shared):
                first, second = sorted((self._root(one), self._root(other)))
                self._parents[second] = first
                self._scores[first] = max(self._scores[first], self._scores[second])

    def state(self) -> Arrays:
        """See `Tiles.state`."""
        state: Arrays = {
            "parents": np.array(self._parents, np.int32), "classes": np.array(self._classes, np.int16),
            "scores": np.array(self._scores, np.float64),
        }  # fmt: skip
        return state if self._next is None else state | {"next": self._next}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """See `Tiles.restore`."""
        self._parents, self._classes, self._scores = (state[key].tolist() for key in ("parents", "classes", "scores"))
        self._next = state.get("next")
        things = [c.thing for c in self.task.table.classes]
        self._stuff = {k: i for i, k in enumerate(self._classes) if i and not things[k]}

    def segments(self) -> list[Segment]:
        """See `Tiles.segments`."""
        table = self.task.table
        return [
            Segment(id=i, train_id=k, name=table.names[k], thing=table.classes[k].thing, area=0, box=(0, 0, 0, 0),
                    score=self._scores[i] if table.classes[k].thing else None)
            for i, k in enumerate(self._classes) if i
        ]  # fmt: skip

    def same(self) -> npt.NDArray[np.int32]:
        """See `Tiles.same`."""
        return np.array([self._root(i) for i in range(len(self._parents))], np.int32)


def _label_dtype(num_classes: int) -> np.dtype[Any]:
    return np.dtype(np.uint8 if num_classes <= 256 else np.int16)


def _middle(rows: Cuts, columns: Cuts, i: int, j: int) -> tuple[slice, slice, tuple[slice, slice]]:
    """The pixels nearest to a window: their rows and columns, and both within the window."""
    (first, stop), (left, right) = rows.middle(i), columns.middle(j)
    top, start = rows.windows[i][0], columns.windows[j][0]
    inside = (slice(first - top, stop - top), slice(left - start, right - start))
    return slice(first, stop), slice(left, right), inside


def check_plain(settings: Any, what: Sequence[str] = ("ratios", "flip", "mode")) -> None:
    """ValueError for settings of inference that only an image in one piece can have."""
    plain = {"ratios": (1.0,), "flip": False, "mode": "whole"}
    for name in what:
        if getattr(settings, name) != plain[name]:
            raise ValueError(f"inference.{name} is {getattr(settings, name)!r}; an image that is labelled in windows "
                             f"takes {plain[name]!r} only")  # fmt: skip
