"""Which reader a raster needs. In: a path. Out: a `Raster`."""

from importlib.util import find_spec
from pathlib import Path

from panfpn.data.rasters.arrays import ArrayRaster
from panfpn.data.rasters.geo import GeoRaster
from panfpn.data.rasters.raster import Raster
from panfpn.data.rasters.slides import SlideRaster
from panfpn.data.rasters.tiff import TiffRaster

_SLIDES = frozenset({".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide"})
_TIFF = frozenset({".tif", ".tiff", ".btf", ".tf8"})
_BY_GDAL = frozenset({".vrt", ".img", ".nc", ".hdf", ".ntf", ".nitf", ".dt2", ".asc", ".ers", ".bil"})
RASTER_SUFFIXES = _SLIDES | _BY_GDAL | {".npy", ".zarr", ".btf", ".tf8"}  # of what is read in windows, or not at all


def is_raster(path: Path) -> bool:
    """Whether a path is of a kind that is only read window by window."""
    return path.suffix.lower() in RASTER_SUFFIXES or (path / "zarr.json").is_file() or (path / ".zarray").is_file()


def open_raster(path: Path) -> Raster:
    """The raster behind a path.

    Raises:
        ValueError: it is not there, or not a raster.
        ImportError: the extra that its kind needs is not installed.
    """
    if not path.exists():
        raise ValueError(f"{path}: no such file")
    suffix = path.suffix.lower()
    if path.is_dir() or suffix == ".npy":
        return ArrayRaster(path)
    if suffix in _SLIDES:
        return SlideRaster(path)
    if suffix in _TIFF and find_spec("rasterio") is None:
        return TiffRaster(path)
    return GeoRaster(path)
