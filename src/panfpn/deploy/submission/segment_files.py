"""Segments as panopticapi and cityscapesScripts want them. In: images and PanopticMaps. Out: PNGs, a JSON, and a check.

PNGs hold segment ids as R + 256 G + 65536 B; the JSON is in COCO's panoptic format. docs/facts.md, E1, E3.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from panfpn.data.images import decode_ids, read_image
from panfpn.data.layouts.cityscapes import CityscapesSegments
from panfpn.data.layouts.coco_json import classes_by_category, record_problems, unlisted
from panfpn.data.segments import indices_of
from panfpn.deploy.submission.formats import no_annotations, official_table
from panfpn.deploy.submission.names import beside, cityscapes_frame, unique
from panfpn.files import ids_to_rgb, read_bytes, read_json, write_image, write_json
from panfpn.labels import LabelTable
from panfpn.metrics import PanopticQuality, PanopticScores
from panfpn.types import PanopticMap, Segments


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentFiles:
    """A benchmark's format for panoptic maps: panoptic/….png and, written last, panoptic.json beside the folder.

    Made for a model by `submission_for`. A category's id is the first raw value of its class.
    """

    format: str
    table: LabelTable
    annotations: Path | None = None  # a JSON of the data set, and
    image_ids: Mapping[str, int | str] | None = None  # the ids in it, by file name
    map_types: ClassVar[tuple[type[PanopticMap]]] = (PanopticMap,)
    what: ClassVar[str] = "panoptic"
    by_hand: ClassVar[bool] = False
    last: ClassVar[str] = "panoptic.json"
    protocol: ClassVar[str] = "mmseg"  # of the scores that are printed: panoptic ones have no other

    @classmethod
    def of(cls, format: str, table: LabelTable, annotations: Path | None) -> Self:
        """The format for a model with these classes; ValueError for Cityscapes' of others, or with annotations."""
        if format != "coco-panoptic":
            no_annotations(format, annotations)
            return cls(format=format, table=official_table(format.removesuffix("-panoptic"), table))
        image_ids = read_image_ids(annotations) if annotations else None
        return cls(format=format, table=table, annotations=annotations, image_ids=image_ids)

    def names(self, images: Iterable[Path]) -> list[str]:
        """Stems of the PNGs to write, in the order of `images`; ValueError for an image the server would not know."""
        images = list(images)
        twice = [number for number, count in Counter(map(self.image_id, images)).items() if count > 1]
        if twice:
            raise ValueError(f"two images have the image_id {twice[0]!r}, by which the server tells them apart")
        if self.format == "cityscapes-panoptic":
            return unique([f"panoptic/{cityscapes_frame(path)}_gtFine_panoptic" for path in images])
        return unique([f"panoptic/{path.stem}" for path in images])

    def image_id(self, image: Path) -> int | str:
        """What the server calls the image: COCO's number, in its name or in the annotations; CITY_SEQ_FRAME."""
        if self.format == "cityscapes-panoptic":
            return cityscapes_frame(image)
        if self.image_ids is None:
            return int(image.stem) if re.fullmatch("[0-9]+", image.stem) else image.stem
        if image.name not in self.image_ids:
            raise ValueError(f"{image}: {self.annotations} lists no image {image.name!r}, so it has no image_id")
        return self.image_ids[image.name]

    def files(self, names: Iterable[str]) -> list[str]:
        """What will be written."""
        return [*(f"{name}.png" for name in names), self.last]

    @contextmanager
    def into(self, folder: Path, images: Sequence[Path]) -> Iterator[Callable[[Any], object]]:
        """What writes the PNG of one of the images, under the name that `names` gives it; ends with the JSON.

        An earlier JSON goes first, so that none is there that does not fit the PNGs if the block fails.
        """
        file, source = folder / self.last, dict(zip(self.names(images), images, strict=True))
        if self.annotations and file.resolve() == self.annotations.resolve():
            raise ValueError(f"{file}: the results would overwrite the annotations; choose another folder for them")
        file.unlink(missing_ok=True)
        entries: list[dict[str, Any]] = []
        records: list[dict[str, Any]] = []

        def write(result: PanopticMap) -> None:
            ids = np.array([0, *self._ids(result)])
            write_image(folder / f"{result.name}.png", ids_to_rgb(ids[result.segments]))
            image, (height, width) = source[result.name], result.segments.shape
            number = self.image_id(image)
            entries.append({"id": number, "file_name": image.name, "height": height, "width": width})
            categories = [self.table.classes[s.train_id].values[0] for s in result.info]
            segments = [
                {"id": int(i), "category_id": c, "area": s.area, "bbox": list(s.box), "iscrowd": 0}
                for i, c, s in zip(ids[1:], categories, result.info, strict=True)
            ]
            name = f"{Path(result.name).name}.png"
            records.append({"image_id": number, "file_name": name, "segments_info": segments})

        yield write
        write_json(file, {"images": entries, "annotations": records, "categories": self._categories()})

    def ground_truth(self, image: Path) -> Path | None:
        """The image's true segments, a PNG in the data set's own folders or beside the annotations; None if not there.

        COCO: annotations/panoptic_SPLIT (or panoptic_SPLIT); Cityscapes: gtFine's instanceIds.
        """
        if self.format == "cityscapes-panoptic":
            return beside(image, "leftImg8bit", "gtFine", f"{cityscapes_frame(image)}_gtFine_instanceIds")
        file = self._truth_json(image)
        for folder in (file.with_suffix(""), file.parent.parent / file.stem):
            if file.is_file() and (truth := folder / f"{image.stem}.png").is_file():
                return truth
        return None

    def _truth_json(self, image: Path) -> Path:
        split = image.resolve().parent
        return self.annotations or split.parent / "annotations" / f"panoptic_{split.name}.json"

    def check(self, images: Iterable[Path], folder: Path) -> tuple[int, PanopticScores | None]:
        """Read what was written for `images`; returns how many PNGs, and their scores where there is ground truth.

        Raises:
            ValueError: a file that is missing, of another size or kind, or whose segments are not those of the JSON.
        """
        file, images = folder / self.last, list(images)
        stems = dict(zip(images, self.names(images), strict=True))
        if not file.is_file():
            raise ValueError(f"{file}: missing; it is written when all images are done")
        listed, truths = _read_listing(file, folder / "panoptic", self.table), self._truths(images)
        quality, scored = PanopticQuality(self.table.num_classes), 0
        for image in images:
            if image.name not in listed:
                raise ValueError(f"{file}: lists no {image.name!r}; it is missing the prediction of {image}")
            segments, size = listed[image.name](), read_image(image).shape[:2]
            png = folder / f"{stems[image]}.png"
            if segments.shape != size:
                raise ValueError(f"{png}: has shape {segments.shape}, but the image {image} has {size}")
            areas = np.bincount(segments.index.ravel() + 1, minlength=len(segments.ids) + 1)[1:]
            if not areas.all():
                raise ValueError(f"{png}: {file} lists segment {segments.ids[areas == 0][0]}, which has no pixel")
            if image in truths:
                quality.update(segments, truths[image]())
                scored += 1
        things = [c.thing for c in self.table.classes]
        return len(images), quality.scores(self.table.names, things) if scored else None

    def _truths(self, images: Sequence[Path]) -> dict[Path, Callable[[], Segments]]:
        """What reads the true segments of the images that have some."""
        files = {image: truth for image in images if (truth := self.ground_truth(image))}
        if self.format == "cityscapes-panoptic":
            source = CityscapesSegments(self.table, tuple(files.values()))
            return {image: partial(source.segments, i) for i, image in enumerate(files)}
        truths: dict[Path, Callable[[], Segments]] = {}
        for file, folder in {(self._truth_json(image), truth.parent) for image, truth in files.items()}:
            listed = _read_listing(file, folder, self.table)
            images_here = (image for image, truth in files.items() if truth.parent == folder and image.name in listed)
            truths |= {image: listed[image.name] for image in images_here}
        return truths

    def _ids(self, result: PanopticMap) -> list[int]:
        """Of each segment: its number; for Cityscapes the class's id, and of things 1000 times that plus a number."""
        if self.format == "coco-panoptic":
            return [segment.id for segment in result.info]
        counts: Counter[int] = Counter()
        ids = []
        for segment in result.info:
            value = self.table.classes[segment.train_id].values[0]
            ids.append(1000 * value + counts[value] if segment.thing else value)
            counts[value] += 1
        return ids

    def _categories(self) -> list[dict[str, Any]]:
        return [{"id": c.values[0], "name": c.name, "isthing": int(c.thing), "color": list(c.color)}
                for c in self.table.classes]  # fmt: skip


def read_image_ids(file: Path) -> dict[str, int | str]:
    """Image ids by file name, of a JSON of COCO's; ValueError if it has none."""
    try:
        ids = {image["file_name"]: image["id"] for image in read_json(file)["images"]}
        for name, number in ids.items():
            if not isinstance(name, str) or not (type(number) is int or (isinstance(number, str) and number)):
                raise ValueError(f"{file}: image {name!r} has the id {number!r}; ids are whole numbers or names")
        return ids
    except (KeyError, TypeError) as error:
        raise ValueError(f"{file}: has no `images` with file_name and id, as COCO's annotations have") from error


def _read_listing(file: Path, folder: Path, table: LabelTable) -> dict[str, Callable[[], Segments]]:
    """What reads the segments of each image that a panoptic JSON lists, by the image's file name.

    ValueError for a JSON of another format, an id that cannot be one, or a category that the table does not know.
    """
    try:
        data = read_json(file)
        class_of = classes_by_category(data["categories"], table)
        name_of = {entry["id"]: entry["file_name"] for entry in data["images"]}
        read: dict[str, Callable[[], Segments]] = {}
        for annotation in data["annotations"]:
            png, records = folder / annotation["file_name"], annotation["segments_info"]
            for problem in record_problems(records, class_of, png, file):
                raise ValueError(problem)
            read[name_of[annotation["image_id"]]] = partial(
                _read_segments, file, png,
                ids=np.array([record["id"] for record in records], np.int64),
                classes=np.array([class_of[record["category_id"]] for record in records], np.int16),
                crowd=np.array([bool(record.get("iscrowd")) for record in records], np.bool_),
            )  # fmt: skip
    except (KeyError, TypeError) as error:
        raise ValueError(f"{file}: not in COCO's panoptic format ({type(error).__name__}: {error})") from error
    return read


def _read_segments(file: Path, png: Path, *, ids: npt.NDArray[np.int64], **rest: Any) -> Segments:
    """The segments of a PNG; ValueError for an id in it that is not in `ids`, which are those of the JSON `file`."""
    pixels = decode_ids(read_bytes(png), png, rgb=True)
    index = indices_of(pixels, ids, png)
    for problem in unlisted(png, file, pixels, index):
        raise ValueError(problem)
    return Segments(index=index, ids=ids, **rest)
