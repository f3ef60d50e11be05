"""Other people's tensor files, read without running what is in them. In: .pth, .pkl or .safetensors. Out: plain data.

A pickle is a program; nothing here runs what one names. Tensors come through torch's weights_only reader, plain pickles
(detectron2's .pkl) through `pickles`. What training loops commonly leave beside the weights (arrays, their log buffers)
is let in as data that does nothing.
"""

import contextlib
import io
import pickle
import pickletools
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch

from panfpn.files import first_line, replacing
from panfpn.weights.pickles import NUMPY, Inert, RefusedError, check_torch_opcodes, read_plain

_LET_IN: list[Any] = [
    *((stand_in, name) for name, stand_in in NUMPY.items()),
    (Inert, "mmengine.logging.history_buffer.HistoryBuffer"),
    *((Inert, f"{module}.getattr") for module in ("builtins", "__builtin__")),  # the buffer's methods; nothing is got
]
_WRAPPERS = (
    "state_dict",
    "model",
    "module",
    "net",
    "network",
    "teacher",
    "state_dict_ema",
    "model_ema",
    "model_state_dict",
)
_LEGACY_PICKLES = 4  # before torch 1.6: a magic number, a version, the system, and then the data
_TORCH = 0x1950A86A20F9469CFC6C.to_bytes(10, "little")  # what torch's files before 1.6 begin with


def read_foreign(path: Path) -> dict[str, Any]:
    """The mapping that a file holds; tensors lie on the CPU.

    Raises:
        ValueError: no such file, a damaged one, one that is no mapping, or a pickle that would have to run code; it
            names the file, and what it wanted to run.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        data = safetensors.torch.load_file(path) if path.suffix == ".safetensors" else _read_pickle(path)
    except Exception as error:  # safetensors, zipfile, pickle and torch each have errors of their own
        wanted = _wanted(path, error) if isinstance(error, pickle.UnpicklingError) else None
        if wanted:
            raise ValueError(
                f"{path}: not loaded: to unpickle it, {wanted} would have to run, and files from elsewhere may "
                "run nothing here; where you trust it, save its state dict (tensors) alone"
            ) from error
        first = first_line(error).partition(". ")[0]
        raise ValueError(
            f"{path}: cannot be read as a checkpoint, it is damaged or of another format ({first})"
        ) from error
    if not isinstance(data, dict):
        raise ValueError(f"{path}: holds a {type(data).__name__}, but a mapping of names to tensors is wanted")
    return data


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file of any library, by name; errors as of `read_foreign`."""
    return state_dict_of(read_foreign(path), path)


def _wanted(path: Path, error: pickle.UnpicklingError) -> str | None:
    """What a refused pickle wanted to run: as torch says, or as the first such opcode does."""
    if isinstance(error, RefusedError):
        return error.name
    named = re.search(r"GLOBAL (\S+)|function '?([\w.]+)|got <class '([\w.]+)'", str(error))
    if named:
        return str(next(filter(None, named.groups())))
    texts: list[str] = []
    with path.open("rb") as file, contextlib.suppress(ValueError):  # reads opcodes, runs none
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name in ("GLOBAL", "STACK_GLOBAL"):
                name = argument.replace(" ", ".") if argument else ".".join(texts[-2:])
                if not name.startswith(("collections.", "torch.", "numpy.", "_codecs.")):
                    return name
            elif isinstance(argument, str):
                texts.append(argument)
    return None


def _read_pickle(path: Path) -> Any:
    with path.open("rb") as file:
        start = file.read(32)
    zipped = start.startswith(b"PK\x03\x04")  # since torch 1.6: tensors stay on disk until they are used
    if not zipped and _TORCH not in start:
        return read_plain(path)
    if zipped:
        check_members(path)
    else:
        with path.open("rb") as file:
            for _ in range(_LEGACY_PICKLES):
                check_torch_opcodes(file, path.stat().st_size)
    with torch.serialization.safe_globals(_LET_IN), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about newer pickles, which are refused with a sentence of ours
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)


def check_members(path: Path) -> None:
    """ValueError for an archive that torch did not write: compressed, damaged, or with a pickle that never ends."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("its records are compressed, which torch does not do")
        if sum(member.file_size for member in members) > path.stat().st_size:
            raise ValueError("its records claim more bytes than it has")
        for member in members:
            with archive.open(member) as record:  # at its end, the checksum is held against it
                while record.read(1 << 24):
                    pass
            if member.filename.endswith(".pkl"):
                check_torch_opcodes(io.BytesIO(archive.read(member)), member.file_size)


def state_dict_of(data: dict[str, Any], source: object = "checkpoint") -> dict[str, torch.Tensor]:
    """The tensors and arrays of a checkpoint, however trainers wrap them (`state_dict`, `model`), without `module.`.

    ValueError names `source` if one of them claims more numbers than it holds.
    """
    for key in _WRAPPERS:
        if isinstance(data.get(key), dict):
            data = data[key]
    arrays = {id(t): t for t in data.values() if isinstance(t, np.ndarray)}
    made = {number: _tensor(array) for number, array in arrays.items()}  # once, however many names it has
    tensors = {name: made.get(id(t), t) for name, t in data.items()}
    for name, tensor in tensors.items():
        if isinstance(tensor, torch.Tensor) and not _is_stored(tensor):
            raise ValueError(
                f"{source}: tensor {name} claims {tuple(tensor.shape)} numbers, more than are stored of it"
            )
    return {str(name).removeprefix("module."): t for name, t in tensors.items() if isinstance(t, torch.Tensor)}


def _is_stored(tensor: torch.Tensor) -> bool:
    """Whether every number of a tensor is one in memory: a stride of 0 would make any many of one."""
    if tensor.layout != torch.strided:
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _tensor(array: npt.NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(np.array(array, array.dtype.newbyteorder("=")))


def write_foreign(path: Path, data: dict[str, Any]) -> None:
    """Write a mapping as torch does, whole or not at all."""
    with replacing(path) as temporary, temporary.open("wb") as file:  # a path's name would stand in what torch writes
        torch.save(data, file)
