"""Release files: a model and all it needs to predict. In: weights and settings, or a name. Out: a file, or a `Release`.

Other libraries' checkpoints, and exported files, are read under the same names.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from panfpn.config import TrainConfig
from panfpn.files import sha256
from panfpn.labels import LabelTable
from panfpn.parsing import plain
from panfpn.weights.exported.program import Program, format_of
from panfpn.weights.files import read_checkpoint, write_checkpoint
from panfpn.weights.header import data_of, is_release, parse_release
from panfpn.weights.interop.detect import read_foreign_model
from panfpn.weights.zoo import model_file, published_model

# Of `config.Data`: what says how a network was trained, or where, and not what it was trained on.
_NOT_THE_DATA = frozenset(
    """root pack pack_url pack_cache pack_cache_gb crop scale size_divisor ratio short_sides aspect cat_max_ratio flip
    rotate90 photometric num_workers memory_gb""".split()  # noqa: SIM905
)
_READING = ("bands", "range", "pages", "mask_orientation")  # of `config.Data`: what image files leave open


@dataclass(frozen=True, eq=False, kw_only=True)
class Release:
    """A model: its weights, and what they mean."""

    file: Path
    config: TrainConfig  # with its model, data.scale, data.size_divisor and inference
    table: LabelTable
    tensors: dict[str, torch.Tensor]  # under our names
    scores: Mapping[str, Any] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)  # where the weights came from
    notes: tuple[str, ...] = ()  # what was left out or assumed of another library's checkpoint, a sentence each
    data: Mapping[str, Any] | None = None  # the settings `data.*` that name what it was trained on, if that is known
    calibration: Mapping[str, Any] = field(default_factory=dict)  # what `panfpn calibrate` found, if it was asked
    exported: type[Program] | None = None  # what runs `file`, which then is a graph: there are no tensors

    def with_weights(self) -> "Release":
        """This release; ValueError for an exported file, whose weights are a part of its graph."""
        if self.exported is not None:
            raise ValueError(f"{self.file}: is an exported graph, which predicts and no more; take the release file "
                             "that it was made of")  # fmt: skip
        return self


def load(
    name: str | Path, *, labels: LabelTable | None = None, ema: bool = False, scale: tuple[int, int] | None = None
) -> Release:
    """The model behind a name: a file, a run folder, a published name, OWNER/REPO on the Hub (see `find_model`).

    `labels`, `ema` (the second copy of the weights) and `scale` (longer and shorter side of test images) are for
    checkpoints of other libraries, which do not say all of it.

    Raises:
        ValueError: nothing of that name, a damaged file, another network, a label table of another number of classes.
    """
    file = model_file(name)
    form = format_of(file)
    if form is not None or is_release(file):
        if labels or ema or scale:
            raise ValueError(
                f"{file}: is a release file, which says all of this itself; leave --labels, --ema, --scale"
            )
        tensors, plain_header = ({}, form.header(file)) if form else read_checkpoint(file, role="release")
        header = parse_release(plain_header, file)
        assert header.config is not None and header.table is not None
        return Release(
            file=file, config=header.config, table=header.table, tensors=tensors, scores=header.scores,
            source=header.source, data=header.data, calibration=header.calibration,
            exported=form.program if form else None,
        )  # fmt: skip
    return _import(str(name), file, labels, ema, scale)


def _import(name: str, file: Path, labels: LabelTable | None, ema: bool, scale: tuple[int, int] | None) -> Release:
    """The network in another library's checkpoint."""
    if labels is None and (published := published_model(name)):
        labels = LabelTable.named(published.table)
    read = read_foreign_model(file, labels=labels, ema=ema, scale=scale)
    if read.config.model.num_classes != read.table.num_classes:
        raise ValueError(f"{file}: has {read.config.model.num_classes} classes, but label table {read.table.name!r} "
                         f"names {read.table.num_classes}")  # fmt: skip
    source = {"file": file.name, "sha256": sha256(file), "format": read.format}
    return Release(
        file=file, config=read.config, table=read.table, tensors=read.weights, source=source, notes=read.notes,
        data=data_of(read.table),
    )  # fmt: skip


def write_release(
    path: Path, weights: Mapping[str, torch.Tensor], config: TrainConfig, table: LabelTable, *,
    scores: Mapping[str, Any], source: Mapping[str, Any], half: bool = False, named_data: bool = True,
) -> str:  # fmt: skip
    """Write a self-describing release file of a resolved configuration; returns its SHA-256.

    `half` stores convolution weights as float16 and keeps norms, biases and statistics in float32. `named_data` is
    False where the network was trained on something else than `config.data` names, so that the file names nothing.
    """
    data = plain(asdict(config.data)) if named_data else {}
    data = {key: value for key, value in data.items() if key not in _NOT_THE_DATA and (key, value) != ("fold", 0)}
    header = release_header(config, table, scores, source, data or None)
    tensors = {n: t.half() if half and t.ndim > 1 and t.is_floating_point() else t for n, t in weights.items()}
    return write_checkpoint(path, tensors, header, role="release")


def release_header(
    config: TrainConfig, table: LabelTable, scores: Mapping[str, Any], source: Mapping[str, Any],
    data: Mapping[str, Any] | None,
) -> dict[str, Any]:  # fmt: skip
    """What a file says of a model, as plain data."""
    model = replace(config.model, pretrained=False, backbone_weights=None, start_from=None)
    header = {
        "architecture": model.architecture, "model": asdict(model), "scale": config.data.scale,
        "size_divisor": config.data.size_divisor, "inference": asdict(config.inference), "table": table.to_dict(),
        "scores": dict(scores), "source": dict(source),
        "reading": {key: plain(getattr(config.data, key)) for key in _READING},
    }  # fmt: skip
    return header if data is None else header | {"data": dict(data)}
