"""detectron2's Panoptic FPN and Semantic FPN, in and out. In: a checkpoint. Out: the same network under our names.

Names, shapes and containers: docs/facts.md, C5, C6. Widths, depth and classes are read from the tensors; what else
matters (colours, strides, thresholds) from detectron2's configuration, where there is one: in a file of ours, or beside
FILE.pkl as FILE.yaml.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from panfpn.config import Data, Inference, Model, TrainConfig
from panfpn.labels import LabelClass, LabelTable
from panfpn.models.semantic import num_groups
from panfpn.weights.foreign import write_foreign
from panfpn.weights.interop.described import FIRST, describe_model, folded, with_table
from panfpn.weights.interop.detectron2_config import Detectron2Settings, read_settings, write_settings
from panfpn.weights.interop.imported import (
    Imported,
    fitted,
    imported_config,
    panoptic_shapes,
    semantic_shapes,
    views_left_out,
)

_MODULES = {
    "head.classifier": "sem_seg_head.predictor",
    **{f"rpn.{ours}": f"proposal_generator.rpn_head.{theirs}"
       for ours, theirs in (("conv", "conv"), ("objectness", "objectness_logits"), ("deltas", "anchor_deltas"))},
    **{f"box_head.fc{k}": f"roi_heads.box_head.fc{k}" for k in (1, 2)},
    "box_head.classifier": "roi_heads.box_predictor.cls_score", "box_head.deltas": "roi_heads.box_predictor.bbox_pred",
    "mask_head.deconv": "roi_heads.mask_head.deconv", "mask_head.classifier": "roi_heads.mask_head.predictor",
}  # fmt: skip
_KNOWN_AND_HARMLESS = re.compile(r"pixel_(mean|std)|proposal_generator\.anchor_generator\.cell_anchors\.\d")

Tensors = dict[str, torch.Tensor]


def is_detectron2(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Whether these are the tensors of a detectron2 network on a feature pyramid."""
    return any(name.startswith("backbone.bottom_up.") for name in tensors)


def read_detectron2(
    tensors: Mapping[str, torch.Tensor], path: Path, labels: LabelTable | None = None, *,
    data: Mapping[str, Any] | None = None, scale: tuple[int, int] | None = None,
) -> Imported:  # fmt: skip
    """The network with state dict `tensors` out of the checkpoint `data`; `path` is for errors, and for FILE.yaml.

    `labels` and `scale` (longer, shorter side of test images) win over what the file says. Images in BGR, and any
    standard deviation but ImageNet's, are folded into the first convolution.

    Raises:
        ValueError: another network (the differences, or the missing and unexpected tensors, are listed), or classes
            that are not COCO's and no `labels`.
    """
    notes: list[str] = []
    tensors = {name: t for name, t in tensors.items() if not _KNOWN_AND_HARMLESS.fullmatch(name)}
    model, num_things = describe_model(tensors, detectron2_name, path, "detectron2")
    settings = _settings(data or {}, path, notes)
    colors = settings.mean[::-1] if settings.bgr else settings.mean
    model = replace(model, backbone=model.backbone + "_msra" * settings.stride_in_1x1, mean=colors)
    if labels is None and data and isinstance(data.get("labels"), dict):
        labels = LabelTable.from_dict(data["labels"], f"{path}: labels")
    if num_things is not None:
        model, table = with_table(replace(model, anchor_scale=settings.anchor_scale), num_things, labels, path)
        shapes = panoptic_shapes(model, table)
    else:
        table = labels or _stuff_table(model, path)
        settings = replace(settings, inference=Inference())  # the rest is about instances
        shapes = semantic_shapes(model)
    if not any(name.startswith("backbone.bottom_up.") and name.endswith("running_var") for name in tensors):
        notes.append("the backbone's norms have no statistics (an old file); 0 and 1 were taken, as detectron2 does")
        tensors |= _statistics(tensors)
    weights = fitted(tensors, {name: detectron2_name(name) for name in shapes}, shapes, path)
    weights[FIRST] = folded(weights[FIRST], settings.std, bgr=settings.bgr)
    config = imported_config(model, Data(scale=scale or settings.scale, size_divisor=32), settings.inference, path)
    return Imported(weights=weights, config=config, table=table, format="detectron2", notes=tuple(notes))


def _settings(data: Mapping[str, Any], path: Path, notes: list[str]) -> Detectron2Settings:
    """What the configuration says that lies in the file or beside it, or what detectron2's models have."""
    text, beside = data.get("config"), path.with_suffix(".yaml")
    try:
        if isinstance(text, str):
            return read_settings(text)
        if beside.is_file():
            notes.append(f"{beside.name} was read as detectron2's configuration of the network")
            return read_settings(beside.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{beside if text is None else path}: {error}") from error
    notes.append(
        "the file does not say it, so the network was taken for one on MSRA's ResNet (STRIDE_IN_1X1 True, BGR, "
        f"PIXEL_STD 1), as detectron2's models are; for another, put its configuration beside it as {beside.name}"
    )
    return Detectron2Settings()


def _statistics(tensors: Tensors) -> Tensors:
    """What FrozenBN of before version 2 did not keep."""
    norms = {
        n.removesuffix("weight"): t for n, t in tensors.items() if re.match(r"backbone\.bottom_up.*norm\.weight$", n)
    }
    means = {f"{norm}running_mean": torch.zeros_like(t) for norm, t in norms.items()}
    return means | {f"{norm}running_var": torch.ones_like(t) for norm, t in norms.items()}


def _stuff_table(model: Model, path: Path) -> LabelTable:
    """COCO's things as one class, then its stuff: what detectron2's Semantic FPN learns."""
    if model.num_classes != 54:
        raise ValueError(f"{path}: names no classes; say what its {model.num_classes} classes are: "
                         "panfpn convert FILE --labels cityscapes, ade20k or a labels.yaml")  # fmt: skip
    coco = LabelTable.named("coco_panoptic")
    things = LabelClass(
        name="things", color=(255, 255, 255), values=tuple(v for c in coco.classes if c.thing for v in c.values)
    )
    return replace(coco, name="coco_stuff", classes=(things, *(c for c in coco.classes if not c.thing)))


def detectron2_name(name: str) -> str:
    """The peer's name of one of our tensors."""
    part, _, rest = name.partition(".")
    if part == "backbone":
        rest = re.sub(r"^(conv1|bn1)\.", r"stem.\1.", rest.removeprefix("body."))
        rest = re.sub(r"^layer(\d)", lambda match: f"res{int(match[1]) + 1}", rest)
        rest = rest.replace("downsample.0.", "shortcut.").replace("downsample.1.", "shortcut.norm.")
        return "backbone.bottom_up." + re.sub(r"\bbn(\d)", r"conv\1.norm", rest)
    if part == "fpn":
        side, level, leaf = rest.split(".")
        return f"backbone.fpn_{side}{int(level) + 2}.{leaf}"
    if match := re.fullmatch(r"head\.levels\.(\d)\.(\d)\.(?:conv|(norm))\.(\w+)", name):
        level, unit, norm, leaf = match.groups()  # each of the peer's units is followed by its upsampling
        return f"sem_seg_head.p{int(level) + 2}.{2 * int(unit)}.{'norm.' if norm else ''}{leaf}"
    if match := re.fullmatch(r"mask_head\.convs\.(\d)\.(\w+)", name):
        return f"roi_heads.mask_head.mask_fcn{int(match[1]) + 1}.{match[2]}"
    module, _, leaf = name.rpartition(".")
    return f"{_MODULES[module]}.{leaf}"


def write_detectron2(
    path: Path, weights: Mapping[str, torch.Tensor], config: TrainConfig, table: LabelTable
) -> tuple[str, ...]:
    """Write a checkpoint (`model`) that detectron2 loads; the network takes BGR with PIXEL_STD 1 there.

    What its configuration must say stands in `config`, as YAML; with it, and `labels`, nothing is lost on the way back
    but what is returned: what detectron2 cannot do, a sentence each.

    Raises:
        ValueError: another network or backbone than detectron2's, or a semantic branch with a class for each thing.
    """
    model = config.model
    resnet = re.fullmatch(r"resnet(50|101)(_msra)?", model.backbone.partition(".")[0])
    if resnet is None or model.architecture != "PanopticFPN":
        raise ValueError(
            f"{path}: detectron2 has no {model.architecture} on {model.backbone!r} under names that panfpn knows; a "
            "PanopticFPN on resnet50, resnet101, resnet50_msra or resnet101_msra can be written"
        )
    if model.semantic_things == "all":
        raise ValueError(f"{path}: the semantic branch of detectron2's Panoptic FPN has one class for all things; this "
                         "one has a class for each (model.semantic_things all)")  # fmt: skip
    if num_groups(model.head_channels) != 32 and model.norm == "group":
        raise ValueError(
            f"{path}: detectron2's group norm has 32 groups, which do not divide the {model.head_channels} channels of "
            "this semantic head (model.head_channels)"
        )
    if model.in_channels != 3:
        raise ValueError(f"{path}: detectron2's images have 3 channels, not {model.in_channels} (model.in_channels)")
    assert model.std is not None
    things = sum(c.thing for c in table.classes)
    text = write_settings(
        config, things, table.num_classes - things + 1, depth=int(resnet[1]), stride_in_1x1=bool(resnet[2])
    )
    state = {}
    for name in panoptic_shapes(replace(model, backbone=resnet[0]), table):
        frozen = name.startswith("backbone.") and name.endswith("num_batches_tracked")  # its FrozenBN keeps none
        tensor = weights[name].float() if weights[name].is_floating_point() else weights[name]
        if name == FIRST:
            tensor = (tensor.double() / torch.tensor(model.std).double().view(3, 1, 1)).flip(1).float()
        if not frozen:
            state[detectron2_name(name)] = tensor.contiguous()
    write_foreign(path, {"model": state, "__author__": "panfpn", "config": text, "labels": table.to_dict()})
    notes = views_left_out(config.inference)
    if config.inference.nms_over_classes:
        notes += (
            "detectron2 drops overlapping boxes within each class only (inference.nms_over_classes was left out)",
        )
    return notes
