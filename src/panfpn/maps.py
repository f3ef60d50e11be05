"""Maps of one image: segments that are known, and what a network says. In: labels and ids. Out: pictures and files."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from panfpn.draw import overlay, segment_colors, write_words
from panfpn.files import ids_to_rgb, write_image, write_json
from panfpn.handover import Piece, to_fiftyone, to_hf, to_supervision
from panfpn.labels import IGNORE, LabelTable
from panfpn.shapes import Outline, outlines


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Segments:
    """A panoptic map: the segment of each pixel, and what the N segments are. Segments do not overlap."""

    index: npt.NDArray[np.int16]  # [H, W] 0..N - 1, the entry in the lists below; IGNORE where void
    classes: npt.NDArray[np.int16]  # [N] train ids
    crowd: npt.NDArray[np.bool_]  # [N] a group of things that nobody told apart
    ids: npt.NDArray[np.int64]  # [N] as in the file it comes from

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.index.shape[0], self.index.shape[1]

    @property
    def labels(self) -> npt.NDArray[np.int16]:
        """Train ids [H, W], IGNORE where void."""
        return np.append(self.classes, np.int16(IGNORE))[self.index]  # IGNORE is -1: the last entry

    def __getitem__(self, window: tuple[slice, slice]) -> npt.NDArray[np.int16]:
        """Train ids of a window, as `RawMask` gives them."""
        return np.append(self.classes, np.int16(IGNORE))[self.index[window]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One segment of a PanopticMap."""

    id: int  # its value in the map
    train_id: int
    name: str  # of its class
    thing: bool
    area: int  # pixels
    box: tuple[int, int, int, int]  # left, top, width, height
    score: float | None = None  # 0..1, of a thing

    def to_dict(self, table: LabelTable) -> dict[str, Any]:
        """With COCO's keys; a category is a class's first raw value."""
        return {
            "id": self.id, "category_id": table.classes[self.train_id].values[0], "category": self.name,
            "isthing": int(self.thing), "score": self.score, "area": self.area, "bbox": list(self.box),
        }  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Regions:
    """What a map divides its image into."""

    index: npt.NDArray[np.int16]  # [H, W] the region of each pixel, from 0 on; IGNORE where there is none
    segments: tuple[Segment, ...]

    def pieces(self) -> list[Piece]:
        """Each with its mask."""
        return [
            Piece(name=s.name, train_id=s.train_id, mask=self.index == i, score=s.score)
            for i, s in enumerate(self.segments)
        ]

    def outlines(self, *, tolerance: float = 0) -> Iterator[tuple[Segment, list[Outline]]]:
        """Each with its pieces as polygons; `tolerance` as in `panfpn.shapes.outlines`."""
        for i, segment in enumerate(self.segments):
            left, top, width, height = segment.box
            part = self.index[top : top + height, left : left + width] == i
            yield segment, [piece.moved(left, top) for piece in outlines(part, tolerance=tolerance)]


class Regional(ABC):
    """A map as other libraries want it: a class each of a semantic one, a segment each of a panoptic one."""

    __slots__ = ()

    @abstractmethod
    def regions(self) -> Regions:
        """What the map divides its image into."""

    def to_hf(self) -> list[dict[str, Any]]:
        """What transformers' pipeline "image-segmentation" returns; scores are None but of things."""
        return to_hf(self.regions().pieces())

    def to_supervision(self) -> Any:
        """Supervision's `Detections`; see `panfpn.handover`."""
        regions = self.regions()
        return to_supervision(regions.pieces(), regions.index.shape)

    def to_fiftyone(self) -> Any:
        """FiftyOne's `Detections`; see `panfpn.handover`."""
        regions = self.regions()
        return to_fiftyone(regions.pieces(), regions.index.shape)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SemanticMap(Regional):
    """What a Semantic FPN says about one image."""

    outputs: ClassVar[tuple[str, ...]] = ("labels", "overlay", "confidence")  # that `save` can write
    endings: ClassVar[dict[str, tuple[str, ...]]] = {  # of their files, after NAME
        "labels": (".png",), "overlay": ("_overlay.jpg",), "confidence": ("_confidence.png",),
    }  # fmt: skip
    raster_also: ClassVar[tuple[str, ...]] = ()  # suffixes of what is written beside a raster's labels
    labels: npt.NDArray[np.integer]  # [H, W] train ids at the input's size: uint8 to 256 classes, int16 above
    table: LabelTable
    confidence: npt.NDArray[np.float32] | None = None  # [H, W] softmax probability of the winner, on request
    image: npt.NDArray[np.uint8] | None = None  # [H, W, 3] RGB, for `overlay`
    name: str = "image"

    def overlay(self, opacity: float = 0.55) -> npt.NDArray[np.uint8]:
        """RGB [H, W, 3]: the image tinted by class; ValueError if the map was made without its image."""
        return overlay(_drawable(self.image, self.name), self.labels, self.table.palette, opacity)

    def shares(self) -> dict[str, float]:
        """Share of the pixels of each class that occurs, largest first."""
        return _shares(self.labels, self.table)

    def regions(self) -> Regions:
        """A segment for each class that occurs, in the order of train ids."""
        found = [k for k in np.unique(self.labels).tolist() if k >= 0]
        index = np.full(self.table.num_classes + 1, IGNORE, np.int16)
        index[found] = np.arange(len(found))
        segments = []
        for i, k in enumerate(found, 1):
            mask = (self.labels == k).astype(np.uint8)
            segments.append(Segment(
                id=i, train_id=k, name=self.table.names[k], thing=False, area=int(mask.sum()),
                box=tuple(cv2.boundingRect(mask)),
            ))  # fmt: skip
        return Regions(index=index[self.labels], segments=tuple(segments))

    def save(self, folder: str | Path, *, what: tuple[str, ...] = ("labels", "overlay")) -> list[Path]:
        """Write `NAME.png`, `NAME_overlay.jpg`, `NAME_confidence.png`, as of `picture`.

        Returns what was written; ValueError for an unknown `what`.
        """
        _check_outputs(what, self.outputs)
        written = []
        for output in what:
            path = Path(folder) / f"{self.name}{self.endings[output][0]}"
            write_image(path, self.picture(output))
            written.append(path)
        return written

    def picture(self, output: str) -> npt.NDArray[Any]:
        """What `save` writes, of 8 or 16 bits.

        "labels" are raw label values, as in the data set's masks; "overlay" is RGB; "confidence" has 255 where it is
        certain. ValueError for what this map does not have.
        """
        _check_outputs((output,), self.outputs)
        if output == "labels":
            return self.table.decode(self.labels)
        if output == "overlay":
            return self.overlay()
        if self.confidence is None:
            raise ValueError(f"{self.name}: this map was predicted without confidence; ask the predictor for it")
        return np.rint(self.confidence * 255).astype(np.uint8)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Detections:
    """Instances that a network predicts in one image, best first."""

    boxes: npt.NDArray[np.float32]  # [N, 4] left, top, right, bottom, in pixels of the image
    scores: npt.NDArray[np.float32]  # [N] 0..1, falling
    classes: npt.NDArray[np.int16]  # [N] train ids
    masks: tuple[tuple[int, int, npt.NDArray[np.bool_]], ...]  # N times top, left and the mask [h, w] there; none
    # outside. Empty (no tuple) for detections that were too weak for the map.


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PanopticMap(Regional):
    """What a Panoptic FPN says about one image."""

    outputs: ClassVar[tuple[str, ...]] = ("panoptic", "overlay", "labels", "instances")  # that `save` can write
    endings: ClassVar[dict[str, tuple[str, ...]]] = {
        "panoptic": (".png", ".json"), "overlay": ("_overlay.jpg",), "labels": ("_labels.png",),
        "instances": ("_instances.png",),
    }  # fmt: skip
    raster_also: ClassVar[tuple[str, ...]] = ("json",)
    segments: npt.NDArray[np.int32]  # [H, W] segment ids at the input's size, 0 where void
    info: tuple[Segment, ...]  # of ids 1, 2, …: things, best first, then stuff in the order of train ids
    table: LabelTable
    semantic: npt.NDArray[np.integer]  # [H, W] what the semantic branch alone says: train ids, IGNORE for 'other'
    detections: Detections
    image: npt.NDArray[np.uint8] | None = None  # [H, W, 3] RGB, for `overlay`
    name: str = "image"

    @property
    def labels(self) -> npt.NDArray[np.int16]:
        """Train ids [H, W] of the merged map, IGNORE where void."""
        classes = np.array([IGNORE, *(s.train_id for s in self.info)], np.int16)
        return classes[self.segments]

    def as_segments(self) -> Segments:
        """The same in the form of a truth, for the metric."""
        count = len(self.info)
        return Segments(
            index=(self.segments - 1).astype(np.int16),  # void becomes IGNORE
            classes=np.array([s.train_id for s in self.info], np.int16),
            crowd=np.zeros(count, np.bool_),
            ids=np.arange(1, count + 1, dtype=np.int64),
        )

    def overlay(self, opacity: float = 0.55, *, names: bool = True) -> npt.NDArray[np.uint8]:
        """RGB [H, W, 3]: the image tinted, stuff by class and every thing in a shade of its own; void stays as it is.

        `names` writes class and score (in percent) into the things that are large enough. ValueError if the map was
        made without its image.
        """
        segments = self.as_segments()
        things = np.array([c.thing for c in self.table.classes], np.bool_)
        colors = segment_colors(segments.classes, self.table.palette, things)
        drawn = overlay(_drawable(self.image, self.name), segments.index, colors, opacity)
        words = ((f"{s.name} {s.score:.0%}" if s.score is not None else s.name, s.box) for s in self.info if s.thing)
        return write_words(drawn, words) if names else drawn

    def shares(self) -> dict[str, float]:
        """Share of the pixels of each class that occurs, largest first; together less than 1 where pixels are void."""
        return _shares(self.labels, self.table)

    def regions(self) -> Regions:
        """The segments."""
        return Regions(index=(self.segments - 1).astype(np.int16), segments=self.info)

    def to_dict(self) -> dict[str, Any]:
        """What `NAME.json` says of `NAME.png`, with COCO's keys."""
        height, width = self.segments.shape
        infos = [segment.to_dict(self.table) for segment in self.info]
        return {"file_name": f"{Path(self.name).name}.png", "height": height, "width": width, "segments_info": infos}

    def save(self, folder: str | Path, *, what: tuple[str, ...] = ("panoptic", "overlay")) -> list[Path]:
        """Write "panoptic": `NAME.png` (segment ids as R + 256 G + 65536 B) and `NAME.json` (see `to_dict`).

        "overlay": `NAME_overlay.jpg`; "labels": `NAME_labels.png` (raw label values, as in the data set's masks; the
        table's ignored value where void); "instances": `NAME_instances.png` (16 bits: the ids of things, 0 elsewhere).
        Returns what was written; ValueError for an unknown `what`.
        """
        _check_outputs(what, self.outputs)
        written = []
        for output in what:
            path = Path(folder) / f"{self.name}{self.endings[output][0]}"
            write_image(path, self.picture(output))
            written.append(path)
            if output == "panoptic":  # after its PNG: where there is a JSON, there are its segments
                written.append(path.with_suffix(".json"))
                write_json(written[-1], self.to_dict())
        return written

    def picture(self, output: str) -> npt.NDArray[Any]:
        """What `save` writes, of 8 or 16 bits; ValueError for what this map does not have."""
        _check_outputs((output,), self.outputs)
        if output == "panoptic":
            return ids_to_rgb(self.segments)
        if output == "overlay":
            return self.overlay()
        if output == "labels":
            return self._raw_labels()
        return np.array([0, *(s.id * s.thing for s in self.info)], np.uint16)[self.segments]

    def _raw_labels(self) -> npt.NDArray[np.generic]:
        if not self.table.ignore and (void := int((self.segments == 0).sum())):
            raise ValueError(
                f"{self.name}: {void} pixels are void, and label table {self.table.name!r} has no ignored value to "
                "write there; declare one (`ignore: [255]`), or save panoptic, which holds them as 0"
            )
        return self.table.decode(self.labels)


def _drawable(image: npt.NDArray[np.uint8] | None, name: str) -> npt.NDArray[np.uint8]:
    if image is None:
        raise ValueError(f"{name}: this map carries no image to draw on; draw with panfpn.draw.overlay")
    return image


def _shares(labels: npt.NDArray[np.integer], table: LabelTable) -> dict[str, float]:
    counts = np.bincount(labels[labels >= 0], minlength=table.num_classes) / labels.size
    order = np.argsort(-counts, kind="stable")
    return {table.names[k]: float(counts[k]) for k in order if counts[k]}


def _check_outputs(what: tuple[str, ...], outputs: tuple[str, ...]) -> None:
    for output in what:
        if output not in outputs:
            raise ValueError(f"cannot save {output!r}; choose from {', '.join(outputs)}")
