"""Networks that panfpn and mmsegmentation are both given: random, but with labels that mean something."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from panfpn import Predictor, export
from panfpn.build import build_task
from panfpn.config import Data, Loss, Model, Train, TrainConfig
from panfpn.data import from_pairs
from panfpn.labels import LabelTable
from panfpn.tasks import Task
from panfpn.weights.interop.mmseg import IMAGENET_MEAN, IMAGENET_STD, write_mmseg
from panfpn.weights.release import write_release


def network(num_classes: int, backbone: str = "resnet50c") -> Model:
    return Model(backbone=backbone, num_classes=num_classes, mean=IMAGENET_MEAN, std=IMAGENET_STD, dropout=0.0)


def make_task(num_classes: int, table: LabelTable, denominator: str = "labelled", backbone: str = "resnet50c") -> Task:
    """A network whose norms are in use and whose labels do not hang on rounding; seeded."""
    torch.manual_seed(0)
    config = TrainConfig(
        model=network(num_classes, backbone), loss=Loss(denominator=denominator), data=Data(size_divisor=1),
        train=Train(precision="float32"),
    )  # fmt: skip
    task = build_task(config, table)
    with torch.no_grad():
        for name, tensor in task.model.named_buffers():
            if name.endswith("running_mean"):
                tensor.normal_(0, 0.1)
            elif name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
        for name, tensor in task.model.named_parameters():
            if name.endswith("bn3.weight"):
                tensor.fill_(0.3)  # timm begins with 0, which would hide the residual branches
        task.model.head.classifier.weight.normal_(0, 0.1)
    return task


def write_exported(folder: Path, image: npt.NDArray[np.uint8], *, int8: bool) -> str:
    """`model.xml`, or `int8.xml`, of the release file in `folder`; returns its name.

    INT8 is calibrated on parts of an image, and its score is how far it agrees with the network itself.
    """
    name = "int8.xml" if int8 else "model.xml"
    data = None
    if int8:
        predictor = Predictor.from_file(folder / "model.safetensors", "cpu", "float32")
        parts = [np.ascontiguousarray(np.roll(image, (97 * k, 211 * k), (0, 1))[:512, :1024]) for k in range(24)]
        pairs = [(part, predictor.table.decode(predictor(part).labels)) for part in parts[:4]]
        data = tuple(from_pairs(some, predictor.table) for some in ([(part, pairs[0][1]) for part in parts], pairs))
    exported = export(folder / "model.safetensors", folder / name, calibrate=data, max_drop=100)
    print(f"{name}: {exported.num_bytes / 1e6:.1f} MB in {exported.seconds:.0f} s; {exported.int8 or ''}", flush=True)
    return name


def write_files(folder: Path, table: LabelTable, scale: tuple[int, int], *, backbone: str = "resnet50c") -> None:
    """`model.safetensors` for panfpn and `model.pth` for mmsegmentation: the same weights, test size `scale`."""
    task = make_task(table.num_classes, table, backbone=backbone)
    config = TrainConfig(model=network(table.num_classes, backbone), data=Data(scale=scale, size_divisor=1))
    weights = task.model.state_dict()
    folder.mkdir(parents=True, exist_ok=True)
    write_release(folder / "model.safetensors", weights, config, table, scores={}, source={})
    write_mmseg(folder / "model.pth", weights, config, table)
