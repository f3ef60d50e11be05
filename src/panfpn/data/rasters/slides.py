"""Whole slides of microscopes (extra wsi: OpenSlide), at their finest level."""

from pathlib import Path
from typing import Any

import numpy as np

from panfpn.data.rasters.raster import Raster, Samples, Valid
from panfpn.extras import optional


class SlideRaster(Raster):
    """A slide; what was not scanned is transparent, and no data."""

    colors, bands, dtype = True, 3, "uint8"

    def __init__(self, path: Path) -> None:
        openslide: Any = optional("openslide", "wsi", f"{path}: reading a whole slide needs")
        self.path, self._error = path, openslide.OpenSlideError
        try:
            self.slide = openslide.OpenSlide(path)
        except (openslide.OpenSlideError, OSError) as error:
            raise ValueError(f"{path}: not a slide that OpenSlide can read ({error})") from error
        self.width, self.height = self.slide.dimensions

    def read(self, rows: slice, columns: slice) -> tuple[Samples, Valid | None]:
        """See `Raster.read`."""
        size = (columns.stop - columns.start, rows.stop - rows.start)
        try:
            pixels = np.asarray(self.slide.read_region((columns.start, rows.start), 0, size))
        except self._error as error:
            raise ValueError(f"{self.path}: rows {rows.start} to {rows.stop} cannot be read ({error})") from error
        return pixels[:, :, :3], pixels[:, :, 3] > 0

    def close(self) -> None:
        """See `Raster.close`."""
        self.slide.close()
