"""Run checkpoints and release files: safetensors with a signed header. Nothing here can execute code.

In: named tensors and a plain-data header. Out: the same, or a ValueError that says which file is damaged and where.
A run checkpoint resumes; a release file predicts with nothing else at hand.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file

from panfpn.files import replacing

_KEY = "panfpn"
_FORMAT = 1

Tensors = dict[str, torch.Tensor]


def write_checkpoint(path: Path, tensors: Mapping[str, torch.Tensor], header: Mapping[str, Any], *, kind: str) -> str:
    """Write tensors and header atomically; returns the SHA-256 of both, which the file vouches for."""
    plain = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    # safetensors takes no tensors that share memory (tied weights, views): each is written on its own
    first = {t.untyped_storage().data_ptr(): name for name, t in reversed(plain.items())}
    plain = {n: t if first[t.untyped_storage().data_ptr()] == n else t.clone() for n, t in plain.items()}
    text = json.dumps({**header, "kind": kind, "format": _FORMAT}, sort_keys=True)
    digest = _digest(text, plain)
    with replacing(path) as temporary:
        save_file(plain, temporary, metadata={_KEY: text, "sha256": digest})
    return digest


def is_release(path: Path) -> bool:
    """Whether a safetensors file is one that panfpn wrote (False: somebody else's tensors)."""
    with _opened(path) as file:
        return _KEY in (file.metadata() or {})


def read_header(path: Path) -> dict[str, Any]:
    """The header alone, without its tensors (and so not verified)."""
    with _opened(path) as file:
        return _header(file, path)[0]


def read_checkpoint(path: Path, *, kind: str) -> tuple[Tensors, dict[str, Any]]:
    """Tensors and header of a file of this `kind` ("run" or "release").

    Raises:
        ValueError: no such file, not a panfpn file, of another kind or a newer format, truncated, or changed since it
            was written.
    """
    with _opened(path) as file:
        header, text, digest = _header(file, path)
        if header["kind"] != kind:
            raise ValueError(f"{path}: is a {header['kind']} file, but a {kind} file is wanted here")
        tensors: Tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    if _digest(text, tensors) != digest:
        raise ValueError(
            f"{path}: its content does not match the SHA-256 in it; the file was changed or damaged, get it again"
        )
    return tensors, header


def tensors_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """The SHA-256 of named tensors, whatever file they are in."""
    return _digest("", {name: t.detach().cpu().contiguous() for name, t in tensors.items()})


def _digest(text: str, tensors: Mapping[str, torch.Tensor]) -> str:
    state = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        state.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        state.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()


def _opened(path: Path) -> Any:
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        return safetensors.safe_open(path, framework="pt")
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(
            f"{path}: not a whole safetensors file, it is truncated or of another format ({error})"
        ) from error


def _header(file: Any, path: Path) -> tuple[dict[str, Any], str, str]:
    metadata = file.metadata() or {}
    if _KEY not in metadata or "sha256" not in metadata:
        raise ValueError(f"{path}: a safetensors file, but not one that panfpn wrote (its metadata has no {_KEY!r})")
    try:
        header = json.loads(metadata[_KEY])
        known = header["format"] <= _FORMAT and isinstance(header["kind"], str)
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: its header is damaged") from error
    if not known:
        raise ValueError(f"{path}: of format {header['format']}, but this panfpn reads up to {_FORMAT}; update panfpn")
    return header, metadata[_KEY], metadata["sha256"]
