"""A run that ends with its time, by a clock that is moved by hand; and as a whole, killed and gone on with."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from panfpn.config import Data, Inference, Model, Optim, Run, Train, TrainConfig
from panfpn.engine import time_budget, train
from panfpn.engine.time_budget import OPEN, Pace, Plan, Stopwatch
from panfpn.weights.files import read_checkpoint


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def run(seconds, minutes: float = 10, *, val_every: int = 100, validation: float = 6.0, guess: float = 6.0):
    """Steps that take `seconds(step)`: the plans that were made, and the minutes of the whole."""
    clock = Clock()
    watch = Stopwatch(minutes, val_every=val_every, begun=0.0, estimate=lambda: guess, clock=clock)
    plan, plans, step = Plan(), [], 0
    while step < plan.steps:
        clock.now += seconds(step)
        step += 1
        after = watch.look(step, plan)
        if after != plan:
            plans.append((step, after))
            with watch.saving():
                clock.now += 0.5
        plan = after
        if step % val_every == 0 or step == plan.steps:
            with watch.validating():
                clock.now += validation
    return plans, clock.now / 60


def test_an_even_pace_has_one_plan_and_ends_in_time() -> None:
    plans, minutes = run(lambda step: 3.0 if step < 2 else 0.5)
    assert len(plans) == 1
    assert plans[0][1].first == 0
    assert minutes == pytest.approx(10, rel=0.02)


@pytest.mark.parametrize("factor", [0.4, 2.5, 8.0])
def test_a_pace_that_changes_on_the_way_still_ends_in_time(factor: float) -> None:
    plans, minutes = run(lambda step: 0.5 * (factor if step > 400 else 1))
    assert len(plans) > 1
    assert minutes == pytest.approx(10, rel=0.05)


def test_validations_that_take_longer_than_the_first_images_told() -> None:
    _, minutes = run(lambda step: 0.5, validation=20.0, guess=5.0)
    assert minutes == pytest.approx(10, rel=0.05)


def test_the_schedule_goes_on_from_where_it_was() -> None:
    before = Plan(steps=1000)
    after = Plan(steps=600, first=400, done=before.share(400))
    assert after.share(400) == before.share(400)
    assert after.share(599) == 1.0 == before.share(999)
    assert after.share(600, beyond=True) == 1.0
    assert Plan().share(500) < 1e-6  # no plan yet: as at the beginning


def test_time_that_is_over_ends_the_run_at_once() -> None:
    clock = Clock()
    watch = Stopwatch(1, val_every=10, begun=0.0, estimate=lambda: 0.1, clock=clock)
    for step in range(1, 4):
        watch.look(step, Plan())
    clock.now = 90.0
    assert watch.look(12, Plan()).steps == 12


def test_more_minutes_make_a_new_plan_and_a_kept_pace_none() -> None:
    clock = Clock()
    pace = Pace(minutes=10, step=0.5, validation=6.0, spent=300.0)
    plan = Plan(steps=1086)
    for minutes, same in ((10, True), (30, False)):
        watch = Stopwatch(minutes, val_every=1000, begun=clock.now, estimate=lambda: 6.0, pace=pace, clock=clock)
        after = plan
        for step in range(501, 620):
            clock.now += 0.5
            after = watch.look(step, after)
        assert (after == plan) is same
    assert after.steps == pytest.approx(500 + (30 * 60 - 300) / 0.5, rel=0.05)


@pytest.mark.parametrize("values", [{}, {"minutes": 1.0}, {**asdict(Pace(minutes=1.0)), "step": -1.0}, [1], None])
def test_a_damaged_pace_is_refused(values: object) -> None:
    with pytest.raises(ValueError, match="pace is"):
        Pace.from_dict(values)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="plan is"):
        Plan.from_dict({"steps": 5, "first": 9, "done": 0.5})


def timed(folder: Path, minutes: float) -> TrainConfig:
    return TrainConfig(
        data=Data(dataset="scenes", crop=(64, 64), scenes=(64, 4), scene_size=(64, 96), num_workers=0),
        model=Model(backbone="resnet18", fpn_channels=16, head_channels=16), inference=Inference(),
        optim=Optim(name="adamw", lr=1e-3, warmup_steps=4), train=Train(minutes=minutes, batch_size=2),
        run=Run(dir=folder, log_every=5, val_every=10_000, checkpoint_every=10, device="cpu", loggers=()),
    )  # fmt: skip


def test_a_timed_run_that_was_killed_ends_as_its_checkpoint_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_budget, "_NEAR", 100.0)  # no other plan than the saved one, whatever else runs here
    folder, middle = tmp_path / "run", tmp_path / "middle"
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from pathlib import Path; import torch;"
        "torch.set_num_threads(1); import test_time_budget as t; from panfpn.engine import train;"
        f"train(t.timed(Path({str(folder)!r}), 0.25))"
    )
    running = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and running.poll() is None and not _planned(folder):
            time.sleep(0.05)
        running.send_signal(signal.SIGSTOP)  # no step between the look and the copy
        shutil.copytree(folder, middle)
        plan = read_checkpoint(middle / "last.safetensors", role="run")[1]["plan"]
        running.send_signal(signal.SIGKILL)
    finally:
        running.kill()
        running.wait()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ends = []
        for copy in (folder, middle):
            result = train(resume=copy)
            tensors, header = read_checkpoint(copy / "last.safetensors", role="run")
            ends.append((result.step, header["plan"], tensors))
    finally:
        torch.set_num_threads(threads)
    assert os.path.getsize(folder / "model.safetensors")  # noqa: PTH202
    assert 0 < ends[0][0] < OPEN
    assert ends[0][0] == ends[0][1]["steps"]
    assert ends[0][1] == ends[1][1] == plan
    assert ends[0][2].keys() == ends[1][2].keys()
    assert all(torch.equal(a, ends[1][2][name]) for name, a in ends[0][2].items())


def _planned(folder: Path) -> bool:
    try:
        return read_checkpoint(folder / "last.safetensors", role="run")[1]["plan"]["steps"] < OPEN
    except (ValueError, OSError, KeyError):
        return False


def test_a_schedule_that_counts_steps_has_no_minutes() -> None:
    with pytest.raises(ValueError, match=r"train\.minutes"):
        TrainConfig(optim=Optim(schedule="step", milestones=(5,)), train=Train(minutes=1))
