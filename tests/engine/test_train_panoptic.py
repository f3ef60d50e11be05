import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import panfpn
from panfpn import TrainConfig, recipes
from panfpn.config import Data, Model
from panfpn.metrics import PanopticScores
from panfpn.weights.files import read_checkpoint


def toy(folder: Path | None, **changes: Any) -> TrainConfig:
    settings = {
        "data": Data(dataset="scenes", scenes=(6, 2), scene_size=(64, 96), crop=(64, 96), num_workers=0),
        "model": Model(
            architecture="PanopticFPN", backbone="test_resnet", norm="group", fpn_channels=16, head_channels=16,
            dropout=0.2, anchor_scale=4.0, box_channels=16, mask_channels=16,
        ),
        "train.steps": 5, "train.batch_size": 4, "train.accumulate": 2, "train.rois": 16, "optim.warmup_steps": 0,
        "train.precision": "float32", "run.val_every": 4, "run.checkpoint_every": 1, "run.log_every": 1,
        "inference.confidence": 0.05, "inference.stuff_area": 16, "run.dir": folder,
    }  # fmt: skip
    return recipes.panoptic_scenes(**{**settings, **changes})


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(folder / "last.safetensors", role="run")[0]


def rows(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


def test_a_run_leaves_what_it_should(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    result = panfpn.train(toy(folder))
    assert result.step == 5 and isinstance(result.scores, PanopticScores)
    terms = {f"loss/{name}" for name in ("cross_entropy", "rpn_class", "rpn_box", "class", "box", "mask")}
    assert terms <= rows(folder, "train")[0].keys()
    assert [row["step"] for row in rows(folder, "val")] == [4, 5]
    page = (folder / "report.html").read_text()
    assert "PQ" in page and "scene_val_00000" in page
    scores = panfpn.evaluate(folder, toy(None).data, device="cpu", precision="float32", average_precision=True)
    assert isinstance(scores, PanopticScores)
    assert scores.value == result.value == max(row["pq"] for row in rows(folder, "val"))
    assert scores.branch is not None and scores.branch.names[0] == "things"
    assert scores.merged is not None and scores.merged.names == scores.names
    assert scores.box_ap is not None and 0 <= scores.box_ap.ap <= 1
    found = panfpn.Predictor.from_file(folder, device="cpu")(torch.zeros(50, 70, 3, dtype=torch.uint8).numpy())
    assert isinstance(found, panfpn.PanopticMap) and found.segments.shape == (50, 70)


def test_a_crashed_run_resumes_bit_equal(tmp_path: Path, cut_power: Callable[[TrainConfig, int], None]) -> None:
    config = toy(tmp_path / "whole", **{"data.num_workers": 1})
    panfpn.train(config)
    cut_power(config.changed(**{"run.dir": tmp_path / "cut"}), 3)
    assert panfpn.train(resume=tmp_path / "cut").step == 5
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert whole.keys() == cut.keys() and all(torch.equal(t, cut[n]) for n, t in whole.items())
    losses = [[row["loss"] for row in rows(tmp_path / name, "train")] for name in ("whole", "cut")]
    assert losses[0] == losses[1]


def test_two_processes(tmp_path: Path) -> None:
    """Ranks wait for each other's gradients, also of heads that one of them has no box for."""
    settings = tmp_path / "toy.yaml"
    settings.write_text(toy(tmp_path / "two", **{"train.accumulate": 1, "train.steps": 3}).to_yaml())
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [
        *launch,
        "-m",
        "panfpn",
        "train",
        str(settings),
        "--run.device",
        "cpu",
        "--run.dir",
        str(tmp_path / "two"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [row["step"] for row in rows(tmp_path / "two", "val")] == [3]


def test_frozen_stages_stay_as_they_are(tmp_path: Path) -> None:
    panfpn.train(toy(tmp_path / "run", **{"train.freeze_at": 2, "train.frozen_bn": True, "train.steps": 1}))
    torch.manual_seed(0)
    trained = weights(tmp_path / "run")
    frozen = [n for n in trained if n.startswith("model/backbone.body.layer1.") and n.endswith("conv1.weight")]
    momenta = [n for n in trained if n.startswith("optim/backbone.body.layer1.")]
    assert frozen and not momenta and any(n.startswith("optim/backbone.body.layer2.") for n in trained)


def test_semantic_settings_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="things"):
        panfpn.train(toy(tmp_path / "a", **{"data.dataset": "camvid", "data.root": tmp_path}))
