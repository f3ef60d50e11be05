"""TIFF, by tifffile: striped, tiled, big, of several pages; what it hands to imagecodecs, Pillow decodes in part."""

import io
import itertools
from typing import Any

import numpy as np

from panfpn.data.formats import pillow
from panfpn.data.formats.header import ORIENTATION, TIFF, Header, HeaderError, Samples, unreadable

_MOST_PAGES = 10_000  # that are looked at
_LZW = 5


def _full_pages(file: Any) -> list[Any]:
    """The pages of a TIFF that are pictures of their own: no thumbnails, no masks of another page."""
    pages: list[Any] = []
    for page in itertools.islice(file.pages, _MOST_PAGES):
        if not int(page.subfiletype) & 5 or not pages:
            pages.append(page)
    return pages


def _opened(data: bytes) -> Any:
    """A TIFF as tifffile sees it."""
    import logging  # noqa: PLC0415

    import tifffile  # noqa: PLC0415 - only who has TIFFs pays for it

    logging.getLogger("tifffile").addHandler(logging.NullHandler())  # we say what is wrong
    return tifffile.TiffFile(io.BytesIO(data))


_LOSSY_TIFF = frozenset({6, 7, 33003, 33004, 33005, 34712, 34892, 34933, 50001, 50002, 52546})


def read_header(data: bytes, index: int) -> Header:
    """What the directory of a page says."""
    with _opened(data) as file:
        pages = _full_pages(file)
        slices = (file.imagej_metadata or {}).get("images", 1) if file.is_imagej else 1
        if slices > len(pages):
            raise HeaderError(f"ImageJ's stack of {slices} slices in one page; save it as a TIFF of pages")
        return _tiff_page(pages[min(index, len(pages) - 1)], len(data), len(pages))


def _tiff_page(page: Any, num_bytes: int, num_pages: int) -> Header:
    photometric, samples = int(page.photometric), int(page.samplesperpixel)
    if photometric == 8:
        raise HeaderError("its colours are CIE L*a*b*; save it as RGB")
    if page.dtype is None:
        raise HeaderError(f"values of {page.bitspersample} bits are of an unknown kind")
    ends = [start + length for start, length in zip(page.dataoffsets, page.databytecounts, strict=False)]
    sparse = page.is_tiled and any(page.databytecounts)  # tiles of no bytes are blank
    if not ends or not (all(page.databytecounts) or sparse):
        raise HeaderError("it has no pixels, or only a part of them")
    if max(ends) > num_bytes:
        raise HeaderError("it is cut short")
    orientation = page.tags.valueof(ORIENTATION, default=1)
    palette = (np.asarray(page.colormap).T >> 8).astype(np.uint8) if photometric == 3 else None
    return Header(
        format=TIFF, height=page.imagelength, width=page.imagewidth, bands=samples, pages=num_pages,
        dtype="uint8" if page.dtype == np.bool_ else page.dtype.name,
        bits=int(page.bitspersample), alpha=bool(page.extrasamples) and int(page.extrasamples[-1]) in (1, 2),
        colors=photometric in (2, 5, 6) or samples == 1 or (samples == 2 and bool(page.extrasamples)),
        palette=palette, inverted=photometric == 0 and page.dtype.kind in "bu",
        converted=photometric == 5 or (photometric == 6 and int(page.compression) not in (6, 7)),
        orientation=orientation if orientation in range(1, 9) else 1, lossy=int(page.compression) in _LOSSY_TIFF,
    )  # fmt: skip


def pixels(data: bytes, header: Header, index: int, source: object) -> Samples:
    """A page's samples [H, W] or [H, W, B] as stored: palette indices, 0 and 1 of one bit, RGB in this order.

    Raises:
        ValueError: of `source`: damaged.
        ImportError: a compression that the extra `tiff` is needed for.
    """
    try:
        with _opened(data) as file:
            page = _full_pages(file)[index]
            by_pillow = page.compression == _LZW and _is_simple(page, index)  # libtiff: twice as fast as imagecodecs
            stored: Samples | None = None if by_pillow else page.asarray()
    except Exception as error:
        if "imagecodecs" not in str(error) and not isinstance(error, ImportError):
            raise unreadable(source, f"a damaged TIFF: {error}") from error
        if not _is_simple(page, index):
            raise ImportError(f"{source}: a compressed TIFF of this kind needs imagecodecs; install it with pip "
                              "install 'panfpn[tiff]'") from error  # fmt: skip
        stored = None
    if stored is None:
        return pillow.pixels(data, header, 0, source)
    if page.axes.startswith("S"):  # a plane for each band
        stored = np.moveaxis(stored, 0, -1)
    return np.asarray(stored, np.uint8) if stored.dtype == np.bool_ else stored


def _is_simple(page: Any, index: int) -> bool:
    """Whether Pillow gives its samples as they are stored."""
    plain = (index, page.planarconfig, page.bitspersample, page.tags.valueof(ORIENTATION, default=1)) == (0, 1, 8, 1)
    return plain and (page.samplesperpixel, page.photometric) in ((1, 1), (3, 2))
