"""detectron2's configuration: what it says beside the weights, and such a text of ours. In and out: YAML.

Only plain YAML is read, and nothing of it is run. What it leaves out has the value of detectron2's Panoptic FPN
(docs/facts.md, C2).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from panfpn.config import Inference, TrainConfig
from panfpn.parsing import parse
from panfpn.weights.interop.described import IMAGENET_MEAN
from panfpn.yaml_text import parse_yaml

_LONGEST = 1 << 20  # characters of configuration that are looked at
_ANCHORS = (32, 64, 128, 256, 512)
# Where panfpn's network is detectron2's for one value only.
_WANTED: dict[str, Any] = {
    "MODEL.RESNETS.NUM_GROUPS": 1, "MODEL.RESNETS.WIDTH_PER_GROUP": 64, "MODEL.RESNETS.RES5_DILATION": 1,
    "MODEL.FPN.NORM": "", "MODEL.FPN.FUSE_TYPE": "sum", "MODEL.SEM_SEG_HEAD.COMMON_STRIDE": 4,
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[0.5, 1.0, 2.0]], "MODEL.ANCHOR_GENERATOR.OFFSET": 0.0,
    "MODEL.RPN.NMS_THRESH": 0.7, "MODEL.RPN.PRE_NMS_TOPK_TEST": 1000, "MODEL.RPN.POST_NMS_TOPK_TEST": 1000,
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlignV2", "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 0, "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": False,
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": [10.0, 10.0, 5.0, 5.0], "MODEL.ROI_MASK_HEAD.POOLER_TYPE": "ROIAlignV2",
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 14, "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": 0,
    "MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK": False,
}  # fmt: skip
_INFERENCE = {
    "box_score": "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "nms": "MODEL.ROI_HEADS.NMS_THRESH_TEST",
    "detections": "TEST.DETECTIONS_PER_IMAGE",
    "confidence": "MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH",
    "overlap": "MODEL.PANOPTIC_FPN.COMBINE.OVERLAP_THRESH", "stuff_area": "MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Detectron2Settings:
    """What a configuration says about the network and prediction."""

    stride_in_1x1: bool = True
    bgr: bool = True
    mean: tuple[float, ...] = IMAGENET_MEAN[::-1]  # in the order of the input's channels, as is `std`
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    scale: tuple[int, int] = (1333, 800)
    anchor_scale: float = 8.0
    inference: Inference = Inference()  # noqa: RUF009 - frozen


def read_settings(text: str) -> Detectron2Settings:
    """The settings in a configuration text; ValueError names what the network has that panfpn's has not."""
    try:
        config = parse_yaml(text) if len(text) <= _LONGEST else None
    except ValueError as error:
        raise ValueError(f"its configuration {error}") from error
    if not isinstance(config, Mapping):
        raise ValueError("its configuration is not a mapping of detectron2's sections (MODEL, INPUT, TEST)")
    differences = [
        f"{key} is {value!r} there and {wanted!r} here"
        for key, wanted in _WANTED.items() if (value := _plain(_at(config, key, wanted))) != wanted
    ]  # fmt: skip
    sizes = _plain(_at(config, "MODEL.ANCHOR_GENERATOR.SIZES", [[size] for size in _ANCHORS]))
    try:
        anchor_scale = sizes[0][0] / 4
        if sizes != [[anchor_scale * stride] for stride in (4, 8, 16, 32, 64)]:
            raise ValueError
    except (IndexError, TypeError, ValueError):
        differences.append(f"MODEL.ANCHOR_GENERATOR.SIZES is {sizes!r} there; here each level has twice the last's")
    if differences:
        raise ValueError(f"its network differs from panfpn's: {'; '.join(differences)}")
    bgr = _at(config, "INPUT.FORMAT", "BGR") != "RGB"
    defaults = Detectron2Settings()
    inference = {name: value for name, key in _INFERENCE.items() if (value := _at(config, key, None)) is not None}
    return Detectron2Settings(
        stride_in_1x1=bool(_at(config, "MODEL.RESNETS.STRIDE_IN_1X1", True)), bgr=bgr,
        mean=_three(config, "MODEL.PIXEL_MEAN", defaults.mean), std=_three(config, "MODEL.PIXEL_STD", defaults.std),
        scale=(_side(config, "INPUT.MAX_SIZE_TEST", 1333), _side(config, "INPUT.MIN_SIZE_TEST", 800)),
        anchor_scale=anchor_scale,
        inference=parse(Inference, inference, "inference."),
    )  # fmt: skip


def write_settings(config: TrainConfig, num_things: int, num_channels: int, *, depth: int, stride_in_1x1: bool) -> str:
    """What detectron2 must be told beside the weights, as YAML that it and `read_settings` read."""
    import yaml  # noqa: PLC0415 - only where text leaves

    model, inference = config.model, config.inference
    assert model.mean
    sections: dict[str, Any] = {
        "VERSION": 2,
        "MODEL": {
            "META_ARCHITECTURE": "PanopticFPN", "MASK_ON": True,
            "PIXEL_MEAN": list(model.mean[::-1]), "PIXEL_STD": [1.0, 1.0, 1.0],
            "BACKBONE": {"NAME": "build_resnet_fpn_backbone"},
            "RESNETS": {"DEPTH": depth, "STRIDE_IN_1X1": stride_in_1x1, "NORM": "FrozenBN",
                        "OUT_FEATURES": ["res2", "res3", "res4", "res5"]},
            "FPN": {"IN_FEATURES": ["res2", "res3", "res4", "res5"], "OUT_CHANNELS": model.fpn_channels},
            "ANCHOR_GENERATOR": {"SIZES": [[int(s) if (s := model.anchor_scale * k).is_integer() else s]
                                           for k in (4, 8, 16, 32, 64)],
                                 "ASPECT_RATIOS": [[0.5, 1.0, 2.0]]},
            "RPN": {"IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"], "PRE_NMS_TOPK_TEST": 1000,
                    "POST_NMS_TOPK_TEST": 1000},
            "ROI_HEADS": {"NAME": "StandardROIHeads", "IN_FEATURES": ["p2", "p3", "p4", "p5"],
                          "NUM_CLASSES": num_things, "SCORE_THRESH_TEST": inference.box_score,
                          "NMS_THRESH_TEST": inference.nms},
            "ROI_BOX_HEAD": {"NAME": "FastRCNNConvFCHead", "NUM_FC": 2, "FC_DIM": model.box_channels,
                             "POOLER_RESOLUTION": 7},
            "ROI_MASK_HEAD": {"NAME": "MaskRCNNConvUpsampleHead", "NUM_CONV": 4, "CONV_DIM": model.mask_channels,
                              "POOLER_RESOLUTION": 14},
            "SEM_SEG_HEAD": {"NUM_CLASSES": num_channels, "CONVS_DIM": model.head_channels,
                             "NORM": "GN" if model.norm == "group" else "BN"},
            "PANOPTIC_FPN": {"COMBINE": {"ENABLED": True, "OVERLAP_THRESH": inference.overlap,
                                         "STUFF_AREA_LIMIT": inference.stuff_area,
                                         "INSTANCES_CONFIDENCE_THRESH": inference.confidence}},
        },
        "INPUT": {"FORMAT": "BGR"},
        "TEST": {"DETECTIONS_PER_IMAGE": inference.detections},
    }  # fmt: skip
    if config.data.scale:
        longer, shorter = config.data.scale
        sections["INPUT"] |= {"MIN_SIZE_TEST": shorter, "MAX_SIZE_TEST": longer}
    return str(yaml.safe_dump(sections, sort_keys=False))


def _at(config: Any, key: str, default: Any) -> Any:
    """The value at a dotted key, or `default`; ValueError for a section that is none."""
    for part in key.split("."):
        if not isinstance(config, Mapping):
            raise ValueError(f"{key} cannot be read: its section is {config!r}")
        if part not in config:
            return default
        config = config[part]
    return config


def _plain(value: Any) -> Any:
    """Tuples as lists, whichever way a configuration was dumped."""
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def _side(config: Any, key: str, default: int) -> int:
    value = _at(config, key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise ValueError(f"{key} is {value!r}; it must be a number of pixels")
    return value


def _three(config: Any, key: str, default: tuple[float, ...]) -> tuple[float, ...]:
    value = _at(config, key, default)
    three = isinstance(value, list | tuple) and len(value) == 3 and all(isinstance(v, int | float) for v in value)
    if not (three and all(0 < v < math.inf for v in value)):
        raise ValueError(f"its {key} is {value!r}; three numbers above 0 are wanted")
    return tuple(map(float, value))
