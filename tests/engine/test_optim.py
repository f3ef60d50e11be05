import math
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from panfpn.choices import OPTIMIZERS, SCHEDULES
from panfpn.config import Optim
from panfpn.engine.optim import (
    WeightAverage,
    build_optimizer,
    load_optimizer,
    lr_at,
    num_moments,
    optimizer_tensors,
    set_lr,
)


@pytest.mark.parametrize("steps", [80_000, 160_000])
def test_poly_is_mmsegmentations_closed_form(steps: int) -> None:
    optim = Optim()  # lr 0.01, power 0.9, min_lr 1e-4
    for step in [0, 1, 100, steps // 3, steps - 2, steps - 1]:
        expected = (0.01 - 1e-4) * (1 - step / (steps - 1)) ** 0.9 + 1e-4
        assert lr_at(step, steps, optim) == pytest.approx(expected, rel=1e-12)


def test_cosine_constant_and_warmup() -> None:
    cosine = Optim(schedule="cosine", lr=1.0, min_lr=0.0)
    assert [lr_at(s, 5, cosine) for s in range(5)] == pytest.approx(
        [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0]
    )
    constant = Optim(schedule="constant", lr=0.3, warmup_steps=4, warmup_factor=0.1)
    assert [lr_at(s, 9, constant) for s in range(6)] == pytest.approx([0.03, 0.0975, 0.165, 0.2325, 0.3, 0.3])
    assert lr_at(0, 1, Optim()) == 0.01  # a run of one step
    assert lr_at(9, 10, Optim(lr=1e-5, min_lr=1e-4)) == 1e-5  # a floor above the rate does not raise it


def test_mmcv_0x_divides_by_all_steps_and_warms_up() -> None:
    poly = Optim(mmcv_0x=True)
    for step in (0, 1, 40_000, 79_999):  # mmcv 0.x: PolyLrUpdaterHook
        assert lr_at(step, 80_000, poly) == pytest.approx(0.0099 * (1 - step / 80_000) ** 0.9 + 1e-4, rel=1e-12)
    assert lr_at(79_999, 80_000, poly) > 1e-4  # the floor itself would come one step later
    cosine = Optim(schedule="cosine", lr=2.0, min_lr=0.0, mmcv_0x=True, warmup_steps=2, warmup_factor=0.1)
    expected = [2 * 0.1, (1 + math.sqrt(0.5)) * 0.55, 1.0, 1 - math.sqrt(0.5)]
    assert [lr_at(s, 4, cosine) for s in range(4)] == pytest.approx(expected, rel=1e-12)
    assert lr_at(0, 1, poly) == 0.01  # a run of one step


def test_step_falls_at_its_milestones() -> None:
    optim = Optim(schedule="step", milestones=(3, 5), lr=1.0, min_lr=0.5)  # a floor is poly's and cosine's
    assert [lr_at(s, 7, optim) for s in range(7)] == pytest.approx([1, 1, 1, 0.1, 0.1, 0.01, 0.01])
    assert lr_at(4, 7, Optim(schedule="step", milestones=(4,), lr=1.0, gamma=0.5, warmup_steps=6)) < 0.5


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.head = nn.Conv2d(4, 2, 1)


def test_groups_and_learning_rates() -> None:
    model = Toy()
    optimizer = build_optimizer(
        model, Optim(name="adamw", weight_decay=0.1, decay_norm_bias=False, backbone_lr_factor=0.5)
    )
    set_lr(optimizer, 0.2)
    groups = {id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    assert len(groups) == len(list(model.parameters()))
    assert groups[id(model.backbone[0].weight)] == (0.1, 0.1)
    assert groups[id(model.backbone[0].bias)] == groups[id(model.backbone[1].weight)] == (0.1, 0.0)
    assert groups[id(model.head.weight)] == (0.2, 0.1)
    everything = build_optimizer(model, Optim(weight_decay=0.1))
    assert {g["weight_decay"] for g in everything.param_groups} == {0.1}


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_state_survives_by_name(name: str) -> None:
    torch.manual_seed(0)
    first, second = Toy(), Toy()
    second.load_state_dict(first.state_dict())
    one, two = (build_optimizer(m, Optim(name=name, decay_norm_bias=False)) for m in (first, second))

    def step(model: Toy, optimizer: torch.optim.Optimizer, seed: int) -> None:
        images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
        model.head(model.backbone(images)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    step(first, one, 1)
    second.load_state_dict(first.state_dict())
    load_optimizer(two, second, optimizer_tensors(one, first))
    step(first, one, 2)
    step(second, two, 2)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_num_moments() -> None:
    assert [num_moments(Optim(name=name)) for name in ("sgd", "adamw")] == [1, 2]
    assert num_moments(Optim(momentum=0.0)) == 0


def mine(groups: Any, optim: Any) -> torch.optim.Optimizer:
    return torch.optim.Adagrad(groups, lr=optim.lr)


def halves(step: int, share: float, optim: Any) -> float:
    return float(optim.lr / 2**step)


def test_an_optimiser_and_a_schedule_are_a_function_and_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPTIMIZERS, "mine", f"{__name__}:mine")
    monkeypatch.setitem(SCHEDULES, "halves", f"{__name__}:halves")
    optim: Any = SimpleNamespace(**{**asdict(Optim(lr=1.0)), "name": "mine", "schedule": "halves"})
    assert isinstance(build_optimizer(Toy(), optim), torch.optim.Adagrad) and num_moments(optim) == 1
    assert [lr_at(step, 4, optim) for step in range(3)] == [1.0, 0.5, 0.25]


def test_weight_average() -> None:
    model = Toy()
    average = WeightAverage(model, 0.9)
    before = model.head.weight.detach().clone()
    with torch.no_grad():
        model.head.weight += 1
        model.backbone[1].running_mean += 2
        model.backbone[1].num_batches_tracked += 3
    average.update(model, step=10_000)
    torch.testing.assert_close(average.tensors["head.weight"], before + 0.1)
    torch.testing.assert_close(average.tensors["backbone.1.running_mean"], torch.full((4,), 0.2))
    assert average.tensors["backbone.1.num_batches_tracked"] == 3
    fresh = WeightAverage(Toy(), 0.999)
    with torch.no_grad():
        model.head.weight.fill_(5.0)
    fresh.update(model, step=0)
    assert (fresh.tensors["head.weight"] - 5).abs().max() < 0.6  # the first steps follow at once
