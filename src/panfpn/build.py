"""From settings to objects: the only file that knows both. In: a configuration or a file. Out: data sets, tasks."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from panfpn.config import Data, Inference, Loss, Model, TrainConfig
from panfpn.data import Dataset, TrainTransform, open_dataset, open_pack
from panfpn.deploy.runtime import engine_precisions, make_runtime
from panfpn.device import DTYPES, describe_choice, resolve_device, resolve_precision
from panfpn.labels import LabelTable
from panfpn.losses import SemanticLoss
from panfpn.models import Backbone, PanopticFPN, SemanticFPN
from panfpn.models.depthwise import speed_up_depthwise
from panfpn.models.pixels import PixelNetwork
from panfpn.tasks import AnyTask, PanopticTask, SemanticTask
from panfpn.types import Preprocess
from panfpn.weights.foreign import read_foreign, state_dict_of
from panfpn.weights.release import parse_header, read_model


def describe_runtime(task: AnyTask, precision: str) -> str:
    """What makes the predictions; `precision` as it was asked for."""
    runner = f"engine {task.runtime.engine}" if task.runtime else "the plain network"
    return describe_choice(runner, task.get_buffer("mean").device, task.precision, precision)


def build_datasets(data: Data, panoptic: bool = False) -> tuple[Dataset, Dataset]:
    """Training and validation data; see `open_dataset` and `open_pack` for what is refused."""
    return build_dataset(data, data.train_split, panoptic), build_dataset(data, data.val_split, panoptic)


def build_dataset(data: Data, split: str, panoptic: bool = False) -> Dataset:
    """One split of the configured data set, with segments if it is `panoptic`."""
    count = data.scenes[0] if split == data.train_split else data.scenes[1]
    root = data.root.expanduser() if data.root else None
    if data.pack is not None:
        if panoptic:
            raise ValueError(
                f"{data.pack}: a pack holds no instances; train Panoptic FPN from the files (data.pack None)"
            )
        return open_pack(data.pack.expanduser(), data.dataset, split, root)
    instances = data.instances if panoptic and split == data.train_split else "panoptic"  # scores are by segments
    return open_dataset(
        data.dataset, root, split, panoptic=panoptic, scene_count=count, scene_size=data.scene_size, instances=instances
    )


def build_transform(data: Data) -> TrainTransform:
    """The training augmentation."""
    return TrainTransform(
        crop=data.crop, scale=data.scale, ratio=data.ratio, short_sides=data.short_sides, aspect=data.aspect,
        cat_max_ratio=data.cat_max_ratio, flip=data.flip, photometric=data.photometric,
    )  # fmt: skip


def resolve(config: TrainConfig, table: LabelTable) -> TrainConfig:
    """The configuration with every open choice made: classes, normalisation, device, precision.

    Raises:
        ValueError: `model.num_classes` or `loss.class_weights` that disagree with the label table, a backbone that does
            not fit, an unavailable device.
    """
    model, weights = config.model, config.loss.class_weights
    if model.in_channels != 3:
        raise ValueError(f"model.in_channels is {model.in_channels}, but the data sets give RGB images (3 channels)")
    if model.num_classes not in (None, table.num_classes):
        raise ValueError(f"model.num_classes is {model.num_classes}, but label table {table.name!r} has "
                         f"{table.num_classes} classes; leave it out to follow the table")  # fmt: skip
    branch = table.names
    if model.architecture == "PanopticFPN" and model.semantic_things == "other":
        branch = ("things", *(c.name for c in table.classes if not c.thing))
    if weights is not None and len(weights) != len(branch):
        raise ValueError(f"loss.class_weights has {len(weights)} entries, but the semantic branch has {len(branch)} "
                         f"classes: {', '.join(branch)}")  # fmt: skip
    device = resolve_device(config.run.device)
    with torch.device("meta"):
        backbone = Backbone(model.backbone, in_channels=model.in_channels)
    mean, std = model.mean or backbone.mean, model.std or backbone.std
    for key, value in (("mean", mean), ("std", std)):
        if len(value) != model.in_channels:
            raise ValueError(f"model.{key} has {len(value)} entries for {model.in_channels} input channels")
    model = replace(model, num_classes=table.num_classes, mean=mean, std=std)
    # Paths are kept whole, so that a run can be resumed, scored and trained again from any folder.
    weights_file, start = model.backbone_weights, model.start_from
    model = replace(
        model, backbone_weights=_whole(weights_file) if weights_file else None,
        start_from=str(_whole(Path(start))) if start and Path(start).expanduser().exists() else start,
    )  # fmt: skip
    root, pack = (_whole(path) if path else None for path in (config.data.root, config.data.pack))
    data = replace(config.data, root=root, pack=pack)
    precision = resolve_precision(config.train.precision, device)
    return replace(config, data=data, model=model).changed(**{"train.precision": precision, "run.device": str(device)})


def _whole(path: Path) -> Path:
    return path.expanduser().resolve()


def build_task(
    model: Model, table: LabelTable, *, scale: tuple[int, int] | None = None, size_divisor: int = 1,
    inference: Inference = Inference(), loss: Loss | None = None,  # noqa: B008 - frozen
    precision: str = "float32", rois: int = 512, load: bool = True,
) -> AnyTask:  # fmt: skip
    """The task of a resolved configuration; `load` = False leaves out the backbone's pretrained weights."""
    assert model.num_classes is not None and model.mean and model.std, "resolve() comes first"
    backbone = Backbone(
        model.backbone, in_channels=model.in_channels, drop_path=model.drop_path,
        pretrained=load and model.pretrained and model.backbone_weights is None,
    )  # fmt: skip
    if load and model.backbone_weights is not None:
        file = model.backbone_weights.expanduser()
        backbone.load(state_dict_of(read_foreign(file)), file)
    speed_up_depthwise(backbone)
    network = build_network(model, backbone, table)
    if load and model.start_from is not None:
        start_from_release(network, model.start_from, model, table)
    preprocess = Preprocess(mean=model.mean, std=model.std, scale=scale, size_divisor=size_divisor)
    loss = loss or Loss()
    kind = SemanticTask if isinstance(network, SemanticFPN) else PanopticTask
    task = kind(network, table, preprocess, inference=inference, loss=build_loss(loss), precision=DTYPES[precision])
    if isinstance(task, PanopticTask):
        task.instance_weight, task.rois = loss.instance, rois
    return task


def build_network(model: Model, backbone: Backbone, table: LabelTable) -> SemanticFPN | PanopticFPN:
    """The network that `model` describes on a backbone."""
    if model.architecture == "PanopticFPN":
        return PanopticFPN(
            backbone, table, fpn_channels=model.fpn_channels, head_channels=model.head_channels, norm=model.norm,
            in_channels=model.in_channels, dropout=model.dropout,
            semantic_things=model.semantic_things, anchor_scale=model.anchor_scale,
            box_channels=model.box_channels, mask_channels=model.mask_channels,
        )  # fmt: skip
    assert model.num_classes is not None
    return SemanticFPN(
        backbone, model.num_classes, in_channels=model.in_channels, fpn_channels=model.fpn_channels,
        head_channels=model.head_channels, norm=model.norm, dropout=model.dropout,
    )  # fmt: skip


_OF_CLASSES = ("head.classifier.", "box_head.classifier.", "box_head.deltas.", "mask_head.classifier.")


def start_from_release(network: torch.nn.Module, path: str | Path, model: Model, table: LabelTable) -> None:
    """Take over what fits of a release file's network; ValueError if that has another backbone."""
    file, tensors, header = read_model(path)
    other = header.get("model", {}).get("backbone")
    if other != model.backbone:
        raise ValueError(f"{file}: has backbone {other!r}, but model.backbone is {model.backbone!r}; change it, or set "
                         "model.start_from to None")  # fmt: skip
    same_classes = parse_header(header, file)[1].names == table.names
    own = network.state_dict()
    for name, tensor in tensors.items():
        fits = name in own and own[name].shape == tensor.shape
        if fits and (same_classes or not name.startswith(_OF_CLASSES)):
            own[name].copy_(tensor)


def build_loss(loss: Loss) -> SemanticLoss:
    """The weighted sum of losses."""
    return SemanticLoss(
        weights=loss.weights, denominator=loss.denominator,
        class_weights=None if loss.class_weights is None else torch.tensor(loss.class_weights),
        label_smoothing=loss.label_smoothing, ohem_threshold=loss.ohem_threshold, ohem_min_kept=loss.ohem_min_kept,
        focal_gamma=loss.focal_gamma,
    )  # fmt: skip


def load_task(
    name: str | Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    engine: str | None = None,
    compile: bool = False,
) -> tuple[AnyTask, dict[str, Any]]:
    """The task of a model, ready to predict, and its header.

    `name` is a file, a run folder or a known name (see `read_model`). Its predictions are the plain network's, as in
    training, unless an `engine` is named. ValueError for what cannot be used.
    """
    place = resolve_device("cpu" if engine in ("openvino", "onnxruntime") and device == "auto" else device)
    file, tensors, header = read_model(name)
    config, table = parse_header(header, file)
    task = build_task(
        config.model, table, scale=config.data.scale, size_divisor=config.data.size_divisor,
        inference=config.inference, load=False,
        precision=resolve_precision(precision, place, engine_precisions(engine or "torch")),
    )  # fmt: skip
    load_weights(task.model, tensors, file)
    task.to(place).to(memory_format=torch.channels_last).eval()
    if engine:
        use_engine(task, engine, compile=compile)
    return task, header


def use_engine(task: AnyTask, engine: str = "torch", *, compile: bool = False) -> None:
    """Let an engine (torch, openvino, onnxruntime) make the task's predictions; see `make_runtime` for the errors."""
    network = PixelNetwork(
        task.model, task.get_buffer("mean"), task.get_buffer("std"), task.preprocess.size_divisor
    ).eval()
    task.runtime = make_runtime(engine, network, task.precision, compile=compile)


def set_inference(task: AnyTask, *, scale: tuple[int, int] | None, size_divisor: int, inference: Inference) -> None:
    """Ask the task for labels in another way than its model was released with; ValueError for an impossible one."""
    model = Model(architecture="PanopticFPN" if isinstance(task, PanopticTask) else "SemanticFPN")
    TrainConfig(
        data=Data(scale=scale, size_divisor=size_divisor), model=model, inference=inference
    )  # applies the rules
    same_padding = size_divisor == task.preprocess.size_divisor
    task.preprocess = replace(task.preprocess, scale=scale, size_divisor=size_divisor)
    task.inference = inference
    if task.runtime is not None and not same_padding:  # which is a part of it
        use_engine(task, task.runtime.engine, compile=task.runtime.compiled)


def load_weights(model: torch.nn.Module, tensors: Mapping[str, torch.Tensor], source: Path) -> None:
    """Load a whole state dict; ValueError names `source` and the first tensor that does not fit."""
    own = model.state_dict()
    for name in [*own, *tensors]:
        if name not in tensors or name not in own:
            what = "misses" if name not in tensors else "has the unknown"
            raise ValueError(f"{source}: of another architecture; it {what} tensor {name}")
        if own[name].shape != tensors[name].shape:
            raise ValueError(f"{source}: of another architecture; tensor {name} has shape "
                             f"{tuple(tensors[name].shape)}, the model wants {tuple(own[name].shape)}")  # fmt: skip
        if not tensors[name].isfinite().all():
            raise ValueError(f"{source}: tensor {name} holds values that are not finite; the file is damaged, or its "
                             "training diverged")  # fmt: skip
    model.load_state_dict(dict(tensors))
