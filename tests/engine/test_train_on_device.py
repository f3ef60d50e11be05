"""A whole run on a CUDA device that is not there: nothing mixes devices, and between log steps the host never waits."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fake_cuda import FakeCuda
from panfpn import TrainConfig, train
from panfpn.engine.trainer import Trainer
from panfpn.types import Batch
from panfpn.weights.files import read_checkpoint


def small(architecture: str, precision: str, folder: Path, **changes: Any) -> TrainConfig:
    heads = {"train.rois": 16, "model.box_channels": 16, "model.mask_channels": 16}
    return TrainConfig().changed(**{
        "data.dataset": "scenes", "data.scenes": (4, 1), "data.scene_size": (64, 96), "data.crop": (64, 64),
        "data.num_workers": 0, "model.architecture": architecture, "model.backbone": "test_resnet",
        "model.fpn_channels": 16, "model.head_channels": 16, "optim.name": "adamw", "optim.lr": 1e-4,
        "optim.ema_decay": 0.9, "optim.clip_norm": 1.0, "train.steps": 3, "train.batch_size": 2, "train.accumulate": 1,
        "train.precision": precision, "run.log_every": 3, "run.val_every": 3, "run.checkpoint_every": 3,
        "run.dir": folder, **(heads if architecture == "PanopticFPN" else {}), **changes,
    })  # fmt: skip


@pytest.fixture
def step_waits(fake_cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[tuple[str, str]]]:
    """Where the host waited within steps, but for the first, which fills what is kept for a size and a device."""
    waits: Counter[tuple[str, str]] = Counter()
    step = Trainer.step

    def counted(self: Trainer, batches: Iterator[Batch]) -> None:
        before, first = Counter(fake_cuda.waits), self.state.step == 0
        step(self, batches)
        waits.update(Counter() if first else fake_cuda.waits - before)

    monkeypatch.setattr(Trainer, "step", counted)
    yield waits


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("architecture", ["SemanticFPN", "PanopticFPN"])
def test_a_run_validates_saves_and_never_waits_within_a_step(
    architecture: str, precision: str, tmp_path: Path, step_waits: Counter[tuple[str, str]]
) -> None:
    result = train(small(architecture, precision, tmp_path / "run"))
    assert result.step == 3 and result.scores is not None
    assert not step_waits, step_waits
    assert (tmp_path / "run/model.safetensors").is_file() and (tmp_path / "run/report.html").is_file()


def test_every_term_of_the_loss_keeps_the_host_going(tmp_path: Path, step_waits: Counter[tuple[str, str]]) -> None:
    terms = dict.fromkeys(("loss.ohem", "loss.dice", "loss.lovasz", "loss.focal"), 0.5)
    weights = {"loss.class_weights": (1.0, 2.0, 1.0, 0.5, 1.0, 1.0, 1.0, 1.0, 3.0), "loss.denominator": "all"}
    train(small("SemanticFPN", "bfloat16", tmp_path / "run", **terms, **weights))
    assert not step_waits, step_waits


@pytest.mark.parametrize("architecture", ["SemanticFPN", "PanopticFPN"])
def test_a_killed_run_goes_on_and_keeps_the_name_of_its_device(
    architecture: str, tmp_path: Path, fake_cuda: FakeCuda, cut_power: Callable[[TrainConfig, int], None]
) -> None:
    changes = {"run.checkpoint_every": 1, "train.recompute": True, "train.accumulate": 2}
    train(small(architecture, "float16", tmp_path / "whole", **changes))
    cut_power(small(architecture, "float16", tmp_path / "cut", **changes), 2)
    train(resume=tmp_path / "cut")
    whole, header = read_checkpoint(tmp_path / "whole/last.safetensors", role="run")
    resumed, again = read_checkpoint(tmp_path / "cut/last.safetensors", role="run")
    assert header["config"]["run"]["device"] == "auto" and header["scaler"] == again["scaler"]
    assert whole.keys() == resumed.keys() and all(torch.equal(tensor, resumed[n]) for n, tensor in whole.items())
