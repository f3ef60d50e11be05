"""A file from a web server, in bounded time and memory. In: an address. Out: its bytes, block by block."""

import time
import urllib.parse
import urllib.request
from collections.abc import Iterator

_SILENCE = 30.0  # seconds without a byte
_PATIENCE = 30.0  # seconds after which a server must have sent
_SLOWEST = 1024  # bytes a second on average


def fetched(url: str, *, limit: int, schemes: tuple[str, ...] = ("http", "https")) -> Iterator[tuple[bytes, int]]:
    """Blocks of what lies behind an address, each with the size that the server declares (or 0).

    Raises:
        ValueError: another kind of address, more than `limit` bytes, or a server that drips.
        OSError: what goes wrong on the way.
    """
    if urllib.parse.urlsplit(url).scheme not in schemes:
        raise ValueError(f"{without_password(url)}: of an unknown kind; {', '.join(schemes)} addresses are fetched")
    begin, done = time.monotonic(), 0
    with urllib.request.urlopen(url, timeout=_SILENCE) as answer:
        size = int(answer.headers.get("Content-Length") or 0)
        while block := answer.read1(1 << 20):
            done += len(block)
            if max(done, size) > limit:
                raise ValueError(f"{without_password(url)}: larger than {limit >> 20} MiB")
            seconds = time.monotonic() - begin
            if seconds > _PATIENCE and done < _SLOWEST * seconds:
                raise ValueError(f"{without_password(url)}: only {done} bytes in {seconds:.0f} s; given up")
            yield block, size
    if done < size:
        raise ValueError(f"{without_password(url)}: ended after {done} of {size} bytes")


def is_url(text: str) -> bool:
    """Whether this is an http or https address."""
    return text.startswith(("http://", "https://"))


def without_password(url: str) -> str:
    """The address as it may be shown."""
    parts = urllib.parse.urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
