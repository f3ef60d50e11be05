"""What the tasks have in common: a network, its preprocessing, and who runs it. In: uint8 images. Out: its maps."""

from collections.abc import Sequence
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from panfpn.config import Inference
from panfpn.data.transforms import resized_image
from panfpn.labels import LabelTable
from panfpn.losses import SemanticLoss
from panfpn.models import PanopticFPN, SemanticFPN
from panfpn.models.pixels import normalised
from panfpn.ops import Size
from panfpn.types import Preprocess


class Runtime(Protocol):
    """A faster copy of the network for predictions; panfpn.deploy.runtime has three."""

    engine: str
    compiled: bool

    def __call__(self, pixels: torch.Tensor) -> Any:
        """Pixels uint8 [B, h, w, 3] -> what the network gives, the padding's part of it included."""


class Task(nn.Module):
    """A network with what it needs to learn and to speak: label table, preprocessing, loss.

    `precision` is the dtype of the dense part (autocast if it is not float32). SemanticTask and PanopticTask add what
    makes losses and maps of what the network gives.
    """

    def __init__(
        self, model: SemanticFPN | PanopticFPN, table: LabelTable, preprocess: Preprocess, *,
        inference: Inference = Inference(),  # noqa: B008 - frozen
        loss: SemanticLoss | None = None, precision: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        super().__init__()
        if model.num_classes != table.num_classes:
            raise ValueError(
                f"the model has {model.num_classes} classes but label table {table.name!r} {table.num_classes}"
            )
        self.model, self.table, self.precision = model, table, precision
        self.preprocess, self.inference = preprocess, inference
        self.loss = loss or SemanticLoss(weights={"cross_entropy": 1.0})
        self.layout = torch.channels_last  # of images, which the network's maps follow
        self.dense: nn.Module = model  # the part that may be compiled; shares its weights with `model`
        self.runtime: Runtime | None = None  # makes the predictions, if there is one
        self.register_buffer("mean", torch.tensor(preprocess.mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocess.std).view(-1, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> Self:
        """As of every module; training leaves the runtime behind, which holds the weights as they were."""
        if mode:
            self.runtime = None
        return super().train(mode)

    def learn(self, images: torch.Tensor, sizes: Sequence[Size]) -> Any:
        """What the network gives for a training batch uint8 [B, C, H, W]; outside of `sizes`: the mean colour."""
        return self._run(self.dense, images.permute(0, 2, 3, 1), sizes)

    def ask(self, pixels: torch.Tensor) -> Any:
        """What the network gives for pixels uint8 [B, h, w, 3]; never by the compiled model, as sizes vary."""
        if self.runtime is not None:
            return self.runtime(pixels)
        return self._run(self.model, pixels.to(self.get_buffer("mean").device))

    def _run(self, network: nn.Module, pixels: torch.Tensor, sizes: Sequence[Size] | None = None) -> Any:
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        images = normalised(pixels, mean, std, self.preprocess.size_divisor, sizes).contiguous(
            memory_format=self.layout
        )
        with self.autocast():
            return network(images)

    def autocast(self) -> torch.autocast:
        """The context in which the network computes."""
        device = self.get_buffer("mean").device.type
        return torch.autocast(device, self.precision, enabled=self.precision != torch.float32)


def pixels_at(images: Sequence[npt.NDArray[np.uint8]], size: Size, *, mirrored: bool) -> torch.Tensor:
    """Images of one size as the network may see them: uint8 [B, h, w, 3]."""
    resized = [resized_image(image, size) for image in images]
    array = resized[0][None] if len(resized) == 1 else np.stack(resized)
    array = array[:, :, ::-1].copy() if mirrored else array  # torch takes no negative strides
    return torch.from_numpy(np.require(array, requirements=("C", "W")))
