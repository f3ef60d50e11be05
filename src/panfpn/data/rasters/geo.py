"""What GDAL reads: GeoTIFF, COG, JPEG 2000, VRT, NetCDF … (extra geo: rasterio)."""

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from panfpn.data.rasters.raster import Geography, Raster, Samples, Valid
from panfpn.extras import optional

_CACHE = "32"  # megabytes of decoded blocks


class GeoRaster(Raster):
    """A raster behind rasterio; nodata values, masks and alpha bands say which pixels have data."""

    def __init__(self, path: Path) -> None:
        os.environ.setdefault("GDAL_CACHEMAX", _CACHE)  # else a twentieth of the machine's memory
        rasterio = optional("rasterio", "geo", f"{path}: reading this needs")
        self.path, self._rasterio = path, rasterio
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)  # it need not be on Earth
            try:
                self.file: Any = rasterio.open(path)
            except rasterio.errors.RasterioIOError as error:
                raise ValueError(f"{path}: not a raster that GDAL can read ({error})") from error
        file = self.file
        self.height, self.width, self.bands = file.height, file.width, file.count
        if not file.count:
            raise ValueError(f"{path}: holds no bands of its own; name one of its parts"
                             + "".join(f", such as {name}" for name in file.subdatasets[:1]))  # fmt: skip
        kinds = [kind.name for kind in file.colorinterp]
        if any("complex" in kind for kind in file.dtypes):
            raise ValueError(f"{path}: complex values; an image has whole or floating-point numbers")
        self.dtype = str(np.result_type(*file.dtypes))
        self.pages = max(1, len(file.subdatasets))
        upright = path.suffix.lower() not in (".tif", ".tiff") or _orientation(path) == 1
        if not upright or file.tags().get("EXIF_Orientation", "1") not in ("0", "1"):
            raise ValueError(f"{path}: its pixels are stored turned or mirrored (orientation); turn them upright first")
        self.bits = int(file.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", 8)) if self.dtype == "uint8" else 8
        self.alpha = kinds[-1] == "alpha"
        rgb = kinds[:3] == ["red", "green", "blue"]
        self.colors = True if rgb or (kinds[:1] == ["gray"] and file.count - self.alpha == 1) else None
        self.palette = _palette(file) if kinds == ["palette"] else None
        if self.palette is not None:
            self.bands, self.colors, self.bits = 3, True, 8
        points = file.gcps
        self.geography = Geography(file.crs, file.transform, (tuple(points[0]), points[1]))
        flags = {flag.name for flags in file.mask_flag_enums for flag in flags}
        self._masked = bool(flags - {"all_valid"})

    def read(self, rows: slice, columns: slice) -> tuple[Samples, Valid | None]:
        """See `Raster.read`."""
        window = self._rasterio.windows.Window.from_slices(rows, columns)
        try:
            samples = self.file.read(window=window, out_dtype=self.dtype)
            valid = self.file.dataset_mask(window=window) > 0 if self._masked else None
        except self._rasterio.errors.RasterioIOError as error:
            raise ValueError(f"{self.path}: rows {rows.start} to {rows.stop} cannot be read ({error})") from error
        if self.palette is not None:
            return self.palette[samples[0]], valid
        if samples.dtype.kind == "f":
            finite = np.isfinite(samples).all(0)
            valid = finite if valid is None else valid & finite
        return np.moveaxis(samples, 0, -1), valid

    def files(self) -> list[Path]:
        """See `Raster.files`."""
        return [self.path, *(Path(name) for name in self.file.files)]

    def close(self) -> None:
        """See `Raster.close`."""
        self.file.close()


def _orientation(path: Path) -> int:
    """What the first page of a TIFF says, which GDAL does not."""
    import tifffile  # noqa: PLC0415 - only who has TIFFs pays for it

    try:
        with tifffile.TiffFile(path) as file:
            return int(file.pages[0].tags.valueof(274, default=1))  # type: ignore[union-attr]
    except Exception:  # GDAL reads more of them
        return 1


def _palette(file: Any) -> Samples:
    """Colours [N, 3] of the indices."""
    entries = file.colormap(1)
    palette = np.zeros((max(entries, default=0) + 1, 3), np.uint8)
    for index, color in entries.items():
        palette[index] = color[:3]
    return np.pad(palette, ((0, max(0, np.iinfo(file.dtypes[0]).max + 1 - len(palette))), (0, 0)))
