"""What of a release fits another network: fine-tuning begins with that. In: a release, a state dict. Out: a `Fit`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from panfpn.labels import LabelTable
from panfpn.models.backbone import fitted_input
from panfpn.weights.release import Release

_SHOWN = 3  # names that stand for all of a reason


@dataclass(frozen=True, eq=False, kw_only=True)
class Fit:
    """What is taken over into a network, and what is not."""

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)  # the release's, under the network's names
    left_out: dict[str, str] = field(default_factory=dict)  # of the release: name -> why it does not fit
    missing: tuple[str, ...] = ()  # of the network: what it keeps, as nothing came for it

    def summary(self) -> str:
        """One sentence: how many tensors were taken over, what was left out and why, and what starts anew."""
        total = len(self.tensors) + len(self.left_out)
        parts = [f"{len(self.tensors)} of its {total} tensors are taken over"]
        reasons: dict[str, list[str]] = {}
        for name, reason in self.left_out.items():
            reasons.setdefault(reason, []).append(name)
        parts += [f"{len(names)} left out, {reason}: {_listed(names)}" for reason, names in reasons.items()]
        if self.missing:
            parts.append(f"{len(self.missing)} of the network start anew: {_listed(self.missing)}")
        return "; ".join(parts)


def fitting(
    release: Release, wanted: Mapping[str, torch.Tensor], table: LabelTable, *, of_classes: Sequence[str] = (),
    backbone: str | None = None,
) -> Fit:  # fmt: skip
    """What of a release fits a network with state dict `wanted` for the classes of `table`.

    Tensors whose name begins with one of `of_classes` mean classes: they fit only where these are the release's, in the
    same order. `backbone` is the network's, None where it has no name.

    Raises:
        ValueError: a release with another backbone.
    """
    other = release.config.model.backbone
    if backbone is not None and other.partition(".")[0] != backbone.partition(".")[0]:  # the rest names its weights
        raise ValueError(f"{release.file}: has backbone {other!r}, but model.backbone is {backbone!r}; change it, or "
                         "set model.start_from to None")  # fmt: skip
    same_classes = release.table.names == table.names
    tensors, left_out = {}, {}
    for name, tensor in fitted_input(release.tensors, wanted).items():
        if name not in wanted:
            left_out[name] = "which this network does not have"
        elif not same_classes and name.startswith(tuple(of_classes)):
            left_out[name] = "as they are of other classes"
        elif wanted[name].shape != tensor.shape:
            left_out[name] = "of another shape"
        else:
            tensors[name] = tensor
    missing = tuple(name for name in wanted if name not in tensors and not name.endswith("num_batches_tracked"))
    return Fit(tensors=tensors, left_out=left_out, missing=missing)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
