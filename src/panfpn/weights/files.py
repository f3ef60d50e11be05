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
from panfpn.weights.header import FORMAT, KEY, checked, is_release, read_header
from panfpn.weights.host import to_host

__all__ = ["is_release", "read_checkpoint", "read_header", "tensors_digest", "write_checkpoint"]

Tensors = dict[str, torch.Tensor]


def write_checkpoint(path: Path, tensors: Mapping[str, torch.Tensor], header: Mapping[str, Any], *, role: str) -> str:
    """Write tensors and header atomically; returns the SHA-256 of both, which the file vouches for.

    `role` is "run" or "release". Tensors on a device are downloaded together (see `to_host`).
    """
    plain = to_host(tensors)
    # safetensors takes no tensors that share memory (tied weights, views): each is written on its own
    first = {t.untyped_storage().data_ptr(): name for name, t in reversed(plain.items())}
    plain = {n: t if first[t.untyped_storage().data_ptr()] == n else t.clone() for n, t in plain.items()}
    text = json.dumps({**header, "kind": role, "format": FORMAT}, sort_keys=True)
    digest = _digest(text, plain)
    with replacing(path) as temporary:
        try:
            save_file(plain, temporary, metadata={KEY: text, "sha256": digest})
        except safetensors.SafetensorError as error:
            raise ValueError(f"{path}: cannot be written ({error})") from error
    return digest


def read_checkpoint(path: Path, *, role: str) -> tuple[Tensors, dict[str, Any]]:
    """Tensors and header of a file of this `role` ("run" or "release").

    Raises:
        ValueError: no such file, not a panfpn file, of another role or a newer format, truncated, or changed since it
            was written.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header, text, digest = checked(file.metadata() or {}, path, role)
            tensors: Tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(
            f"{path}: not a whole safetensors file, it is truncated or of another format ({error})"
        ) from error
    if _digest(text, tensors) != digest:
        raise ValueError(
            f"{path}: its content does not match the SHA-256 in it; the file was changed or damaged, get it again"
        )
    return tensors, header


def tensors_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """The SHA-256 of named tensors, whatever file they are in."""
    return _digest("", to_host(tensors))


def _digest(text: str, tensors: Mapping[str, torch.Tensor]) -> str:
    state = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        state.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        state.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()
