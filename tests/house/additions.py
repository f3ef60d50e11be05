"""What somebody adds to panfpn, each thing as its file would hold it; run.py has the lines in the dicts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from panfpn.config import Model
from panfpn.data import Dataset
from panfpn.data.adapters import from_pairs
from panfpn.data.layouts.request import SplitRequest
from panfpn.deploy.runtime import Engine
from panfpn.labels import LabelTable
from panfpn.models.backbone import AnyBackbone
from panfpn.tasks.semantic import SemanticTask


def open_stripes(request: SplitRequest) -> Dataset:
    """A layout: pictures `SPLIT-N.npy` whose right half is a stripe."""
    table = LabelTable.from_dict(
        {"name": "stripes", "classes": [{"name": "left", "value": 0}, {"name": "right", "value": 1}]}
    )
    images = [np.load(path) for path in sorted(request.folder.glob(f"{request.split}-*.npy"))]
    mask = np.zeros((64, 96), np.uint8)
    mask[:, 48:] = 1
    return from_pairs([(image, mask) for image in images], table)


def hinge(
    logits: torch.Tensor, target: torch.Tensor, settings: Any, pixels: torch.Tensor, share: float
) -> torch.Tensor:
    """A term of the loss."""
    small = target[:, ::4, ::4].long().clamp(min=0)
    return F.multi_margin_loss(logits.flatten(2).transpose(1, 2).flatten(0, 1), small.flatten()) * share


class TinyFCN(nn.Module):
    """An architecture: a classifier on c2."""

    def __init__(self, backbone: AnyBackbone, num_classes: int) -> None:
        super().__init__()
        self.backbone, self.num_classes = backbone, num_classes
        self.head = nn.Conv2d(backbone.channels[0], num_classes, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(images)[0])  # type: ignore[no-any-return]


class TinyTask(SemanticTask):
    """What trains, predicts and scores it: as Semantic FPN, but for how it is built."""

    architecture = "TinyFCN"
    network_type = TinyFCN  # type: ignore[assignment]
    class_tensors = ("head.",)

    @staticmethod
    def build_network(model: Model, backbone: AnyBackbone, table: LabelTable) -> TinyFCN:  # type: ignore[override]
        return TinyFCN(backbone, table.num_classes)


class PlainEngine(Engine):
    """An engine: the network as it is."""

    engine, precisions, cpu_only = "plain", ("float32",), False

    def __call__(self, pixels: torch.Tensor) -> Any:
        with torch.inference_mode():
            return self.source.forward(pixels)


class Recorder:
    """A logger, which remembers."""

    values: dict[str, float] = {}  # noqa: RUF012

    def start(self, run: Any) -> None: ...

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.values.update(values)

    def image(self, step: int, name: str, picture: npt.NDArray[np.uint8]) -> None: ...

    def end(self) -> None: ...


def run_hello(arguments: Sequence[str]) -> int:
    """A verb."""
    print("hello", *arguments)  # noqa: T201
    return 0
