"""Weights and what they mean, behind one door: `load(name)`. `peek(name)` reads no tensor, and needs no torch.

Each name is imported when it is first used, so that whoever only peeks does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from panfpn.weights.convert import convert_model
    from panfpn.weights.exported.program import Program
    from panfpn.weights.fit import Fit, fitting
    from panfpn.weights.foreign import read_tensors
    from panfpn.weights.header import Header, peek
    from panfpn.weights.host import first_not_finite, to_host
    from panfpn.weights.release import Release, load, write_release

_HOMES = {
    "Fit": "fit", "Header": "header", "Program": "exported.program", "Release": "release", "convert_model": "convert",
    "first_not_finite": "host", "fitting": "fit", "load": "release", "peek": "header", "read_tensors": "foreign",
    "to_host": "host", "write_release": "release",
}  # fmt: skip

__all__ = [
    "Fit", "Header", "Program", "Release", "convert_model", "first_not_finite", "fitting", "load", "peek",
    "read_tensors", "to_host", "write_release",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"panfpn.weights.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'panfpn.weights' has no attribute {name!r}")
