"""Files as the benchmarks' servers want them. In: images and label maps. Out: names, label tables, and a check.

Cityscapes: one PNG of regular label ids per image, found by `CITY_SEQ_FRAME*.png` (cityscapesScripts). ADE20K: one PNG
of class + 1 under the image's own name. FACTS E3, B5.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from panfpn.files import read_image, read_mask
from panfpn.labels import LabelTable
from panfpn.metrics import ConfusionMatrix, SemanticScores

FORMATS = ("cityscapes", "ade20k")
_CITYSCAPES = re.compile(r"([^_]+_\d{6}_\d{6})(_leftImg8bit)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A benchmark's format; made for a model by `submission_for`."""

    format: str
    table: LabelTable  # writes and reads the server's values

    def names(self, images: Iterable[Path]) -> list[str]:
        """Stems of the files to write, in the order of `images`; ValueError for an image the server would not know."""
        stems = [self._stem(path) for path in images]
        twice = [stem for stem, count in Counter(stems).items() if count > 1]
        if twice:
            raise ValueError(f"two images would be written as {twice[0]}.png, and a submission is one flat folder")
        return stems

    def _stem(self, path: Path) -> str:
        if self.format == "ade20k":
            return path.stem
        found = _CITYSCAPES.fullmatch(path.stem)
        if not found:
            raise ValueError(f"{path}: its name is not CITY_SEQ_FRAME_leftImg8bit, by which the server knows it")
        return f"{found[1]}_pred"

    def ground_truth(self, image: Path) -> Path | None:
        """The image's ground truth in the benchmark's own folders; None where there is none."""
        first, second = {"cityscapes": ("leftImg8bit", "gtFine"), "ade20k": ("images", "annotations")}[self.format]
        parts = list(image.resolve().parts)
        if first not in parts:
            return None
        parts[len(parts) - 1 - parts[::-1].index(first)] = second
        stem = image.stem.replace("_leftImg8bit", "_gtFine_labelIds") if self.format == "cityscapes" else image.stem
        truth = Path(*parts).with_name(f"{stem}.png")
        return truth if truth.is_file() else None

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


def submission_for(format: str, table: LabelTable) -> Submission:
    """The format, for a model with label table `table`; ValueError for an unknown one, or a model of other classes."""
    if format not in FORMATS:
        raise ValueError(f"no submission format {format!r}; there are {', '.join(FORMATS)}")
    official = LabelTable.named(format)
    if official.names != table.names:
        raise ValueError(
            f"the model's label table {table.name!r} ({table.num_classes} classes) is not that of {format}"
        )
    return Submission(format=format, table=official)
