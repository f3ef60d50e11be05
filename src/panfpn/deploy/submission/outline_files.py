"""Outlines as annotation tools read them: labels to start from. In: images and maps. Out: polygons.

coco: one annotations.json; yolo: a text an image and data.yaml; cvat: one annotations.xml ("CVAT for images 1.1");
labelme: a JSON an image. A thing is one annotation, and so is a class of stuff where the format knows several polygons
of one; else each piece is. Holes are cut into the border. Points lie on pixels' edges, moved by a pixel at most.
"""

import os
import xml.etree.ElementTree as ET
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import yaml

from panfpn.deploy.submission.formats import no_annotations
from panfpn.files import write_json, write_text
from panfpn.labels import LabelTable
from panfpn.metrics import Scores
from panfpn.shapes import Outline
from panfpn.types import PanopticMap, SemanticMap

_TOLERANCE = 1.0  # pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlineFiles(ABC):
    """A tool's format for maps of both kinds; made for a model by `submission_for`."""

    format: str
    table: LabelTable
    map_types: ClassVar[tuple[type[SemanticMap | PanopticMap], ...]] = (SemanticMap, PanopticMap)
    what: ClassVar[str] = "polygons"
    by_hand: ClassVar[bool] = True
    last: ClassVar[str | None] = None
    each: ClassVar[str] = ""  # what is written for an image, with its name for NAME
    protocol: ClassVar[str] = "mmseg"

    @classmethod
    def of(cls, format: str, table: LabelTable, annotations: Path | None) -> Self:
        """The format for a model with these classes; ValueError for annotations."""
        no_annotations(format, annotations)
        return cls(format=format, table=table)

    def names(self, images: Iterable[Path]) -> list[str]:
        """Stems of the files to write, in the order of `images`; ValueError for two of one name."""
        stems = [path.stem for path in images]
        twice = [stem for stem, count in Counter(stems).items() if count > 1]
        if twice:
            raise ValueError(f"two images are called {twice[0]}, by which {self.format} tells them apart; label one "
                             "folder a call")  # fmt: skip
        return stems

    def files(self, names: Iterable[str]) -> list[str]:
        """What will be written."""
        found = [self.each.replace("NAME", name) for name in names if self.each]
        return found if self.last is None else [*found, self.last]

    @abstractmethod
    def into(self, folder: Path, images: Sequence[Path]) -> Any:
        """See `Submission`."""

    def ground_truth(self, image: Path) -> Path | None:
        """None: there is none."""
        return None

    def check(self, images: Iterable[Path], folder: Path) -> tuple[int, Scores | None]:
        """ValueError: nobody scores these."""
        raise ValueError(f"--check is for the formats of benchmarks; {self.format} is for annotation tools")


class CocoFiles(OutlineFiles):
    """One annotations.json in COCO's format of instances."""

    __slots__ = ()
    last = "annotations.json"

    @contextmanager
    def into(self, folder: Path, images: Sequence[Path]) -> Iterator[Callable[[Any], object]]:
        """Collects the maps; the file is written at the end."""
        sources = dict(zip(self.names(images), images, strict=True))
        numbers = {name: k for k, name in enumerate(sources, 1)}
        entries: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []

        def collect(found: Any) -> None:
            height, width = found.regions().index.shape
            number = numbers[found.name]
            entries.append({"id": number, "file_name": sources[found.name].name, "height": height, "width": width})
            for segment, pieces in found.regions().outlines(tolerance=_TOLERANCE):
                facts = segment.to_dict(self.table)
                annotations.append({
                    "id": len(annotations) + 1, "image_id": number, "category_id": facts["category_id"], "iscrowd": 0,
                    "area": segment.area, "bbox": list(segment.box),
                    "segmentation": [piece.joined().ravel().tolist() for piece in pieces],
                    **({"score": segment.score} if segment.score is not None else {}),
                })  # fmt: skip

        yield collect
        categories = [
            {"id": c.values[0], "name": c.name, "supercategory": "thing" if c.thing else "stuff"}
            for c in self.table.classes
        ]
        write_json(folder / self.last, {"images": entries, "annotations": annotations, "categories": categories})


class YoloFiles(OutlineFiles):
    """labels/NAME.txt with a line a segment (class, then x y … as shares of width and height), and data.yaml."""

    __slots__ = ()
    last, each = "data.yaml", "labels/NAME.txt"

    @contextmanager
    def into(self, folder: Path, images: Sequence[Path]) -> Iterator[Callable[[Any], object]]:
        """Writes a text an image."""

        def write(found: Any) -> None:
            height, width = found.regions().index.shape
            lines = []
            for segment, pieces in found.regions().outlines(tolerance=_TOLERANCE):
                parts = pieces if not segment.thing else [_one(pieces)]  # who reads this takes a line for an instance
                for piece in parts:
                    points = (piece.joined() / [width, height]).ravel()
                    lines.append(" ".join([str(segment.train_id), *(f"{value:.6g}" for value in points)]))
            write_text(folder / "labels" / f"{found.name}.txt", "".join(f"{line}\n" for line in lines))

        yield write
        names = dict(enumerate(self.table.names))
        write_text(folder / self.last, yaml.safe_dump({"names": names}, sort_keys=False, allow_unicode=True))


class CvatFiles(OutlineFiles):
    """One annotations.xml, "CVAT for images 1.1"."""

    __slots__ = ()
    last = "annotations.xml"

    @contextmanager
    def into(self, folder: Path, images: Sequence[Path]) -> Iterator[Callable[[Any], object]]:
        """Collects the maps; the file is written at the end."""
        sources = dict(zip(self.names(images), images, strict=True))
        root = ET.Element("annotations")
        ET.SubElement(root, "version").text = "1.1"
        labels = ET.SubElement(ET.SubElement(ET.SubElement(root, "meta"), "task"), "labels")
        for one, (red, green, blue) in zip(self.table.classes, self.table.palette.tolist(), strict=True):
            label = ET.SubElement(labels, "label")
            for key, text in (("name", one.name), ("color", f"#{red:02x}{green:02x}{blue:02x}"), ("type", "polygon")):
                ET.SubElement(label, key).text = text
        order = {name: k for k, name in enumerate(sources)}

        def collect(found: Any) -> None:
            height, width = found.regions().index.shape
            image = ET.SubElement(root, "image", id=str(order[found.name]), name=sources[found.name].name,
                                  width=str(width), height=str(height))  # fmt: skip
            for segment, pieces in found.regions().outlines(tolerance=_TOLERANCE):
                for piece in pieces:
                    points = ";".join(f"{x:.2f},{y:.2f}" for x, y in piece.joined().tolist())
                    facts = {"source": "auto", "occluded": "0", "z_order": "0"}
                    group = {"group_id": str(segment.id)} if len(pieces) > 1 else {}
                    ET.SubElement(image, "polygon", {"label": segment.name, "points": points} | facts | group)

        yield collect
        ET.indent(root, " ")
        write_text(folder / self.last, '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, "unicode") + "\n")


class LabelMeFiles(OutlineFiles):
    """NAME.json as LabelMe opens it; it names the image by its path from there."""

    __slots__ = ()
    each = "NAME.json"

    @contextmanager
    def into(self, folder: Path, images: Sequence[Path]) -> Iterator[Callable[[Any], object]]:
        """Writes a JSON an image."""
        sources = dict(zip(self.names(images), images, strict=True))

        def write(found: Any) -> None:
            height, width = found.regions().index.shape
            shapes = [
                {"label": segment.name, "points": piece.joined().astype(float).tolist(),
                 "group_id": segment.id if len(pieces) > 1 else None, "description": "", "shape_type": "polygon",
                 "flags": {}, "mask": None}
                for segment, pieces in found.regions().outlines(tolerance=_TOLERANCE) for piece in pieces
            ]  # fmt: skip
            path = os.path.relpath(sources[found.name].resolve(), folder.resolve())
            write_json(folder / f"{found.name}.json", {
                "version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": Path(path).as_posix(),
                "imageData": None, "imageHeight": height, "imageWidth": width,
            })  # fmt: skip

        yield write


def _one(pieces: Sequence[Outline]) -> Outline:
    """All pieces as one, joined by cuts as holes are."""
    first, *others = pieces
    return Outline(first.border, (*first.holes, *(ring for o in others for ring in (o.border, *o.holes))))
