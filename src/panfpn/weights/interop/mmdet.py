"""mmdetection's Panoptic FPN (2.16 to 3.x), in. In: a checkpoint. Out: the same network under our names.

Names and settings: docs/facts.md, D, and mmdet 3.3.0. Anchors, boxes and their order are detectron2's; the semantic
branch has its things last, where here they come first.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from panfpn.config import Data, Inference
from panfpn.labels import LabelTable
from panfpn.parsing import parse
from panfpn.weights.interop.config_text import assignments, differences, is_numbers, part, pipeline_steps
from panfpn.weights.interop.described import FIRST, IMAGENET_MEAN, IMAGENET_STD, describe_model, folded, with_table
from panfpn.weights.interop.imported import Imported, fitted, imported_config, panoptic_shapes

_MODULES = {
    "head.classifier": "semantic_head.conv_logits", "rpn.conv": "rpn_head.rpn_conv",
    "rpn.objectness": "rpn_head.rpn_cls", "rpn.deltas": "rpn_head.rpn_reg",
    "box_head.fc1": "roi_head.bbox_head.shared_fcs.0", "box_head.fc2": "roi_head.bbox_head.shared_fcs.1",
    "box_head.classifier": "roi_head.bbox_head.fc_cls", "box_head.deltas": "roi_head.bbox_head.fc_reg",
    "mask_head.deconv": "roi_head.mask_head.upsample", "mask_head.classifier": "roi_head.mask_head.conv_logits",
}  # fmt: skip
# Where panfpn's network is mmdetection's for one value only.
_WANTED: dict[str, dict[str, tuple[Any, ...]]] = {
    "backbone": {
        "type": ("ResNet",), "strides": ((1, 2, 2, 2),), "dilations": ((1, 1, 1, 1),), "out_indices": ((0, 1, 2, 3),),
        "dcn": (None,), "plugins": (None,), "conv_cfg": (None,), "deep_stem": (False,), "avg_down": (False,),
    },
    "neck": {
        "type": ("FPN",), "num_outs": (5,), "add_extra_convs": (False,), "norm_cfg": (None,), "act_cfg": (None,),
        "conv_cfg": (None,), "start_level": (0,),
    },
    "rpn_head.anchor_generator": {
        "ratios": ((0.5, 1.0, 2.0),), "strides": ((4, 8, 16, 32, 64),), "center_offset": (0.0,),
    },
    "roi_head.bbox_head": {"reg_class_agnostic": (False,)},
    "roi_head.bbox_head.bbox_coder": {"target_stds": ((0.1, 0.1, 0.2, 0.2),)},
    "roi_head.bbox_roi_extractor": {"finest_scale": (56,)},
    "roi_head.bbox_roi_extractor.roi_layer": {"output_size": (7,), "sampling_ratio": (0,), "aligned": (True,)},
    "roi_head.mask_roi_extractor.roi_layer": {"output_size": (14,), "sampling_ratio": (0,), "aligned": (True,)},
    "roi_head.mask_head": {"class_agnostic": (False,)},
    "semantic_head": {"start_level": (0,), "end_level": (4,)},
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """What a checkpoint's configuration says; without one, that of mmdetection's models."""

    caffe: bool = False  # the stride in the first 1×1 convolution
    bgr: bool = False
    mean: tuple[float, ...] = IMAGENET_MEAN  # in the order of the input's channels, as is `std`
    std: tuple[float, ...] = IMAGENET_STD
    scale: tuple[int, int] = (1333, 800)
    anchor_scale: float = 8.0
    # There, boxes below 0.6 are dropped before all else; here they stay detections, and out of the panoptic map.
    inference: Inference = Inference(confidence=0.6, nms_over_classes=True)  # noqa: RUF009 - frozen


def is_mmdet(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Whether these are the tensors of a two-stage detector of mmdetection."""
    return any(name.startswith(("rpn_head.", "roi_head.")) for name in tensors)


def read_mmdet(
    tensors: Mapping[str, torch.Tensor], path: Path, labels: LabelTable | None = None, *,
    data: Mapping[str, Any] | None = None, scale: tuple[int, int] | None = None,
) -> Imported:  # fmt: skip
    """The network with state dict `tensors` out of the checkpoint `data`; arguments as in `read_detectron2`.

    Raises:
        ValueError: another network (the differences, or the missing and unexpected tensors, are listed), or classes
            that are not COCO's and no `labels`.
    """
    data = data or {}
    notes = ["the optimiser's state was left out"] if "optimizer" in data else []
    described = data.get("meta") if isinstance(data.get("meta"), dict) else {}
    assert isinstance(described, dict)
    text = described.get("config") or described.get("cfg")
    model, num_things = describe_model(tensors, mmdet_name, path, "mmdetection")
    if num_things is None:
        raise ValueError(f"{path}: a network of mmdetection without the heads of its Panoptic FPN")
    try:
        settings = _read_settings(text, notes) if isinstance(text, str) else _Settings()
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    model = replace(
        model, backbone=model.backbone + "_msra" * settings.caffe, anchor_scale=settings.anchor_scale,
        mean=settings.mean[::-1] if settings.bgr else settings.mean,
    )  # fmt: skip
    model, table = with_table(model, num_things, labels, path)
    shapes = panoptic_shapes(model, table)
    weights = fitted(tensors, {name: mmdet_name(name) for name in shapes}, shapes, path)
    weights[FIRST] = folded(weights[FIRST], settings.std, bgr=settings.bgr)
    for leaf in ("weight", "bias"):  # things are the last channel there
        weights[f"head.classifier.{leaf}"] = weights[f"head.classifier.{leaf}"].roll(1, 0)
    config = imported_config(model, Data(scale=scale or settings.scale, size_divisor=32), settings.inference, path)
    return Imported(weights=weights, config=config, table=table, format="mmdetection", notes=tuple(notes))


def mmdet_name(name: str) -> str:
    """The peer's name of one of our tensors."""
    if name.startswith("backbone."):
        return "backbone." + name.removeprefix("backbone.body.")
    if match := re.fullmatch(r"fpn\.(lateral|output)\.(\d)\.(\w+)", name):
        return f"neck.{'lateral' if match[1] == 'lateral' else 'fpn'}_convs.{match[2]}.conv.{match[3]}"
    if match := re.fullmatch(r"head\.levels\.(\d)\.(\d)\.(conv|norm)\.(\w+)", name):
        module = "conv" if match[3] == "conv" else "gn"
        return f"semantic_head.conv_upsample_layers.{match[1]}.conv.{match[2]}.{module}.{match[4]}"
    if match := re.fullmatch(r"mask_head\.convs\.(\d)\.(\w+)", name):
        return f"roi_head.mask_head.convs.{match[1]}.conv.{match[2]}"
    module, _, leaf = name.rpartition(".")
    return f"{_MODULES[module]}.{leaf}"


def _read_settings(text: str, notes: list[str]) -> _Settings:
    """The settings in a configuration text; ValueError names what the network has that panfpn's has not."""
    config, defaults = assignments(text), _Settings()
    if config is None:
        notes.append("its configuration text is not Python, so nothing in it was looked at")
        return defaults
    model = part(config, "model")
    mismatches = list(differences(model, _WANTED))
    anchors = part(model, "rpn_head", "anchor_generator").get("scales", [defaults.anchor_scale])
    if not (is_numbers(anchors) and len(anchors) == 1):
        mismatches.append(f"rpn_head.anchor_generator.scales is {anchors!r} there and one number here")
    if mismatches:
        raise ValueError(f"its network differs from panfpn's: {'; '.join(mismatches)}")
    preprocessor, steps = part(model, "data_preprocessor"), list(pipeline_steps(config))
    colors = next((s for s in (*steps, preprocessor) if is_numbers(s.get("mean")) and is_numbers(s.get("std"))), {})
    scales = [s.get("img_scale", s.get("scale")) for s in steps]
    scales = [s for s in scales if is_numbers(s) and len(s) == 2 and all(isinstance(v, int) for v in s)]
    rcnn, fusion = part(model, "test_cfg", "rcnn"), part(model, "test_cfg", "panoptic")
    nms = part(rcnn, "nms")
    inference = {
        "confidence": rcnn.get("score_thr", defaults.inference.confidence), "nms": nms.get("iou_threshold"),
        "nms_over_classes": nms.get("class_agnostic", defaults.inference.nms_over_classes),
        "detections": rcnn.get("max_per_img"), "overlap": fusion.get("mask_overlap"),
        "stuff_area": fusion.get("stuff_area_limit"),
    }  # fmt: skip
    return _Settings(
        caffe=part(model, "backbone").get("style") == "caffe",
        # Without a word, 2.x's Normalize turns BGR into RGB, and 3.x's preprocessor leaves it.
        bgr=bool(colors) and not colors.get("to_rgb", colors.get("bgr_to_rgb", colors is not preprocessor)),
        mean=tuple(map(float, colors.get("mean", defaults.mean))),
        std=tuple(map(float, colors.get("std", defaults.std))),
        scale=(max(scales[0]), min(scales[0])) if scales else defaults.scale,
        anchor_scale=float(anchors[0]),
        inference=parse(Inference, {n: value for n, value in inference.items() if value is not None}, "inference."),
    )  # fmt: skip
