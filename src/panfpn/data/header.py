"""One look at an image file's header, before anything is decoded. In: a file's bytes. Out: what its pixels mean."""

from collections.abc import Callable

from panfpn.data.formats import jpeg, pillow, png, tiff
from panfpn.data.formats.header import JPEG, PNG, TIFF, Header, HeaderError, format_of, unreadable

_READERS: dict[str, Callable[[bytes, int], Header]] = {
    PNG: png.read_header, JPEG: jpeg.read_header, TIFF: tiff.read_header
}  # fmt: skip
_LARGEST = 1 << 32  # bytes of decoded pixels; a mask of 33,000² has a quarter of that
_EASY = 1 << 26  # so many take no one's memory, whatever the file
_DENSEST = 1100  # bytes of a byte; deflate reaches 1032
_DENSEST_OTHER = 30_000  # blank pages of other codecs
_DENSEST_JPEG = 4096  # an empty block of 64 pixels in three colours takes a bit of each of a progressive file's scans


class TooManyPixelsError(ValueError):
    """An image is larger than whoever asked takes."""


def read_header(
    data: bytes, source: object = "image bytes", page: int = 1, *, most_pixels: float = float("inf")
) -> Header:
    """What the bytes of an image file say of the pixels of a page; nothing is decoded, and no memory taken.

    Raises:
        TooManyPixelsError: it claims more than `most_pixels`.
        ValueError: of `source`: no image of a known format, one that is cut short, without a part that is needed, or
            that claims more pixels than its bytes can hold.
        ImportError: a HEIC file, and the extra `heic` is not installed.
    """
    form = format_of(data)
    if form is None:
        raise unreadable(source, "empty, damaged or of an unknown format")
    try:
        header = _READERS.get(form, pillow.read_header)(data, page - 1)
    except ImportError as error:
        raise ImportError(f"{source}: {error}") from error
    except Exception as error:  # whatever a parser stumbles over
        reason = str(error) if isinstance(error, HeaderError) else "its header cannot be parsed"
        raise unreadable(source, f"a damaged {form}: {reason}") from error
    if 1 < header.pages < page:
        raise ValueError(f"{source}: has {header.pages} pages; data.pages is {page}")
    if not header.height or not header.width:
        raise unreadable(source, f"a {form} of {header.width}×{header.height} pixels")
    if header.height * header.width > most_pixels:
        raise TooManyPixelsError(f"{source}: {header.width}×{header.height} pixels are more than the "
                            f"{most_pixels / 1e6:g} megapixels that are taken")  # fmt: skip
    _check_memory(header, len(data), source)
    return header


def _check_memory(header: Header, num_bytes: int, source: object) -> None:
    shape = f"{header.width}×{header.height} pixels of {header.bands} bands"
    if header.num_bytes > _LARGEST:
        raise unreadable(source, f"{shape} take {header.num_bytes / 2**30:.1f} GiB; {_LARGEST >> 30} are allowed")
    densest = {JPEG: _DENSEST_JPEG, PNG: _DENSEST}.get(header.format, _DENSEST_OTHER)
    if header.stored_bytes > max(_EASY, densest * num_bytes):
        raise unreadable(source, f"it claims {shape}, more than its {num_bytes} bytes can hold")
