"""Arrays on disk: NumPy's .npy, memory-mapped, and Zarr (extra zarr). [H, W], or [H, W, bands]."""

from pathlib import Path
from typing import Any

import numpy as np

from panfpn.data.rasters.raster import Raster, Samples, Valid
from panfpn.extras import optional


class ArrayRaster(Raster):
    """A raster that is an array on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.array: Any = _zarr(path) if path.is_dir() else _npy(path)
        shape = tuple(self.array.shape)
        if len(shape) not in (2, 3) or not all(shape):
            raise ValueError(f"{path}: an array of shape {list(shape)}; a raster has [H, W] or [H, W, bands]")
        if len(shape) == 3 and shape[0] < min(shape[1:]) and shape[0] <= 16 < shape[2]:
            raise ValueError(f"{path}: an array of shape {list(shape)}, whose bands come first; save it with them last")
        self.height, self.width, self.bands = shape[0], shape[1], 1 if len(shape) == 2 else shape[2]
        self.dtype = str(self.array.dtype)
        if self.array.dtype.kind not in "biuf":
            raise ValueError(f"{path}: {self.dtype} values; an image has whole or floating-point numbers")

    def read(self, rows: slice, columns: slice) -> tuple[Samples, Valid | None]:
        """See `Raster.read`; floats that are not finite are no data."""
        try:
            samples = np.asarray(self.array[rows, columns])
        except Exception as error:  # whatever a codec stumbles over
            raise ValueError(f"{self.path}: rows {rows.start} to {rows.stop} cannot be read ({error})") from error
        samples = samples[:, :, None] if samples.ndim == 2 else samples
        return samples, np.isfinite(samples).all(2) if samples.dtype.kind == "f" else None

    def files(self) -> list[Path]:
        """See `Raster.files`."""
        return [self.path, *sorted(file for file in self.path.rglob("*") if file.is_file())]

    def close(self) -> None:
        """See `Raster.close`."""
        self.array = None


def _npy(path: Path) -> Any:
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(found, np.ndarray):
            raise ValueError("several arrays in one file")
        return found
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path}: not an array of NumPy's that can be mapped ({error})") from error


def _zarr(path: Path) -> Any:
    zarr = optional("zarr", "zarr", f"{path}: reading this needs")
    try:
        return zarr.open_array(str(path), mode="r")
    except Exception as error:  # zarr has many
        raise ValueError(f"{path}: not a Zarr array ({error}); of a group, name the array in it") from error
