"""The scores in a release file, also one of an earlier format."""

import shutil
from importlib import resources
from pathlib import Path

import pytest

from panfpn.engine.run_folder import released_scores
from panfpn.weights.files import read_header


def test_scores_of_the_shipped_model(tmp_path: Path) -> None:
    """Its confusion matrix is [K, K]: it was written before values that are no class were counted."""
    shutil.copy(
        Path(str(resources.files("panfpn"))) / "weights" / "camvid_lite0.safetensors", tmp_path / "model.safetensors"
    )
    header = read_header(tmp_path / "model.safetensors")
    scores = released_scores(tmp_path)
    classes = len(scores.names)
    assert scores.names == tuple(entry["name"] for entry in header["table"]["classes"])
    assert scores.counts.shape == (classes + 1, classes + 1)
    assert scores.counts[:-1, :-1].tolist() == [row[:classes] for row in header["scores"]["confusion"][:classes]]
    assert scores.miou == pytest.approx(header["scores"]["miou"], abs=1e-12)
    for name, iou in zip(scores.names, scores.iou, strict=True):
        assert iou == pytest.approx(header["scores"]["classes"][name]["iou"], abs=1e-12), name
