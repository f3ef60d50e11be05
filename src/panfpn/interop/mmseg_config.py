"""The configuration text inside an mmsegmentation checkpoint. In: Python source that is never run. Out: what it says.

mmsegmentation stores its configuration as assignments of literals and `dict(...)` calls; only those are read.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from panfpn.config import Inference

_LONGEST = 1 << 20  # characters of configuration that are looked at
_UNREAD = object()


@dataclass(frozen=True, kw_only=True)
class MMSegSettings:
    """What a checkpoint's configuration says about prediction; None or 1 where it does not."""

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    scale: tuple[int, int] | None = None
    size_divisor: int = 1
    dropout: float = 0.1
    inference: Inference = Inference()  # noqa: RUF009 - frozen


def read_settings(text: str) -> MMSegSettings:
    """The settings in a configuration text; ValueError names what the network has that panfpn's has not."""
    config = _assignments(text[:_LONGEST])
    model = config.get("model", {})
    if differences := list(_differences(model)):
        raise ValueError(f"its network differs from panfpn's: {'; '.join(differences)}")
    steps = list(_steps(config))
    colors = [step for step in (*steps, model.get("data_preprocessor", {})) if "mean" in step and "std" in step]
    if any(not step.get("to_rgb", step.get("bgr_to_rgb", True)) for step in colors):
        raise ValueError("its network differs from panfpn's: it takes BGR images (to_rgb=False), this one RGB")
    scales = [step.get("img_scale", step.get("scale")) for step in steps]
    scales = [s for s in scales if isinstance(s, tuple) and len(s) == 2 and all(isinstance(v, int) for v in s)]
    aligned = [step for step in steps if step.get("type") in ("AlignResize", "ResizeToMultiple")]
    divisor = next((int(step.get("size_divisor", 32)) for step in aligned), 1)
    return MMSegSettings(
        mean=tuple(map(float, colors[0]["mean"])) if colors else None,
        std=tuple(map(float, colors[0]["std"])) if colors else None,
        scale=(max(scales[0]), min(scales[0])) if scales else None, size_divisor=divisor,
        dropout=float(model.get("decode_head", {}).get("dropout_ratio", 0.1)),
        inference=_inference(model.get("test_cfg", {}), stretch=divisor > 1),
    )  # fmt: skip


def _inference(test: Any, *, stretch: bool) -> Inference:
    if not isinstance(test, Mapping) or test.get("mode", "whole") != "slide":
        return Inference(stretch=stretch)
    window, stride = (
        (value, value) if isinstance(value := test[key], int) else tuple(value) for key in ("crop_size", "stride")
    )
    return Inference(mode="slide", window=window, stride=stride, stretch=stretch)


def _differences(model: Mapping[str, Any]) -> Iterator[str]:
    """Where the described network is not a Semantic FPN as panfpn builds it."""
    wanted: dict[str, dict[str, tuple[Any, ...]]] = {
        "backbone": {
            "style": ("pytorch",), "strides": ((1, 2, 2, 2),), "dilations": ((1, 1, 1, 1),),
            "out_indices": ((0, 1, 2, 3),), "dcn": (None,), "plugins": (None,),
        },
        "neck": {"type": ("FPN",), "num_outs": (4,), "norm_cfg": (None,), "act_cfg": (None,)},
        "decode_head": {
            "type": ("FPNHead",), "align_corners": (False,), "feature_strides": ((4, 8, 16, 32),),
            "in_index": ((0, 1, 2, 3),), "out_channels": (None, model.get("decode_head", {}).get("num_classes")),
        },
    }  # fmt: skip
    for part, settings in wanted.items():
        described = model.get(part, {})
        for key, possible in settings.items():
            value = described.get(key, possible[0])
            value = tuple(value) if isinstance(value, list) else value
            if value not in possible:
                yield f"{part}.{key} is {value!r} there and {possible[0]!r} here"


def _steps(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Every step of the test pipeline, nested ones too (`MultiScaleFlipAug`)."""
    pipeline = config.get("test_pipeline") or config.get("data", {}).get("test", {}).get("pipeline", [])
    waiting = list(pipeline) if isinstance(pipeline, list | tuple) else []
    while waiting:
        step = waiting.pop(0)
        if isinstance(step, Mapping):
            yield step
            waiting += step.get("transforms", [])


def _assignments(text: str) -> dict[str, Any]:
    """Top-level names and their values, where those are literals."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return {}
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            value = _value(node.value)
            if value is not _UNREAD:
                found[node.targets[0].id] = value
    return found


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call):
        if not (isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args):
            return _UNREAD
        return {k.arg: _value(k.value) for k in node.keywords if k.arg}
    if isinstance(node, ast.Dict):
        keys = [_value(key) if key else _UNREAD for key in node.keys]
        return {k: _value(v) for k, v in zip(keys, node.values, strict=True) if isinstance(k, str | int)}
    if isinstance(node, ast.List | ast.Tuple):
        values = [_value(entry) for entry in node.elts]
        return values if isinstance(node, ast.List) else tuple(values)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError):
        return _UNREAD
