"""The configuration text inside an mmsegmentation checkpoint: what it says, and such a text of ours. It is never run.

mmsegmentation stores its configuration as assignments of literals and `dict(...)` calls; only those are read.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

from panfpn.config import Inference, TrainConfig
from panfpn.models.semantic import num_groups

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
    reduce_zero_label: bool = False  # masks hold class + 1, and 0 for what is ignored
    inference: Inference = Inference()  # noqa: RUF009 - frozen
    notes: tuple[str, ...] = ()  # what could not be taken over, one sentence each


def read_settings(text: str) -> MMSegSettings:
    """The settings in a configuration text; ValueError names what the network has that panfpn's has not."""
    config = _assignments(text)
    if config is None:
        return MMSegSettings(notes=("its configuration text is not Python, so nothing in it was looked at",))
    model = _part(config, "model")
    preprocessor = _part(model, "data_preprocessor")
    if differences := list(_differences(model)):
        raise ValueError(f"its network differs from panfpn's: {'; '.join(differences)}")
    steps = list(_steps(config))
    colors = [s for s in (*steps, preprocessor) if _is_numbers(s.get("mean")) and _is_numbers(s.get("std"))]
    # Without a word, 0.x's Normalize turns BGR into RGB, and 1.x's preprocessor leaves it.
    if any(not s.get("to_rgb", s.get("bgr_to_rgb", s is not preprocessor)) for s in colors):
        raise ValueError("its network differs from panfpn's: it takes BGR images (to_rgb=False), this one RGB")
    scales = [s.get("img_scale", s.get("scale")) for s in steps]
    scales = [s for s in scales if _is_numbers(s) and len(s) == 2 and all(isinstance(v, int) for v in s)]
    stretched = _divisor(s for s in steps if s.get("type") in ("AlignResize", "ResizeToMultiple"))
    padded = _divisor([*(s for s in steps if s.get("type") == "Pad"), _part(preprocessor, "test_cfg")])
    notes = []
    # mmsegmentation's Resize keeps the ratio unless told otherwise in 0.x (img_scale), and only if told to in 1.x.
    if any(s.get("type") == "Resize" and not s.get("keep_ratio", "scale" not in s) for s in steps):
        notes.append("images are stretched to the test size there (keep_ratio=False); here they keep their ratio")
    dropout = _part(model, "decode_head").get("dropout_ratio")
    views = next((s for s in steps if s.get("type") == "MultiScaleFlipAug"), {})
    return MMSegSettings(
        mean=tuple(map(float, colors[0]["mean"])) if colors else None,
        std=tuple(map(float, colors[0]["std"])) if colors else None,
        scale=(max(scales[0]), min(scales[0])) if scales else None, size_divisor=stretched or padded or 1,
        dropout=max(0.0, dropout) if isinstance(dropout, int | float) else 0.1,
        reduce_zero_label=any(s.get("reduce_zero_label") is True for s in (*steps, *_datasets(config))),
        # early 0.x keeps test_cfg beside the model
        inference=_inference(_part(model, "test_cfg") or _part(config, "test_cfg"), views, stretch=stretched > 0),
        notes=tuple(notes),
    )  # fmt: skip


def write_settings(config: TrainConfig) -> str:
    """What mmsegmentation 1.x must be told beside the weights, as a configuration text that `read_settings` reads."""
    model, data, asked = config.model, config.data, config.inference
    assert model.mean and model.std
    colors = {"type": "SegDataPreProcessor", "mean": list(model.mean), "std": list(model.std), "bgr_to_rgb": True}
    steps: list[dict[str, Any]] = []
    if data.scale:
        steps.append({"type": "Resize", "scale": data.scale, "keep_ratio": True})
    if asked.stretch:
        steps.append({"type": "ResizeToMultiple", "size_divisor": data.size_divisor})
    elif data.size_divisor > 1:
        colors["test_cfg"] = {"size_divisor": data.size_divisor}
    slide = {"crop_size": asked.window, "stride": asked.stride} if asked.mode == "slide" else {}
    network = {
        "data_preprocessor": colors, "decode_head": {"dropout_ratio": model.dropout},
        "test_cfg": {"mode": asked.mode, **slide},
    }  # fmt: skip
    return f"model = {network!r}\ntest_pipeline = {steps!r}\n"


def _part(config: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """The mapping at a path of keys; empty where there is none."""
    for key in keys:
        config = config.get(key, {})
        if not isinstance(config, Mapping):
            return {}
    return config


def _is_numbers(value: Any) -> TypeGuard[Sequence[float]]:
    return isinstance(value, list | tuple) and len(value) > 0 and all(isinstance(v, int | float) for v in value)


def _divisor(steps: Iterable[Mapping[str, Any]]) -> int:
    """The size divisor of the first of these steps that has one, or 0."""
    return next((s["size_divisor"] for s in steps if isinstance(s.get("size_divisor"), int)), 0)


def _inference(test: Mapping[str, Any], views: Mapping[str, Any], *, stretch: bool) -> Inference:
    ratios = views.get("img_ratios")
    ratios = [ratios] if isinstance(ratios, int | float) else ratios
    ratios = tuple(map(float, ratios)) if _is_numbers(ratios) else (1.0,)
    whole = Inference(stretch=stretch, ratios=ratios, flip=bool(views.get("flip", False)))
    if test.get("mode", "whole") != "slide":
        return whole
    sizes: list[Any] = [
        (value, value) if isinstance(value := test.get(key), int) else value for key in ("crop_size", "stride")
    ]
    if not all(_is_numbers(size) and len(size) == 2 for size in sizes):
        raise ValueError(f"its test_cfg says mode='slide', but crop_size and stride are {sizes}; two sizes are wanted")
    return replace(whole, mode="slide", window=tuple(sizes[0]), stride=tuple(sizes[1]))


def _differences(model: Mapping[str, Any]) -> Iterator[str]:
    """Where the described network is not a Semantic FPN as panfpn builds it."""
    head = _part(model, "decode_head")
    groups = num_groups(head["channels"]) if isinstance(head.get("channels"), int) else 32
    wanted: dict[str, dict[str, tuple[Any, ...]]] = {
        "backbone": {
            "style": ("pytorch",), "strides": ((1, 2, 2, 2),), "dilations": ((1, 1, 1, 1),),
            "out_indices": ((0, 1, 2, 3),), "dcn": (None,), "plugins": (None,), "conv_cfg": (None,),
        },
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
    for part, settings in wanted.items():
        described = _part(model, *part.split("."))
        for key, possible in settings.items():
            value = described.get(key, possible[0])
            value = tuple(value) if isinstance(value, list) else value
            if value not in possible:
                yield f"{part}.{key} is {value!r} there and {possible[0]!r} here"


def _datasets(config: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """What is tested on, as 0.x and 1.x describe it."""
    return _part(config, "data", "test"), _part(config, "test_dataloader", "dataset")


def _steps(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Every step of the test pipeline, nested ones too (`MultiScaleFlipAug`)."""
    pipelines = (*(place.get("pipeline") for place in _datasets(config)), config.get("test_pipeline"))
    waiting = list(next((p for p in pipelines if isinstance(p, list | tuple)), ()))
    while waiting:
        step = waiting.pop(0)
        if isinstance(step, Mapping):
            yield step
            nested = step.get("transforms")
            waiting += nested if isinstance(nested, list | tuple) else []


def _assignments(text: str) -> dict[str, Any] | None:
    """Top-level names and their values, where those are literals; None if the text is not Python."""
    if len(text) > _LONGEST:
        return None
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # the parser has all of these
        return None
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = _value(node.value)
    return _read(found)


def _read(values: dict[Any, Any]) -> dict[Any, Any]:
    return {key: value for key, value in values.items() if value is not _UNREAD}


def _value(node: ast.expr) -> Any:
    """The value of a literal or `dict(...)`, without the entries that are neither; `_UNREAD` for anything else."""
    if isinstance(node, ast.Call):
        if not (isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args):
            return _UNREAD
        return _read({k.arg: _value(k.value) for k in node.keywords if k.arg})
    if isinstance(node, ast.Dict):
        keys = [_value(key) if key else _UNREAD for key in node.keys]
        return _read({k: _value(v) for k, v in zip(keys, node.values, strict=True) if isinstance(k, str | int)})
    if isinstance(node, ast.List | ast.Tuple):
        values = [_value(entry) for entry in node.elts]
        return values if isinstance(node, ast.List) else tuple(values)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError):
        return _UNREAD
