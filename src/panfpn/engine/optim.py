"""Optimiser, learning rate and weight average; the rate is a pure function of the step."""

import math
from bisect import bisect_right
from collections.abc import Mapping

import torch
from torch import nn

from panfpn.config import Optim


def lr_at(step: int, steps: int, optim: Optim) -> float:
    """Learning rate of `step` (0 … steps − 1): poly, cosine, step or constant, times a linear warm-up at the start.

    Poly is mmsegmentation 1.x's closed form (lr − min)(1 − t/(T − 1))^power + min, or with `mmcv_0x` that of mmcv 0.x:
    t/T in its place. Step is detectron2's: a milestone is the first step at the lower rate.
    """
    share = step / (steps if optim.mmcv_0x else max(1, steps - 1))
    floor = min(optim.min_lr, optim.lr)
    if optim.schedule == "poly":
        lr = (optim.lr - floor) * math.pow(1 - share, optim.power) + floor
    elif optim.schedule == "cosine":
        lr = (optim.lr - floor) * (1 + math.cos(math.pi * share)) / 2 + floor
    else:
        lr = optim.lr * optim.gamma ** bisect_right(optim.milestones, step)  # constant: there are none
    if step < optim.warmup_steps:
        lr *= optim.warmup_factor + (1 - optim.warmup_factor) * step / optim.warmup_steps
    return lr


def build_optimizer(model: nn.Module, optim: Optim) -> torch.optim.Optimizer:
    """SGD or AdamW; groups carry `lr_factor` (backbone) and their own weight decay (norm and bias, as an option)."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            factor = optim.backbone_lr_factor if name.startswith("backbone.") else 1.0
            decay = optim.weight_decay if parameter.ndim > 1 or optim.decay_norm_bias else 0.0
            groups.setdefault((factor, decay), []).append(parameter)
    parameters = [{"params": p, "lr_factor": f, "weight_decay": d} for (f, d), p in groups.items()]
    if optim.name == "sgd":
        return torch.optim.SGD(parameters, lr=optim.lr, momentum=optim.momentum, fused=True)
    return torch.optim.AdamW(parameters, lr=optim.lr, betas=optim.betas, fused=True)


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


def load_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """The inverse of `optimizer_tensors`."""
    parameters = dict(model.named_parameters())
    for key, value in tensors.items():
        name, _, state = key.rpartition("/")
        parameter = parameters[name]
        # Moments lie in memory as their parameter does; the step count is one number, on the same device.
        own = torch.empty_like(value if state == "step" else parameter, device=parameter.device)
        optimizer.state[parameter][state] = own.copy_(value)


class WeightAverage:
    """Exponential moving average of a model's weights and norm statistics; the first steps follow faster."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors = {name: t.detach().clone() for name, t in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after `step` (0 is the first)."""
        keep = min(self.decay, (1 + step) / (10 + step))
        own, new = [], []
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                own.append(self.tensors[name])
                new.append(value.detach())
            else:
                self.tensors[name].copy_(value)
        torch._foreach_lerp_(own, new, 1 - keep)
