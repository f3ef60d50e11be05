"""Plain TIFF and BigTIFF, tiled or in strips, by tifffile: what it does not have to decode is not read."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from panfpn.data.rasters.raster import Raster, Samples, Valid

_CACHE = 32 << 20  # bytes of decoded tiles, or one row of them
_NODATA = 42113  # GDAL's tag
_GEOGRAPHY = (33550, 33922, 34264, 34735)  # tags of a GeoTIFF


class TiffRaster(Raster):
    """The first page of a TIFF."""

    def __init__(self, path: Path) -> None:
        import tifffile  # noqa: PLC0415 - only who has TIFFs pays for it

        self.path = path
        try:
            self.file = tifffile.TiffFile(path)
            page: Any = self.file.pages[0]
        except Exception as error:
            raise ValueError(f"{path}: not a readable TIFF ({error})") from error
        if any(tag in page.tags for tag in _GEOGRAPHY):
            self.file.close()
            raise ImportError(f"{path}: a GeoTIFF, whose place on Earth needs rasterio; install it with pip install "
                              "'panfpn[geo]'")  # fmt: skip
        if page.planarconfig != 1 or int(page.photometric) not in (1, 2) or page.dtype is None:
            self.file.close()
            raise ValueError(f"{path}: a TIFF of colours {page.photometric!s}, planes {page.planarconfig!s}; rasters "
                             "are grey or RGB, interleaved (pip install 'panfpn[geo]' reads others)")  # fmt: skip
        if page.tags.valueof(274, default=1) != 1:
            self.file.close()
            raise ValueError(f"{path}: its pixels are stored turned or mirrored (orientation); turn them upright first")
        self._page = page
        self.pages = sum(not int(one.subfiletype) & 5 for one in self.file.pages)  # type: ignore[union-attr]
        self.bits = int(page.bitspersample)
        nodata = str(page.tags.valueof(_NODATA, default="")).strip("\0 ")
        self._nodata = float(nodata) if nodata else None
        self.height, self.width, self.bands = page.imagelength, page.imagewidth, page.samplesperpixel
        self.dtype = page.dtype.name
        self.alpha = bool(page.extrasamples) and int(page.extrasamples[-1]) in (1, 2)
        self.colors = int(page.photometric) == 2 or self.bands == 1
        self._tile = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, self.width)
        self._across = -(-self.width // self._tile[1])
        self._tiles: OrderedDict[int, Samples] = OrderedDict()
        one = self._tile[0] * self._tile[1] * self.bands * page.dtype.itemsize
        self._most = max(_CACHE // max(1, one), self._across + 1)

    def read(self, rows: slice, columns: slice) -> tuple[Samples, Valid | None]:
        """See `Raster.read`."""
        height, width = self._tile
        out = np.empty((rows.stop - rows.start, columns.stop - columns.start, self.bands), self._page.dtype)
        for i in range(rows.start // height, -(-rows.stop // height)):
            for j in range(columns.start // width, -(-columns.stop // width)):
                tile, top, left = self._decoded(i * self._across + j), i * height, j * width
                up, down = max(rows.start, top), min(rows.stop, top + height)
                west, east = max(columns.start, left), min(columns.stop, left + width)
                out[up - rows.start : down - rows.start, west - columns.start : east - columns.start] = tile[
                    up - top : down - top, west - left : east - left
                ]
        if self.alpha:
            return out, out[:, :, -1] > 0
        valid = None if self._nodata is None else np.asarray((out != self._nodata).any(2))
        if out.dtype.kind == "f":
            finite = np.asarray(np.isfinite(out).all(2))
            valid = finite if valid is None else valid & finite
        return out, valid

    def _decoded(self, number: int) -> Samples:
        """A tile or strip [h, w, B]."""
        if number in self._tiles:
            self._tiles.move_to_end(number)
            return self._tiles[number]
        page = self._page
        try:
            handle = self.file.filehandle
            handle.seek(page.dataoffsets[number])
            data = handle.read(page.databytecounts[number])
            tile = page.decode(data or None, number, jpegtables=page.jpegtables)[0]
        except Exception as error:
            if "imagecodecs" in str(error):
                raise ImportError(f"{self.path}: a compressed TIFF of this kind needs imagecodecs; install it with "
                                  "pip install 'panfpn[tiff]'") from error  # fmt: skip
            raise ValueError(f"{self.path}: tile or strip {number} cannot be read ({error})") from error
        if tile is None:  # a sparse file's
            tile = np.zeros((1, *self._tile, self.bands), page.dtype)
        self._tiles[number] = tile[0]
        while len(self._tiles) > self._most:
            self._tiles.popitem(last=False)
        return self._tiles[number]

    def close(self) -> None:
        """See `Raster.close`."""
        self.file.close()
