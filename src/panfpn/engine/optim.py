"""Optimiser, learning rate and weight average; the rate is a pure function of the step."""

import math
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from panfpn.choices import OPTIMIZERS, SCHEDULES, lookup
from panfpn.config import Optim
from panfpn.engine.time_budget import Plan
from panfpn.models.backbone import layers_of

Groups = Sequence[dict[str, Any]]  # of parameters, as torch's optimisers take them
_PLACED = re.compile(r"pos_embed|rel_pos|relative_position|attention_bias|_token$")  # positions and class tokens


def lr_at(step: int, plan: Plan, optim: Optim) -> float:
    """Learning rate of `step` (0 … plan.steps − 1): the schedule's, times a linear warm-up at the start.

    Schedules are functions here, listed in `panfpn.choices.SCHEDULES`: of the step and of how much of the run is done
    (0 … 1: mmsegmentation 1.x's t/(T − 1), or with `mmcv_0x` t/T as mmcv 0.x has it).
    """
    share = plan.share(step, beyond=optim.mmcv_0x)
    lr: float = lookup(SCHEDULES, optim.schedule, "optim.schedule")(step, share, optim)
    if step < optim.warmup_steps:
        lr *= optim.warmup_factor + (1 - optim.warmup_factor) * step / optim.warmup_steps
    return lr


def poly(step: int, share: float, optim: Optim) -> float:
    """Mmsegmentation's closed form (lr − min)(1 − share)^power + min."""
    floor = min(optim.min_lr, optim.lr)
    return (optim.lr - floor) * math.pow(1 - share, optim.power) + floor


def cosine(step: int, share: float, optim: Optim) -> float:
    """Half a cosine from lr to min."""
    floor = min(optim.min_lr, optim.lr)
    return (optim.lr - floor) * (1 + math.cos(math.pi * share)) / 2 + floor


def step(step: int, share: float, optim: Optim) -> float:
    """detectron2's: times gamma at each milestone, which is the first step at the lower rate."""
    return optim.lr * optim.gamma ** bisect_right(optim.milestones, step)


def constant(step: int, share: float, optim: Optim) -> float:
    """The same at every step."""
    return optim.lr


def build_optimizer(model: nn.Module, optim: Optim) -> torch.optim.Optimizer:
    """One of `panfpn.choices.OPTIMIZERS`; groups carry `lr_factor` (backbone) and their weight decay.

    ValueError for a pattern that no weight has, and for `layer_decay` where a backbone has no order of layers.
    """
    factors = lr_factors(model, optim)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    _check_patterns(model, optim)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = optim.weight_decay if decays(name, parameter.ndim, optim) else 0.0
            groups.setdefault((factors.get(name, 1.0), decay), []).append(parameter)
    made: torch.optim.Optimizer = lookup(OPTIMIZERS, optim.name, "optim.name")(
        [{"params": p, "lr_factor": f, "weight_decay": d} for (f, d), p in groups.items()], optim
    )
    return made


def decays(name: str, ndim: int, optim: Optim) -> bool:
    """Whether a weight is decayed; see `Optim`."""
    special = ndim <= 1 or _PLACED.search(name)
    return not (special and not optim.decay_norm_bias) and not any(fnmatchcase(name, p) for p in optim.no_decay)


def _check_patterns(model: nn.Module, optim: Optim) -> None:
    names = [name for name, _ in model.named_parameters()]
    patterns = optim.no_decay  # some may be for other networks: not all have a class token, say
    if patterns and not any(fnmatchcase(name, pattern) for name in names for pattern in patterns):
        raise ValueError(f"optim.no_decay is {', '.join(patterns)}, and no weight of this network is called so; there "
                         f"are {names[0]}, {names[-1]}")  # fmt: skip


def lr_factors(model: nn.Module, optim: Optim) -> dict[str, float]:
    """What the learning rate of each weight of the backbone is multiplied by.

    With `layer_decay` d, of L layers the first has d^L, the last d, and what is before the first d^(L + 1); a norm
    behind the last has 1 (detectron2's and mmsegmentation's).
    """
    names = [name for name, _ in model.named_parameters() if name.startswith("backbone.")]
    factors = dict.fromkeys(names, optim.backbone_lr_factor)
    if optim.layer_decay < 1:
        backbone: Any = model.get_submodule("backbone")
        depths, last = layers_of(backbone)
        for name in names:
            factors[name] *= optim.layer_decay ** (last - depths[name.removeprefix("backbone.")])
    return factors


def sgd(groups: Groups, optim: Optim) -> torch.optim.Optimizer:
    """SGD with momentum."""
    return torch.optim.SGD(groups, lr=optim.lr, momentum=optim.momentum, fused=_fused(groups))


def adamw(groups: Groups, optim: Optim) -> torch.optim.Optimizer:
    """AdamW."""
    return torch.optim.AdamW(groups, lr=optim.lr, betas=optim.betas, fused=_fused(groups))


def _fused(groups: Groups) -> bool | None:
    """Whether all is done in one kernel; None leaves it to torch, where it may not have one."""
    return all(p.device.type in ("cpu", "cuda") for group in groups for p in group["params"]) or None


def num_moments(optim: Optim) -> int:
    """How many numbers the optimiser keeps of each weight."""
    parameter = nn.Parameter(torch.zeros(2))
    optimizer: torch.optim.Optimizer = lookup(OPTIMIZERS, optim.name, "optim.name")([{"params": [parameter]}], optim)
    parameter.grad = torch.zeros(2)
    optimizer.step()
    state = optimizer.state[parameter].values()
    return sum(isinstance(value, torch.Tensor) and value.shape == parameter.shape for value in state)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set every group's learning rate to `lr` times its factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, torch.Tensor]:
    """The optimiser's state as `parameter name/state name` -> tensor."""
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        f"{names[id(parameter)]}/{key}": value
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
        if isinstance(value, torch.Tensor)
    }


def load_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, torch.Tensor], *, complete: bool = False
) -> None:
    """The inverse of `optimizer_tensors`.

    ValueError for tensors of weights that are not there or have another shape; with `complete`, for missing ones too.
    """
    parameters = dict(model.named_parameters())
    for key, value in tensors.items():
        name, _, state = key.rpartition("/")
        parameter = parameters.get(name)
        if parameter is None or value.shape not in ((parameter.shape,), ((), (1,)))[state == "step"]:
            raise ValueError(f"its optimiser's state {key} belongs to no weight of this network")
        # Moments lie in memory as their parameter does; the step count is one number, on the same device.
        tensor = torch.empty_like(value if state == "step" else parameter, device=parameter.device)
        optimizer.state[parameter][state] = tensor.copy_(value)
    if complete and tensors:
        states = {key.rpartition("/")[2] for key in tensors}
        names = {id(parameter): name for name, parameter in parameters.items()}
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if missing := states - optimizer.state[parameter].keys():
                    raise ValueError(f"its optimiser's state {names[id(parameter)]}/{min(missing)} is missing")


class WeightAverage:
    """Exponential moving average of a model's weights and norm statistics; the first steps follow faster."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors = {name: t.detach().clone() for name, t in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after `step` (0 is the first)."""
        keep = min(self.decay, (1 + step) / (10 + step))
        pairs = [(self.tensors[name], value.detach()) for name, value in model.state_dict().items()]
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        counts = [pair for pair in pairs if not pair[0].is_floating_point()]
        torch._foreach_lerp_([a for a, _ in floats], [b for _, b in floats], 1 - keep)
        if counts:
            torch._foreach_copy_([a for a, _ in counts], [b for _, b in counts])
