"""Lets mmsegmentation be imported beside an mmcv without compiled operators; Semantic FPN calls none of them."""

import importlib.machinery
import sys
import types

import mmcv


class _Absent(types.ModuleType):
    """An operator module: every name in it is there, and None."""

    __path__: list[str] = []  # noqa: RUF012 - a module's own attribute

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


def pretend_operators() -> None:
    if not mmcv.__version__.startswith("1."):
        mmcv.__version__ = "2.1.0"  # mmsegmentation 1.2.2 asks for an older mmcv than it works with
    for name in ("mmcv.ops", "mmcv.ops.point_sample"):
        sys.modules[name] = _Absent(name)
        sys.modules[name].__spec__ = importlib.machinery.ModuleSpec(name, None)
