"""What all exported files have in common: names of formats, what is written beside the graph, and how one is run."""

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from panfpn.choices import FORMATS, lookup

KEY = "panfpn"  # of the metadata, under which the header stands
Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Traced:
    """A module and what exporters need of it."""

    module: nn.Module
    names: tuple[str, ...]  # of what it gives
    example: torch.Tensor  # uint8 [B, H, W, C]
    program: Any  # torch.export's ExportedProgram; None where only tracing can follow the module
    dynamic: bool  # whether height and width are free; the batch always is


class Program(ABC):
    """An exported file, opened: pixels in, named arrays out. It may be called from any thread.

    `streams` says how many calls at once it is made for. Copied and sent to another process it is opened again there;
    a fork leaves it without its threads.
    """

    engine: ClassVar[str]  # what runs it
    precisions: ClassVar[tuple[str, ...]] = ("float32",)
    names: tuple[str, ...]  # of the arrays that it gives

    def __init__(self, file: Path, precision: str, streams: int = 1) -> None:
        self.file, self.precision, self.streams = file, precision, streams
        self.process = os.getpid()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.file, self.precision, self.streams)

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> Arrays:
        """The arrays of images [B, H, W, C]; ValueError for a size that the file does not take, and after a fork."""
        if os.getpid() != self.process:
            raise ValueError(f"{self.file}: was opened before this process was forked, and would wait for ever; start "
                             "workers with the spawn method, or open the file in them")  # fmt: skip
        try:
            found = self.run(np.ascontiguousarray(pixels))
        except Exception as error:
            raise ValueError(f"{self.file}: cannot take images {pixels.shape[1:]} ({last_line(error)})") from error
        return dict(zip(self.names, found, strict=True))

    @abstractmethod
    def run(self, pixels: npt.NDArray[np.uint8]) -> Sequence[npt.NDArray[Any]]:
        """The arrays in the order of their names; any error says that these images cannot be taken."""


class Format(ABC):
    """How a graph is written to a file, and opened."""

    suffix: ClassVar[str]
    traces: ClassVar[bool] = True  # whether it can do with a traced module
    program: ClassVar[type[Program]]

    @staticmethod
    @abstractmethod
    def write(traced: Traced, header: Mapping[str, Any], path: Path) -> list[Path]:
        """Write the file, and name all that it consists of."""

    @staticmethod
    @abstractmethod
    def header(path: Path) -> dict[str, Any]:
        """What was written beside the graph; ValueError for a file that is damaged or not from here."""


def format_named(name: str) -> type[Format]:
    """The format of a name; ValueError for an unknown one."""
    found: type[Format] = lookup(FORMATS, name, "format")
    return found


def format_of(path: Path) -> type[Format] | None:
    """The format of a file, by its suffix."""
    return next((form for form in map(format_named, FORMATS) if form.suffix == path.suffix), None)


def parsed(text: object, path: Path) -> dict[str, Any]:
    """The header in a file's metadata."""
    try:
        header = json.loads(text) if isinstance(text, str) else None
    except ValueError as error:
        raise ValueError(f"{path}: its header is damaged") from error
    if not isinstance(header, dict):
        raise ValueError(f"{path}: has no header of panfpn; export it with panfpn export")
    return header


def metadata(header: Mapping[str, Any]) -> dict[str, str]:
    """Keys and texts that other readers look for: ultralytics' names and task, and ours."""
    names = {k: c["name"] for k, c in enumerate(header["table"]["classes"])}
    return {
        KEY: json.dumps(header, sort_keys=True), "description": f"{header['architecture']}, {header['table']['name']}",
        "author": "panfpn", "task": "semantic" if header["architecture"] == "SemanticFPN" else "panoptic",
        "names": str(names), "license": str(header.get("source", {}).get("license", "")),
        "channels": str(header["model"]["in_channels"]),
    }  # fmt: skip


def last_line(error: Exception) -> str:
    """What engines say last is the reason; what comes before it are places in their source."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:300]
