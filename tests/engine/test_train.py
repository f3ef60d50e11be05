import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch

import panfpn
from panfpn import TrainConfig
from panfpn.engine.trainer import Trainer
from panfpn.weights.files import read_checkpoint
from toy_run import rows, toy, weights


def test_a_run_leaves_what_it_should(folder_data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    result = panfpn.train(toy(folder_data, folder, **{"loss.dice": 0.5}))
    assert result.step == 6 and not result.interrupted and result.dir == folder
    assert [row["step"] for row in rows(folder, "train")] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows(folder, "val")] == [4, 6]
    assert {"loss/cross_entropy", "loss/dice", "lr", "images_per_s", "memory_gb"} <= rows(folder, "train")[0].keys()
    page = (folder / "report.html").read_text()
    assert "ground" in page and "photo_0" in page
    assert list((folder / "tensorboard").iterdir())
    said = capfd.readouterr().err
    assert "backbone: test_resnet" in said and "6 training and 3 validation images" in said

    scores = panfpn.evaluate(folder, toy(folder_data, None).data, device="cpu", precision="float32")
    assert scores.miou == result.value == max(row["miou"] for row in rows(folder, "val"))

    again = panfpn.train(TrainConfig.from_yaml(folder / "config.yaml").changed(**{"run.dir": tmp_path / "again"}))
    assert again.value == result.value
    whole = weights(tmp_path / "again")
    assert all(torch.equal(t, whole[n]) for n, t in weights(folder).items())


@pytest.mark.parametrize("workers", [0, 2])
def test_a_crashed_run_resumes_bit_equal(
    workers: int, folder_data: Path, tmp_path: Path, cut_power: Callable[[TrainConfig, int], None]
) -> None:
    config = toy(folder_data, tmp_path / "whole", **{"data.num_workers": workers, "model.norm": "group"})
    panfpn.train(config)
    cut_power(config.changed(**{"run.dir": tmp_path / "cut"}), 3)
    assert panfpn.train(resume=tmp_path / "cut").step == 6
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert whole.keys() == cut.keys() and len([n for n in whole if n.startswith("average/")]) > 50
    assert all(torch.equal(t, cut[n]) for n, t in whole.items())
    losses = [[row["loss"] for row in rows(tmp_path / name, "train")] for name in ("whole", "cut")]
    assert losses[0] == losses[1]


def test_a_kill_between_release_and_checkpoint(
    folder_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = toy(folder_data, tmp_path / "whole", **{"run.checkpoint_every": 3})
    panfpn.train(config)

    def crash(*_: Any) -> None:
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr("panfpn.engine.trainer.write_report", lambda *_, **__: crash())  # right after model.safetensors
        with pytest.raises(RuntimeError, match="power cut"):
            panfpn.train(config.changed(**{"run.dir": tmp_path / "cut"}))
    assert (tmp_path / "cut/model.safetensors").is_file()
    panfpn.train(resume=tmp_path / "cut")
    for file, kind in (("last", "run"), ("model", "release")):
        whole, cut = (read_checkpoint(tmp_path / n / f"{file}.safetensors", role=kind)[0] for n in ("whole", "cut"))
        assert whole.keys() == cut.keys() and all(torch.equal(t, cut[n]) for n, t in whole.items())
    curves = [[(r["step"], r.get("loss"), r.get("miou")) for k in ("train", "val") for r in rows(tmp_path / n, k)]
              for n in ("whole", "cut")]  # fmt: skip
    assert curves[0] == curves[1]


def test_sigterm_saves_and_says_how_to_go_on(
    folder_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    step, before = Trainer.step, signal.getsignal(signal.SIGTERM)

    def asked(self: Trainer, batches: Any) -> None:
        if self.state.step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        step(self, batches)

    monkeypatch.setattr(Trainer, "step", asked)
    result = panfpn.train(toy(folder_data, tmp_path / "run", **{"run.checkpoint_every": 100}))
    assert result.interrupted and result.step == 1 and result.scores is None  # it was heard while data were waited for
    assert f"panfpn train --resume {tmp_path / 'run'}" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before
    monkeypatch.undo()
    assert panfpn.train(resume=tmp_path / "run").step == 6


def test_micro_batches_equal_the_whole_batch(folder_data: Path, tmp_path: Path) -> None:
    losses = {}
    for parts in (1, 2):
        folder = tmp_path / str(parts)
        changes = {"train.accumulate": parts, "model.norm": "group", "train.frozen_bn": True, "model.dropout": 0.0}
        panfpn.train(toy(folder_data, folder, **changes))
        losses[parts] = [row["loss"] for row in rows(folder, "train")]
    assert losses[1] == pytest.approx(losses[2], rel=1e-4)


def test_two_processes_equal_one(folder_data: Path, tmp_path: Path) -> None:
    """Same global batch, group norm (no statistics that a rank would see alone): the same loss curve."""
    changes = {"model.norm": "group", "train.frozen_bn": True, "model.dropout": 0.0, "train.accumulate": 1}
    panfpn.train(toy(folder_data, tmp_path / "one", **changes))
    settings = tmp_path / "toy.yaml"
    settings.write_text(toy(folder_data, tmp_path / "two", **changes).to_yaml())
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "panfpn",
        "train",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, str(settings)], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("mIoU") >= 1
    one, two = (rows(tmp_path / name, "train") for name in ("one", "two"))
    assert [r["loss"] for r in one] == pytest.approx([r["loss"] for r in two], rel=1e-4)
    assert rows(tmp_path / "one", "val")[-1]["miou"] == pytest.approx(
        rows(tmp_path / "two", "val")[-1]["miou"], abs=1e-3
    )


def test_a_run_is_never_overwritten(folder_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = toy(folder_data, tmp_path / "run", **{"train.steps": 1})
    panfpn.train(config)
    before = (tmp_path / "run/last.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"run: already holds a run \(config\.yaml\); choose another run\.dir"):
        panfpn.train(config)
    assert (tmp_path / "run/last.safetensors").read_bytes() == before
    monkeypatch.chdir(tmp_path)
    folders = [panfpn.train(config.changed(**{"run.dir": None})).dir for _ in range(2)]
    assert folders == [Path("runs/scenes"), Path("runs/scenes-2")]


def test_a_loss_that_is_not_finite(folder_data: Path, tmp_path: Path) -> None:
    config = toy(
        folder_data, tmp_path / "run", **{"optim.lr": 1e30, "optim.schedule": "constant", "optim.clip_norm": None}
    )
    with pytest.raises(FloatingPointError, match=r"the loss at step \d is not finite .*non_finite\.json"):
        panfpn.train(config)
    found = json.loads((tmp_path / "run/non_finite.json").read_text())
    assert len(found["samples"]) == 4 and all(name.startswith("photo_") for name in found["samples"])
    assert all(t.isfinite().all() for n, t in weights(tmp_path / "run").items() if n.startswith("model/head"))


def test_early_stop(folder_data: Path, tmp_path: Path) -> None:
    changes = {"optim.lr": 1e-12, "optim.min_lr": 0.0, "run.val_every": 1, "run.patience": 2, "model.norm": "group"}
    result = panfpn.train(
        toy(folder_data, tmp_path / "run", **{**changes, "model.dropout": 0.0, "train.frozen_bn": True})
    )
    assert result.step == 3 and not result.interrupted


def test_settings_that_cannot_be(folder_data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.num_classes is 7, but label table 'toy' has 3 classes"):
        panfpn.train(toy(folder_data, tmp_path / "a", **{"model.num_classes": 7}))
    with pytest.raises(ValueError, match=r"train\.batch_size is 5; it must be a multiple of 2"):
        panfpn.train(toy(folder_data, tmp_path / "b", **{"train.batch_size": 5}))
    with pytest.raises(ValueError, match=r"loss\.class_weights has 2 entries"):
        panfpn.train(toy(folder_data, tmp_path / "c", **{"loss.class_weights": (1.0, 2.0)}))
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"the run folder cannot be written"):
        panfpn.train(toy(folder_data, tmp_path / "file" / "run"))
    with pytest.raises(ValueError, match=r"holds no run to resume"):
        panfpn.train(resume=tmp_path / "nowhere")
    assert not any((tmp_path / name).exists() for name in "abc")


def test_validations_of_a_part(folder_data: Path, tmp_path: Path) -> None:
    part = {"run.val_images": 2, "train.steps": 2, "run.val_every": 2}
    result = panfpn.train(toy(folder_data, tmp_path / "run").changed(**part))
    assert result.scores is not None
    masks = [cv2.imread(str(folder_data / f"masks/val/photo_{i}.png"), cv2.IMREAD_UNCHANGED) for i in range(2)]
    assert result.scores.counts.sum() == sum(int((mask != 255).sum()) for mask in masks)  # not those of the third
