"""Labels of a raster as files. In: rows of labels on disk. Out: GeoTIFF, .npy, Zarr or PNG, written strip by strip."""

import errno
import os
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from panfpn.data.rasters import Geography
from panfpn.extras import optional

Pixels = npt.NDArray[Any]
_BLOCK = 512  # pixels of a side of a tile
_STRIP = 1 << 25  # bytes of rows that are in memory at a time


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Values [H, W] that lie in a plain file, row by row, and what they mean."""

    file: Path
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    nodata: int
    names: dict[int, str]  # by value
    colors: dict[int, tuple[int, int, int]]  # by value; empty where they are ids
    geography: Geography | None = None
    change: Callable[[Pixels], Pixels] | None = None  # of what lies in the file

    def strips(self, multiple: int = _BLOCK) -> Iterator[tuple[int, Pixels]]:
        """Rows from the top, a multiple of so many at a time (the last fewer), and the number of the first."""
        height, width = self.shape
        step = max(1, _STRIP // (width * self.dtype.itemsize * multiple)) * multiple
        for top in range(0, height, step):
            rows = min(step, height - top)
            count, offset = rows * width, top * width * self.dtype.itemsize
            values = np.fromfile(self.file, self.dtype, count, offset=offset).reshape(rows, width)
            yield top, values if self.change is None else self.change(values)


class Work(AbstractContextManager["Work"]):
    """The plain file while it is written."""

    def __init__(self, path: Path, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype = shape, dtype
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        os.ftruncate(self._file, shape[0] * shape[1] * dtype.itemsize)

    def write(self, rows: slice, columns: slice, values: Pixels) -> None:
        """Put values [h, w] there."""
        lines = np.ascontiguousarray(values, self.dtype)
        for row, line in zip(range(rows.start, rows.stop), lines, strict=True):
            os.pwrite(self._file, line.data, (row * self.shape[1] + columns.start) * self.dtype.itemsize)

    def flush(self) -> None:
        """Return when all is on disk."""
        os.fsync(self._file)

    def __exit__(self, *_: object) -> None:
        os.close(self._file)


def check_form(form: str, dtype: np.dtype[Any]) -> None:
    """Before anything is labelled: ValueError where a form cannot hold such values, ImportError for what it needs."""
    if form == "png" and dtype.itemsize > 2:
        raise ValueError("segment ids need more bits than a PNG has; take tif, npy or zarr (--raster-form)")
    if form == "zarr":
        optional("zarr", "zarr", "writing Zarr needs")


def write_tif(labels: Labels, path: Path) -> None:
    """A tiled, compressed TIFF with palette and nodata value, BigTIFF where it must be; a GeoTIFF names classes too."""
    if labels.geography is not None and find_spec("rasterio"):
        _write_geotiff(labels, path, labels.geography)
        return
    import tifffile  # noqa: PLC0415

    height, width = labels.shape
    tiles = (np.pad(strip[top : top + _BLOCK, left : left + _BLOCK],
                    ((0, max(0, _BLOCK - strip[top:].shape[0])), (0, max(0, _BLOCK - strip[:, left:].shape[1]))))
             for _, strip in labels.strips() for top in range(0, len(strip), _BLOCK)
             for left in range(0, width, _BLOCK))  # fmt: skip
    colors = _colormap(labels)
    with tifffile.TiffWriter(path, bigtiff=height * width * labels.dtype.itemsize > 1 << 31) as file:
        file.write(
            tiles, shape=labels.shape, dtype=labels.dtype, tile=(_BLOCK, _BLOCK), compression="deflate", metadata=None,
            photometric="minisblack" if colors is None else "palette",
            colormap=None if colors is None else (colors.T.astype(np.uint16) * 257),
            extratags=[(42113, 2, 0, str(labels.nodata), True)],
        )  # fmt: skip


def _write_geotiff(labels: Labels, path: Path, geography: Geography) -> None:
    rasterio: Any = optional("rasterio", "geo", "writing a GeoTIFF needs")
    height, width = labels.shape
    colors = _colormap(labels)
    options: dict[str, Any] = {"photometric": "palette"} if colors is not None else {}
    if geography.placed:
        options |= {"crs": geography.crs, "transform": geography.transform}
    with rasterio.Env(GDAL_CACHEMAX=_STRIP), rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=1, dtype=labels.dtype.name, nodata=labels.nodata,
        tiled=True, blockxsize=_BLOCK, blockysize=_BLOCK, compress="deflate", BIGTIFF="IF_SAFER", **options,
    ) as file:  # fmt: skip
        if geography.points[0] and geography.points[1]:
            file.gcps = geography.points
        if colors is not None:
            file.write_colormap(1, {value: tuple(color) for value, color in enumerate(colors.tolist())})
        file.update_tags(1, **{f"CLASS_{value}": name for value, name in labels.names.items()})
        for top, strip in labels.strips():
            file.write(strip, 1, window=rasterio.windows.Window(0, top, width, len(strip)))
    try:  # GDAL says nothing of a disk that is full
        with rasterio.open(path) as file:
            for top, strip in labels.strips():
                if not np.array_equal(file.read(1, window=rasterio.windows.Window(0, top, width, len(strip))), strip):
                    raise OSError(errno.ENOSPC, "not written whole", str(path))
    except rasterio.errors.RasterioError as error:
        raise OSError(errno.ENOSPC, f"not written whole ({error})", str(path)) from error


def write_npy(labels: Labels, path: Path) -> None:
    """NumPy's form, which can be mapped into memory."""
    with path.open("wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(labels.dtype), "fortran_order": False, "shape": labels.shape}
        np.lib.format.write_array_header_2_0(file, header)
        for _, strip in labels.strips():
            strip.tofile(file)


def write_zarr(labels: Labels, path: Path) -> None:
    """A Zarr array, whose attributes hold the classes."""
    zarr: Any = optional("zarr", "zarr", "writing Zarr needs")
    shutil.rmtree(path, ignore_errors=True)  # of a call that was stopped here
    array = zarr.create_array(
        str(path), shape=labels.shape, chunks=(_BLOCK, _BLOCK), dtype=labels.dtype, fill_value=labels.nodata,
        attributes={"classes": {str(value): name for value, name in labels.names.items()}},
    )  # fmt: skip
    for top, strip in labels.strips():
        array[top : top + len(strip)] = strip


def write_png(labels: Labels, path: Path) -> None:
    """A PNG, with a palette where values are of 8 bits."""
    check_form("png", labels.dtype)
    height, width = labels.shape
    depth = 8 * labels.dtype.itemsize
    colors = _colormap(labels)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        file.write(chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 0 if colors is None else 3, 0, 0, 0)))
        if colors is not None:
            file.write(chunk(b"PLTE", colors.tobytes()))
        packer = zlib.compressobj(6)
        for _, strip in labels.strips():
            lines = strip.astype(f">u{labels.dtype.itemsize}").view(np.uint8).reshape(len(strip), -1)
            data = packer.compress(np.pad(lines, ((0, 0), (1, 0))).tobytes())  # filter 0 before each line
            if data:
                file.write(chunk(b"IDAT", data))
        file.write(chunk(b"IDAT", packer.flush()) + chunk(b"IEND", b""))


def _colormap(labels: Labels) -> npt.NDArray[np.uint8] | None:
    """Colours [256, 3] of 8-bit values; None where values are ids, or have more bits."""
    if not labels.colors or labels.dtype != np.uint8:
        return None
    colors = np.zeros((256, 3), np.uint8)
    for value, color in labels.colors.items():
        colors[value] = color
    return colors
