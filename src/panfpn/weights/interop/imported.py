"""What every reader of other people's checkpoints gives back, and how tensors are fitted to our names."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from panfpn.config import Data, Inference, Model, TrainConfig
from panfpn.labels import LabelTable
from panfpn.models import Backbone, PanopticFPN, SemanticFPN

Shapes = dict[str, torch.Size]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Imported:
    """A network from elsewhere: what a release file needs to know."""

    weights: dict[str, torch.Tensor]  # under our names
    config: TrainConfig  # its model, scale, size_divisor and inference are the network's
    table: LabelTable
    format: str
    notes: tuple[str, ...]  # what was left out or assumed, one sentence each


def semantic_shapes(model: Model) -> Shapes:
    """Names and shapes of all tensors of the Semantic FPN that `model` describes, none of which is allocated."""
    assert model.num_classes is not None
    with torch.device("meta"):
        backbone = Backbone(model.backbone, blocks=model.blocks) if model.blocks else model.backbone
        network = SemanticFPN(
            backbone, model.num_classes, fpn_channels=model.fpn_channels, head_channels=model.head_channels,
            norm=model.norm,
        )  # fmt: skip
    return shapes_of(network)


def panoptic_shapes(model: Model, table: LabelTable) -> Shapes:
    """Names and shapes of all tensors of the Panoptic FPN that `model` describes; `table` says what things are."""
    with torch.device("meta"):
        network = PanopticFPN(
            model.backbone, table, fpn_channels=model.fpn_channels, head_channels=model.head_channels, norm=model.norm,
            semantic_things=model.semantic_things, box_channels=model.box_channels, mask_channels=model.mask_channels,
        )  # fmt: skip
    return shapes_of(network)


def shapes_of(network: torch.nn.Module) -> Shapes:
    """The shape of every tensor of a network by its name."""
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


def fitted(
    tensors: Mapping[str, torch.Tensor], names: Mapping[str, str], shapes: Shapes, path: Path
) -> dict[str, torch.Tensor]:
    """`tensors` under our names, given the peer's name of each of ours.

    Raises:
        ValueError: tensors that are missing, unexpected or of another shape; it lists them.
    """
    missing = [
        theirs for theirs in names.values() if theirs not in tensors and not theirs.endswith("num_batches_tracked")
    ]
    unexpected = sorted(set(tensors) - set(names.values()))
    wrong = [
        f"{theirs} is {tuple(tensors[theirs].shape)} instead of {tuple(shapes[ours])}"
        for ours, theirs in names.items() if theirs in tensors and tensors[theirs].shape != shapes[ours]
    ]  # fmt: skip
    odd = [
        f"{theirs} ({tensors[theirs].dtype})" for theirs in names.values()
        if theirs in tensors and not (theirs.endswith("num_batches_tracked") or _is_weight(tensors[theirs]))
    ]  # fmt: skip
    problems = [
        f"{len(names)} {what}: {', '.join(names[:8])}{', …' if len(names) > 8 else ''}"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", wrong),
                            ("with values that are no finite real numbers", odd)) if names
    ]  # fmt: skip
    if problems:
        raise ValueError(f"{path}: its tensors do not fit; {'; '.join(problems)}")
    count = torch.zeros((), dtype=torch.int64)  # FrozenBN and old files keep no num_batches_tracked
    return {ours: tensors.get(theirs, count).clone() for ours, theirs in names.items()}


def _is_weight(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and (tensor.is_meta or bool(tensor.isfinite().all()))


def imported_config(model: Model, data: Data, inference: Inference, path: Path) -> TrainConfig:
    """The settings of an imported network; ValueError names the file whose settings are out of range or damaged."""
    try:
        return TrainConfig(model=model, data=data, inference=inference)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def views_left_out(inference: Inference) -> tuple[str, ...]:
    """The sentence about what no other library keeps beside its weights, if there is something."""
    if inference.ratios == (1.0,) and not inference.flip:
        return ()
    return ("several scales and mirror (inference.ratios, .flip) were left out",)
