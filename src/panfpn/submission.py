"""Files as the benchmarks' servers want them. In: images and maps. Out: names, files, and a check.

Cityscapes: one PNG of regular label ids per image, found by `CITY_SEQ_FRAME*.png` (cityscapesScripts). ADE20K: one PNG
of class + 1 under the image's own name. Panoptic: panopticapi's PNGs of segment ids, and one JSON. FACTS E1, E3, B5.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from panfpn.data.coco import read_coco
from panfpn.data.instances import CityscapesSegments
from panfpn.files import ids_to_rgb, read_image, read_json, read_mask, write_image, write_json
from panfpn.labels import LabelTable
from panfpn.metrics import ConfusionMatrix, PanopticQuality, PanopticScores, SemanticScores
from panfpn.types import PanopticMap, Segments, SemanticMap

FORMATS = ("cityscapes", "ade20k")
PANOPTIC_FORMATS = ("coco-panoptic", "cityscapes-panoptic")
_CITYSCAPES = re.compile(r"([^_]+_\d{6}_\d{6})(_leftImg8bit)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A benchmark's format for semantic maps; made for a model by `submission_for`."""

    format: str
    table: LabelTable  # writes and reads the server's values
    what: ClassVar[str] = "labels"
    last: ClassVar[str | None] = None

    def names(self, images: Iterable[Path]) -> list[str]:
        """Stems of the files to write, in the order of `images`; ValueError for an image the server would not know."""
        return _unique([f"{_frame(path)}_pred" if self.format == "cityscapes" else path.stem for path in images])

    @contextmanager
    def into(self, folder: Path, images: Sequence[Path]) -> Iterator[Callable[[Any], object]]:
        """What writes a map of one of the images, under the name that `names` gives it."""
        yield lambda found: replace(found, table=self.table).save(folder, what=(self.what,))

    def ground_truth(self, image: Path) -> Path | None:
        """The image's ground truth in the benchmark's own folders; None where there is none."""
        if self.format == "cityscapes":
            return _beside(image, "leftImg8bit", "gtFine", image.stem.replace("_leftImg8bit", "_gtFine_labelIds"))
        return _beside(image, "images", "annotations", image.stem)

    def check(self, images: Iterable[Path], folder: Path) -> tuple[int, SemanticScores | None]:
        """Read what was written for `images`; returns how many files, and their scores where there is ground truth.

        Raises:
            ValueError: a file that is missing, of another size or kind, or holds a value the server does not score.
        """
        matrix, scored, count = ConfusionMatrix(self.table.num_classes), 0, 0
        images = list(images)
        for name, image in zip(self.names(images), images, strict=True):
            file = folder / f"{name}.png"
            if not file.is_file():
                raise ValueError(f"{file}: missing; it is the prediction of {image}")
            mask, size = read_mask(file), read_image(image).shape[:2]
            if mask.dtype != np.uint8 or mask.shape != size:
                raise ValueError(f"{file}: is {mask.dtype} of shape {mask.shape}, but the image {image} has {size}")
            labels = self.table.encode(mask, file)
            if (labels < 0).any():
                raise ValueError(f"{file}: holds the value {int(mask[labels < 0][0])}, which is not scored")
            truth = self.ground_truth(image)
            if truth:
                matrix.update(labels, self.table.encode(read_mask(truth), truth))
                scored += 1
            count += 1
        return count, matrix.scores(self.table.names) if scored else None


@dataclass(frozen=True, slots=True, kw_only=True)
class PanopticSubmission:
    """A benchmark's format for panoptic maps: panoptic/….png and, written last, panoptic.json beside the folder.

    Made for a model by `submission_for`. A category's id is the first raw value of its class.
    """

    format: str
    table: LabelTable
    annotations: Path | None = None  # a JSON of the data set, and
    image_ids: Mapping[str, int | str] | None = None  # the ids in it, by file name
    what: ClassVar[str] = "panoptic"
    last: ClassVar[str] = "panoptic.json"

    def names(self, images: Iterable[Path]) -> list[str]:
        """Stems of the PNGs to write, in the order of `images`; ValueError for an image the server would not know."""
        images = list(images)
        twice = [number for number, count in Counter(map(self.image_id, images)).items() if count > 1]
        if twice:
            raise ValueError(f"two images have the image_id {twice[0]!r}, by which the server tells them apart")
        city = self.format == "cityscapes-panoptic"
        return _unique([f"panoptic/{f'{_frame(path)}_gtFine_panoptic' if city else path.stem}" for path in images])

    def image_id(self, image: Path) -> int | str:
        """What the server calls the image: COCO's number, in its name or in the annotations; CITY_SEQ_FRAME."""
        if self.format == "cityscapes-panoptic":
            return _frame(image)
        if self.image_ids is None:
            return int(image.stem) if re.fullmatch("[0-9]+", image.stem) else image.stem
        if image.name not in self.image_ids:
            raise ValueError(f"{image}: {self.annotations} lists no image {image.name!r}, so it has no image_id")
        return self.image_ids[image.name]

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

        def write(found: PanopticMap) -> None:
            ids = np.array([0, *self._ids(found)])
            write_image(folder / f"{found.name}.png", ids_to_rgb(ids[found.segments]))
            image, (height, width) = source[found.name], found.segments.shape
            number = self.image_id(image)
            entries.append({"id": number, "file_name": image.name, "height": height, "width": width})
            categories = [self.table.classes[s.train_id].values[0] for s in found.info]
            segments = [{"id": int(i), "category_id": c} for i, c in zip(ids[1:], categories, strict=True)]
            name = f"{Path(found.name).name}.png"
            records.append({"image_id": number, "file_name": name, "segments_info": segments})

        yield write
        write_json(file, {"images": entries, "annotations": records, "categories": self._categories()})

    def ground_truth(self, image: Path) -> Path | None:
        """The image's true segments, a PNG in the data set's own folders or beside the annotations; None if not there.

        COCO: annotations/panoptic_SPLIT (or panoptic_SPLIT); Cityscapes: gtFine's instanceIds.
        """
        if self.format == "cityscapes-panoptic":
            return _beside(image, "leftImg8bit", "gtFine", f"{_frame(image)}_gtFine_instanceIds")
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
        if not file.is_file():
            raise ValueError(f"{file}: missing; it is written when all images are done")
        names, found = read_coco(file, folder / "panoptic", self.table)
        number = {name: i for i, name in enumerate(names)}
        quality, scored = PanopticQuality(self.table.num_classes), 0
        truths = self._truths(images)
        for image in images:
            if image.name not in number:
                raise ValueError(f"{file}: lists no {image.name!r}; it is missing the prediction of {image}")
            png, segments = found.file(number[image.name]), found.segments(number[image.name])
            if segments.shape != (size := read_image(image).shape[:2]):
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
            names, coco = read_coco(file, folder, self.table)
            known = {folder / f"{Path(name).stem}.png": i for i, name in enumerate(names)}
            truths |= {image: partial(coco.segments, known[png]) for image, png in files.items() if png in known}
        return truths

    def _ids(self, found: PanopticMap) -> list[int]:
        """Of each segment: its number; for Cityscapes the class's id, and of things 1000 times that plus a number."""
        if self.format == "coco-panoptic":
            return [segment.id for segment in found.info]
        counts: Counter[int] = Counter()
        ids = []
        for segment in found.info:
            value = self.table.classes[segment.train_id].values[0]
            ids.append(1000 * value + counts[value] if segment.thing else value)
            counts[value] += 1
        return ids

    def _categories(self) -> list[dict[str, Any]]:
        return [{"id": c.values[0], "name": c.name, "isthing": int(c.thing), "color": list(c.color)}
                for c in self.table.classes]  # fmt: skip


def submission_for(
    format: str, table: LabelTable, *, maps: type[SemanticMap | PanopticMap] = SemanticMap,
    annotations: Path | None = None,
) -> Submission | PanopticSubmission:  # fmt: skip
    """The format, for a model with label table `table` that makes `maps`; `annotations` gives COCO's image ids.

    ValueError for an unknown format, or a model of other classes or maps.
    """
    known = (*FORMATS, *PANOPTIC_FORMATS)
    if format not in known:
        raise ValueError(f"no submission format {format!r}; there are {', '.join(known)}")
    kinds = "panoptic" if maps is PanopticMap else "semantic"
    if (format in PANOPTIC_FORMATS) != (maps is PanopticMap):
        right = PANOPTIC_FORMATS if maps is PanopticMap else FORMATS
        raise ValueError(f"--format {format} is not for the {kinds} maps of this model; use {' or '.join(right)}")
    if annotations and format != "coco-panoptic":
        raise ValueError(f"--annotations gives COCO's image ids; --format {format} takes them from the file names")
    if format != "coco-panoptic":
        official = LabelTable.named(format.removesuffix("-panoptic"))
        if official.names != table.names:
            raise ValueError(
                f"the model's label table {table.name!r} ({table.num_classes} classes) is not that of {official.name}"
            )
        table = official
    if maps is SemanticMap:
        return Submission(format=format, table=table)
    return PanopticSubmission(
        format=format, table=table, annotations=annotations, image_ids=_image_ids(annotations) if annotations else None
    )


def _image_ids(file: Path) -> dict[str, int | str]:
    try:
        return {image["file_name"]: image["id"] for image in read_json(file)["images"]}
    except (KeyError, TypeError) as error:
        raise ValueError(f"{file}: has no `images` with file_name and id, as COCO's annotations have") from error


def _frame(image: Path) -> str:
    found = _CITYSCAPES.fullmatch(image.stem)
    if not found:
        raise ValueError(f"{image}: its name is not CITY_SEQ_FRAME_leftImg8bit, by which the server knows it")
    return found[1]


def _beside(image: Path, first: str, second: str, stem: str) -> Path | None:
    """STEM.png in the folder that is called `second` where the image's is called `first`; None if it is not there."""
    parts = list(image.resolve().parts)
    if first not in parts:
        return None
    parts[len(parts) - 1 - parts[::-1].index(first)] = second
    truth = Path(*parts).with_name(f"{stem}.png")
    return truth if truth.is_file() else None


def _unique(stems: list[str]) -> list[str]:
    twice = [stem for stem, count in Counter(stems).items() if count > 1]
    if twice:
        raise ValueError(f"two images would be written as {twice[0]}.png, and a submission is one flat folder")
    return stems
