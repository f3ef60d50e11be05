"""What only a GPU shows; everything else about CUDA is in the tests that use `fake_cuda`. Run with `pytest -m gpu`."""

from pathlib import Path

import numpy as np
import pytest
import torch

import panfpn
from panfpn.benchmark import prepare_training

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]  # fmt: skip
RECIPES = ["scenes", "panoptic_scenes"]
SMALL = {
    "model.backbone": "resnet18", "model.pretrained": False, "model.start_from": None, "data.scenes": (8, 2),
    "data.num_workers": 0, "train.steps": 3, "train.batch_size": 2, "optim.warmup_steps": 0, "run.device": "cuda",
}  # fmt: skip


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_run_trains_and_predicts_as_on_the_cpu(recipe: str, precision: str, tmp_path: Path) -> None:
    changes = {**SMALL, "train.precision": precision, "run.dir": tmp_path / "run"}
    result = panfpn.train(getattr(panfpn.recipes, recipe)().changed(**changes))
    assert result.step == 3 and result.scores is not None
    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    gpu, cpu = (panfpn.Predictor.from_file(result.dir, device, "float32")(image) for device in ("cuda", "cpu"))
    labels = [result.semantic if recipe == "panoptic_scenes" else result.labels for result in (gpu, cpu)]
    assert (labels[0] == labels[1]).mean() > 0.99


@pytest.mark.parametrize("recipe", RECIPES)
def test_no_step_waits_for_the_device(recipe: str) -> None:
    trainer, batches = prepare_training(getattr(panfpn.recipes, recipe)().changed(**SMALL))
    for _ in range(3):
        trainer.step(batches)
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.step(batches)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("compile", [False, True])
def test_an_engine_gives_on_the_gpu_what_it_gives_on_the_cpu(compile: bool) -> None:
    images = [np.random.default_rng(k).integers(0, 256, (64 + 32 * k, 96, 3), np.uint8) for k in range(3)]
    gpu = panfpn.Predictor.from_file(None, "cuda", "float32", compile=compile)
    cpu = panfpn.Predictor.from_file(None, "cpu", "float32")
    for image in images:
        assert (gpu(image).labels == cpu(image).labels).mean() > 0.99
