"""How large windows of a raster are. In: a raster, a network, bytes. Out: a side in pixels, and how both sides are cut.

The side is a function of the network, the raster and the bytes, not of a measurement: the same call cuts alike.
"""

import copy
import math

import torch
from torch import nn

from panfpn.data.rasters import Raster
from panfpn.memory import free_memory, peak_of_shapes, resident
from panfpn.models.pixels import PixelNetwork
from panfpn.ops.seams import ALIGNED, Cuts
from panfpn.tasks import Task

_SIDES = (512, 768, 1024, 1280, 1536, 2048)  # larger ones are no faster
_OVERLAP = 256  # pixels; a quarter of smaller windows
_SCRATCH = 1.4  # what libraries take on top, whatever the precision
_UNKNOWN = 500.0  # bytes a pixel, of exported files and of networks that cannot be followed on shapes
_AROUND = 20.0  # bytes a pixel, of images that are read ahead and of labels
_FILES = 64 << 20  # bytes that reading and writing take


def window_for(raster: Raster, task: Task, memory: int | None) -> int:
    """The largest side whose work fits; `memory` is of the whole process, None half of what is free.

    ValueError, if not even the smallest does.
    """
    if task.device.type == "cuda":
        left = free_memory(task.device) * 0.8
    elif memory is None:
        left = free_memory(task.device) / 2
        left = left if math.isfinite(left) else 2.0**31
    else:
        left = memory - resident()
    each = _AROUND + (_UNKNOWN if task.program is not None else _SCRATCH * _of_network(task.pixels))
    cells = raster.width / task.stride
    kept = 4 * task.table.num_classes * (_OVERLAP / task.stride + 4) * cells + _FILES
    sides = [side for side in _SIDES if kept + each * side**2 <= left]
    if not sides:
        need = (kept + each * _SIDES[0] ** 2 + (resident() if memory else 0)) / 1e9
        raise ValueError(f"{raster.path}: windows of {_SIDES[0]} pixels take {need:.1f} GB with this model, and "
                         f"{(memory or left) / 1e9:.1f} GB are there; allow more with --memory")  # fmt: skip
    enough = [side for side in sides if side >= max(raster.height, raster.width)]
    return enough[0] if enough else sides[-1]


def cut(raster: Raster, task: Task, side: int) -> tuple[Cuts, Cuts]:
    """How the rows and the columns are cut into windows of at most `side` pixels, or the nearest that fits the grid.

    Exported files get windows of exactly this side, wherever the raster is as large.
    """
    stride, align = (1, 1) if task.program is not None else (task.stride, ALIGNED)
    align = math.lcm(align, stride, task.preprocess.size_divisor if task.program is None else 1)
    overlap = -(-min(_OVERLAP, side // 4) // align) * align
    side = max(side // align * align, 3 * overlap)
    rows, columns = (Cuts.of(length, side, overlap, stride=stride, align=align)
                     for length in (raster.height, raster.width))  # fmt: skip
    return rows, columns


def _of_network(pixels: PixelNetwork) -> float:
    """Bytes a pixel of the tensors that are alive at once, in float32 and without the weights."""
    meta = torch.device("meta")
    shared = {id(one): one.detach().to(meta) for one in (*pixels.parameters(), *pixels.buffers())}
    for key, one in list(shared.items()):
        shared[key] = nn.Parameter(one, requires_grad=False) if one.is_floating_point() else one
    shadow = copy.deepcopy(pixels.at(torch.float32), shared)
    side = 2 * _SIDES[0]
    image = torch.zeros(1, side, side, pixels.mean.shape[0], dtype=torch.uint8, device=meta)
    try:
        return peak_of_shapes(lambda: shadow(image)) / side**2
    except (NotImplementedError, RuntimeError):
        return _UNKNOWN / _SCRATCH
