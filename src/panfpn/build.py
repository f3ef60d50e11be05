"""From settings to objects. In: a configuration, or the name of a model. Out: data sets, transforms, tasks."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from panfpn.choices import DRAWN
from panfpn.config import Data, Model, TrainConfig
from panfpn.data import Dataset, TrainTransform, open_dataset, open_pack, open_shards
from panfpn.data.balance import COUNTED, WEIGHINGS, count_classes, grouped
from panfpn.data.checked import open_sample
from panfpn.data.splitting import part_of
from panfpn.device import resolve_device, resolve_precision
from panfpn.fetch import without_password
from panfpn.labels import LabelTable
from panfpn.models import Backbone
from panfpn.models.depthwise import speed_up_depthwise
from panfpn.models.pyramid import SimpleFeaturePyramid
from panfpn.models.wide_maps import speed_up_wide_maps
from panfpn.tasks import Loss, Task, architecture_of, reading_of, task_type
from panfpn.weights import Program, Release, fitting, load, read_tensors

_SPLIT_SEED = 0  # of data.split, so that all trainings and evaluations of a set see the same division
_MEASURED = 64  # images whose pixels are measured
_MODULE = "module "  # how the name of a backbone begins that is the user's own


def build_datasets(data: Data, *, segments: bool = False, channels: int = 3) -> tuple[Dataset, Dataset]:
    """Training and validation data; see `open_dataset` and `open_pack` for what is refused."""
    train, val = (
        build_dataset(data, split, segments=segments, channels=channels) for split in (data.train_split, data.val_split)
    )
    return train, val


def build_dataset(data: Data, split: str, *, segments: bool = False, channels: int = 3) -> Dataset:
    """One split of the configured data set; with `segments`, its instances are told apart; images have `channels`."""
    if data.dataset in DRAWN and channels != 3:
        raise ValueError(f"data set {data.dataset!r} is drawn in RGB, but model.in_channels is {channels}; set it to 3")
    reading = reading_of(data, channels)
    count = data.scenes[0] if split == data.train_split else data.scenes[1]
    root = data.root.expanduser() if data.root else None
    if data.pack is not None:
        if segments:
            raise ValueError(
                f"{data.pack}: a pack holds no instances; train Panoptic FPN from the files (data.pack None)"
            )
        return open_pack(data.pack.expanduser(), data.dataset, split, root, reading=reading)
    if data.pack_url is not None:
        if segments:
            raise ValueError(f"{without_password(data.pack_url)}: a pack holds no instances; train Panoptic FPN from "
                             "the files (data.pack_url None)")  # fmt: skip
        cache = data.pack_cache.expanduser() if data.pack_cache else None
        return open_shards(data.pack_url, data.dataset, split, cache=cache,
                           cache_bytes=int(data.pack_cache_gb * 1e9), reading=reading)  # fmt: skip
    instances = data.instances if segments and split == data.train_split else "panoptic"  # scores are by segments
    divided = data.split is not None and split in (data.train_split, data.val_split)
    dataset = open_dataset(
        data.dataset, root, data.train_split if divided else split, panoptic=segments, scene_count=count,
        scene_size=data.scene_size, instances=instances, reading=reading,
    )  # fmt: skip
    if data.split is None or not divided:
        return dataset
    return part_of(dataset, data.split, _SPLIT_SEED, validation=split == data.val_split, fold=data.fold)


def build_transform(data: Data) -> TrainTransform:
    """The training augmentation."""
    return TrainTransform(
        crop=data.crop, scale=data.scale, ratio=data.ratio, short_sides=data.short_sides, aspect=data.aspect,
        cat_max_ratio=data.cat_max_ratio, flip=data.flip, rotate90=data.rotate90, photometric=data.photometric,
    )  # fmt: skip


def resolve(
    config: TrainConfig, table: LabelTable, network: nn.Module | None = None, *, images: Dataset | None = None
) -> TrainConfig:
    """The configuration with every open choice made: classes, normalisation, precision, whole paths.

    Of other images than RGB, no backbone says mean and standard deviation: they are measured on `images`. `network` is
    the user's own, which then has the say. `run.device` stays as it is: a run may go on elsewhere.

    Raises:
        ValueError: `model.num_classes` or `loss.class_weights` that disagree with the label table, a backbone that does
            not fit, an unavailable device.
    """
    model = config.model if network is None else _described(config.model, network)
    if model.num_classes not in (None, table.num_classes):
        raise ValueError(f"model.num_classes is {model.num_classes}, but label table {table.name!r} has "
                         f"{table.num_classes} classes; leave it out to follow the table")  # fmt: skip
    weights, classes = config.loss.class_weights, task_type(model.architecture).semantic_classes(model, table)
    if isinstance(weights, str):
        if images is None:
            raise ValueError(f"loss.class_weights is {weights}, which is counted in training images; there are none")
        counts = grouped(count_classes(images, channels=model.in_channels, most=COUNTED), table.names, classes, 0)
        weights = WEIGHINGS[weights](counts)
        config = config.changed(loss__class_weights=weights)
    if weights is not None and len(weights) != len(classes):
        raise ValueError(f"loss.class_weights has {len(weights)} entries, but the semantic branch has {len(classes)} "
                         f"classes: {', '.join(classes)}")  # fmt: skip
    if network is None:
        with torch.device("meta"):
            backbone: Any = _backbone(model)
    else:
        backbone = network.backbone
    mean, std = model.mean or backbone.mean, model.std or backbone.std
    if network is None and model.in_channels != 3 and images is not None and not (model.mean and model.std):
        measured = channel_statistics(images, model.in_channels)
        mean, std = model.mean or measured[0], model.std or measured[1]
    for key, value in (("mean", mean), ("std", std)):
        if len(value) != model.in_channels:
            raise ValueError(f"model.{key} has {len(value)} entries for {model.in_channels} input channels")
    # Paths are kept whole, so that a run can be resumed, scored and trained again from any folder.
    weights_file, start = model.backbone_weights, model.start_from
    model = replace(
        model, num_classes=table.num_classes, mean=tuple(mean), std=tuple(std),
        backbone_weights=_whole(weights_file) if weights_file else None,
        start_from=str(_whole(Path(start))) if start and Path(start).expanduser().exists() else start,
    )  # fmt: skip
    places = (config.data.root, config.data.pack, config.data.pack_cache)
    root, pack, cache = (_whole(path) if path else None for path in places)
    precision = resolve_precision(config.train.precision, resolve_device(config.run.device))
    config = replace(config, data=replace(config.data, root=root, pack=pack, pack_cache=cache), model=model)
    return config.changed(train__precision=precision)


def channel_statistics(images: Dataset, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel in 0..255, over the pixels of images spread over a data set."""
    step = max(1, len(images) // _MEASURED)
    sums, squares, count = np.zeros(channels), np.zeros(channels), 0
    for i in range(0, len(images), step):
        pixels = open_sample(images, i, channels=channels)[0].reshape(-1, channels).astype(np.float64)
        sums += pixels.sum(0)
        squares += (pixels**2).sum(0)
        count += len(pixels)
    mean = sums / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 1))  # a constant channel stays finite
    return tuple(map(float, mean.round(3))), tuple(map(float, std.round(3)))


def _whole(path: Path) -> Path:
    return path.expanduser().resolve()


def _described(model: Model, network: Any) -> Model:
    """The settings of the model as a network of the user's own has them, as far as settings can say it."""
    backbone = network.backbone
    name = getattr(backbone, "name", None) or f"{_MODULE}{type(backbone).__module__}.{type(backbone).__qualname__}"
    return replace(
        model, architecture=architecture_of(network), backbone=name, num_classes=network.num_classes,
        pyramid="simple" if isinstance(network.fpn, SimpleFeaturePyramid) else None,
        blocks=getattr(backbone, "blocks", ()), final_norm=getattr(backbone, "final_norm", False),
        fpn_channels=network.fpn.channels, pretrained=False, backbone_weights=None, start_from=None,
    )  # fmt: skip


def _backbone(model: Model, *, pretrained: bool = False) -> Backbone:
    """The backbone that settings describe."""
    return Backbone(
        model.backbone, in_channels=model.in_channels, pretrained=pretrained, drop_path=model.drop_path,
        blocks=model.blocks, final_norm=model.final_norm,
    )  # fmt: skip


def build_task(
    config: TrainConfig, table: LabelTable, *, network: nn.Module | None = None, loss: Loss | None = None,
    load_weights: bool = True, say: Callable[[str], Any] = lambda _: None,
) -> Task:  # fmt: skip
    """The task of a resolved configuration; `network` and `loss` replace those that it describes.

    `load_weights` False leaves out the pretrained weights that it names. `say` gets a sentence about what of
    `model.start_from` was taken over.
    """
    task, model = task_type(config.model.architecture), config.model
    if network is None:
        local = model.backbone_weights
        backbone = _backbone(model, pretrained=load_weights and model.pretrained and local is None)
        if load_weights and local is not None:
            backbone.load(read_tensors(local.expanduser()), local)
        speed_up_depthwise(backbone)
        network = speed_up_wide_maps(task.build_network(model, backbone, table))
        if load_weights and model.start_from is not None:
            start_from(network, model.start_from, config, table, say)
    return task.build(config, table, network, loss=loss)


def start_from(
    network: nn.Module, name: str | Path, config: TrainConfig, table: LabelTable, say: Callable[[str], Any]
) -> None:
    """Take over what fits of a release's network; ValueError if that has another backbone, or nothing fits."""
    release, state = load(name).with_weights(), network.state_dict()
    of_classes = task_type(config.model.architecture).class_tensors
    fit = fitting(release, state, table, of_classes=of_classes, backbone=config.model.backbone)
    if not fit.tensors:
        raise ValueError(f"{release.file}: nothing of it fits this network; {fit.summary()}")
    if all(key.startswith("backbone.") for key in fit.tensors) and any(
        not key.startswith("backbone.") for key in release.tensors
    ):
        raise ValueError(
            f"{release.file}: only the backbone of it fits this network; {fit.summary()}; take its widths "
            "(model.fpn_channels, model.head_channels), or name the file in model.backbone_weights and set "
            "model.start_from to None"
        )
    for key, tensor in fit.tensors.items():
        state[key].copy_(tensor)
    say(f"start from {release.file}: {fit.summary()}")


def load_task(
    name: str | Path, *, device: str = "auto", precision: str = "auto", network: nn.Module | None = None,
    precisions: tuple[str, ...] | None = None, streams: int = 1,
) -> tuple[Task, Release]:  # fmt: skip
    """The task of a model, ready to predict by its plain network, and its release.

    `name` is a file, a run folder or a known name (see `panfpn.weights.load`). `network` takes the weights of one that
    has a backbone of the user's own. `precisions` are those that an engine has, from which `auto` chooses.
    `streams` calls at once are what an exported file is opened for.

    ValueError for what cannot be used.
    """
    release = load(name)
    if release.exported is not None:
        target = resolve_device("cpu" if device == "auto" else device)
        return _exported_task(release, release.exported, target, precision, streams), release
    target = resolve_device(device)
    backbone = release.config.model.backbone
    if network is None and backbone.startswith(_MODULE):
        raise ValueError(f"{release.file}: its backbone is {backbone.removeprefix(_MODULE)}, which no file holds; give "
                         "the network that the weights are for: Predictor.from_file(…, model=…)")  # fmt: skip
    if network is None:
        _check_sizes(release)
    chosen = resolve_precision(precision, target, *(() if precisions is None else (precisions,)))
    task = build_task(
        release.config.changed(train__precision=chosen), release.table, network=network, load_weights=False
    )
    load_state(task.model, release.tensors, release.file)
    task.to(target).to(memory_format=torch.channels_last).eval()
    return task, release


class _Unknown(nn.Module):
    """In place of a user's own backbone, where it does not matter."""

    channels = (1, 1, 1, 1)
    mean = std = (0.0, 0.0, 0.0)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Maps of nothing, of the right sizes."""
        return [F.avg_pool2d(images[:, :1], stride, ceil_mode=True) for stride in (4, 8, 16, 32)]


def _exported_task(
    release: Release, program: type[Program], device: torch.device, precision: str, streams: int
) -> Task:
    """The task of an exported file: its network is described but has no weights, as the file's graph predicts."""
    if device.type != "cpu":
        raise ValueError(f"{release.file}: is run on the CPU, not on {device}; say --device cpu")
    if precision not in ("auto", *program.precisions):
        raise ValueError(f"{release.file}: is run in {' or '.join(program.precisions)} here, not in {precision}")
    config, kind = release.config, task_type(release.config.model.architecture)
    chosen = resolve_precision(precision, device, program.precisions)
    with torch.device("meta"):
        unknown = config.model.backbone.startswith(_MODULE)
        backbone = _Unknown() if unknown else _backbone(config.model)
        described = replace(config.model, pyramid=None) if unknown else config.model
        network = kind.build_network(described, backbone, release.table)
    task = kind.build(config.changed(train__precision=chosen), release.table, network).eval()
    task.program = program(release.file, chosen, streams)
    return task


def _check_sizes(release: Release) -> None:
    """ValueError for a header that asks for more than its file holds, before anything of that size is made."""
    sides = {side for tensor in release.tensors.values() for side in tensor.shape}
    model = release.config.model
    kind, keys = task_type(model.architecture), ["in_channels"]
    if kind.__module__.startswith("panfpn."):  # an architecture of somebody's own may have no such widths
        keys += ["fpn_channels", "head_channels"]
        keys += ["box_channels", "mask_channels"] if kind.needs_segments else []
    for key in keys:
        if getattr(model, key) not in sides:
            raise ValueError(f"{release.file}: model.{key} is {getattr(model, key)} in its header, but none of its "
                             "tensors has such a side; the file is damaged")  # fmt: skip
    if not model.backbone.startswith(_MODULE):
        try:
            with torch.device("meta"):
                wanted = _backbone(model).state_dict()
        except ValueError as error:
            raise ValueError(f"{release.file}: {error}") from error
        for name, tensor in wanted.items():
            if f"backbone.{name}" not in release.tensors or release.tensors[f"backbone.{name}"].shape != tensor.shape:
                raise ValueError(f"{release.file}: of another architecture; backbone {model.backbone!r} has a tensor "
                                 f"{name} of shape {tuple(tensor.shape)}, which is not in it")  # fmt: skip


def load_state(model: nn.Module, tensors: Mapping[str, torch.Tensor], source: Path) -> None:
    """Load a whole state dict; ValueError names `source` and the first tensor that does not fit."""
    wanted = model.state_dict()
    for name in [*wanted, *tensors]:
        if name not in tensors or name not in wanted:
            what = "misses" if name not in tensors else "has the unknown"
            raise ValueError(f"{source}: of another architecture; it {what} tensor {name}")
        if wanted[name].shape != tensors[name].shape:
            raise ValueError(f"{source}: of another architecture; tensor {name} has shape "
                             f"{tuple(tensors[name].shape)}, the model wants {tuple(wanted[name].shape)}")  # fmt: skip
        if tensors[name].is_floating_point() != wanted[name].is_floating_point() or tensors[name].is_complex():
            raise ValueError(f"{source}: tensor {name} holds {tensors[name].dtype}, the model wants "
                             f"{wanted[name].dtype}; the file is damaged")  # fmt: skip
        if not tensors[name].isfinite().all():
            raise ValueError(f"{source}: tensor {name} holds values that are not finite; the file is damaged, or its "
                             "training diverged")  # fmt: skip
    model.load_state_dict(dict(tensors))
