"""segmentation_models_pytorch's FPN. Its network is another one, so it is refused by name; its encoder can be used."""

from collections.abc import Mapping
from pathlib import Path

import torch


def is_smp(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Whether these are the tensors of an `smp.FPN`."""
    return any(n.startswith("segmentation_head.") for n in tensors) and any(n.startswith("encoder.") for n in tensors)


def refuse_smp(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Say why this network cannot be taken over.

    Raises:
        ValueError: always.
    """
    if not any(name.startswith("decoder.p5.") for name in tensors):
        raise ValueError(f"{path}: a segmentation_models_pytorch network, but not its FPN (it has no decoder.p5)")
    raise ValueError(
        f"{path}: smp.FPN is another network than the paper's: it upsamples with align_corners=True, in the branches "
        "and at the end, and has no 3×3 convolutions on p2…p5; so it cannot give its results here; train with its "
        "encoder instead (--model.backbone-weights takes this file)"
    )
