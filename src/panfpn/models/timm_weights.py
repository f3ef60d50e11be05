"""What timm says of its pretrained weights. In: timm's name. Out: whether there are any, which, under which licence."""

from typing import Any

import timm


def has_weights(name: str) -> bool:
    """Whether timm knows pretrained weights of that name."""
    cfg = _config(name)
    return cfg is not None and cfg.has_weights


def pretrained_weights(name: str) -> tuple[str, str]:
    """Which weights timm has under a name, and their licence; empty where there are none, or it says none."""
    cfg = _config(name)
    if cfg is None or not cfg.has_weights:
        return "", ""
    return f"timm/{cfg.architecture}.{cfg.tag}" if cfg.tag else f"timm/{cfg.architecture}", cfg.license or ""


def _config(name: str) -> Any:
    """None for a name or a tag that timm does not know."""
    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError:
        return None
