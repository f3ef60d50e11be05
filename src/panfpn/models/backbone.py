"""Any timm network as the bottom-up path. In: images [B, C, H, W] of any size. Out: c2…c5 at strides 4, 8, 16, 32.

Paper §3.1 (ResNet there); timm's `features_only` interface. docs/backbones.md lists what runs.
"""

import dataclasses
import difflib
import functools
import math
import re
from pathlib import Path
from typing import Any

import timm
import timm.layers
import torch
import torch.nn.functional as F
from torch import nn

from panfpn.weights.foreign import read_foreign, state_dict_of

Shapes = tuple[tuple[int, int, int], ...]

STRIDES = (4, 8, 16, 32)
_SOME_THAT_FIT = "resnet50c, resnet50, convnext_tiny, tf_efficientnet_lite0, swin_tiny_patch4_window7_224, pvt_v2_b2"
# How timm's constructors spell "take images of any size" (swin, swinv2, swinv2_cr). Most networks need no option.
_ANY_SIZE: tuple[dict[str, bool], ...] = ({}, {"strict_img_size": False}, {"dynamic_img_size": True})
# ResNets that timm has under no name of their own, as (timm's name, its options): mmsegmentation's v1c, and MSRA's (of
# Caffe2 and detectron2), whose stages begin with the stride in the first 1×1 convolution.
_MSRA = "_msra"
_NOT_TIMMS: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"resnet{depth}c": (f"resnet{depth}", {"stem_type": "deep", "stem_width": 32}) for depth in (18, 34)},
    **{f"resnet{depth}{_MSRA}": (f"resnet{depth}", {}) for depth in (50, 101)},
}
# Heights and widths whose remainders at strides 4…32 differ, small and large: they stand for any size.
_PROBES: Shapes = ((3, 97, 131), (3, 255, 350), (3, 1022, 79))


class Backbone(nn.Module):
    """A timm network's feature maps at strides 4, 8, 16 and 32, for images of any size.

    Args: `name` as timm spells it; `pretrained` loads through timm's hub (needs a network); `drop_path` is the
    stochastic depth, for networks that have it. `channels` holds the widths of c2…c5; `mean` and `std` are of the input
    in 0..255, as the network was pretrained. `multiple` is 1 for a network that takes any size; others (windows of
    attention, branches that must meet) see the image padded with zeros on the right and below to this multiple, and
    their maps are cropped again.

    Raises:
        ValueError: an unknown name, a network without feature maps at these strides or bound to one image size, no
            weights to be `pretrained` with, or `drop_path` for a network that has no stochastic depth.
        ConnectionError: the pretrained weights cannot be fetched.
    """

    def __init__(self, name: str, *, in_channels: int = 3, pretrained: bool = False, drop_path: float = 0.0) -> None:
        super().__init__()
        plan = _plan(name)
        self.name = name
        self.multiple = plan.multiple
        self.channels = plan.channels
        self.body = _create(name, plan, in_channels, pretrained, drop_path)
        cfg: Any = self.body.pretrained_cfg
        self.mean, self.std = (tuple(255 * v for v in _stretch(cfg[key], in_channels)) for key in ("mean", "std"))

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """[B, C, H, W] -> c2…c5, each [B, channels[i], ~H/stride, ~W/stride].

        Exactly ceil(H/stride) where the image is padded (`multiple` > 1); otherwise as the network itself rounds.
        """
        return _maps(self.body, images, self.multiple)

    def freeze(self, level: int) -> None:
        """Train no weight that c2 (`level` 2) … c5 (5) depends on: those that a gradient reaches. 0 freezes none."""
        if not level:
            return
        weights = [w for w in self.body.parameters() if w.requires_grad]
        was_training = self.training
        self.eval()  # norm statistics stay as they are
        images = torch.zeros(1, len(self.mean), 64, 64, device=next(self.body.parameters()).device)
        total = sum(m.sum() for m in self(images)[: level - 1])
        assert isinstance(total, torch.Tensor)
        for weight, gradient in zip(weights, torch.autograd.grad(total, weights, allow_unused=True), strict=True):
            if gradient is not None:
                weight.requires_grad_(False)
        self.train(was_training)

    def load(self, path: Path) -> None:
        """Load local weights (.safetensors, or .pth read without executing code) in timm's names.

        torchvision's and mmsegmentation's ResNets and the encoders of smp are understood too. A classifier's head is
        not needed and left out. ValueError names the file and the tensors that are missing or
        of another shape.
        """
        load_backbone(self, path)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Plan:
    """How a network is built and fed so that its maps fit."""

    out_indices: tuple[int, ...]
    channels: tuple[int, ...]
    options: dict[str, bool]
    multiple: int


@functools.cache
def _plan(name: str) -> _Plan:
    """Found by trying, on shapes alone where the network allows it, so that no list of families can grow stale here."""
    _check_name(name)
    # Building draws from the global generator; a plan found earlier must not change what a seed gives.
    with torch.random.fork_rng(devices=[]):
        try:
            return _tried(name, "meta")
        except RuntimeError:  # some constructors (timm < 1.0.24) and some operators want real numbers
            pass
        try:
            return _tried(name, "cpu")
        except RuntimeError as error:
            raise ValueError(f"backbone {name!r} gives no feature maps ({error}); try {_SOME_THAT_FIT}") from error


def _tried(name: str, device: str) -> _Plan:
    with torch.device(device):
        body = _create_timm(name, features_only=True)
        out_indices, channels = _taken(name, body)
        own_size = _own_size(body)
        with torch.no_grad():
            body.eval()(torch.zeros(1, 3, own_size, own_size))  # what fails here does not fail for the size
        why = ""
        for multiple in (1, 4, 32, own_size):  # windows divide the size that a network was designed for
            for options in _ANY_SIZE:
                try:
                    body = _create_timm(name, features_only=True, out_indices=out_indices, **options)
                except TypeError:  # the network has no such option
                    continue
                misfit = _first_misfit(body, channels, multiple, _PROBES)
                if misfit is None:
                    return _Plan(out_indices=out_indices, channels=channels, options=options, multiple=multiple)
                why = why or misfit
        body = _create_timm(name, features_only=True, out_indices=out_indices)
        if _first_misfit(body, channels, own_size, ((3, own_size, own_size),)) is None:
            why = f"timm builds it for {own_size}x{own_size} and no other"
    raise _refusal(name, why)


def _create_timm(name: str, **options: Any) -> nn.Module:
    base, own = _NOT_TIMMS.get(name, (name, {}))
    body: Any = timm.create_model(base, **own, **options)
    if name.endswith(_MSRA):
        for stage in (body.layer2, body.layer3, body.layer4):
            stage[0].conv1.stride, stage[0].conv2.stride = stage[0].conv2.stride, stage[0].conv1.stride
    return body  # type: ignore[no-any-return]


def _maps(body: nn.Module, images: torch.Tensor, multiple: int) -> list[torch.Tensor]:
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


def _taken(name: str, body: nn.Module) -> tuple[tuple[int, ...], tuple[int, ...]]:
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
            maps = _maps(body.eval(), torch.zeros(1, in_channels, *padded), multiple=1)
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


def _create(name: str, plan: _Plan, in_channels: int, pretrained: bool, drop_path: float) -> nn.Module:
    if pretrained and not _has_weights(name):
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
    beyond = 2 * _own_size(body)
    strips = ((in_channels, beyond, 32), (in_channels, 32, beyond))
    if misfit := _first_misfit(body, plan.channels, plan.multiple, strips):
        raise _refusal(name, misfit)
    return body.train()


def _refusal(name: str, why: str) -> ValueError:
    return ValueError(f"backbone {name!r} does not take images of any size: {why}; some that do: {_SOME_THAT_FIT}")


def _own_size(body: nn.Module) -> int:
    """The longer side of the images that the network was designed for."""
    cfg: Any = body.pretrained_cfg
    return int(max(cfg["input_size"][1:]))


def _has_weights(name: str) -> bool:
    cfg = timm.get_pretrained_cfg(name)
    return cfg is not None and cfg.has_weights


def _stretch(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    return tuple(values[i % len(values)] for i in range(channels))


def load_backbone(backbone: Backbone, path: Path) -> None:
    """Load weights in timm's names into `backbone`; see `Backbone.load`."""
    own = backbone.body.state_dict()
    children = [name for name, _ in backbone.body.named_children()]
    # timm wraps a network whole (`model.`, `body.`) or takes it apart, which joins nested stages (`stages_0`).
    prefix = f"{children[0]}." if children in (["model"], ["body"]) else ""
    found = [
        {name: weights[key] for name in own if (key := _joined(name.removeprefix(prefix))) in weights}
        for weights in _spellings(state_dict_of(read_foreign(path)))
    ]
    used = max(found, key=len)
    missing = [n for n in own if n not in used and not n.endswith("num_batches_tracked")]
    wrong = [n for n in used if used[n].shape != own[n].shape]
    if missing or wrong:
        if missing:
            what = f"{len(missing)} of {len(own)} tensors are missing, such as {missing[0].removeprefix(prefix)}"
        else:
            what = _difference(wrong[0].removeprefix(prefix), used[wrong[0]].shape, own[wrong[0]].shape)
        raise ValueError(f"{path}: not weights of backbone {backbone.name!r} in timm's names; {what}")
    backbone.body.load_state_dict(used, strict=False)


def _joined(name: str) -> str:
    return name.replace(".", "_")


def _difference(name: str, theirs: torch.Size, ours: torch.Size) -> str:
    what = f"{name} is {tuple(theirs)} instead of {tuple(ours)}"
    if len(ours) == 4 and (theirs[0], *theirs[2:]) == (ours[0], *ours[2:]):
        what += ": the file was made for another number of input channels"
    return what


def _spellings(weights: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """The tensors by joined name: as they are, as a part of a whole network, and with mmsegmentation's deep stem."""
    part = {re.sub(r"^(backbone\.body\.|backbone\.|encoder\.model\.|encoder\.)", "", n): t for n, t in weights.items()}
    stem = {re.sub(r"^stem\.", "conv1.", re.sub(r"^stem\.7\.", "bn1.", n)): t for n, t in part.items()}
    return [{_joined(name): tensor for name, tensor in names.items()} for names in (weights, part, stem)]
