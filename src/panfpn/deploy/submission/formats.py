"""Which format a model can write. In: a format's name, a label table. Out: what writes and checks it."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, Protocol

from panfpn.choices import SUBMISSIONS, lookup
from panfpn.labels import LabelTable
from panfpn.metrics import Scores
from panfpn.types import PanopticMap, SemanticMap


class Submission(Protocol):
    """Files as a server or an annotation tool wants them; `panfpn.choices.SUBMISSIONS` lists the classes."""

    format: str
    map_types: ClassVar[tuple[type[SemanticMap | PanopticMap], ...]]  # of the models that can write it
    what: ClassVar[str]  # what of a map is written
    by_hand: ClassVar[bool]  # whether people go on with the files: nothing is ever written over
    last: ClassVar[str | None]  # the file that is written when all images are done

    @property
    def protocol(self) -> str:
        """By whose names and units the scores are printed."""

    def names(self, images: Iterable[Path]) -> list[str]:
        """Stems of the files to write, in the order of `images`; ValueError for an image the server would not know."""

    def files(self, names: Iterable[str]) -> list[str]:
        """What will be written for images of these `names`, as paths from the folder."""

    def into(self, folder: Path, images: Sequence[Path]) -> AbstractContextManager[Callable[[Any], object]]:
        """What writes a map of one of the images, under the name that `names` gives it."""

    def ground_truth(self, image: Path) -> Path | None:
        """The image's ground truth in the benchmark's own folders; None where there is none."""

    def check(self, images: Iterable[Path], folder: Path) -> tuple[int, Scores | None]:
        """Read what was written for `images`; returns how many files, and their scores where there is ground truth."""


def submission_for(
    format: str, table: LabelTable, *, maps: type[SemanticMap | PanopticMap] = SemanticMap,
    annotations: Path | None = None,
) -> Submission:  # fmt: skip
    """The format, for a model with label table `table` that makes `maps`; `annotations` gives COCO's image ids.

    ValueError for an unknown format, or a model of other classes or maps.
    """
    chosen = lookup(SUBMISSIONS, format, "format")
    if maps not in chosen.map_types:
        right = [name for name in SUBMISSIONS if maps in lookup(SUBMISSIONS, name, "format").map_types]
        what = maps.__name__.removesuffix("Map").lower()
        raise ValueError(f"--format {format} is not for the {what} maps of this model; use {' or '.join(right)}")
    made: Submission = chosen.of(format, table, annotations)
    return made


def official_table(name: str, table: LabelTable) -> LabelTable:
    """The benchmark's table, with the values that its server scores; ValueError where the model has other classes."""
    official = LabelTable.named(name)
    if official.names != table.names:
        raise ValueError(
            f"the model's label table {table.name!r} ({table.num_classes} classes) is not that of {official.name}"
        )
    return official


def no_annotations(format: str, annotations: Path | None) -> None:
    """ValueError for a file of image ids where the names of the images are the ids."""
    if annotations:
        raise ValueError(f"--annotations gives COCO's image ids; --format {format} takes them from the file names")
