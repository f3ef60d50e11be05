"""What weights a run started from. In: its settings, and what it released. Out: words for header, card and report."""

from pathlib import Path

from panfpn.config import Model
from panfpn.models.timm_weights import pretrained_weights
from panfpn.weights import peek

_UNKNOWN = "not known"
_KEYS = ("starts_from", "starts_from_license")


def lineage(model: Model, folder: Path) -> dict[str, str]:
    """What a training in `folder` starts from, and under which licence that is, as far as anybody said.

    A run that is resumed says what its release says: the files that it began with may be gone.
    """
    released = folder / "model.safetensors"
    source = peek(released).source if released.is_file() else {}
    return {key: str(source[key]) for key in _KEYS if key in source} or dict(zip(_KEYS, _start(model), strict=False))


def _start(model: Model) -> tuple[str, ...]:
    """Name and licence; nothing for random weights."""
    if model.start_from is not None:
        try:
            source = peek(model.start_from).source
        except (ValueError, OSError):  # resumed before its first release, where that file is not
            source = {}
        before, earlier = Path(model.start_from).name, source.get("starts_from")
        name = f"{before}, which started from {earlier}" if earlier else before
        return name, str(source.get("starts_from_license") or source.get("license") or _UNKNOWN)
    if model.backbone_weights is not None:
        return model.backbone_weights.name, _UNKNOWN
    if model.pretrained:
        name, licence = pretrained_weights(model.backbone)
        return name, licence or _UNKNOWN
    return ()
