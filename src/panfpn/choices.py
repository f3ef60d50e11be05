"""What can be chosen by name: one dict a setting, name -> "module:object".

A new layout, loss, engine, … is its file and its line here: the types of the settings, the choices of the command line,
help and error texts derive from these dicts. Nothing is imported before it is chosen.
"""

import difflib
import importlib
from collections.abc import Iterable, Mapping
from typing import Any

ARCHITECTURES = {
    "SemanticFPN": "panfpn.tasks.semantic:SemanticTask",
    "PanopticFPN": "panfpn.tasks.panoptic:PanopticTask",
}
LAYOUTS = {
    "cityscapes": "panfpn.data.layouts.cityscapes:open_split",
    "ade20k": "panfpn.data.layouts.ade20k:open_split",
    "camvid": "panfpn.data.layouts.camvid:open_split",
    "coco_panoptic": "panfpn.data.layouts.coco:open_split",
    "bdd100k": "panfpn.data.layouts.preset:bdd100k",
    "kitti": "panfpn.data.layouts.preset:kitti",
    "acdc": "panfpn.data.layouts.preset:acdc",
    "idd": "panfpn.data.layouts.preset:idd",
    "mapillary_vistas": "panfpn.data.layouts.preset:mapillary_vistas",
    "mapillary_vistas_v1": "panfpn.data.layouts.preset:mapillary_vistas_v1",
    "coco": "panfpn.data.layouts.coco_instances:open_split",
    "voc": "panfpn.data.layouts.voc:open_split",
    "yolo": "panfpn.data.layouts.yolo:open_split",
    "roboflow": "panfpn.data.layouts.roboflow:open_split",
    "labelme": "panfpn.data.layouts.labelme:open_split",
    "labelstudio": "panfpn.data.layouts.labelstudio:open_split",
    "list": "panfpn.data.layouts.lists:open_split",
    "raster": "panfpn.data.layouts.raster:open_split",
    "folder": "panfpn.data.layouts.folder:open_split",
    "pairs": "panfpn.data.layouts.pairs:open_split",
    "scenes": "panfpn.data.layouts.scenes:open_split",
}
DRAWN = ("scenes",)  # layouts that lie on no disk: they need no root
LOSSES = {
    "cross_entropy": "panfpn.losses.semantic:cross_entropy",
    "ohem": "panfpn.losses.semantic:ohem",
    "dice": "panfpn.losses.semantic:dice",
    "lovasz": "panfpn.losses.semantic:lovasz",
    "focal": "panfpn.losses.semantic:focal",
}
OPTIMIZERS = {
    "sgd": "panfpn.engine.optim:sgd",
    "adamw": "panfpn.engine.optim:adamw",
}
SCHEDULES = {
    "poly": "panfpn.engine.optim:poly",
    "cosine": "panfpn.engine.optim:cosine",
    "step": "panfpn.engine.optim:step",
    "constant": "panfpn.engine.optim:constant",
}
ENGINES = {
    "torch": "panfpn.deploy.runtime:TorchRuntime",
    "openvino": "panfpn.deploy.runtime:OpenVINORuntime",
    "onnxruntime": "panfpn.deploy.runtime:ONNXRuntime",
}
FORMATS = {
    "onnx": "panfpn.weights.exported.onnx:ONNXFormat",
    "openvino": "panfpn.weights.exported.openvino:OpenVINOFormat",
    "torch": "panfpn.weights.exported.pt2:PT2Format",
}
PROTOCOLS = {
    "mmseg": "panfpn.metrics.protocols:mmseg",
    "detectron2": "panfpn.metrics.protocols:detectron2",
    "cityscapes": "panfpn.metrics.protocols:cityscapes",
    "hf": "panfpn.metrics.protocols:hf",
    "smp": "panfpn.metrics.protocols:smp",
}
LOGGERS = {
    "tensorboard": "panfpn.engine.loggers.tensorboard:TensorBoardLogger",
    "wandb": "panfpn.engine.loggers.wandb:WandbLogger",
    "mlflow": "panfpn.engine.loggers.mlflow:MLflowLogger",
}
SUBMISSIONS = {
    "cityscapes": "panfpn.deploy.submission.label_files:LabelFiles",
    "ade20k": "panfpn.deploy.submission.label_files:LabelFiles",
    "coco-panoptic": "panfpn.deploy.submission.segment_files:SegmentFiles",
    "cityscapes-panoptic": "panfpn.deploy.submission.segment_files:SegmentFiles",
    "coco": "panfpn.deploy.submission.outline_files:CocoFiles",
    "yolo": "panfpn.deploy.submission.outline_files:YoloFiles",
    "cvat": "panfpn.deploy.submission.outline_files:CvatFiles",
    "labelme": "panfpn.deploy.submission.outline_files:LabelMeFiles",
}
RASTER_FORMS = {  # of the labels of a raster; the names are suffixes too
    "tif": "panfpn.deploy.raster_files:write_tif",
    "npy": "panfpn.deploy.raster_files:write_npy",
    "zarr": "panfpn.deploy.raster_files:write_zarr",
    "png": "panfpn.deploy.raster_files:write_png",
}
WRITERS = {
    "SemanticFPN": "panfpn.weights.interop.mmseg:write_mmseg",
    "PanopticFPN": "panfpn.weights.interop.detectron2:write_detectron2",
}


def lookup(choices: Mapping[str, str], name: str, key: str) -> Any:
    """The object that `name` stands for; ValueError says that setting `key` has no such choice, and which it has."""
    if name not in choices:
        raise ValueError(no_choice(key, name, choices))
    module, _, attribute = choices[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def no_choice(key: str, value: object, choices: Iterable[object]) -> str:
    """The sentence for a setting `key` with a value that is none of the choices; it names the nearest."""
    names = [str(name) for name in choices]
    near = difflib.get_close_matches(str(value), names, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]}? (choices: {', '.join(names)})" if near else f"choose from {', '.join(names)}"
    return f"{key} is {value!r}; {hint}"
