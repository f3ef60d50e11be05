"""Speed and memory: that the figures mean what their names say. How fast anything is, no test asks."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from panfpn import recipes
from panfpn.benchmark import (
    InferenceFigures,
    InferenceJob,
    PeakMemory,
    describe_machine,
    in_child,
    measure_ceiling,
    measure_inference,
    measure_loading,
    measure_training,
    published_config,
    table_for,
)
from panfpn.benchmark.inference import count_flops, make_predictor
from panfpn.benchmark.tables import document, inference_rows, loading_rows, markdown, training_rows
from panfpn.cli import main
from panfpn.config import Data, Inference, TrainConfig
from panfpn.labels import LabelTable
from panfpn.models import SemanticFPN
from panfpn.tasks.semantic import SemanticTask
from panfpn.types import Preprocess
from panfpn.weights.release import write_release
from panfpn.weights.zoo import PUBLISHED

CPU = torch.device("cpu")
TINY = InferenceJob(model="scenes", size=(64, 96), repeats=3, warmup=1, precision="float32", device="cpu")


class OneConv(nn.Module):
    """A network whose FLOPs are known."""

    num_classes = 2

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 4, stride=4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


def task_of(network: nn.Module, **preprocess: object) -> SemanticTask:
    table = table_for(TrainConfig(), num_classes=2)
    return SemanticTask(network, table, Preprocess(mean=(0, 0, 0), std=(1, 1, 1), **preprocess))  # type: ignore[arg-type]


def test_flops_are_two_per_multiply_add() -> None:
    task = task_of(OneConv(), size_divisor=32)
    one = 2 * (4 * 4 * 3) * 2  # of one output pixel
    assert count_flops(task, (64, 96)) == one * 16 * 24
    assert count_flops(task, (33, 96)) == one * 16 * 24  # padded
    task.set_inference(scale=None, size_divisor=32, inference=Inference(flip=True, ratios=(0.5, 1.0)))
    assert count_flops(task, (64, 96)) == 2 * one * (16 * 24 + 8 * 16)  # 32×48 is padded to 32×64
    slide = Inference(mode="slide", window=(32, 64), stride=(32, 32))
    task.set_inference(scale=None, size_divisor=32, inference=slide)
    assert count_flops(task, (64, 96)) == one * 2 * 2 * 8 * 16
    assert task.model.conv.weight.device == CPU  # type: ignore[union-attr]


def test_the_network_counts_once_an_image() -> None:
    figures = measure_inference(replace(TINY, batch=2, num_classes=5))
    assert figures.flops == 2 * count_flops(make_predictor(replace(TINY, num_classes=5)).task, (64, 96))
    assert len(figures.seconds) == 3 and figures.job.num_classes == 5 and figures.network_size == (64, 96)
    assert figures.images_per_second == pytest.approx(6 / sum(figures.seconds))


def test_percentiles_and_share() -> None:
    figures = InferenceFigures(
        job=TINY,
        engine="torch",
        seconds=(0.1, 0.2, 0.3, 0.4, 1.0),
        memory=5e8,
        flops=3 * 10**9,
        parameters=10**6,
        ceiling=1e11,
        network_size=(64, 96),
    )
    assert figures.percentile(50) == pytest.approx(0.3) and figures.percentile(95) == pytest.approx(0.88)
    assert figures.share == pytest.approx(0.1) and figures.images_per_second == pytest.approx(2.5)
    row = inference_rows([figures])[0]
    assert (row["p50 ms"], row["of ceiling"], row["peak GB"]) == ("300.0", "10 %", "0.50")
    assert "published fps, V100" not in row
    known = replace(figures, job=replace(TINY, model="fpn_r50_cityscapes"))
    shown = [row["published fps, V100"] for row in inference_rows([known, figures])]
    assert shown == ["13.54", "–"]


def allocate(megabytes: int) -> tuple[float, float]:
    """Peak above the start of an array that is gone when it is read, and of nothing more after that."""
    meter = PeakMemory(CPU)
    np.ones(megabytes << 20, np.uint8).sum()
    first = meter.peak()
    return first, PeakMemory(CPU).peak()


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child finds this module by its name, "tests.test_benchmark"."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1])


@pytest.mark.usefixtures("importable")
def test_peak_memory_is_that_of_a_known_array() -> None:
    (small, _), (large, after) = in_child(allocate, 20), in_child(allocate, 220)
    assert large > 219 << 20 and large - small == pytest.approx(200 << 20, rel=0.05)
    assert after < 20 << 20  # a new meter knows nothing of what was freed


def fail() -> None:
    raise ValueError("a sentence")


@pytest.mark.usefixtures("importable")
def test_a_childs_error_is_raised_here() -> None:
    with pytest.raises(ValueError, match="a sentence"):
        in_child(fail)


def test_a_child_that_is_killed_is_a_sentence() -> None:
    import os  # noqa: PLC0415

    with pytest.raises(ValueError, match="was killed, most likely for want of memory"):
        in_child(os.abort)


def test_the_ceiling_is_above_a_small_network() -> None:
    ceiling = measure_ceiling(CPU, torch.float32, seconds=0)
    assert 1e9 < ceiling < 1e15
    figures = measure_inference(TINY)
    assert 0 < figures.share < 1


def test_a_recipe_has_random_weights_and_a_file_its_own(tmp_path: Path) -> None:
    config = recipes.scenes()
    table = LabelTable.named("camvid")
    config = config.changed(**{"model.backbone": "resnet18", "model.fpn_channels": 8, "model.num_classes": 11,
                               "model.mean": (0.0,) * 3, "model.std": (1.0,) * 3})  # fmt: skip
    network = SemanticFPN("resnet18", 11, fpn_channels=8)
    write_release(tmp_path / "m.safetensors", network.state_dict(), config, table, scores={}, source={})
    job = replace(TINY, model=str(tmp_path / "m.safetensors"))
    assert not job.random_weights and TINY.random_weights
    weight = make_predictor(job).model.head.classifier.weight
    assert torch.equal(weight, network.head.classifier.weight)
    (tmp_path / "own.yaml").write_text(config.changed(model__num_classes=3).to_yaml())
    other = replace(TINY, model=str(tmp_path / "own.yaml"))
    assert other.random_weights and make_predictor(other).table.num_classes == 3


def test_training_takes_the_trainers_step() -> None:
    config = recipes.scenes(**{
        "data.crop": (64, 64), "train.batch_size": 4, "train.accumulate": 2, "model.backbone": "test_resnet",
        "model.fpn_channels": 16, "run.device": "cpu", "train.precision": "float32", "train.steps": 30,
    })  # fmt: skip
    figures = measure_training(config, repeats=2, warmup=1)
    assert len(figures.seconds) == 2 and figures.config.model.start_from is None
    assert figures.images_per_second == pytest.approx(4 * figures.steps_per_second)
    assert training_rows([figures])[0]["crop"] == "64×64"
    with pytest.raises(ValueError, match=r"train.batch_size is 4; it must be a multiple of 3"):
        measure_training(config.changed(train__accumulate=3))
    with pytest.raises(ValueError, match="0 steps after 1 to warm up"):
        measure_training(config, repeats=0, warmup=1)


def test_training_memory_holds_weights_gradients_and_moments() -> None:
    config = recipes.scenes(**{"data.crop": (64, 64), "train.batch_size": 2, "model.backbone": "resnet18",
                               "run.device": "cpu", "train.precision": "float32"})  # fmt: skip
    figures = in_child(measure_training, config, 1, 1)
    network = SemanticFPN("resnet18", 9, fpn_channels=128)
    weights = 4 * sum(p.numel() for p in network.parameters())
    assert figures.memory > 4 * weights  # AdamW: weights, gradients, two moments


def test_published_models_have_one_gpus_batch() -> None:
    assert {n: published_config(n).train.batch_size for n in PUBLISHED} == {
        "fpn_r50_cityscapes": 2, "fpn_r101_cityscapes": 2, "fpn_r50_ade20k": 4, "fpn_r101_ade20k": 4,
    }  # fmt: skip


def test_loading_counts_crops() -> None:
    data = Data(dataset="scenes", crop=(64, 64), scenes=(4, 2), scene_size=(64, 96), num_workers=0)
    figures = measure_loading(data, batch_size=3, batches=4)
    assert figures.images_per_second == pytest.approx(12 / figures.seconds)
    assert loading_rows([figures])[0]["workers"] == "0"


def test_markdown() -> None:
    assert markdown([{"a": "1", "b": "2"}]) == "| a | b |\n| --- | --: |\n| 1 | 2 |"


def test_the_machine_is_named() -> None:
    machine = document("data", [], CPU)
    assert machine["hardware"]["cores"] >= 1 and machine["hardware"]["cpu"] and machine["rows"] == []
    assert machine["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    json.dumps(machine)


def test_a_machine_without_git_has_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert describe_machine(CPU)["commit"] is None


def test_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    words = ["scenes", "--size", "64", "96", "--repeats", "2", "--warmup", "1", "--batch", "2", "--device", "cpu"]
    assert main(["benchmark", "inference", *words, "--num-classes", "4", "--json", str(file)]) == 0
    out, err = capsys.readouterr()
    assert "scenes" in out and "of ceiling" in out and "random weights: scenes" in out and "measuring scenes" in err
    written = json.loads(file.read_text())
    row = written["rows"][0]
    assert (row["size"], row["batch"], row["num_classes"], len(row["seconds"])) == ([64, 96], 2, 4, 2)
    assert row["device"] == "cpu" and row["precision"] in ("float32", "bfloat16") and row["peak_memory_bytes"] > 0
    assert {"hardware", "versions", "commit"} <= written.keys()
    words = ["--data.crop", "64", "64", "--train.batch-size", "2", "--model.backbone", "test_resnet", "--repeats", "1"]
    assert main(["benchmark", "train", "scenes", *words, "--run.device", "cpu", "--json", str(file)]) == 0
    assert "steps/s" in capsys.readouterr().out
    row = json.loads(file.read_text())["rows"][0]
    assert row["config"]["train"]["batch_size"] == 2 and len(row["seconds"]) == 1
    words = ["--data.scenes", "4", "2", "--data.scene-size", "64", "96", "--data.crop", "64", "64", "--batches", "2"]
    assert main(["benchmark", "data", "scenes", *words, "--data.num-workers", "1", "--json", str(file)]) == 0
    assert "images/s" in capsys.readouterr().out
    assert json.loads(file.read_text())["rows"][0]["data"]["num_workers"] == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["speed"], "'speed' is nothing that benchmark measures; choose from inference, train, data"),
        (["inference"], "needs a recipe"),
        (["inference", "scens"], "no model 'scens'"),
        (["inference", "none.yaml"], "none.yaml: cannot be read"),
        (["inference", "folder"], "recipe 'folder' learns the classes of your own data; give --num-classes"),
        (["inference", "scenes", "--size", "0", "9"], "size is 0 9; it must be a height and a width in pixels"),
        (["inference", "scenes", "--batch", "0"], "batch is 0; it must be at least 1"),
        (["inference", "scenes", "--engine", "abacus"], "invalid choice 'abacus'"),
        (["inference", "scenes", "--precision", "int1"], "precision is 'int1'; choose from"),
        (["inference", "scenes", "--json", "x.txt"], "x.txt: the figures go into a file whose name ends in .json"),
        (["inference", __file__, "--num-classes", "3"], "has classes of its own; --num-classes goes with a recipe"),
        (["train"], "benchmark train needs a recipe"),
        (["train", "scens"], "did you mean scenes"),
        (["train", "scenes", "--train.batch-size", "0"], "train.batch_size is 0"),
        (["data"], "benchmark data needs a recipe"),
        (["data", "camvid_lite0"], "data.root is not set"),
        (["data", "scenes", "--batches", "0"], "0 batches of 8 images; both must be at least 1"),
    ],
)
def test_mistakes_are_one_sentence(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert main(["benchmark", *words]) == 2
    out, err = capsys.readouterr()
    assert message in err.replace("\n", " ") and not out


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "--help"]) == 0 and "panfpn benchmark WHAT" in capsys.readouterr().out
    for kind in ("inference", "train", "data"):
        with pytest.raises(SystemExit) as leaving:
            main(["benchmark", kind, "--help"])
        assert leaving.value.code == 0 and f"panfpn benchmark {kind}" in capsys.readouterr().out
