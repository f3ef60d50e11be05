"""The backbones of mmsegmentation's checkpoints. In: tensors in its names. Out: timm's network, and the names in both.

ResNets are mmsegmentation's own; XCiT is of its authors' repository (facebookresearch/xcit, semantic_segmentation),
which keeps Feature2Pyramid in the backbone.
"""

import re
from collections.abc import Mapping

import torch

_RESNETS: dict[tuple[int, ...], int] = {
    (2, 2, 2, 2, False): 18, (3, 4, 6, 3, False): 34, (3, 4, 6, 3, True): 50, (3, 4, 23, 3, True): 101,
    (3, 8, 36, 3, True): 152,
}  # fmt: skip
_XCITS = {128: "nano", 192: "tiny", 384: "small", 512: "medium", 768: "large"}  # by their width
_XCIT_BLOCKS = {12: (3, 5, 7, 11), 24: (7, 11, 15, 23)}  # whose maps are taken, by their number
_PYRAMID = "fpn.levels.steps."

Network = tuple[str, tuple[int, ...]]  # timm's name, and the blocks whose maps are taken


def read_backbone(tensors: Mapping[str, torch.Tensor]) -> Network | None:
    """The network that these tensors are of; None if it is none of those that are known.

    ValueError for one that is nearly a ResNet.
    """
    return _read_xcit(tensors) if "backbone.pos_embeder.token_projection.weight" in tensors else _read_resnet(tensors)


def blocks_of_resnet(tensors: Mapping[str, torch.Tensor]) -> list[int]:
    """How many blocks each stage of a ResNet has."""
    return [_count(rf"backbone\.layer{stage}\.(\d+)\.", tensors) for stage in (1, 2, 3, 4)]


def is_known(name: str) -> bool:
    """Whether `peers_name` holds for timm's network of this name."""
    return re.fullmatch(r"resnet(18|34|50|101|152)[cd]?|xcit_[a-z]+_(12|24)_p(8|16)_\d+", name) is not None


def peers_name(name: str, backbone: str) -> str:
    """The peer's name of a tensor of ours that its backbone holds."""
    if name.startswith(_PYRAMID):
        level, _, leaf = name.removeprefix(_PYRAMID).partition(".")
        return f"backbone.fpn{int(level) + 1}.{leaf}"
    rest = name.removeprefix("backbone.body.")
    if backbone.startswith("xcit"):
        rest = re.sub(r"^pos_embed\.", "pos_embeder.", rest.removeprefix("model."))
    elif backbone[-1] in "cd":
        rest = re.sub(r"^bn1\.", "stem.7.", re.sub(r"^conv1\.", "stem.", rest))
    return f"backbone.{rest}"


def in_backbone(name: str) -> bool:
    """Whether the peer keeps a tensor of ours in its backbone."""
    return name.startswith(("backbone.", _PYRAMID))


def _count(pattern: str, tensors: Mapping[str, torch.Tensor]) -> int:
    return len({m[1] for name in tensors if (m := re.match(pattern, name))})


def _read_resnet(tensors: Mapping[str, torch.Tensor]) -> Network | None:
    bottleneck = "backbone.layer1.0.conv3.weight" in tensors
    depth = _RESNETS.get((*blocks_of_resnet(tensors), bottleneck))
    deep = "backbone.stem.0.weight" in tensors
    shortcut = tensors.get("backbone.layer2.0.downsample.1.weight")
    averaged = shortcut is not None and shortcut.ndim == 4
    if depth is None:
        return None
    if averaged and not deep:
        raise ValueError(
            "its network differs from panfpn's: average pooling in the shortcuts (avg_down) without deep stem"
        )
    return f"resnet{depth}{'d' if averaged else 'c' if deep else ''}", ()


def _read_xcit(tensors: Mapping[str, torch.Tensor]) -> Network | None:
    size = _XCITS.get(len(tensors["backbone.pos_embeder.token_projection.weight"]))
    depth = _count(r"backbone\.blocks\.(\d+)\.", tensors)
    halvings = _count(r"backbone\.patch_embed\.proj\.(\d+)\.0\.", tensors)
    if size is None or depth not in _XCIT_BLOCKS or halvings not in (3, 4):
        return None
    return f"xcit_{size}_{depth}_p{2**halvings}_224", _XCIT_BLOCKS[depth]
