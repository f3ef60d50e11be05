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
from panfpn.engine.time_budget import Plan
from panfpn.models import Backbone, SemanticFPN


@pytest.mark.parametrize("steps", [80_000, 160_000])
def test_poly_is_mmsegmentations_closed_form(steps: int) -> None:
    optim = Optim()  # lr 0.01, power 0.9, min_lr 1e-4
    for step in [0, 1, 100, steps // 3, steps - 2, steps - 1]:
        expected = (0.01 - 1e-4) * (1 - step / (steps - 1)) ** 0.9 + 1e-4
        assert lr_at(step, Plan(steps=steps), optim) == pytest.approx(expected, rel=1e-12)


def test_cosine_constant_and_warmup() -> None:
    cosine = Optim(schedule="cosine", lr=1.0, min_lr=0.0)
    assert [lr_at(s, Plan(steps=5), cosine) for s in range(5)] == pytest.approx(
        [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0]
    )
    constant = Optim(schedule="constant", lr=0.3, warmup_steps=4, warmup_factor=0.1)
    assert [lr_at(s, Plan(steps=9), constant) for s in range(6)] == pytest.approx(
        [0.03, 0.0975, 0.165, 0.2325, 0.3, 0.3]
    )
    assert lr_at(0, Plan(steps=1), Optim()) == 0.01  # a run of one step
    assert lr_at(9, Plan(steps=10), Optim(lr=1e-5, min_lr=1e-4)) == 1e-5  # a floor above the rate does not raise it


def test_mmcv_0x_divides_by_all_steps_and_warms_up() -> None:
    poly = Optim(mmcv_0x=True)
    for step in (0, 1, 40_000, 79_999):  # mmcv 0.x: PolyLrUpdaterHook
        assert lr_at(step, Plan(steps=80_000), poly) == pytest.approx(
            0.0099 * (1 - step / 80_000) ** 0.9 + 1e-4, rel=1e-12
        )
    assert lr_at(79_999, Plan(steps=80_000), poly) > 1e-4  # the floor itself would come one step later
    cosine = Optim(schedule="cosine", lr=2.0, min_lr=0.0, mmcv_0x=True, warmup_steps=2, warmup_factor=0.1)
    expected = [2 * 0.1, (1 + math.sqrt(0.5)) * 0.55, 1.0, 1 - math.sqrt(0.5)]
    assert [lr_at(s, Plan(steps=4), cosine) for s in range(4)] == pytest.approx(expected, rel=1e-12)
    assert lr_at(0, Plan(steps=1), poly) == 0.01  # a run of one step


def test_step_falls_at_its_milestones() -> None:
    optim = Optim(schedule="step", milestones=(3, 5), lr=1.0, min_lr=0.5)  # a floor is poly's and cosine's
    assert [lr_at(s, Plan(steps=7), optim) for s in range(7)] == pytest.approx([1, 1, 1, 0.1, 0.1, 0.01, 0.01])
    assert lr_at(4, Plan(steps=7), Optim(schedule="step", milestones=(4,), lr=1.0, gamma=0.5, warmup_steps=6)) < 0.5


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


def groups_of(model: nn.Module, optim: Optim) -> dict[str, tuple[float, float]]:
    """The factor of the rate and the weight decay of each weight by name."""
    optimizer = build_optimizer(model, optim)
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)]: (g["lr_factor"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}


def test_layer_decay_is_detectron2s_closed_form() -> None:
    """decay ** (depth + 1 - layer): 0 the embeddings, i + 1 block i, depth + 1 all that follows (ViTDet, BEiT)."""
    model = SemanticFPN("vit_tiny_patch16_224", 3, fpn_channels=16, head_channels=8)
    found = groups_of(model, Optim(name="adamw", layer_decay=0.7, backbone_lr_factor=0.5))
    assert len(found) == len(list(model.parameters()))
    for name, (factor, _) in found.items():
        if not name.startswith("backbone."):
            assert factor == 1
            continue
        parts = name.removeprefix("backbone.body.model.").split(".")
        layer = int(parts[1]) + 1 if parts[0] == "blocks" else 0
        assert parts[0] in ("blocks", "cls_token", "pos_embed", "patch_embed")
        assert factor == pytest.approx(0.5 * 0.7 ** (13 - layer))


def test_a_norm_behind_the_last_block_has_the_full_rate() -> None:
    model = SemanticFPN(Backbone("vit_tiny_patch16_224", final_norm=True), 3, fpn_channels=16, head_channels=8)
    found = groups_of(model, Optim(layer_decay=0.7))
    assert found["backbone.body.model.norm.weight"][0] == 1
    assert found["backbone.body.model.blocks.11.norm1.weight"][0] == pytest.approx(0.7)


@pytest.mark.parametrize(("name", "layers"), [("convnext_atto", 12), ("resnet18", 8), ("pvt_v2_b0", 4)])
def test_layer_decay_of_pyramids(name: str, layers: int) -> None:
    factors = {f for f, _ in groups_of(SemanticFPN(name, 3), Optim(layer_decay=0.5)).values()}
    assert factors == {1.0} | {0.5 ** (layers + 1 - layer) for layer in range(layers + 1)}


def test_layer_decay_needs_layers() -> None:
    with pytest.raises(ValueError, match="layer_decay is for timm's networks; backbone Sequential does not say"):
        build_optimizer(Toy(), Optim(layer_decay=0.9))


def test_what_is_not_decayed() -> None:
    """Norms, biases, positions, tokens and layer scales by one setting; any others by patterns."""
    model: nn.Module = SemanticFPN("xcit_nano_12_p16_224", 3, fpn_channels=16, head_channels=8)
    for name, (_, decay) in groups_of(model, Optim(weight_decay=0.1, decay_norm_bias=False)).items():
        matrix = dict(model.named_parameters())[name].ndim > 1 and "pos_embed" not in name
        assert decay == (0.1 if matrix else 0.0), name
    vit = SemanticFPN("vit_tiny_patch16_224", 3, fpn_channels=16, head_channels=8)
    found = groups_of(vit, Optim(weight_decay=0.1, decay_norm_bias=False))
    assert found["backbone.body.model.pos_embed"][1] == found["backbone.body.model.cls_token"][1] == 0
    xcit = groups_of(model, Optim(weight_decay=0.1, no_decay=("backbone.*.norm?.*",)))
    undecayed = {name.split(".")[-2] for name, (_, decay) in xcit.items() if not decay}
    assert undecayed == {"norm1", "norm2", "norm3"}
    with pytest.raises(ValueError, match=r"optim\.no_decay is absolute_pos_embed, and no weight of this network"):
        build_optimizer(model, Optim(no_decay=("absolute_pos_embed",)))


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
    assert [lr_at(step, Plan(steps=4), optim) for step in range(3)] == [1.0, 0.5, 0.25]


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
