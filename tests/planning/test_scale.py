"""After a training: larger sizes for prediction, and the best of them in the release."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from panfpn.config import TrainConfig
from panfpn.engine import evaluate, train
from panfpn.files import write_json
from panfpn.parsing import plain
from panfpn.planning import plan_training, suit_scale
from panfpn.planning import scale as module
from panfpn.planning.fingerprint import look_at
from panfpn.recipes import sizes
from panfpn.recipes.observed import Machine
from panfpn.recipes.sizes import alike
from panfpn.weights import peek

CPU = Machine(device="cpu", name="a CPU", cores=2, memory_gb=16.0, network="tf_efficientnet_lite0",
              pixels_per_s=1e6, bytes_per_pixel=2500)  # fmt: skip


@pytest.fixture
def run(folder_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that has ended, with a plan that has time for sizes; its three validation images are enough."""
    monkeypatch.setattr(module, "FEWEST", 3)
    config = TrainConfig().changed(
        data__root=folder_data, data__crop=(64, 64), data__num_workers=0, model__backbone="test_resnet",
        model__pretrained=False, model__fpn_channels=8, model__head_channels=8, train__steps=4, train__batch_size=2,
        run__dir=tmp_path / "run", run__device="cpu", run__loggers=(),
    )  # fmt: skip
    train(config)
    fingerprint = asdict(look_at(config.data, validates=True))
    write_json(tmp_path / "run/plan.json", plain({"spare_seconds": 600.0, "fingerprint": fingerprint}))
    return tmp_path / "run"


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Makes a size as good as is said; returns the calls: scale and number of images."""

    def set_values(values: dict[tuple[int, int] | None, float]) -> list[Any]:
        calls: list[Any] = []
        real = module.score_dataset

        def scored(task: Any, dataset: Any, **options: Any) -> Any:
            found, examples = real(task, dataset, **options)
            calls.append((task.preprocess.scale, options["most"]))

            return SimpleNamespace(value=values[task.preprocess.scale], to_dict=found.to_dict), examples

        monkeypatch.setattr(module, "score_dataset", scored)
        return calls

    return set_values


def test_the_best_size_goes_into_the_release_with_its_scores(run: Path, scores: Any) -> None:
    before = (run / "model.safetensors").read_bytes()
    scores({None: 0.5, (75, 75): 0.6, (90, 90): 0.55})
    said: list[str] = []
    found = suit_scale(run, None, say=said.append)
    assert said == ["images are predicted at 75×75 (data.scale): 50.00 at ×1, 60.00 at ×1.25, 55.00 at ×1.5 (3 images)"]
    config = peek(run / "model.safetensors").config
    assert found is not None
    assert config is not None
    assert config.data.scale == (75, 75)
    assert before != (run / "model.safetensors").read_bytes()
    assert suit_scale(run, None, say=said.append) is None  # once


def test_the_scores_in_the_file_are_those_at_its_size(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WORTH", -1.0)  # any size is worth it
    monkeypatch.setattr(module, "FACTORS", (1.0, 1.5))
    found = suit_scale(run, None, say=print)
    config = TrainConfig.from_yaml(run / "config.yaml")
    released = peek(run / "model.safetensors").config
    assert (found is None) == (released is not None and released.data.scale is None)  # ×1 may be the best
    again = evaluate(run / "model.safetensors", replace(config.data, scale=None), device="cpu")
    if found is not None:
        assert again.to_dict() == found.to_dict()


@pytest.mark.parametrize("larger", [0.5, 0.502, 0.4])
def test_a_size_that_gains_little_is_left(run: Path, scores: Any, larger: float) -> None:
    before = (run / "model.safetensors").read_bytes()
    calls = scores({None: 0.5, (75, 75): larger, (90, 90): 0.4})
    said: list[str] = []
    assert suit_scale(run, None, say=said.append) is None
    assert said[0].startswith("the size for prediction stays: 50.00 at ×1")
    assert (run / "model.safetensors").read_bytes() == before
    assert (((90, 90), 3) in calls) == (larger > 0.5)  # what is no better ends the search


def test_few_images_tell_no_sizes_apart(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FEWEST", 4)
    before = (run / "model.safetensors").read_bytes()
    assert suit_scale(run, None, say=print) is None
    assert (run / "model.safetensors").read_bytes() == before


def test_a_short_time_tries_nothing_and_other_runs_are_left_alone(run: Path) -> None:
    said: list[str] = []
    assert suit_scale(run, 0.0, say=said.append) is None
    assert said == ["the size for prediction stays: 0 s are too short to try others"]
    (run / "plan.json").unlink()
    assert suit_scale(run, None, say=said.append) is None
    assert len(said) == 1


def test_time_for_it_is_planned_where_one_size_can_be_that_of_all(
    folder_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert plan_training(folder_data, minutes=10, device="cpu", machine=CPU, suits=True).spare == 0  # three images
    monkeypatch.setattr(sizes, "FEWEST", 3)
    plan = plan_training(folder_data, minutes=10, device="cpu", machine=CPU, suits=True)
    assert (plan.spare, plan.config.train.minutes) == (pytest.approx(5.022374), pytest.approx(9.916294))
    assert "(of 10; the rest is for trying larger sizes for prediction)" in "\n".join(plan.lines())
    given = {"data.scale": (64, 64)}
    assert plan_training(folder_data, minutes=10, device="cpu", machine=CPU, suits=True, given=given).spare == 0
    assert plan_training(folder_data, minutes=10, device="cpu", machine=CPU, suits=True, folds=2).spare == 0
    apart = replace(plan.fingerprint, smallest=20, largest=64)
    assert not alike(apart)
    assert json.loads(json.dumps(plan.to_dict()))["spare_seconds"] == pytest.approx(5.022374)
