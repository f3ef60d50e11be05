"""Procedural street scenes as a data set: drawn, so that nothing lies on disk. See data/scenes/."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from panfpn.data.layouts.request import SplitRequest
from panfpn.data.scenes import CLASSES, Scene, draw_scene
from panfpn.labels import LabelClass, LabelTable
from panfpn.types import Sample, Segments


def open_split(request: SplitRequest) -> "SceneDataset":
    """So many scenes of a split as the request says."""
    return SceneDataset(scenes_table(), request.split, request.scene_count, request.scene_size, request.panoptic)


def problems(request: SplitRequest, *, progress: bool) -> Iterator[str]:
    """That there is nothing to check."""
    del progress
    yield f"data set {request.layout!r} is drawn, not read: there are no files to check"


@dataclass(frozen=True, eq=False)
class SceneDataset:
    """Procedural street scenes: scene i of a split is a function of (split, i)."""

    table: LabelTable
    split: str
    count: int
    size: tuple[int, int]
    panoptic: bool = False

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        """The scene's name."""
        return f"scene_{self.split}_{index:05d}"

    def open(self, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int16] | Segments]:
        """Draw one scene."""
        scene = self._draw(index)
        return scene.image, _segments(scene) if self.panoptic else scene.labels

    def read(self, index: int) -> Sample:
        """Draw one scene."""
        scene = self._draw(index)
        segments = _segments(scene) if self.panoptic else None
        return Sample(image=scene.image, target=scene.labels, name=self.name(index), segments=segments)

    def _draw(self, index: int) -> Scene:
        return draw_scene(zlib.crc32(self.split.encode()), index, height=self.size[0], width=self.size[1])


def _segments(scene: Scene) -> Segments:
    classes = scene.categories[1:].astype(np.int16)
    index = (scene.segments - 1).astype(np.int16)  # 0 is void
    return Segments(
        index=index, classes=classes, crowd=np.zeros(len(classes), np.bool_), ids=1 + np.arange(len(classes))
    )


def scenes_table() -> LabelTable:
    """The classes of the procedural scenes."""
    colors = ((70, 130, 180), (70, 70, 70), (128, 64, 128), (244, 35, 232), (107, 142, 35), (0, 0, 142), (0, 60, 100),
              (220, 20, 60), (220, 220, 0))  # fmt: skip
    things = {"car", "bus", "person", "traffic sign"}
    classes = (
        LabelClass(name=n, color=c, thing=n in things, values=(k,))
        for k, (n, c) in enumerate(zip(CLASSES, colors, strict=True))
    )
    return LabelTable(name="scenes", classes=tuple(classes), ignore=(255,))
