"""What the tensors of a network tell of it, whatever they are called. In: tensors, a renaming. Out: `Model`, table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import count, takewhile
from pathlib import Path
from typing import Literal

import torch

from panfpn.config import Model
from panfpn.labels import LabelTable

IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
FIRST = "backbone.body.conv1.weight"
_DEPTHS = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101}
_BACKBONE_AND_HEAD = (
    "backbone.body.layer1.0.conv3.weight", "fpn.output.0.weight", "head.levels.0.0.conv.weight",
    "head.classifier.weight",
)  # fmt: skip
_INSTANCES = ("box_head.fc1.weight", "box_head.classifier.weight", "mask_head.convs.0.weight")

Rename = Callable[[str], str]


def describe_model(
    tensors: Mapping[str, torch.Tensor], name: Rename, path: Path, library: str
) -> tuple[Model, int | None]:
    """The network that these tensors are of, given the peer's name of each of ours, and its classes of things.

    `num_classes` is the number of its semantic channels; `with_table` makes it that of the classes. The number of
    classes of things is None for a Semantic FPN, which tells none apart.

    Raises:
        ValueError: tensors that are of neither a Panoptic FPN nor a Semantic FPN on ResNet-50 or 101.
    """
    instances = [ours for ours in _INSTANCES if name(ours) in tensors]
    wanted = (*_BACKBONE_AND_HEAD, *(_INSTANCES if instances else ()))
    missing = [theirs for ours in wanted if (theirs := name(ours)) not in tensors]
    blocks = tuple(
        sum(1 for _ in takewhile(lambda i: name(f"backbone.body.layer{k}.{i}.conv1.weight") in tensors, count()))  # noqa: B023
        for k in (1, 2, 3, 4)
    )
    if missing or blocks not in _DEPTHS:
        why = f"it has no {', '.join(missing)}" if missing else f"blocks per stage {list(blocks)}"
        raise ValueError(
            f"{path}: a network of {library}, but not its Panoptic FPN or Semantic FPN on ResNet-50 or 101 ({why})"
        )
    rows = {ours: tensors[name(ours)].shape[0] for ours in wanted}
    model = Model(
        backbone=f"resnet{_DEPTHS[blocks]}", num_classes=rows["head.classifier.weight"],
        fpn_channels=rows["fpn.output.0.weight"], head_channels=rows["head.levels.0.0.conv.weight"],
        norm="batch" if name("head.levels.0.0.norm.running_mean") in tensors else "group", dropout=0.0,
        mean=IMAGENET_MEAN, std=IMAGENET_STD,
    )  # fmt: skip
    if not instances:
        return model, None
    model = replace(
        model, architecture="PanopticFPN", box_channels=rows["box_head.fc1.weight"],
        mask_channels=rows["mask_head.convs.0.weight"],
    )  # fmt: skip
    return model, rows["box_head.classifier.weight"] - 1  # the last is the background


def with_table(model: Model, num_things: int, labels: LabelTable | None, path: Path) -> tuple[Model, LabelTable]:
    """A Panoptic FPN and its classes: `labels`, or COCO's where the numbers are COCO's.

    Raises:
        ValueError: other numbers of things or stuff than the table's, or no table for numbers that are not COCO's.
    """
    assert model.num_classes is not None
    counts = f"{path}: has {num_things} classes of things and {model.num_classes} semantic channels"
    if labels is None:
        if (num_things, model.num_classes) != (80, 54):
            raise ValueError(f"{counts}; say what they are: --labels cityscapes or a labels.yaml, with things and "
                             "stuff each in the network's order")  # fmt: skip
        labels = LabelTable.named("coco_panoptic")
    things = sum(c.thing for c in labels.classes)
    stuff = labels.num_classes - things
    if num_things != things or model.num_classes not in (stuff + 1, labels.num_classes):
        raise ValueError(f"{counts}, but label table {labels.name!r} has {things} things and {stuff} stuff classes")
    semantic_things: Literal["other", "all"] = "other" if model.num_classes == stuff + 1 else "all"
    return replace(model, num_classes=labels.num_classes, semantic_things=semantic_things), labels


def folded(weight: torch.Tensor, std: Sequence[float], *, bgr: bool) -> torch.Tensor:
    """A first convolution [O, 3, 7, 7] on (x - mean) / `std`, as one on RGB and ImageNet's standard deviation.

    The same convolution as far as float32 goes: each weight is multiplied once, and rounded once.
    """
    channels = weight.double() / torch.tensor(std, dtype=torch.float64).view(3, 1, 1)
    channels = channels.flip(1) if bgr else channels
    return (channels * torch.tensor(IMAGENET_STD, dtype=torch.float64).view(3, 1, 1)).to(weight.dtype)
