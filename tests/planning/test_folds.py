"""Few images in folds: each run, their mean, an interruption, and what cannot be."""

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from panfpn.cli import main
from panfpn.config import TrainConfig
from panfpn.engine import RunResult, train
from panfpn.planning import Folds, TrainingPlan, plan_training, resume_folds, train_folds
from panfpn.planning import folds as module
from panfpn.recipes.observed import Machine

CPU = Machine(device="cpu", name="a CPU", cores=2, memory_gb=16.0, network="tf_efficientnet_lite0",
              pixels_per_s=1e6, bytes_per_pixel=2500)  # fmt: skip


@pytest.fixture
def few(folder_data: Path, tmp_path: Path) -> Path:
    """A folder of a few images without a split for validation."""
    root = tmp_path / "few"
    shutil.copytree(folder_data, root)
    for folder in list(root.rglob("val")):
        shutil.rmtree(folder)
    return root


def small(root: Path, folder: Path) -> TrainConfig:
    return TrainConfig().changed(
        data__root=root, data__split=1 / 3, data__crop=(64, 64), data__num_workers=0, model__backbone="test_resnet",
        model__pretrained=False, model__fpn_channels=8, model__head_channels=8, train__minutes=0.03,
        train__batch_size=2, run__dir=folder, run__device="cpu", run__loggers=(), run__val_every=10_000,
    )  # fmt: skip


def planned(root: Path, folder: Path, folds: int) -> TrainingPlan:
    """A plan in folds of a small network."""
    plan = plan_training(root, minutes=0.1 * (folds + 1), device="cpu", machine=CPU, folds=folds,
                         given={"run.dir": folder, "run.loggers": ()})  # fmt: skip
    return replace(plan, config=small(root, folder).changed(data__split=round(1 / folds, 6)))


def test_few_images_are_planned_in_folds_unless_they_are_divided_already(few: Path, folder_data: Path) -> None:
    plan = plan_training(few, minutes=12, device="cpu", machine=CPU, folds=None)
    assert plan_training(few, minutes=9, device="cpu", machine=CPU, folds=None).folds == 1  # short runs tell nothing
    assert (plan.folds, plan.config.train.minutes, plan.config.data.split) == (3, 2.0, pytest.approx(1 / 3, abs=1e-5))
    lines = "\n".join(plan.lines())
    assert "3 folds" in lines
    assert "(half of 12 for 3 folds, the other half for a last run on all images)" in lines
    assert "train.minutes" not in plan.to_dict()["given"]
    for given in ({"data.split": 0.5}, {"data.split": 0.5, "data.fold": 1}):
        assert plan_training(few, minutes=12, device="cpu", machine=CPU, given=given, folds=None).folds == 1
    assert plan_training(folder_data, minutes=12, device="cpu", machine=CPU, folds=None).folds == 1
    asked = plan_training(folder_data, minutes=9, device="cpu", machine=CPU, folds=2)
    assert (asked.config.data.split, asked.config.train.minutes) == (0.5, 2.25)


@pytest.mark.parametrize("folds", [0, 1000])
def test_as_many_folds_as_there_are_images_at_most(few: Path, folds: int) -> None:
    with pytest.raises(ValueError, match=f"folds is {folds}; it must be from 1 to the number of training images"):
        plan_training(few, device="cpu", machine=CPU, folds=folds)


def test_folds_and_a_division_of_ones_own_do_not_go_together(few: Path) -> None:
    with pytest.raises(ValueError, match=r"and so does data\.split; give one of them"):
        plan_training(few, device="cpu", machine=CPU, folds=2, given={"data.split": 0.2})


def test_each_fold_and_then_all_images_are_trained(few: Path, tmp_path: Path) -> None:
    said: list[str] = []
    plan = planned(few, tmp_path / "run", 3)
    result, folds = train_folds(plan, begun=time.monotonic(), say=said.append)
    assert [line.split(":")[0] for line in said] == ["fold 1 of 3", "fold 2 of 3", "fold 3 of 3", "all images"]
    assert result.dir == tmp_path / "run"
    assert folds == Folds.read(tmp_path / "run")
    learnt = []
    for fold in range(3):
        rows = [json.loads(line) for line in (tmp_path / f"run/fold-{fold}/metrics.jsonl").open()]
        assert folds.values[fold] == [row["miou"] for row in rows if row["kind"] == "val"][-1]
        data = json.loads((tmp_path / f"run/fold-{fold}/data.json").read_text())
        learnt.append(json.dumps(data))
    assert len(set(learnt)) == 3  # other images each time
    config = TrainConfig.from_yaml(tmp_path / "run/config.yaml")
    assert (config.data.split, config.data.val_split, folds.seen_in_training()) == (None, "train", True)
    mean = 100 * sum(folds.values) / 3
    assert folds.summary().startswith(f"{mean:.2f} ± ")


def test_an_interruption_is_gone_on_with_where_it_was(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Path] = []

    def interrupted(config: TrainConfig | None = None, **options: Any) -> RunResult:
        folder = Path(str(options.get("resume") or (config and config.run.dir)))
        if len(started) == 1:
            folder.mkdir(parents=True)
            return RunResult(dir=folder, step=0, value=0, scores=None, interrupted=True, minutes=0)
        started.append(folder)
        return train(config, **options)

    monkeypatch.setattr(module, "train", interrupted)
    said: list[str] = []
    result, folds = train_folds(planned(few, tmp_path / "run", 2), begun=time.monotonic(), say=said.append)
    assert (tmp_path / "run/plan.json").is_file()
    with pytest.raises(ValueError, match="already holds a run in folds"):
        train_folds(planned(few, tmp_path / "run", 2), begun=time.monotonic(), say=said.append)
    again = ["train", "auto", f"--data.root={few}", f"--run.dir={tmp_path / 'run'}", "--folds=1"]
    assert main(again) == 2
    assert result.interrupted
    assert len(folds.values) == 1
    assert said[-1] == f"all of it goes on with: panfpn train --resume {tmp_path / 'run'}"
    with pytest.raises(ValueError, match=r"--optim\.lr cannot change when folds go on"):
        resume_folds(tmp_path / "run", {"optim.lr": 1.0}, say=said.append)
    monkeypatch.setattr(module, "train", train)
    before = (tmp_path / "run/fold-0/model.safetensors").stat().st_mtime_ns
    assert main(["train", "--resume", str(tmp_path / "run"), "--data.num-workers", "0"]) == 0
    assert (tmp_path / "run/fold-0/model.safetensors").stat().st_mtime_ns == before
    again = Folds.read(tmp_path / "run")
    assert again is not None
    assert len(again.values) == 2
    assert again.values[0] == folds.values[0]
    assert (tmp_path / "run/model.safetensors").is_file()


def test_a_folder_that_holds_a_run_is_left_alone(few: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text("{}")
    with pytest.raises(ValueError, match="already holds a run"):
        train_folds(planned(few, tmp_path / "run", 2), begun=time.monotonic(), say=print)
    assert not (tmp_path / "run/folds.json").exists()


def test_a_fold_without_a_score_is_left_out_of_the_mean_and_named() -> None:
    folds = Folds(config=TrainConfig(), count=3, val_split="val", values=(0.5, None, 0.7))
    assert folds.summary() == "60.00 ± 14.14 % on images that were not learnt from (50.00, none, 70.00 in the folds)"
    assert replace(folds, values=(None,)).summary() == "without a score: no fold has labels to validate on"


def test_folds_go_on_in_one_process(few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Folds(config=small(few, tmp_path), count=2, val_split="train").write(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="resume them without torchrun"):
        resume_folds(tmp_path, {}, say=print)


def test_drawn_scenes_have_no_files_to_divide() -> None:
    with pytest.raises(ValueError, match="have none to divide"):
        plan_training(None, device="cpu", machine=CPU, folds=3, given={"data.dataset": "scenes"})


@pytest.mark.parametrize("text", ["{}", "[", '{"config": {}, "count": 2, "val_split": "val", "values": 3}'])
def test_damaged_folds_are_one_sentence(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "folds.json").write_text(text)
    assert main(["train", "--resume", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_verb_says_the_mean(few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "auto", f"--data.root={few}", "--minutes=0.2", "--device", "cpu", "--folds", "2", "--run.dir",
             str(tmp_path / "run"), "--model.fpn-channels", "16", "--run.loggers", "--model.backbone",
             "test_resnet", "--model.pretrained", "False"]  # fmt: skip
    assert main(words) == 0
    out = capsys.readouterr()
    assert "fold 2 of 2: " in out.err
    assert "the table is of the images that the last run learnt from" in out.out
    assert "% on images that were not learnt from" in out.out
    assert json.loads((tmp_path / "run/plan.json").read_text())["folds"] == 2
    assert main([*words, "--write", str(tmp_path / "plan.yaml")]) == 2
    assert "--write writes the settings of one run" in capsys.readouterr().err


def test_a_request_that_comes_too_late_to_interrupt_ends_the_folds(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "train", lambda *a, **k: replace(train(*a, **k), asked_to_stop=True))
    said: list[str] = []
    result, folds = train_folds(planned(few, tmp_path / "run", 2), begun=time.monotonic(), say=said.append)
    assert result.interrupted and len(folds.values) == 1
    assert said[-1] == f"all of it goes on with: panfpn train --resume {tmp_path / 'run'}"


def test_a_command_that_its_launcher_calls_again_goes_on(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "auto", f"--data.root={few}", "--minutes=0.3", "--device", "cpu", "--folds", "2", "--run.dir",
             str(tmp_path / "run"), "--run.loggers"]  # fmt: skip
    train_folds(planned(few, tmp_path / "run", 2), begun=time.monotonic(), say=print)
    before = Folds.read(tmp_path / "run")
    assert main(words) == 2
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert main([*words, "--optim.lr", "0.5"]) == 2
    assert "already holds a run in folds" in capsys.readouterr().err
    assert main(words) == 0
    assert Folds.read(tmp_path / "run") == before
