"""Images too large for memory, read window by window. In: a path. Out: a `Raster`.

GeoTIFF and all else that GDAL reads (extra geo), plain TIFF and BigTIFF, NumPy's .npy, Zarr (extra zarr), whole slides
(extra wsi).
"""

from panfpn.data.rasters.raster import Geography, Raster
from panfpn.data.rasters.sources import RASTER_SUFFIXES, is_raster, open_raster

__all__ = ["RASTER_SUFFIXES", "Geography", "Raster", "is_raster", "open_raster"]
