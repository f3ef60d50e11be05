"""Label maps as the servers want them. In: images and SemanticMaps. Out: PNGs, and a check.

Cityscapes: one PNG of regular label ids per image, found by `CITY_SEQ_FRAME*.png` (cityscapesScripts). ADE20K: one PNG
of class + 1 under the image's own name. docs/facts.md, E3, B5.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from panfpn.data.images import read_image, read_mask
from panfpn.deploy.submission.formats import no_annotations, official_table
from panfpn.deploy.submission.names import beside, cityscapes_frame, unique
from panfpn.labels import LabelTable
from panfpn.metrics import ConfusionMatrix, SemanticScores
from panfpn.types import SemanticMap


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelFiles:
    """A benchmark's format for semantic maps; made for a model by `submission_for`."""

    format: str
    table: LabelTable  # writes and reads the server's values
    map_types: ClassVar[tuple[type[SemanticMap]]] = (SemanticMap,)
    what: ClassVar[str] = "labels"
    by_hand: ClassVar[bool] = False
    last: ClassVar[str | None] = None

    @classmethod
    def of(cls, format: str, table: LabelTable, annotations: Path | None) -> Self:
        """The format for a model with these classes; ValueError for other classes, or for annotations."""
        no_annotations(format, annotations)
        return cls(format=format, table=official_table(format, table))

    @property
    def protocol(self) -> str:
        """By whose names and units the scores are printed."""
        return "cityscapes" if self.format == "cityscapes" else "mmseg"

    def names(self, images: Iterable[Path]) -> list[str]:
        """Stems of the files to write, in the order of `images`; ValueError for an image the server would not know."""
        if self.format == "cityscapes":
            return unique([f"{cityscapes_frame(path)}_pred" for path in images])
        return unique([path.stem for path in images])

    def files(self, names: Iterable[str]) -> list[str]:
        """What will be written."""
        return [f"{name}.png" for name in names]

    @contextmanager
    def into(self, folder: Path, images: Sequence[Path]) -> Iterator[Callable[[Any], object]]:
        """What writes a map of one of the images, under the name that `names` gives it."""
        yield lambda result: replace(result, table=self.table).save(folder, what=(self.what,))

    def ground_truth(self, image: Path) -> Path | None:
        """The image's ground truth in the benchmark's own folders; None where there is none."""
        if self.format == "cityscapes":
            return beside(image, "leftImg8bit", "gtFine", image.stem.replace("_leftImg8bit", "_gtFine_labelIds"))
        return beside(image, "images", "annotations", image.stem)

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
