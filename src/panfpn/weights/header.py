"""The header of a file of ours, read without its tensors and without torch. In: a path or a name. Out: plain data.

A safetensors file begins with the length of a JSON text and that text. Nothing is unpickled, and no memory is taken
that the file does not fill.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from panfpn.choices import ARCHITECTURES, LAYOUTS
from panfpn.config import Data, Inference, Model, TrainConfig
from panfpn.labels import LabelTable
from panfpn.parsing import parse
from panfpn.weights.zoo import EXPORTED, local_model, model_file, published_as, published_model

KEY = "panfpn"  # of the metadata, under which the header stands
FORMAT = 1
_LONGEST = 100_000_000  # bytes of a safetensors header, as that library has it


@dataclass(frozen=True, eq=False, kw_only=True)
class Header:
    """What is known of a model before its tensors are read.

    Of another library's checkpoint that is what its name tells, if it is a published model's; everything else is None.
    """

    file: Path | None  # None: a published file that is not here yet
    architecture: str | None = None
    table: LabelTable | None = None
    data: Mapping[str, Any] | None = None  # the settings `data.*` that name what it was trained on
    config: TrainConfig | None = None  # with its model, data.scale, data.size_divisor and inference
    scores: Mapping[str, Any] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=dict)  # what `panfpn calibrate` found


def peek(name: str | Path) -> Header:
    """What is known of the model behind a name (see `find_model`) without its tensors; nothing published is fetched.

    Raises:
        ValueError: nothing of that name, a damaged header, or one that this panfpn cannot read.
    """
    published = published_model(str(name))
    file = local_model(name) if published else model_file(name)
    if file is not None and file.suffix in EXPORTED:
        from panfpn.weights.exported.program import format_of  # noqa: PLC0415 - which needs torch

        form = format_of(file)
        assert form is not None
        return parse_release(form.header(file), file)
    if file is not None and is_release(file):
        return parse_release(read_header(file, role="release"), file)
    published = published or (published_as(file) if file else None)
    if published is None:
        return Header(file=file)
    table = LabelTable.named(published.table)
    return Header(file=file, architecture=published.architecture, table=table, data=data_of(table))


def parse_release(header: Mapping[str, Any], file: Path) -> Header:
    """A release's header as it is meant; ValueError names `file` and what is wrong in it."""
    architecture = header.get("architecture")
    if not isinstance(architecture, str) or architecture not in ARCHITECTURES:
        known = " and ".join(ARCHITECTURES)
        raise ValueError(f"{file}: holds a {architecture}, but this panfpn reads {known}; update it")
    try:
        config = TrainConfig(
            model=parse(Model, header["model"]), inference=parse(Inference, header.get("inference", {})),
            data=parse(Data, {key: header[key] for key in ("scale", "size_divisor")} | dict(header.get("reading", {}))),
        )  # fmt: skip
        table = LabelTable.from_dict(header["table"], f"{file}: table")
        model = config.model
        if model.num_classes not in (None, table.num_classes):
            raise ValueError(f"model.num_classes is {model.num_classes}, but its table has {table.num_classes}")
        for key, value in (("mean", model.mean), ("std", model.std)):
            if value is not None and len(value) != model.in_channels:
                raise ValueError(f"model.{key} has {len(value)} entries for {model.in_channels} input channels")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file}: its header does not describe a network ({error})") from error
    parts = {key: header.get(key) or {} for key in ("scores", "source", "data", "calibration")}
    for key, part in parts.items():
        if not isinstance(part, Mapping):
            raise ValueError(f"{file}: its header is damaged ({key} is a {type(part).__name__})")
    data = parts["data"] or data_of(table)
    return Header(file=file, architecture=architecture, table=table, data=data, config=config, scores=parts["scores"],
                  source=parts["source"], calibration=parts["calibration"])  # fmt: skip


def data_of(table: LabelTable) -> dict[str, str] | None:
    """The data set that a label table is named after, where it is one with a layout and these are its classes."""
    if table.name not in LAYOUTS:
        return None
    try:
        known = LabelTable.named(table.name).names
    except ValueError:  # the layout's files bring the classes
        known = table.names
    return {"dataset": table.name} if table.names == known else None


def is_release(path: Path) -> bool:
    """Whether this is a safetensors file that panfpn wrote (False: somebody else's tensors, or another format)."""
    return path.suffix == ".safetensors" and KEY in _metadata(path)


def read_header(path: Path, *, role: str | None = None) -> dict[str, Any]:
    """The header of a file of ours, without its tensors (and so not verified).

    Raises:
        ValueError: no such file, not a panfpn file, of another `role` ("run", "release"; None: any) or a newer format.
    """
    return checked(_metadata(path), path, role)[0]


def checked(metadata: Mapping[str, Any], path: Path, role: str | None) -> tuple[dict[str, Any], str, str]:
    """The header in a file's metadata, its text and the SHA-256 that vouches for it; errors as of `read_header`."""
    text, digest = metadata.get(KEY), metadata.get("sha256")
    if not isinstance(text, str) or not isinstance(digest, str):
        raise ValueError(f"{path}: a safetensors file, but not one that panfpn wrote (its metadata has no {KEY!r})")
    try:
        header = json.loads(text)
        known = header["format"] <= FORMAT and isinstance(header["kind"], str)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: its header is damaged") from error
    if not known:
        raise ValueError(f"{path}: of format {header['format']}, but this panfpn reads up to {FORMAT}; update panfpn")
    if role not in (None, header["kind"]):
        raise ValueError(f"{path}: is a {header['kind']} file, but a {role} file is wanted here")
    return header, text, digest


def _metadata(path: Path) -> dict[str, Any]:
    """The metadata of a whole safetensors file; ValueError for one that is not."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(size - 8, _LONGEST):
                raise ValueError(f"a header of {length} bytes in a file of {size}")
            entries = json.loads(file.read(length))
        metadata = entries.pop("__metadata__", None) or {}
        end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        if 8 + length + end != size:
            raise ValueError(f"tensors of {end} bytes behind a header of {length} in a file of {size}")
        if not isinstance(metadata, dict):
            raise ValueError("no mapping for metadata")
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path}: not a whole safetensors file, it is truncated or of another format ({error})"
        ) from error
    return metadata
