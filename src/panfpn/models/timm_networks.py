"""timm's networks, built so that they give maps at strides 4, 8, 16 and 32 of images of any size.

In: timm's name. Out: the network, and how it is to be fed. What fits is tried; there is no list of families here.
"""

import dataclasses
import difflib
import functools
import math
from typing import Any

import timm
import timm.layers
import torch
import torch.nn.functional as F
from torch import nn

Shapes = tuple[tuple[int, int, int], ...]

STRIDES = (4, 8, 16, 32)
_SOME_THAT_FIT = "resnet50c, resnet50, convnext_tiny, tf_efficientnet_lite0, swin_tiny_patch4_window7_224, pvt_v2_b2"
# How timm's constructors spell "take images of any size" (swin, swinv2, swinv2_cr). Most networks need no option.
_ANY_SIZE: tuple[dict[str, bool], ...] = ({}, {"strict_img_size": False}, {"dynamic_img_size": True})
# ResNets that timm has under no name, as (timm's name, its options): mmsegmentation's v1c, and MSRA's (of
# Caffe2 and detectron2), whose stages begin with the stride in the first 1×1 convolution.
_MSRA = "_msra"
_NOT_TIMMS: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"resnet{depth}c": (f"resnet{depth}", {"stem_type": "deep", "stem_width": 32}) for depth in (18, 34)},
    **{f"resnet{depth}{_MSRA}": (f"resnet{depth}", {}) for depth in (50, 101)},
}
# Heights and widths whose remainders at strides 4…32 differ, small and large: they stand for any size.
_PROBES: Shapes = ((3, 97, 131), (3, 255, 350), (3, 1022, 79))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How a network is built and fed so that its maps fit."""

    out_indices: tuple[int, ...]
    channels: tuple[int, ...]
    options: dict[str, bool]
    multiple: int


@functools.cache
def plan_network(name: str) -> Plan:
    """Which maps to take, and how; tried on shapes alone where the network allows it. ValueError if nothing fits."""
    _check_name(name)
    # Building draws from the global generator; a plan made earlier must not change what a seed gives.
    with torch.random.fork_rng(devices=[]):
        try:
            return _tried(name, "meta")
        except RuntimeError:  # some constructors (timm < 1.0.24) and some operators want real numbers
            pass
        try:
            return _tried(name, "cpu")
        except RuntimeError as error:
            raise ValueError(f"backbone {name!r} gives no feature maps ({error}); try {_SOME_THAT_FIT}") from error


def _tried(name: str, device: str) -> Plan:
    with torch.device(device):
        body = _create_timm(name, features_only=True)
        out_indices, channels = _levels(name, body)
        design_size = _design_size(body)
        with torch.no_grad():
            body.eval()(torch.zeros(1, 3, design_size, design_size))  # what fails here does not fail for the size
        why = ""
        for multiple in (1, 4, 32, design_size):  # windows divide the size that a network was designed for
            for options in _ANY_SIZE:
                try:
                    body = _create_timm(name, features_only=True, out_indices=out_indices, **options)
                except TypeError:  # the network has no such option
                    continue
                misfit = _first_misfit(body, channels, multiple, _PROBES)
                if misfit is None:
                    return Plan(out_indices=out_indices, channels=channels, options=options, multiple=multiple)
                why = why or misfit
        body = _create_timm(name, features_only=True, out_indices=out_indices)
        if _first_misfit(body, channels, design_size, ((3, design_size, design_size),)) is None:
            why = f"timm builds it for {design_size}x{design_size} and no other"
    raise _refusal(name, why)


def _create_timm(name: str, **options: Any) -> nn.Module:
    base, extra = _NOT_TIMMS.get(name, (name, {}))
    body: Any = timm.create_model(base, **extra, **options)
    if name.endswith(_MSRA):
        for stage in (body.layer2, body.layer3, body.layer4):
            stage[0].conv1.stride, stage[0].conv2.stride = stage[0].conv2.stride, stage[0].conv1.stride
    return body  # type: ignore[no-any-return]


def feature_maps(body: nn.Module, images: torch.Tensor, multiple: int) -> list[torch.Tensor]:
    """c2…c5 [B, C, ~H/stride, ~W/stride] of images padded to `multiple`, cut to ceil(H/stride) if it is above 1."""
    height, width = images.shape[2:]
    if multiple > 1:
        images = F.pad(images, (0, -width % multiple, 0, -height % multiple))
    maps = body(images)
    if getattr(body, "output_fmt", None) == timm.layers.Format.NHWC:
        maps = [m.permute(0, 3, 1, 2) for m in maps]
    if multiple > 1:
        # Not -(-height // s): an exported graph divides towards zero.
        maps = [m[:, :, : (height + s - 1) // s, : (width + s - 1) // s] for m, s in zip(maps, STRIDES, strict=True)]
    return list(maps)


def _check_name(name: str) -> None:
    if name not in _NOT_TIMMS and not timm.is_model(name):

        def likeness(known: str) -> float:  # to the whole name or to its start: names end in sizes that nobody recalls
            return max(difflib.SequenceMatcher(None, name, k).ratio() for k in (known, known[: len(name)]))

        near = sorted([*timm.list_models(), *_NOT_TIMMS], key=likeness, reverse=True)[:6]
        raise ValueError(f"timm has no backbone {name!r}; nearest: {', '.join(near)}")
    architecture, _, tag = name.partition(".")
    tags = timm.list_models(f"{architecture}.*", pretrained=True) if tag else []
    if tag and name not in tags:
        raise ValueError(f"timm has no weights {tag!r} for {architecture!r}; it has: {', '.join(tags[:8]) or 'none'}")


def _levels(name: str, body: nn.Module) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Indices and widths of the last map at each stride: the deepest is the richest."""
    info: Any = body.feature_info
    everything = list(range(len(info)))
    reductions = info.reduction(everything)
    if missing := [s for s in STRIDES if s not in reductions]:
        raise ValueError(
            f"backbone {name!r} has no feature maps at strides {missing}, only at {sorted(set(reductions))}; "
            f"Semantic FPN needs 4, 8, 16 and 32; some that have them: {_SOME_THAT_FIT}"
        )
    taken = tuple(max(i for i in everything if reductions[i] == stride) for stride in STRIDES)
    return taken, tuple(info.channels(list(taken)))


def _first_misfit(body: nn.Module, channels: tuple[int, ...], multiple: int, shapes: Shapes) -> str | None:
    return next(filter(None, (_misfit(body, channels, multiple, shape) for shape in shapes)), None)


def _misfit(body: nn.Module, channels: tuple[int, ...], multiple: int, shape: tuple[int, int, int]) -> str | None:
    """What is wrong with the maps of an image of this shape; None if they fit."""
    in_channels, *size = shape
    where = f"at {size[0]}x{size[1]}"
    padded = [side + -side % multiple for side in size]
    try:
        with torch.no_grad():
            maps = feature_maps(body.eval(), torch.zeros(1, in_channels, *padded), multiple=1)
    except Exception as error:  # a network that cannot take this size fails in any way
        return f"{where} {(str(error).splitlines() or [type(error).__name__])[0]}"
    # Unpadded, some networks round down, some up, a few lose or add a row; more than that shifts the maps. Padded, the
    # crop to ceil(H/stride) is right only if nothing was lost.
    for m, width, stride in zip(maps, channels, STRIDES, strict=True):
        exact = [side / stride for side in padded]
        if multiple == 1:
            fits = all(-2 < got - e < 2 for got, e in zip(m.shape[2:], exact, strict=True))
        else:
            fits = tuple(m.shape[2:]) == tuple(math.ceil(e) for e in exact)
        if m.shape[1] != width or not fits:
            return f"{where} its map of stride {stride} is {tuple(m.shape[1:])}"
    return None


def create_network(name: str, plan: Plan, in_channels: int, pretrained: bool, drop_path: float) -> nn.Module:
    """The network of a plan, in training mode; errors as of `Backbone`."""
    if pretrained and not has_weights(name):
        raise ValueError(f"timm has no pretrained weights for {name!r}; give a local file (backbone_weights)")
    options: dict[str, object] = {"drop_path_rate": drop_path} if drop_path else {}
    options |= {"features_only": True, "in_chans": in_channels, "out_indices": plan.out_indices, **plan.options}
    no_depth = f"backbone {name!r} has no stochastic depth; drop_path must be 0, not {drop_path}"
    try:
        body: nn.Module = _create_timm(name, pretrained=pretrained, **options)
    except Exception as error:
        if isinstance(error, TypeError) and "drop_path_rate" in str(error):
            raise ValueError(no_depth) from error
        if not pretrained:
            raise
        why = f"the pretrained weights of {name!r} cannot be had ({error}); give a file (model.backbone_weights)"
        raise ConnectionError(why) from error
    if drop_path and not any("DropPath" in type(module).__name__ for module in body.modules()):
        raise ValueError(no_depth)  # some networks take the option and ignore it
    # Shapes alone do not tell where a table of positions ends (MViTv2): look beyond the size the network is made for.
    beyond = 2 * _design_size(body)
    strips = ((in_channels, beyond, 32), (in_channels, 32, beyond))
    if misfit := _first_misfit(body, plan.channels, plan.multiple, strips):
        raise _refusal(name, misfit)
    return body.train()


def _refusal(name: str, why: str) -> ValueError:
    return ValueError(f"backbone {name!r} does not take images of any size: {why}; some that do: {_SOME_THAT_FIT}")


def _design_size(body: nn.Module) -> int:
    """The longer side of the images that the network was designed for."""
    cfg: Any = body.pretrained_cfg
    return int(max(cfg["input_size"][1:]))


def has_weights(name: str) -> bool:
    """Whether timm knows pretrained weights of that name."""
    cfg = timm.get_pretrained_cfg(name)
    return cfg is not None and cfg.has_weights
