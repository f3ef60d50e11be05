"""The configuration text inside an mmsegmentation checkpoint: what it says, and such a text of ours."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from panfpn.config import Inference, TrainConfig
from panfpn.models.semantic import num_groups
from panfpn.models.timm_networks import plan_network
from panfpn.weights.interop.config_text import (
    assignments,
    differences,
    is_numbers,
    part,
    pipeline_steps,
    tested_datasets,
)

_XCIT = "XCiT"


@dataclass(frozen=True, kw_only=True)
class MMSegSettings:
    """What a checkpoint's configuration says about prediction; None or 1 where it does not."""

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    scale: tuple[int, int] | None = None
    size_divisor: int = 1
    dropout: float = 0.1
    blocks: tuple[int, ...] = ()  # of XCiT, whose maps are taken
    reduce_zero_label: bool = False  # masks hold class + 1, and 0 for what is ignored
    inference: Inference = Inference()  # noqa: RUF009 - frozen
    notes: tuple[str, ...] = ()  # what could not be taken over, one sentence each


def read_settings(text: str) -> MMSegSettings:
    """The settings in a configuration text; ValueError names what the network has that panfpn's has not."""
    config = assignments(text)
    if config is None:
        return MMSegSettings(notes=("its configuration text is not Python, so nothing in it was looked at",))
    model = part(config, "model")
    preprocessor = part(model, "data_preprocessor")
    if mismatches := list(_differences(model)):
        raise ValueError(f"its network differs from panfpn's: {'; '.join(mismatches)}")
    steps = list(pipeline_steps(config))
    colors = [s for s in (*steps, preprocessor) if is_numbers(s.get("mean")) and is_numbers(s.get("std"))]
    # Without a word, 0.x's Normalize turns BGR into RGB, and 1.x's preprocessor leaves it.
    if any(not s.get("to_rgb", s.get("bgr_to_rgb", s is not preprocessor)) for s in colors):
        raise ValueError("its network differs from panfpn's: it takes BGR images (to_rgb=False), this one RGB")
    scales = [s.get("img_scale", s.get("scale")) for s in steps]
    scales = [s for s in scales if is_numbers(s) and len(s) == 2 and all(isinstance(v, int) for v in s)]
    stretched = _divisor(s for s in steps if s.get("type") in ("AlignResize", "ResizeToMultiple"))
    padded = _divisor([*(s for s in steps if s.get("type") == "Pad"), part(preprocessor, "test_cfg")])
    notes = []
    # mmsegmentation's Resize keeps the ratio unless told otherwise in 0.x (img_scale), and only if told to in 1.x.
    if any(s.get("type") == "Resize" and not s.get("keep_ratio", "scale" not in s) for s in steps):
        notes.append("images are stretched to the test size there (keep_ratio=False); here they keep their ratio")
    dropout = part(model, "decode_head").get("dropout_ratio")
    backbone = part(model, "backbone")
    blocks = backbone.get("out_indices") if backbone.get("type") == _XCIT else ()
    views = next((s for s in steps if s.get("type") == "MultiScaleFlipAug"), {})
    return MMSegSettings(
        mean=tuple(map(float, colors[0]["mean"])) if colors else None,
        std=tuple(map(float, colors[0]["std"])) if colors else None,
        scale=(max(scales[0]), min(scales[0])) if scales else None, size_divisor=stretched or padded or 1,
        dropout=max(0.0, dropout) if isinstance(dropout, int | float) else 0.1,
        blocks=tuple(map(int, blocks)) if is_numbers(blocks) else (),
        reduce_zero_label=any(s.get("reduce_zero_label") is True for s in (*steps, *tested_datasets(config))),
        # early 0.x keeps test_cfg beside the model
        inference=_inference(part(model, "test_cfg") or part(config, "test_cfg"), views, stretch=stretched > 0),
        notes=tuple(notes),
    )  # fmt: skip


def write_settings(config: TrainConfig) -> str:
    """What mmsegmentation 1.x must be told beside the weights, as a configuration text that `read_settings` reads."""
    model, data, inference = config.model, config.data, config.inference
    assert model.mean and model.std
    colors = {"type": "SegDataPreProcessor", "mean": list(model.mean), "std": list(model.std), "bgr_to_rgb": True}
    steps: list[dict[str, Any]] = []
    if data.scale:
        steps.append({"type": "Resize", "scale": data.scale, "keep_ratio": True})
    if inference.stretch:
        steps.append({"type": "ResizeToMultiple", "size_divisor": data.size_divisor})
    elif data.size_divisor > 1:
        colors["test_cfg"] = {"size_divisor": data.size_divisor}
    slide = {"crop_size": inference.window, "stride": inference.stride} if inference.mode == "slide" else {}
    network = {
        "data_preprocessor": colors, "decode_head": {"dropout_ratio": model.dropout},
        "test_cfg": {"mode": inference.mode, **slide},
    }  # fmt: skip
    if model.backbone.startswith("xcit"):
        network["backbone"] = {"type": _XCIT, "out_indices": plan_network(model.backbone, model.blocks).out_indices}
    return f"model = {network!r}\ntest_pipeline = {steps!r}\n"


def _divisor(steps: Iterable[Mapping[str, Any]]) -> int:
    """The size divisor of the first of these steps that has one, or 0."""
    return next((s["size_divisor"] for s in steps if isinstance(s.get("size_divisor"), int)), 0)


def _inference(test: Mapping[str, Any], views: Mapping[str, Any], *, stretch: bool) -> Inference:
    ratios = views.get("img_ratios")
    ratios = [ratios] if isinstance(ratios, int | float) else ratios
    ratios = tuple(map(float, ratios)) if is_numbers(ratios) else (1.0,)
    whole = Inference(stretch=stretch, ratios=ratios, flip=bool(views.get("flip", False)))
    if test.get("mode", "whole") != "slide":
        return whole
    sizes: list[Any] = [
        (value, value) if isinstance(value := test.get(key), int) else value for key in ("crop_size", "stride")
    ]
    if not all(is_numbers(size) and len(size) == 2 for size in sizes):
        raise ValueError(f"its test_cfg says mode='slide', but crop_size and stride are {sizes}; two sizes are wanted")
    return replace(whole, mode="slide", window=tuple(sizes[0]), stride=tuple(sizes[1]))


def _differences(model: Mapping[str, Any]) -> Iterator[str]:
    """Where the described network is not a Semantic FPN as panfpn builds it."""
    head = part(model, "decode_head")
    groups = num_groups(head["channels"]) if isinstance(head.get("channels"), int) else 32
    resnet: dict[str, tuple[Any, ...]] = {
        "style": ("pytorch",), "strides": ((1, 2, 2, 2),), "dilations": ((1, 1, 1, 1),),
        "out_indices": ((0, 1, 2, 3),), "dcn": (None,), "plugins": (None,), "conv_cfg": (None,),
    }  # fmt: skip
    xcit: dict[str, tuple[Any, ...]] = {"mlp_ratio": (4,), "qkv_bias": (True,), "use_pos": (True,)}
    wanted: dict[str, dict[str, tuple[Any, ...]]] = {
        "backbone": xcit if part(model, "backbone").get("type") == _XCIT else resnet,
        "backbone.norm_cfg": {"eps": (1e-5,)},
        "neck": {
            "type": ("FPN",), "num_outs": (4,), "norm_cfg": (None,), "act_cfg": (None,), "conv_cfg": (None,),
            "start_level": (0,), "end_level": (-1, 3, 4),
        },
        "neck.upsample_cfg": {"mode": ("nearest",), "scale_factor": (None,)},
        "decode_head": {
            "type": ("FPNHead",), "align_corners": (False,), "feature_strides": ((4, 8, 16, 32),),
            "in_index": ((0, 1, 2, 3),), "out_channels": (None, head.get("num_classes")), "conv_cfg": (None,),
        },
        "decode_head.norm_cfg": {"eps": (1e-5,), "num_groups": (groups,)},
        "decode_head.act_cfg": {"type": ("ReLU",)},
    }  # fmt: skip
    return differences(model, wanted)
