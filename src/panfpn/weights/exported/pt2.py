"""torch.export's archive: run by torch alone, on any of its devices."""

import io
import json
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torchvision.ops  # noqa: F401 - programs of Panoptic FPN call its operators

from panfpn.files import replacing
from panfpn.weights.exported import SUFFIXES
from panfpn.weights.exported.program import KEY, Format, Program, Traced, last_line, metadata, parsed
from panfpn.weights.foreign import check_members

_NAMES = "outputs"
# torch unpickles some parts of an archive and evaluates others as Python: all that such a part may be.
_TARGET = re.compile(
    r"torch\.ops\.(aten|torchvision)\.\w+\.\w+|torch\.sym_\w+|math\.\w+|"
    r"_operator\.(add|sub|mul|truediv|floordiv|mod|pow|neg|pos|abs|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem)"
)
_SYMBOL = re.compile(r"[a-z]+\d+|[A-Z]\w*|integer|positive|nonnegative|real|true|false|int_oo")
_EXPRESSION = re.compile(r"[\w\s'(),=+*/%.-]*")


class PT2Program(Program):
    """The module in an archive, on the CPU."""

    engine = "torch.export"

    def __init__(self, file: Path, precision: str, streams: int = 1) -> None:
        super().__init__(file, precision, streams)
        extra = {_NAMES: ""}
        try:
            _check_harmless(file)
            program = torch.export.load(str(file), extra_files=extra)
            self.module = program.module()
        except Exception as error:
            raise ValueError(f"{file}: not a program of torch.export ({last_line(error)})") from error
        self.names = tuple(extra[_NAMES].split())

    def run(self, pixels: npt.NDArray[np.uint8]) -> Sequence[npt.NDArray[Any]]:
        """See `Program`."""
        with torch.no_grad():
            return [tensor.numpy() for tensor in self.module(torch.from_numpy(pixels))]


class PT2Format(Format):
    """`.pt2`."""

    suffix, traces, program = SUFFIXES["torch"], False, PT2Program

    @staticmethod
    def write(traced: Traced, header: Mapping[str, Any], path: Path) -> list[Path]:
        """See `Format`."""
        with replacing(path) as temporary:
            extra = {**metadata(header), _NAMES: " ".join(traced.names)}
            box = io.BytesIO()  # torch would write a path's name into the file
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch about tied weights
                torch.export.save(traced.program, box, extra_files=extra)
            temporary.write_bytes(box.getbuffer())
        return [path]

    @staticmethod
    def header(path: Path) -> dict[str, Any]:
        """See `Format`."""
        try:
            with zipfile.ZipFile(path) as archive:
                name = next(n for n in archive.namelist() if n.endswith(f"extra/{KEY}"))
                text = archive.read(name).decode()
        except (zipfile.BadZipFile, OSError, StopIteration, UnicodeDecodeError, KeyError) as error:
            raise ValueError(f"{path}: not a whole program of torch.export with a header of panfpn") from error
        return parsed(text, path)


def _check_harmless(file: Path) -> None:
    """ValueError for an archive with a part that could run code of its own when torch reads it."""
    check_members(file)
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            if name.endswith(".pt"):
                torch.load(io.BytesIO(archive.read(name)), map_location="cpu", weights_only=True)
            elif name.endswith(".json"):
                for key, value in _entries(json.loads(archive.read(name))):
                    if not _is_harmless(key, value):
                        raise ValueError(f"its {key} {str(value)[:80]!r} is none that a network needs")


def _entries(data: Any) -> Iterator[tuple[str, Any]]:
    """Every key and value, of whatever depth."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield key, value
            yield from _entries(value)
    elif isinstance(data, list):
        for value in data:
            yield from _entries(value)


def _is_harmless(key: str, value: Any) -> bool:
    if key == "target" and isinstance(value, str):
        return bool(_TARGET.fullmatch(value))
    if key == "expr_str":
        words = re.findall(r"[A-Za-z_]\w*", value)
        return bool(_EXPRESSION.fullmatch(value)) and "__" not in value and all(map(_SYMBOL.fullmatch, words))
    return not (value and key in ("use_pickle", "guards_code"))
