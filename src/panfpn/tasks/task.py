"""What a network needs to learn and to predict. semantic.py and panoptic.py say all that differs between the two."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from panfpn.choices import ARCHITECTURES, lookup
from panfpn.config import Data, Inference, Model, TrainConfig, check_architecture
from panfpn.config import Loss as LossSettings
from panfpn.data import Dataset
from panfpn.device import DTYPES
from panfpn.labels import LabelTable
from panfpn.losses import SemanticLoss
from panfpn.metrics import Scores
from panfpn.models.backbone import AnyBackbone
from panfpn.models.pixels import PixelNetwork
from panfpn.ops.seams import Cuts
from panfpn.tasks.graph import Graph
from panfpn.tasks.tiles import Tiles
from panfpn.types import Batch, Example, PanopticMap, Preprocess, Reading, Sample, SemanticMap
from panfpn.weights import Program

Image = npt.NDArray[np.uint8]  # [H, W, C]


class Loss(Protocol):
    """What is minimised of the semantic logits."""

    def __call__(
        self, logits: torch.Tensor, target: torch.Tensor, *, pixels: torch.Tensor | None = None, share: float = 1.0
    ) -> dict[str, torch.Tensor]:
        """Stride-4 logits [B, K, h, w] and train ids [B, H, W] -> weighted terms by name; see `SemanticLoss`."""

    def count(self, target: torch.Tensor) -> torch.Tensor:
        """What a batch adds to the denominator of the terms that are means over pixels."""


class Engine(Protocol):
    """What runs a network for predictions; panfpn.deploy.runtime has three."""

    engine: str
    streams: int  # calls at once that it is made for

    def __call__(self, pixels: torch.Tensor) -> Any:
        """Pixels uint8 [B, h, w, C] -> what the network gives, the padding's part of it included."""


class Ranks(Protocol):
    """The processes of a job, as far as counting goes."""

    @property
    def world(self) -> int:
        """How many they are."""

    def total(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over all of them, in place."""

    def gathered(self, value: Any) -> list[Any]:
        """Everyone's value."""


class Scorer(Protocol):
    """What counts along while a data set is predicted."""

    options: Mapping[str, bool]  # what `Task.predict` must be told, so that all is there that is counted

    def add(self, index: int, sample: Sample, prediction: Any) -> Example:
        """Count the map of the image with this index in the data set; ValueError for a sample that cannot be scored."""

    def scores(self, ranks: Ranks, device: torch.device) -> Scores:
        """The scores of what all ranks have counted."""


class Task(nn.Module, ABC):
    """A network with its preprocessing, label table, loss and way of predicting. What DDP wraps.

    A subclass says all that differs between architectures; `panfpn.choices.ARCHITECTURES` lists them.
    """

    architecture: ClassVar[str]  # its name in configurations and files
    network_type: ClassVar[type[nn.Module]]
    map_type: ClassVar[type[SemanticMap] | type[PanopticMap]]
    score_type: ClassVar[type[Scores]]
    needs_segments: ClassVar[bool]  # whether its data sets must tell instances apart
    class_tensors: ClassVar[tuple[str, ...]]  # prefixes of the weights whose meaning is the label table's
    least_confidence: float = 0.0  # of a label; what is less likely becomes IGNORE in predictions
    program: Program | None = None  # an exported file that makes whole predictions; the network then has no weights

    def __init__(
        self, network: nn.Module, table: LabelTable, preprocess: Preprocess, *,
        inference: Inference = Inference(),  # noqa: B008 - frozen
        loss: Loss | None = None, precision: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        super().__init__()
        if network.num_classes != table.num_classes:
            raise ValueError(
                f"the model has {network.num_classes} classes but label table {table.name!r} {table.num_classes}"
            )
        self.pixels = PixelNetwork(
            network, preprocess.mean, preprocess.std, preprocess.size_divisor, precision=precision
        )
        self.table, self.preprocess, self.inference = table, preprocess, inference
        self.loss: Loss = loss or SemanticLoss(weights={"cross_entropy": 1.0})
        self.engine: Engine | None = None  # makes the predictions, if there is one
        self._make_engine: Callable[[PixelNetwork], Engine] | None = None

    @classmethod
    def build(cls, config: TrainConfig, table: LabelTable, network: nn.Module, *, loss: Loss | None = None) -> Self:
        """The task of a resolved configuration around a network; `loss` replaces the one that `config` describes."""
        data, model = config.data, config.model
        assert model.mean and model.std, "resolve() comes first"
        reading = reading_of(data, model.in_channels)
        preprocess = Preprocess(
            mean=model.mean, std=model.std, scale=data.scale, size_divisor=data.size_divisor, reading=reading
        )
        loss = loss or build_loss(config.loss)
        return cls(network, table, preprocess, inference=config.inference, loss=loss,
                   precision=DTYPES[config.train.precision])  # fmt: skip

    @staticmethod
    @abstractmethod
    def build_network(model: Model, backbone: AnyBackbone, table: LabelTable) -> nn.Module:
        """The network that `model` describes, on a backbone."""

    @staticmethod
    @abstractmethod
    def semantic_classes(model: Model, table: LabelTable) -> tuple[str, ...]:
        """What the channels of the semantic logits are called."""

    @abstractmethod
    def forward(
        self, batch: Batch, *, pixels: torch.Tensor | None = None, share: float = 1.0
    ) -> dict[str, torch.Tensor]:
        """Loss terms by name; `pixels` and `share` as in `SemanticLoss`."""

    @abstractmethod
    def predict(
        self, images: Sequence[Image], *, names: Sequence[str] | None = None, batch_size: int = 1,
        confidence: bool = False, every_mask: bool = False,
    ) -> Sequence[SemanticMap] | Sequence[PanopticMap]:  # fmt: skip
        """Maps at each image's own size, of RGB images [H, W, 3] of any sizes.

        With the default `batch_size` every image goes through the network by itself, so its map never depends on its
        neighbours; more lets up to that many neighbours of one size share a run, which GPUs like. `confidence` adds the
        winner's probability (semantic maps), `every_mask` the masks of detections that are too weak for the map.

        ValueError as of `check_outputs`.
        """

    @abstractmethod
    def graph(self, pixels: PixelNetwork, also: Sequence[str] = ()) -> Graph:
        """The whole prediction by a network as one module, and what it shall give `also` (see its class).

        ValueError for what it does not have.
        """

    @abstractmethod
    def tiles(self, rows: Cuts, columns: Cuts) -> Tiles:
        """What labels an image too large for memory, cut so; ValueError where its settings need the whole image."""

    @abstractmethod
    def check_outputs(self, *, confidence: bool = False, every_mask: bool = False) -> None:
        """ValueError for what this network's maps do not have."""

    @abstractmethod
    def scorer(self, dataset: Dataset, *, trimap_width: int | None = None, average_precision: bool = False) -> Scorer:
        """What scores its maps; ValueError where it cannot count what is wanted. Arguments as of `panfpn.evaluate`."""

    @property
    def model(self) -> Any:
        """The plain network: normalised images in."""
        return self.pixels.network

    @property
    def stride(self) -> int:
        """The stride of the semantic logits: 4 where the network does not say."""
        return int(getattr(self.model, "stride", 4))

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.pixels.mean.device

    @property
    def lanes(self) -> int | None:
        """How many calls at once its predictions are made for; None: any number, on the cores of this machine."""
        if self.device.type != "cpu" and self.program is None:
            return 1
        if self.program is not None:
            return self.program.streams
        if not _is_stateless(self.model):
            return 1
        return None if self.engine is None or self.engine.engine == "torch" else self.engine.streams

    def train(self, mode: bool = True) -> Self:
        """As of every module; training drops the engine, which holds the weights as they were."""
        if mode:
            self.engine = self._make_engine = None
        return super().train(mode)

    def predict_with(self, make_engine: Callable[[PixelNetwork], Engine]) -> None:
        """Let an engine make the predictions; it is made again where a setting becomes a part of it."""
        self.engine, self._make_engine = make_engine(self.pixels), make_engine

    def set_inference(self, *, scale: tuple[int, int] | None, size_divisor: int, inference: Inference) -> None:
        """Predict in another way than the model was released with; ValueError for an impossible one."""
        check_architecture(self.architecture, Data(scale=scale, size_divisor=size_divisor), inference)
        preprocess = replace(self.preprocess, scale=scale, size_divisor=size_divisor)
        if self.program is not None and (preprocess, inference) != (self.preprocess, self.inference):
            raise ValueError(f"{self.program.file}: how it predicts is a part of its graph; export the model again, "
                             "with other settings")  # fmt: skip
        self.preprocess, self.inference = preprocess, inference
        if size_divisor != self.pixels.divisor:
            self.pixels.divisor = size_divisor
            if self._make_engine is not None:
                self.engine = self._make_engine(self.pixels)

    def read_as(
        self, *, bands: tuple[int, ...], range: tuple[float, float] | Literal["percentile"] | None, pages: int | None
    ) -> None:
        """Read images in another way than the model was released with; ValueError for an impossible one."""
        channels = self.preprocess.reading.channels
        if bands and len(bands) != channels:
            raise ValueError(f"data.bands is {bands!r}; the network sees {channels} bands")
        data = Data(bands=bands, range=range, pages=pages)
        self.preprocess = replace(self.preprocess, reading=reading_of(data, channels))


_STATELESS = frozenset({"panfpn", "torch", "torchvision", "timm"})  # packages whose modules keep nothing of a call


def _is_stateless(network: nn.Module) -> bool:
    """Whether several threads may call a network at once: hooks, and modules of the user's own, may keep something."""
    return all(
        type(module).__module__.partition(".")[0] in _STATELESS
        and not (module._forward_hooks or module._forward_pre_hooks)
        for module in network.modules()
    )


def reading_of(data: Data, channels: int) -> Reading:
    """What settings say about what image files leave open."""
    return Reading(
        channels=channels, bands=data.bands, range=data.range, page=data.pages, mask_orientation=data.mask_orientation
    )


def task_type(architecture: str) -> type[Task]:
    """The task of an architecture's name; ValueError for an unknown one."""
    return lookup(ARCHITECTURES, architecture, "model.architecture")  # type: ignore[no-any-return]


def architecture_of(network: nn.Module) -> str:
    """The name of a network's architecture; ValueError for a module that is none of ours."""
    for name in ARCHITECTURES:
        if isinstance(network, task_type(name).network_type):
            return name
    raise ValueError(f"model is a {type(network).__name__}; give a {' or a '.join(ARCHITECTURES)}")


def build_loss(loss: LossSettings) -> SemanticLoss:
    """The weighted sum of losses that a configuration describes."""
    return SemanticLoss(
        weights=loss.weights, denominator=loss.denominator,
        class_weights=None if loss.class_weights is None else torch.tensor(loss.class_weights),
        label_smoothing=loss.label_smoothing, ohem_threshold=loss.ohem_threshold, ohem_min_kept=loss.ohem_min_kept,
        focal_gamma=loss.focal_gamma,
    )  # fmt: skip
