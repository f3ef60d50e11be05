"""A run that ends with its time, by a clock that is moved by hand; and as a whole, killed and gone on with."""

import os
import shutil
import signal
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from panfpn.config import Data, Inference, Model, Optim, Run, Train, TrainConfig
from panfpn.engine import time_budget, train
from panfpn.engine.optim import lr_at
from panfpn.engine.time_budget import OPEN, Pace, Plan, Stopwatch, fitting, replanned
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
            with watch.apart():
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


def test_a_kept_pace_keeps_the_plan_and_more_minutes_make_another() -> None:
    clock = Clock()
    pace = Pace(minutes=10, step=0.5, validation=6.0, spent=300.0)
    plan = Plan(steps=1086)
    watch = Stopwatch(10, val_every=1000, begun=clock.now, estimate=lambda: 6.0, pace=pace, clock=clock)
    for step in range(501, 620):
        clock.now += 0.5
        assert watch.look(step, plan) == plan
    longer = replanned(500, pace, 30, 1000)
    assert (longer.first, longer.done) == (0, 0.0)
    assert longer.steps == pytest.approx(500 + (30 * 60 - 300) / 0.5, rel=0.05)
    assert replanned(500, pace, 1, 1000).steps == 501  # one step more, so that it ends in order


def test_no_plan_leads_beyond_its_schedule() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20_000):
        steps, first = sorted(rng.integers(1, 5000, 2).tolist(), reverse=True)
        plan = Plan(steps=steps, first=first, done=float(rng.uniform()))
        for step in {max(first, steps - 1), (first + steps) // 2, first}:
            assert plan.done - 1e-12 <= plan.share(step) <= 1
        Plan.from_dict(asdict(plan))
        lr_at(max(0, steps - 1), plan, Optim(min_lr=0.0))


@pytest.mark.parametrize(("minutes", "step", "val_every", "validation"), [
    (30, 1.0, 200, 300.0), (60, 0.5, 100, 60.0), (10, 5.0, 10, 20.0), (2, 2.0, 7, 3.0), (60, 1.0, 10_000, 500.0),
])  # fmt: skip
def test_steps_and_validations_fill_the_time(minutes: float, step: float, val_every: int, validation: float) -> None:
    pace, whole = Pace(minutes=minutes, step=step, validation=validation), 60 * minutes
    for first in (0, 10, 3 * val_every):
        count = fitting(first, whole, pace, val_every)
        due = {s for s in range(max(1, first), first + count + 1) if s % val_every == 0} | {first + count}
        taken = count * step + len(due) * validation
        assert whole - validation - val_every * step <= taken <= whole + validation


@pytest.mark.parametrize("guess", [0.5, 2500.0])
def test_a_wrong_guess_of_validations_does_not_end_a_run_early(guess: float) -> None:
    plans, minutes = run(lambda step: 1.0, 30, val_every=200, validation=30.0, guess=guess)
    assert minutes == pytest.approx(30, rel=0.05)
    assert plans[0][1].steps > 400


@pytest.mark.parametrize(("guess", "late"), [(2.0, 0.0), (400.0, 255.0)])
def test_a_first_validation_that_is_too_long_is_said_to_be(guess: float, late: float) -> None:
    clock = Clock()
    watch = Stopwatch(10, val_every=10_000, begun=0.0, estimate=lambda: guess, clock=clock)
    plan = Plan(steps=OPEN)
    while plan.steps == OPEN:
        clock.now += 1.0
        plan = watch.look(round(clock.now), plan)
    assert watch.late == pytest.approx(late, abs=2) and watch.pace.validation == pytest.approx(guess - watch.late)
    with watch.validating():
        clock.now += guess
    assert watch.late == 0


def test_long_steps_and_short_times_are_planned_too() -> None:
    _, minutes = run(lambda step: 10.0, 2, validation=1.0, guess=1.0)
    assert minutes <= 2.3
    plans, _ = run(lambda step: 40.0, 60, val_every=1000)
    assert plans[0][0] <= 10  # a plan after a tenth of the time, where steps are so long


def test_saves_and_noise_do_not_change_the_plan_of_an_even_pace() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        plans, minutes = run(lambda step: float(rng.uniform(0.9, 1.1)) + 4 * (step % 100 == 99), 60, val_every=700)
        assert len(plans) <= 2
        assert minutes == pytest.approx(60, rel=0.05)


@pytest.mark.parametrize("values", [{}, {"minutes": 1.0}, {**asdict(Pace(minutes=1.0)), "step": -1.0}, [1], None])
def test_a_damaged_pace_is_refused(values: object) -> None:
    with pytest.raises(ValueError, match="pace is"):
        Pace.from_dict(values)  # type: ignore[arg-type]  # what a damaged file may hold
    with pytest.raises(ValueError, match="plan is"):
        Plan.from_dict({"steps": 5, "first": 9, "done": 0.5})


def timed(folder: Path, minutes: float, **changes: Any) -> TrainConfig:
    return TrainConfig(
        data=Data(dataset="scenes", crop=(64, 64), scenes=(64, 4), scene_size=(64, 96), num_workers=0),
        model=Model(backbone="test_resnet", fpn_channels=16, head_channels=16), inference=Inference(),
        optim=Optim(name="adamw", lr=1e-3, warmup_steps=4), train=Train(minutes=minutes, batch_size=2),
        run=Run(dir=folder, log_every=5, val_every=10_000, checkpoint_every=10, device="cpu", loggers=()),
    ).changed(**changes)  # fmt: skip


class Copying:
    """A logger that copies the run's folder when a plan has been saved: what a kill at that moment would leave."""

    def __init__(self, source: Path, target: Path) -> None:
        self.source, self.target = source, target

    def start(self, run: object) -> None:
        pass

    def scalars(self, step: int, values: object) -> None:
        file = self.source / "last.safetensors"
        if self.target.exists() or not file.is_file():
            return
        if read_checkpoint(file, role="run")[1].get("plan", {}).get("steps", OPEN) < OPEN:
            shutil.copytree(self.source, self.target)

    def image(self, step: int, name: str, picture: object) -> None:
        pass

    def end(self) -> None:
        pass


def test_a_timed_run_that_was_killed_ends_as_the_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_budget, "_NEAR", 100.0)  # no second plan, whatever else runs on this machine
    folder, killed = tmp_path / "run", tmp_path / "killed"
    whole = train(timed(folder, 0.2), loggers=[Copying(folder, killed)])
    assert killed.is_dir() and not (killed / "model.safetensors").exists()
    again = train(resume=killed)
    assert again.step == whole.step < OPEN
    ends = [read_checkpoint(place / "last.safetensors", role="run") for place in (folder, killed)]
    assert ends[0][1]["plan"] == ends[1][1]["plan"]
    assert ends[0][1]["plan"]["steps"] == whole.step
    assert ends[0][0].keys() == ends[1][0].keys()
    assert all(torch.equal(tensor, ends[1][0][name]) for name, tensor in ends[0][0].items())

    longer = train(resume=folder, changes={"train.minutes": 0.3})  # more time for a run that has ended
    assert longer.step > whole.step
    with pytest.raises(ValueError, match=r"train\.steps does nothing"):
        train(resume=folder, changes={"train.steps": 9000})


class Interrupting:
    """A logger that presses Ctrl-C at the first step that it hears of."""

    def start(self, run: object) -> None:
        pass

    def scalars(self, step: int, values: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    def image(self, step: int, name: str, picture: object) -> None:
        pass

    def end(self) -> None:
        pass


def test_a_time_that_is_changed_before_there_is_a_plan_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for minutes in (60, 90):
        begun = {"resume": folder, "changes": {"train.minutes": minutes}} if folder.exists() else {}
        with suppress(KeyboardInterrupt):
            train(*([] if begun else [timed(folder, minutes)]), loggers=[Interrupting()], **begun)
        header = read_checkpoint(folder / "last.safetensors", role="run")[1]
        assert header["plan"]["steps"] == OPEN and header["pace"]["minutes"] == minutes


def test_a_timed_run_with_patience_and_cached_features_ends(tmp_path: Path) -> None:
    frozen = {"train.freeze_at": "all", "data.variants": 1, "train.cache_gb": 0.5, "data.scenes": (8, 2)}
    result = train(timed(tmp_path / "run", 0.1, **frozen))
    assert 0 < result.step < OPEN and result.scores is not None
    patient = train(timed(tmp_path / "other", 5, **{"run.patience": 1, "run.val_every": 2, "optim.lr": 1e-9}))
    assert patient.step < 200


def test_a_schedule_that_counts_steps_has_no_minutes() -> None:
    with pytest.raises(ValueError, match=r"train\.minutes"):
        TrainConfig(optim=Optim(schedule="step", milestones=(5,)), train=Train(minutes=1))
