"""Release files: a model and all it needs to predict. In: weights and settings, or a name. Out: a file, or those.

Reads other libraries' checkpoints under the same names, and converts them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from panfpn.config import Data, Inference, Model, TrainConfig
from panfpn.files import sha256
from panfpn.labels import LabelTable
from panfpn.parsing import parse
from panfpn.weights.files import is_release, read_checkpoint, write_checkpoint
from panfpn.weights.interop import Imported, read_foreign_model, write_detectron2, write_mmseg
from panfpn.weights.zoo import find_model, published_model

SHIPPED = "camvid_lite0"  # the model in the package


def write_release(
    path: Path, weights: Mapping[str, torch.Tensor], config: TrainConfig, table: LabelTable, *,
    scores: Mapping[str, Any], source: Mapping[str, Any], half: bool = False,
) -> str:  # fmt: skip
    """Write a self-describing release file of a resolved configuration; returns its SHA-256.

    `half` stores convolution weights as float16 and keeps norms, biases and statistics in float32.
    """
    header = _release_header(config, table, scores, source)
    tensors = {n: t.half() if half and t.ndim > 1 and t.is_floating_point() else t for n, t in weights.items()}
    return write_checkpoint(path, tensors, header, kind="release")


def _release_header(
    config: TrainConfig, table: LabelTable, scores: Mapping[str, Any], source: Mapping[str, Any]
) -> dict[str, Any]:
    model = replace(config.model, pretrained=False, backbone_weights=None, start_from=None)
    return {
        "architecture": model.architecture, "model": asdict(model), "scale": config.data.scale,
        "size_divisor": config.data.size_divisor, "inference": asdict(config.inference), "table": table.to_dict(),
        "scores": dict(scores), "source": dict(source),
    }  # fmt: skip


def read_model(name: str | Path) -> tuple[Path, dict[str, torch.Tensor], dict[str, Any]]:
    """The file behind a name (see `find_model`), and its tensors and header as a release file has them.

    A run folder stands for its `model.safetensors`; another library's checkpoint is converted on the way.
    """
    path = default_model() if str(name) == SHIPPED else find_model(name)
    file = path / "model.safetensors" if path.is_dir() else path
    if file.suffix == ".safetensors" and is_release(file):
        return file, *read_checkpoint(file, kind="release")
    found, source = import_model(str(name), file)
    return file, found.weights, _release_header(found.config, found.table, {}, source) | {"notes": found.notes}


def parse_header(header: Mapping[str, Any], file: Path) -> tuple[TrainConfig, LabelTable]:
    """Settings (model, scale, size_divisor, inference) and classes in a release header; ValueError names `file`."""
    if header.get("architecture") not in ("SemanticFPN", "PanopticFPN"):
        raise ValueError(f"{file}: holds a {header.get('architecture')}, but this reads SemanticFPN and PanopticFPN")
    try:
        config = TrainConfig(
            model=parse(Model, header["model"]), inference=parse(Inference, header.get("inference", {})),
            data=parse(Data, {key: header[key] for key in ("scale", "size_divisor")}),
        )  # fmt: skip
        return config, LabelTable.from_dict(header["table"], f"{file}: table")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file}: its header does not describe a Semantic FPN ({error})") from error


def import_model(
    name: str, file: Path, *, labels: LabelTable | None = None, ema: bool = False, scale: tuple[int, int] | None = None
) -> tuple[Imported, dict[str, Any]]:
    """The network in another library's checkpoint, and where it came from; see `read_foreign_model`.

    Raises:
        ValueError: also a label table, the file's own or another one, of another number of classes.
    """
    if labels is None and (published := published_model(name)):
        labels = LabelTable.named(published.table)
    found = read_foreign_model(file, labels=labels, ema=ema, scale=scale)
    if found.config.model.num_classes != found.table.num_classes:
        raise ValueError(f"{file}: has {found.config.model.num_classes} classes, but label table {found.table.name!r} "
                         f"names {found.table.num_classes}")  # fmt: skip
    return found, {"file": file.name, "sha256": sha256(file), "format": found.format}


def convert_model(
    name: str | Path, out: Path | None = None, *, labels: str | None = None, ema: bool = False,
    scale: tuple[int, int] | None = None,
) -> tuple[Path, tuple[str, ...]]:  # fmt: skip
    """Another library's checkpoint -> release file; a Semantic FPN -> mmsegmentation's, a Panoptic FPN -> detectron2's.

    Returns the file written (never over another one), and what the reader left out or assumed.

    Raises:
        ValueError: a file that exists already, a label table that does not fit, or what `read_model` raises.
    """
    path = find_model(name)
    path = path / "model.safetensors" if path.is_dir() else path
    ours = path.suffix == ".safetensors" and is_release(path)
    suffix = ".pth" if ours else ".safetensors"
    out = out or Path(path.with_suffix(suffix).name)
    if out.suffix != suffix:
        raise ValueError(f"{out}: is to be written as {suffix}; name the file so")
    if out.exists():
        raise ValueError(f"{out}: exists already; name another file with --out")
    if ours:
        if labels or ema or scale:
            raise ValueError(
                f"{path}: is a release file, which says all of this itself; leave --labels, --ema, --scale"
            )
        weights, header = read_checkpoint(path, kind="release")
        config, own = parse_header(header, path)
        write = write_detectron2 if config.model.architecture == "PanopticFPN" else write_mmseg
        write(out, weights, config, own)
        return out, tuple(_left_out(config))
    table = None
    if labels is not None:
        is_file = labels.endswith((".yaml", ".yml"))
        table = LabelTable.from_yaml(Path(labels)) if is_file else LabelTable.named(labels)
    found, source = import_model(str(name), path, labels=table, ema=ema, scale=scale)
    write_release(out, found.weights, found.config, found.table, scores={}, source=source)
    return out, found.notes


def _left_out(config: TrainConfig) -> Iterator[str]:
    """What the other library's checkpoint has no place for, a sentence each."""
    asked = config.inference
    if asked.ratios != (1.0,) or asked.flip:
        yield "several scales and mirror (inference.ratios, .flip) were left out"
    if config.model.architecture == "PanopticFPN" and asked.nms_over_classes:
        yield "detectron2 drops overlapping boxes within each class only (inference.nms_over_classes was left out)"


def default_model() -> Path:
    """The street-scene model that ships with panfpn (CamVid classes; see docs/camvid_lite0.md)."""
    return Path(str(resources.files("panfpn") / "weights" / f"{SHIPPED}.safetensors"))
