"""What a network sees of a raster. In: a raster, and what is said of its pixels. Out: uint8 windows."""

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from panfpn.data.images import chosen_bands, in_range, percentiles
from panfpn.data.rasters.raster import Raster, Valid
from panfpn.types import Reading

_SIDE, _SAMPLES = 512, 8  # of the windows that stand for a raster's range of values: pixels, and how many along a side


_EACH = 4  # of their rows and columns, every so many


class Bands:
    """Windows of a raster as images are read: its bands and range are `reading`'s."""

    def __init__(self, raster: Raster, reading: Reading) -> None:
        self.raster, self.reading = raster, reading
        if reading.page not in (None, 1) or (raster.pages > 1 and reading.page is None):
            raise ValueError(
                f"{raster.path}: has {raster.pages} pages; in windows only the first is read (data.pages 1)"
            )

    def read(self, rows: slice, columns: slice) -> tuple[npt.NDArray[np.uint8], Valid | None]:
        """A window uint8 [h, w, C], and which of its pixels have data (None: all); others mean nothing.

        ValueError names the raster and what its pixels leave open.
        """
        bands, valid = self._samples(rows, columns)
        return in_range(bands, self.limits, f"{self.raster.path} (rows from {rows.start}, columns from "
                                            f"{columns.start})"), valid  # fmt: skip

    @cached_property
    def limits(self) -> Any:
        """What is black and white; of the range "percentile", by windows spread evenly over the raster."""
        if self.reading.range != "percentile" or self.raster.dtype == "uint8":
            return self.reading.range
        starts = [
            sorted({int(start) for start in np.linspace(0, max(0, length - _SIDE), _SAMPLES)})
            for length in (self.raster.height, self.raster.width)
        ]
        seen = []
        for top in starts[0]:
            for left in starts[1]:
                rows = slice(top, min(top + _SIDE, self.raster.height))
                bands, valid = self._samples(rows, slice(left, min(left + _SIDE, self.raster.width)))
                bands = bands[::_EACH, ::_EACH]
                seen.append(bands.reshape(-1, bands.shape[2]) if valid is None else bands[valid[::_EACH, ::_EACH]])
        values = np.concatenate(seen)
        return percentiles(values) if len(values) else (0.0, 1.0)

    def _samples(self, rows: slice, columns: slice) -> tuple[npt.NDArray[Any], Valid | None]:
        """The bands that the network sees, 0 where there is no data."""
        raster = self.raster
        samples, valid = raster.read(rows, columns)
        if raster.bits < 8 and samples.dtype == np.uint8:
            samples = samples * np.uint8(255 // (2**raster.bits - 1))
        bands = chosen_bands(samples, self.reading, raster.path, alpha=raster.alpha, colors=raster.colors)
        if valid is not None and bands.dtype.kind == "f":  # which may be no numbers there
            bands = np.where(valid[:, :, None], bands, bands.dtype.type(0))
        return bands, valid
