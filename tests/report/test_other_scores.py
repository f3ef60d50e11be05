"""Scores of a third network: terminal and page need the members of `Scores`, and ask for no type."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from panfpn.labels import LabelClass, LabelTable
from panfpn.metrics import Scores, SemanticScores
from panfpn.metrics.layers import Layer, Layers
from panfpn.metrics.scores import ClassTable, Column, Line
from panfpn.report.page import write_report
from panfpn.report.tables import print_scores
from panfpn.types import Example

TABLE = LabelTable(name="toy", classes=tuple(LabelClass(name=n, color=(9, 9, 9), values=(k,))
                                             for k, n in enumerate(("near", "[far]"))))  # fmt: skip


@dataclass
class DepthScores:
    """Of a network that says how far things are."""

    names: tuple[str, ...]
    delta: np.ndarray  # [K]

    headline: ClassVar[str] = "delta1"
    curves: ClassVar[tuple[tuple[str, str], ...]] = (("delta1", "delta"),)

    @property
    def value(self) -> float:
        return float(np.nanmean(self.delta))

    @property
    def confusion(self) -> SemanticScores | None:
        return None

    def summary(self) -> str:
        return f"delta1 {self.value:.4f}"

    def figures(self) -> dict[str, float]:
        return {"delta1": self.value}

    def class_table(self, protocol: str | None = None) -> ClassTable:
        column = Column("delta1", self.delta)
        return ClassTable(
            names=self.names, columns=(Column("unit", ("m", "km")), column), score=column, absent=np.isnan(self.delta),
            note="delta1: within a quarter.", absent_note="no pixel",
        )  # fmt: skip

    def lines(self, protocol: str) -> tuple[Line, ...]:
        return (Line("mean", self.figures(), "(of all)"),)

    def percent(self, protocol: str) -> bool:
        return False

    def row(self) -> dict[str, Any]:
        return {"delta": self.value}

    def to_dict(self) -> dict[str, Any]:
        return self.row()

    def to_json(self, protocol: str) -> dict[str, Any]:
        return self.row()

    @staticmethod
    def from_dict(data: Mapping[str, Any], names: Sequence[str] | None = None, source: object = "") -> "DepthScores":
        return DepthScores(tuple(names or ()), np.array([data["delta"]]))

    def layers(self, example: Example, table: LabelTable) -> Layers:
        layer = Layer(np.zeros((2, 3), np.int16), table.palette)
        mask = np.zeros((2, 3), bool)
        return Layers(
            prediction=layer, target=layer, wrong=mask, unmatched=mask, ignored=mask, wrong_share=0.125,
            legend="too far red",
        )  # fmt: skip


@pytest.fixture
def scores() -> Scores:
    return DepthScores(TABLE.names, np.array([0.75, np.nan]))


def test_the_terminal(scores: Scores, capsys: pytest.CaptureFixture[str]) -> None:
    print_scores(scores)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3].split("│")[1:-1] == [" [far] ", " km   ", " absent "]
    assert lines[-1] == "mean: delta1 0.7500  (of all)"


def test_the_page(scores: Scores, tmp_path: Path) -> None:
    image = np.zeros((2, 3, 3), np.uint8)
    write_report(
        tmp_path / "report.html", title="depth", config="a: 1", scores=scores, table=TABLE,
        history=[{"kind": "val", "step": 4, "delta": 0.5}],
        examples=[Example(name="street", image=image, prediction=np.zeros((2, 3), int), target=image[..., 0], score=1)],
    )  # fmt: skip
    page = (tmp_path / "report.html").read_text("utf-8")
    for words in ("delta1: within a quarter. Absent (1): no pixel.", "too far red", "delta1 100.0 %, 12.5 % of",
                  "delta1 on the validation set by step", "delta1 50.0 %", "<td>km</td><td>absent</td>"):  # fmt: skip
        assert words in page, words
    assert "confusion" not in page.split("</style>")[1]
