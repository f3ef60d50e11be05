"""What the scores of every network have in common, for tables, pages, logs and files. A contract, without numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from panfpn.labels import LabelTable
from panfpn.metrics.layers import Layers
from panfpn.types import Example

if TYPE_CHECKING:
    from panfpn.metrics.semantic_scores import SemanticScores


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """One column of a ClassTable; the type of its values says what they are: float shares, int counts or words."""

    name: str
    values: npt.NDArray[np.floating[Any]] | npt.NDArray[np.integer[Any]] | tuple[str, ...]  # [K]; nan: no score


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ClassTable:
    """What is known of each class: what to show, not how."""

    names: tuple[str, ...]
    columns: tuple[Column, ...]
    score: Column  # the one of `columns` that ranks the classes
    absent: npt.NDArray[np.bool_]  # [K] classes without a score, which is not a score of 0
    note: str = ""  # what the columns mean
    absent_note: str = ""  # why a class is absent


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """A few scores of the whole set under one label."""

    label: str
    values: dict[str, float]  # shares; nan: no score
    note: str = ""


class Scores(Protocol):
    """Scores of a data set, each as a share from 0 to 1, nan where there is none.

    Another architecture brings a class with these members; tables, report, logs and release files need no more.
    """

    headline: ClassVar[str]  # what `value` is called: mIoU, PQ
    curves: ClassVar[tuple[tuple[str, str], ...]]  # what a report draws over the steps: name and key in `row()`

    @property
    def names(self) -> tuple[str, ...]:
        """Classes in the order of train ids."""

    @property
    def value(self) -> float:
        """The score by which the best weights are chosen."""

    @property
    def confusion(self) -> "SemanticScores | None":
        """Which class is taken for which, where that was counted."""

    def summary(self) -> str:
        """One line for a log."""

    def figures(self) -> dict[str, float]:
        """The scores that a reader looks for first, by their names."""

    def class_table(self, protocol: str | None = None) -> ClassTable:
        """The scores of each class as evaluator `protocol` names and counts them; None: by this package's definitions.

        ValueError for a protocol that does not exist or scores other maps.
        """

    def lines(self, protocol: str) -> tuple[Line, ...]:
        """The scores of the whole set that stand below the table of `protocol`."""

    def percent(self, protocol: str) -> bool:
        """Whether `protocol` gives percent; else shares."""

    def row(self) -> dict[str, Any]:
        """What metrics.jsonl holds of one validation: means, and the score of each class."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as a release file holds it; no score is None."""

    def to_json(self, protocol: str) -> dict[str, Any]:
        """What `panfpn eval --json` writes: `to_dict()` and all else that is known; ValueError as `class_table`."""

    @staticmethod
    def from_dict(data: Mapping[str, Any], names: Sequence[str] | None = None, source: object = "scores") -> "Scores":
        """The scores of plain data; `names` where the data may have lost their order.

        ValueError names `source` and the key that is missing or wrong.
        """

    def layers(self, example: Example, table: LabelTable) -> Layers:
        """How an example that was scored is drawn."""
