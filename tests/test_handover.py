"""Maps in other libraries' forms: the same masks, names and scores."""

import numpy as np
import pytest

from panfpn.labels import LabelClass, LabelTable
from panfpn.maps import PanopticMap, Segment, SemanticMap

TABLE = LabelTable(
    name="toy",
    classes=(
        LabelClass(name="sky", color=(1, 2, 3), values=(0,)),
        LabelClass(name="car", color=(4, 5, 6), thing=True, values=(1,)),
        LabelClass(name="sea", color=(7, 8, 9), values=(2,)),
    ),
)
LABELS = np.array([[0, 0, 2], [2, 2, 2]], np.uint8)
SEGMENTS = np.array([[2, 2, 0], [2, 1, 1]], np.int32)
INFO = (
    Segment(id=1, train_id=1, name="car", thing=True, area=2, box=(1, 1, 2, 1), score=0.75),
    Segment(id=2, train_id=0, name="sky", thing=False, area=3, box=(0, 0, 2, 2)),
)
SEMANTIC = SemanticMap(labels=LABELS, table=TABLE)
PANOPTIC = PanopticMap(segments=SEGMENTS, info=INFO, table=TABLE, semantic=LABELS, detections=None)  # type: ignore[arg-type]


def test_transformers_pipeline() -> None:
    for found, names, scores, masks in (
        (SEMANTIC, ["sky", "sea"], [None, None], [LABELS == 0, LABELS == 2]),
        (PANOPTIC, ["car", "sky"], [0.75, None], [SEGMENTS == 1, SEGMENTS == 2]),
    ):
        pieces = found.to_hf()
        assert [p["label"] for p in pieces] == names and [p["score"] for p in pieces] == scores
        for piece, mask in zip(pieces, masks, strict=True):
            assert piece["mask"].mode == "L" and piece["mask"].size == (3, 2)
            np.testing.assert_array_equal(np.array(piece["mask"]), mask * 255)


def test_supervision() -> None:
    pytest.importorskip("supervision", reason="extra `supervision` is not installed")
    found = PANOPTIC.to_supervision()
    assert found.xyxy.tolist() == [[1, 1, 3, 2], [0, 0, 2, 2]] and found.class_id.tolist() == [1, 0]
    assert found.confidence.tolist() == [0.75, 1] and found.data["class_name"].tolist() == ["car", "sky"]
    np.testing.assert_array_equal(found.mask, [SEGMENTS == 1, SEGMENTS == 2])
    nothing = PanopticMap(segments=0 * SEGMENTS, info=(), table=TABLE, semantic=LABELS, detections=None)  # type: ignore[arg-type]
    assert len(nothing.to_supervision()) == 0 and nothing.to_hf() == []


def test_supervision_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "supervision", None)
    with pytest.raises(ImportError, match=r"to_supervision needs supervision; .* 'panfpn\[supervision\]'"):
        SEMANTIC.to_supervision()


def test_fiftyone() -> None:
    pytest.importorskip("fiftyone", reason="fiftyone is not installed")
    found = PANOPTIC.to_fiftyone().detections
    assert [(one.label, one.confidence) for one in found] == [("car", 0.75), ("sky", None)]
    assert found[0].bounding_box == [1 / 3, 1 / 2, 2 / 3, 1 / 2] and found[0].mask.tolist() == [[True, True]]
