"""mmsegmentation's Semantic FPN (0.x and 1.x), in and out. In: a checkpoint. Out: the same network under our names.

Names, shapes and containers: docs/facts.md, B6, B7. Backbone, stem, norm, widths and classes are read from the tensors;
what else matters (strides, colours, test size) from the configuration text in the file, where there is one.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from panfpn import recipes
from panfpn.config import Data, Model, TrainConfig
from panfpn.labels import LabelClass, LabelTable
from panfpn.weights.foreign import write_foreign
from panfpn.weights.interop.imported import Imported, fitted, imported_config, semantic_shapes, views_left_out
from panfpn.weights.interop.mmseg_backbones import blocks_of_resnet, in_backbone, is_known, peers_name, read_backbone
from panfpn.weights.interop.mmseg_config import MMSegSettings, read_settings, write_settings

IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_PUBLISHED = {"cityscapes": recipes.fpn_r50_cityscapes, "ade20k": recipes.fpn_r50_ade20k}  # whose test size is assumed

Tensors = dict[str, torch.Tensor]


def is_mmseg(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Whether these are the tensors of an mmsegmentation network with an FPN head."""
    return any(name.startswith("decode_head.") for name in tensors)


def read_mmseg(
    tensors: Tensors, data: Mapping[str, Any], path: Path, *, labels: LabelTable | None, ema: bool,
    scale: tuple[int, int] | None,
) -> Imported:  # fmt: skip
    """The network of a checkpoint `data` with state dict `tensors`.

    `labels` and `scale` (longer, shorter side of test images) win over what the file says; `ema` takes its second
    copy of the weights.

    Raises:
        ValueError: another architecture (the differences, or the missing and unexpected tensors, are listed), a file
            without class names and no `labels`, or no second copy.
    """
    notes: list[str] = []
    tensors = _chosen_copy(tensors, data, ema, path, notes)
    extra = [name for name in tensors if name.startswith("auxiliary_head.")]
    if extra:
        notes.append(f"auxiliary_head ({len(extra)} tensors) is for training only and was left out")
    tensors = {name: t for name, t in tensors.items() if name not in extra}
    if "optimizer" in data:
        notes.append("the optimiser's state was left out")
    meta = data.get("meta") if isinstance(data.get("meta"), dict) else {}
    assert isinstance(meta, dict)
    text = meta.get("config") or meta.get("cfg")
    try:
        settings = read_settings(text) if isinstance(text, str) else MMSegSettings()
        model = _architecture(tensors, settings)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    notes.extend(settings.notes)
    try:
        table = labels or _table(meta, model.num_classes, path, first=int(settings.reduce_zero_label))
    except (AttributeError, TypeError, OverflowError) as error:
        raise ValueError(f"{path}: its class names or colours are damaged ({error}); give --labels") from error
    scale = scale or settings.scale
    if scale is None:
        scale = _PUBLISHED[table.name]().data.scale if table.name in _PUBLISHED else None
        size = f"{scale[0]}×{scale[1]}" if scale else "their own size"
        notes.append(
            f"the file does not say at which size images are tested: without --scale, they are fitted into {size}"
        )
    shapes = semantic_shapes(model)
    weights = fitted(tensors, {name: mmseg_name(name, model) for name in shapes}, shapes, path)
    config = imported_config(model, Data(scale=scale, size_divisor=settings.size_divisor), settings.inference, path)
    version = "1.x" if "mmengine_version" in meta or "dataset_meta" in meta else "0.x"
    return Imported(weights=weights, config=config, table=table, format=f"mmsegmentation {version}", notes=tuple(notes))


def _chosen_copy(tensors: Tensors, data: Mapping[str, Any], ema: bool, path: Path, notes: list[str]) -> Tensors:
    """One of the two copies that an EMA hook leaves: `ema_…` buffers (mmcv 0.x) or `ema_state_dict` (mmengine)."""
    main = {name: t for name, t in tensors.items() if not name.startswith("ema_")}
    flat = {name.removeprefix("ema_"): t for name, t in tensors.items() if name.startswith("ema_")}
    second = {name: flat[name.replace(".", "_")] for name in main if name.replace(".", "_") in flat}
    held = data.get("ema_state_dict")
    if isinstance(held, dict):
        second = {n.removeprefix("module."): t for n, t in held.items() if isinstance(t, torch.Tensor) and n != "steps"}
    if ema and not second:
        raise ValueError(f"{path}: holds one copy of the weights only (no ema_ tensors, no ema_state_dict)")
    if second:
        taken = "the second (--ema)" if ema else "the first (--ema takes the second)"
        which = "mmengine saves the averaged ones first" if isinstance(held, dict) else "an EMA hook left the second"
        notes.append(f"the file holds two copies of the weights ({which}); {taken} was taken")
    # mmcv's hook averages parameters only: what it has no copy of (norm statistics) is the same for both
    return main | second if ema else main


def _architecture(tensors: Tensors, settings: MMSegSettings) -> Model:
    """The network that these tensors are of; ValueError for one that is not a Semantic FPN on a known backbone."""
    backbone = read_backbone(tensors)
    classifier = tensors.get("decode_head.conv_seg.weight")
    output = tensors.get("neck.fpn_convs.0.conv.weight")
    if backbone is None or classifier is None or output is None or not classifier.ndim == output.ndim == 4:
        heads = sorted({".".join(name.split(".")[:2]) for name in tensors})
        raise ValueError(f"not a Semantic FPN on ResNet-18, 34, 50, 101 or 152 (blocks per stage "
                         f"{blocks_of_resnet(tensors)}), nor on XCiT; it holds {', '.join(heads[:12])}")  # fmt: skip
    name, blocks = backbone
    group = "decode_head.scale_heads.0.0.gn.weight" in tensors
    return Model(
        backbone=name, blocks=blocks and (settings.blocks or blocks), num_classes=classifier.shape[0],
        fpn_channels=output.shape[0], head_channels=classifier.shape[1],
        norm="group" if group else "batch", dropout=settings.dropout,
        mean=settings.mean or IMAGENET_MEAN, std=settings.std or IMAGENET_STD,
    )  # fmt: skip


def _table(meta: Mapping[str, Any], num_classes: int | None, path: Path, *, first: int) -> LabelTable:
    """The classes as the file names them: a table that ships with panfpn where the names are its own.

    `first` is the value of the first class in masks; what is below is ignored.
    """
    described = meta.get("dataset_meta") or {}
    names = meta.get("CLASSES") or described.get("classes")
    palette = meta["PALETTE"] if meta.get("PALETTE") is not None else described.get("palette")  # 0.x: may be an array
    if not names:
        raise ValueError(f"{path}: names no classes; say what its {num_classes} classes are: "
                         "panfpn convert FILE --labels cityscapes, ade20k or a labels.yaml")  # fmt: skip
    names = [str(name).strip() for name in names]
    for known in ("cityscapes", "ade20k", "camvid"):
        table = LabelTable.named(known)
        if [n.lower() for n in table.names] == [n.lower() for n in names]:
            return table
    classes = []
    for k, name in enumerate(names):
        color = tuple(int(v) for v in palette[k]) if palette is not None and k < len(palette) else None
        entry = LabelClass(name=name, color=color or (0, 0, 0), values=(first + k,))  # type: ignore[arg-type]
        classes.append(entry)
    void = 255 if first + len(names) <= 255 else 65535
    table = LabelTable(name=path.stem, classes=tuple(classes), ignore=(*range(first), void))
    if palette is None:
        plain = table.to_dict()
        for entry in plain["classes"]:
            del entry["color"]
        table = LabelTable.from_dict(plain, path)
    return table


def mmseg_name(name: str, model: Model) -> str:
    """The peer's name of one of our tensors."""
    if in_backbone(name):
        return peers_name(name, model.backbone)
    part, _, rest = name.partition(".")
    first, level, *tail = rest.split(".")
    if part == "fpn":
        convs = {"lateral": "lateral_convs", "output": "fpn_convs"}[first]
        return f"neck.{convs}.{level}.conv.{tail[0]}"
    if first == "classifier":
        return f"decode_head.conv_seg.{level}"
    unit, layer, leaf = tail
    norm = {"batch": "bn", "group": "gn"}[model.norm]
    index = 2 * int(unit)  # each of the peer's units is followed by its upsampling
    return f"decode_head.scale_heads.{level}.{index}.{norm if layer == 'norm' else 'conv'}.{leaf}"


def write_mmseg(
    path: Path, weights: Mapping[str, torch.Tensor], config: TrainConfig, table: LabelTable
) -> tuple[str, ...]:
    """Write an mmsegmentation checkpoint (`meta`, `state_dict`) that 0.x and 1.x load; returns what was left out.

    Colours and test size go into the text `meta["config"]`, so that nothing is lost on the way back; mmsegmentation
    itself wants them in its own configuration.

    Raises:
        ValueError: a backbone that is neither one of mmsegmentation's ResNets nor XCiT as it was published.
    """
    model = config.model
    if not is_known(model.backbone.partition(".")[0]) or model.pyramid == "simple" or model.final_norm:
        raise ValueError(f"{path}: mmsegmentation has no backbone {model.backbone!r} under names that panfpn knows; "
                         "only ResNets (resnet18 … resnet152, also with c or d) and XCiT with Feature2Pyramid can be "
                         "written")  # fmt: skip
    model = replace(model, backbone=model.backbone.partition(".")[0])
    # mmsegmentation's head begins with the classifier
    order = ("backbone.", "fpn.levels.", "fpn.", "head.classifier.", "head.")
    names = sorted(
        semantic_shapes(model), key=lambda name: next(i for i, part in enumerate(order) if name.startswith(part))
    )
    state = OrderedDict(
        (mmseg_name(n, model), t.float() if (t := weights[n]).is_floating_point() else t) for n in names
    )
    classes, palette = list(table.names), table.palette.tolist()
    meta = {"CLASSES": classes, "PALETTE": palette, "dataset_meta": {"classes": classes, "palette": palette},
            "config": write_settings(config)}  # fmt: skip
    write_foreign(path, {"meta": meta, "state_dict": state})
    return views_left_out(config.inference)
