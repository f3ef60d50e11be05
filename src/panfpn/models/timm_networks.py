"""timm's networks, built and fed so that they give maps of images of any size, at four strides or at one.

In: timm's name. Out: the network, and how it is to be fed. What fits is tried; there is no list of families here.
"""

import dataclasses
import difflib
import functools
import math
from collections.abc import Sequence
from typing import Any

import timm
import timm.layers
import torch
import torch.nn.functional as F
from timm.models._features import FeatureGetterNet
from timm.models._manipulate import group_parameters
from torch import nn

from panfpn.models.timm_weights import has_weights
from panfpn.models.windows import in_windows
from panfpn.ops import grown

STRIDES = (4, 8, 16, 32)  # of most networks; others begin at 8 or 16, and plain transformers have one
_FINEST = (4, 8, 16)
_LARGEST_PATCH = 32  # of networks with one stride
_SOME_THAT_FIT = "resnet50c, resnet50, convnext_tiny, tf_efficientnet_lite0, swin_tiny_patch4_window7_224, pvt_v2_b2"
# How timm's constructors spell "take images of any size" (swin, swinv2, swinv2_cr; transformers). Most networks need no
# option.
_ANY_SIZE: tuple[dict[str, bool], ...] = ({}, {"strict_img_size": False}, {"dynamic_img_size": True})
# ResNets that timm has under no name, as (timm's name, its options): mmsegmentation's v1c, and MSRA's (of
# Caffe2 and detectron2), whose stages begin with the stride in the first 1×1 convolution.
_MSRA = "_msra"
_NOT_TIMMS: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"resnet{depth}c": (f"resnet{depth}", {"stem_type": "deep", "stem_width": 32}) for depth in (18, 34)},
    **{f"resnet{depth}{_MSRA}": (f"resnet{depth}", {}) for depth in (50, 101)},
}
# Heights and widths whose remainders at strides 4…32 differ, small and large: they stand for any size.
_PROBES = ((97, 131), (255, 350), (1022, 79))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How a network is built and fed so that its maps fit."""

    out_indices: tuple[int, ...]  # of the maps that are taken; where they are fewer than four, the last is pooled
    channels: tuple[int, ...]  # of all four
    strides: tuple[int, ...]  # four, all the same where the network has one
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    multiple: int = 1  # the image is padded to it
    patch: int = 0  # side of a patch that is no power of 2: the image is resized until its stride is one
    window: int = 0  # side of the only images that the network takes: others go through in windows
    idle: tuple[str, ...] = ()  # parameters that no map depends on


@functools.cache
def plan_network(name: str, blocks: tuple[int, ...] = (), final_norm: bool = False) -> Plan:
    """Which maps to take, and how; tried on shapes alone where the network allows it. ValueError if nothing fits.

    `blocks` are those whose maps are taken of a network with one stride (four, from 0; none: at even quarters), with
    `final_norm` after the norm that stands behind the last.
    """
    _check_name(name)
    # Building draws from the global generator; a plan made earlier must not change what a seed gives.
    with torch.random.fork_rng(devices=[]):
        try:
            return _tried(name, "meta", blocks, final_norm)
        except RuntimeError:  # some constructors (timm < 1.0.24) and some operators want real numbers
            pass
        try:
            return _tried(name, "cpu", blocks, final_norm)
        except RuntimeError as error:
            raise ValueError(f"backbone {name!r} gives no feature maps ({error}); try {_SOME_THAT_FIT}") from error


def _tried(name: str, device: str, blocks: tuple[int, ...], final_norm: bool) -> Plan:
    with torch.device(device):
        body = _create_timm(name, features_only=True)
        first = _levels(name, body, blocks, final_norm)
        side = _design_size(body)
        with torch.no_grad():
            body.eval()(torch.zeros(1, 3, side, side))  # what fails here does not fail for the size
        why = ""
        for multiple in (first.strides[0],) if first.patch else sorted({1, 4, first.strides[0], 32, side}):
            for options in _ANY_SIZE:
                plan = dataclasses.replace(first, multiple=multiple, options=options)
                try:
                    body = _created(name, plan, final_norm)
                except TypeError:  # the network has no such option
                    continue
                misfit = _first_misfit(body, plan, _PROBES)
                if misfit is None:
                    return dataclasses.replace(plan, idle=_idle(body, plan))
                why = why or misfit
        plan = _windowed(body, first)
        body = _created(name, plan, final_norm)
        if _first_misfit(body, dataclasses.replace(plan, window=0), [(plan.window, plan.window)]):
            raise _refusal(name, why)
        if misfit := _first_misfit(body, plan, _PROBES):
            raise _refusal(name, misfit)
        return dataclasses.replace(plan, idle=_idle(body, plan))


def _windowed(body: nn.Module, plan: Plan) -> Plan:
    """The plan, with windows of the one size that the network takes."""
    side = _design_size(body)
    window = side * plan.strides[0] // plan.patch if plan.patch else side
    return dataclasses.replace(plan, multiple=window, window=window)


def _create_timm(name: str, **options: Any) -> nn.Module:
    base, extra = _NOT_TIMMS.get(name, (name, {}))
    body: Any = timm.create_model(base, **extra, **options)
    if name.endswith(_MSRA):
        for stage in (body.layer2, body.layer3, body.layer4):
            stage[0].conv1.stride, stage[0].conv2.stride = stage[0].conv2.stride, stage[0].conv1.stride
    return body  # type: ignore[no-any-return]


def _created(name: str, plan: Plan, final_norm: bool, **options: Any) -> nn.Module:
    """The network of a plan."""
    options |= plan.options
    if not final_norm:
        return _create_timm(name, features_only=True, out_indices=plan.out_indices, **options)
    whole = _create_timm(name, **options)
    body: Any = FeatureGetterNet(whole, out_indices=plan.out_indices, norm=True)
    body.pretrained_cfg = whole.pretrained_cfg
    return body  # type: ignore[no-any-return]


def feature_maps(body: nn.Module, images: torch.Tensor, plan: Plan) -> list[torch.Tensor]:
    """c2…c5 [B, C, ~H/stride, ~W/stride] of images [B, C, H, W]; cut to ceil(H/stride) where these are padded."""
    height, width = images.shape[2:]
    if plan.window:
        maps = in_windows(functools.partial(_maps, body, plan=plan), images, plan.window, plan.strides)
    else:
        maps = _maps(body, _padded(images, plan.multiple), plan)
    if plan.multiple > 1 or plan.window:
        # Not -(-height // s): an exported graph divides towards zero.
        maps = [
            m[:, :, : (height + s - 1) // s, : (width + s - 1) // s] for m, s in zip(maps, plan.strides, strict=True)
        ]
    return maps


def _padded(images: torch.Tensor, multiple: int) -> torch.Tensor:
    if multiple == 1:
        return images
    height, width = images.shape[2:]
    down, right = grown((height, width), multiple)
    return F.pad(images, (0, right - width, 0, down - height))


def _maps(body: nn.Module, images: torch.Tensor, plan: Plan) -> list[torch.Tensor]:
    """What the network gives for images that it can take, and those of its maps pooled that it lacks."""
    if plan.patch:
        size = [side // plan.strides[0] * plan.patch for side in images.shape[2:]]
        images = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
    maps = list(body(images))
    if getattr(body, "output_fmt", None) == timm.layers.Format.NHWC:
        maps = [m.permute(0, 3, 1, 2) for m in maps]
    while len(maps) < len(plan.strides):
        maps.append(F.max_pool2d(maps[-1], 2, ceil_mode=True))
    return maps


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


def _levels(name: str, body: nn.Module, blocks: tuple[int, ...], final_norm: bool) -> Plan:
    """Which maps are taken: of each stride the last, as the deepest is the richest; or those of four blocks."""
    info: Any = body.feature_info
    reductions = info.reduction(list(range(len(info))))
    if len(set(reductions)) == 1 and len(reductions) >= len(STRIDES):
        return _single_stride(name, body, reductions[0], blocks, final_norm)
    if blocks or final_norm:
        what = "model.blocks" if blocks else "model.final_norm"
        raise ValueError(f"{what} is for networks of one stride, such as plain transformers; backbone {name!r} has "
                         f"levels at strides {', '.join(map(str, sorted(set(reductions))))}")  # fmt: skip
    finest = next((stride for stride in _FINEST if stride in reductions), 0)
    wanted = [finest << level for level in range(len(STRIDES))]
    there = [stride for stride in wanted if stride in reductions]
    if not there or wanted[: len(there)] != there:
        raise ValueError(
            f"backbone {name!r} has feature maps at strides {', '.join(map(str, sorted(set(reductions))))}; a pyramid "
            f"needs 4, 8, 16 and 32, or beginning at 8 or 16; some that have them: {_SOME_THAT_FIT}"
        )
    taken = tuple(max(i for i, stride in enumerate(reductions) if stride == level) for level in there)
    widths = info.channels(list(taken))
    pooled = len(wanted) - len(there)
    return Plan(out_indices=taken, channels=(*widths, *widths[-1:] * pooled), strides=tuple(wanted))


def _single_stride(name: str, body: nn.Module, patch: int, blocks: tuple[int, ...], final_norm: bool) -> Plan:
    depth = len(body.feature_info)  # type: ignore[arg-type]
    if blocks and (len(blocks) != 4 or list(blocks) != sorted(set(blocks)) or blocks[-1] >= depth):
        raise ValueError(f"model.blocks is {blocks}; backbone {name!r} has blocks 0 to {depth - 1}, of which four are "
                         "taken, rising")  # fmt: skip
    taken = blocks or tuple(round((quarter + 1) * depth / 4) - 1 for quarter in range(4))
    if final_norm and not isinstance(body, FeatureGetterNet):
        raise ValueError(f"model.final_norm: backbone {name!r} has no norm that stands for all its blocks")
    normed = FeatureGetterNet(body.model, out_indices=taken, norm=True) if final_norm else body  # SAM's narrows them
    info: Any = normed.feature_info
    stride = 2 ** round(math.log2(patch))
    if not min(STRIDES) <= stride <= _LARGEST_PATCH:
        raise ValueError(f"backbone {name!r} has patches of {patch} pixels; a pyramid is made of 4 to {_LARGEST_PATCH}")
    return Plan(
        out_indices=taken, channels=tuple(info.channels(list(taken))), strides=(stride,) * 4,
        patch=patch if patch != stride else 0,
    )  # fmt: skip


def _first_misfit(body: nn.Module, plan: Plan, sizes: Sequence[tuple[int, int]], in_channels: int = 3) -> str | None:
    return next(filter(None, (_misfit(body, plan, size, in_channels) for size in sizes)), None)


def _misfit(body: nn.Module, plan: Plan, size: tuple[int, int], in_channels: int) -> str | None:
    """What is wrong with the maps of an image of this size; None if they fit."""
    where = f"at {size[0]}x{size[1]}"
    padded = grown(size, plan.multiple)
    try:
        with torch.no_grad():
            maps = feature_maps(body.eval(), torch.zeros(1, in_channels, *padded), plan)
    except Exception as error:  # a network that cannot take this size fails in any way
        return f"{where} {(str(error).splitlines() or [type(error).__name__])[0]}"
    # Unpadded, some networks round down, some up, a few lose or add a row; more than that shifts the maps. Padded, the
    # crop to ceil(H/stride) is right only if nothing was lost.
    for m, width, stride in zip(maps, plan.channels, plan.strides, strict=True):
        exact = [side / stride for side in padded]
        if plan.multiple == 1:
            fits = all(-2 < got - e < 2 for got, e in zip(m.shape[2:], exact, strict=True))
        else:
            fits = tuple(m.shape[2:]) == tuple(math.ceil(e) for e in exact)
        if m.shape[1] != width or not fits:
            return f"{where} its map of stride {stride} is {tuple(m.shape[1:])}"
    return None


def _idle(body: nn.Module, plan: Plan) -> tuple[str, ...]:
    """Parameters that no gradient of the maps reaches, such as those of a class token behind the last block."""
    names = [name for name, weight in body.named_parameters() if weight.requires_grad]
    weights = [weight for weight in body.parameters() if weight.requires_grad]
    with torch.enable_grad():
        maps = feature_maps(body.train(), torch.zeros(2, 3, 97, 131), plan)
        total = torch.stack([m.sum() for m in maps]).sum()
        gradients = torch.autograd.grad(total, weights, allow_unused=True)
    return tuple(name for name, gradient in zip(names, gradients, strict=True) if gradient is None)


def create_network(
    name: str, blocks: tuple[int, ...], final_norm: bool, *, in_channels: int, pretrained: bool, drop_path: float
) -> tuple[nn.Module, Plan]:
    """A network in training mode, and how it is fed; errors as of `Backbone`."""
    plan = plan_network(name, blocks, final_norm)
    if pretrained and not has_weights(name):
        raise ValueError(f"timm has no pretrained weights for {name!r}; give a local file (backbone_weights)")
    options: dict[str, object] = {"drop_path_rate": drop_path} if drop_path else {}
    no_depth = f"backbone {name!r} has no stochastic depth; drop_path must be 0, not {drop_path}"
    try:
        body = _created(name, plan, final_norm, pretrained=pretrained, in_chans=in_channels, **options)
    except Exception as error:
        if isinstance(error, TypeError) and "drop_path_rate" in str(error):
            raise ValueError(no_depth) from error
        if not pretrained:
            raise
        why = f"the pretrained weights of {name!r} cannot be had ({error}); give a file (model.backbone_weights)"
        raise ConnectionError(why) from error
    if drop_path and not any("DropPath" in type(module).__name__ for module in body.modules()):
        raise ValueError(no_depth)  # some networks take the option and ignore it
    for idle in plan.idle:
        body.get_parameter(idle).requires_grad_(False)
    # Shapes alone do not tell where a table of positions ends (MViTv2): look beyond the size the network is made for.
    beyond = 2 * _design_size(body)
    sizes = ((beyond, 32), (32, beyond))
    if _first_misfit(body, plan, sizes, in_channels):
        plan = _windowed(body, plan)
        if misfit := _first_misfit(body, plan, sizes, in_channels):
            raise _refusal(name, misfit)
    return body.train(), plan


def _refusal(name: str, why: str) -> ValueError:
    return ValueError(f"backbone {name!r} does not take images of any size: {why}; some that do: {_SOME_THAT_FIT}")


def _design_size(body: nn.Module) -> int:
    """The longer side of the images that the network was designed for."""
    cfg: Any = body.pretrained_cfg
    return int(max(cfg["input_size"][1:]))


def layer_numbers(name: str) -> dict[str, int]:
    """The layer of each weight of timm's whole network, by its name with _ for dots.

    0 is what comes before the layers (embeddings, stem); ValueError for a network that timm has no order of.
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        whole: Any = _create_timm(name)
    if not hasattr(whole, "group_matcher"):
        raise ValueError(f"optim.layer_decay: timm knows no order of the layers of backbone {name!r}")
    numbers: dict[str, int] = group_parameters(whole, whole.group_matcher(coarse=False), reverse=True)
    return {key.replace(".", "_"): number for key, number in numbers.items()}
