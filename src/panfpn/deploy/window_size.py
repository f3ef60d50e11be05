"""How large windows of a raster are. In: a raster, a network, bytes. Out: a side in pixels, and how both sides are cut.

The side is a function of the network, the raster and the bytes, not of a measurement: the same call cuts alike.
"""

import copy
import math

import torch
from torch import nn

from panfpn.data.rasters import Raster
from panfpn.memory import installed_memory, peak_of_shapes
from panfpn.models.pixels import PixelNetwork
from panfpn.ops.seams import ALIGNED, Cuts
from panfpn.tasks import Task

_SIDES = (512, 768, 1024, 1280, 1536, 2048)  # larger ones are no faster
_OVERLAP = 256  # pixels; a quarter of smaller windows
_SCRATCH = 1.4  # what libraries take on top, whatever the precision
_UNKNOWN = 500.0  # bytes a pixel, of exported files and of networks that cannot be followed on shapes
_AROUND = 20.0  # bytes a pixel, of images that are read ahead and of labels
_PROGRAM = 900e6  # bytes of Python, torch and their libraries
_FILES = 64 << 20  # bytes that reading and writing take


def window_for(raster: Raster, task: Task, memory: int | None) -> int:
    """The largest side whose work fits; `memory` is of the whole process, None a quarter of the machine's.

    ValueError, if not even the smallest does.
    """
    if memory is None:
        installed = installed_memory() / 4
        memory = int(installed if math.isfinite(installed) else 2**32)
    each = _AROUND + (_UNKNOWN if task.program is not None else _SCRATCH * _of_network(task.pixels))
    cells = raster.width / task.stride

    def need(side: int) -> float:
        overlap = _real(task, side)[1]
        kept = 4 * task.table.num_classes * (overlap / task.stride + 4) * cells + _FILES
        return _PROGRAM + kept + each * min(_real(task, side)[0], max(raster.height, raster.width)) ** 2

    sides = [side for side in _SIDES if need(side) <= memory]
    if not sides:
        raise ValueError(f"{raster.path}: windows of {_SIDES[0]} pixels take {need(_SIDES[0]) / 1e9:.1f} GB with this "
                         f"model, and {memory / 1e9:.1f} GB are allowed; allow more with --memory")  # fmt: skip
    enough = [side for side in sides if side >= max(raster.height, raster.width)]
    return enough[0] if enough else sides[-1]


def cut(raster: Raster, task: Task, side: int) -> tuple[Cuts, Cuts]:
    """How the rows and the columns are cut into windows of about `side` pixels: the nearest that fits the grid.

    Exported files get windows of exactly this side, wherever the raster is as large.
    """
    stride, _ = _grid(task)
    real, overlap, align = _real(task, side)
    rows, columns = (Cuts.of(length, real, overlap, stride=stride, align=align)
                     for length in (raster.height, raster.width))  # fmt: skip
    return rows, columns


def _grid(task: Task) -> tuple[int, int]:
    """The stride of cells, and what windows begin at multiples of."""
    return (1, 1) if task.program is not None else (task.stride, ALIGNED)


def _real(task: Task, side: int) -> tuple[int, int, int]:
    """The side, overlap and alignment that windows of about this side have."""
    stride, align = _grid(task)
    align = math.lcm(align, stride, task.preprocess.size_divisor if task.program is None else 1)
    overlap = -(-min(_OVERLAP, side // 4) // align) * align
    return max(side // align * align, 3 * overlap), overlap, align


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
