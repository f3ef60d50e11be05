"""What COCO's JSON files share. In: their parts. Out: names compared, and faults named."""

import contextlib
from collections.abc import Iterator
from pathlib import Path


def same_name(one: object, other: str) -> bool:
    """Whether two names of a category are the same but for case, and for what stands between words."""
    return isinstance(one, str) and _plain(one) == _plain(other)


def _plain(name: str) -> str:
    return name.casefold().replace("_", " ").replace("-", " ").strip()


@contextlib.contextmanager
def as_coco(file: Path, parts: str) -> Iterator[None]:
    """What is missing in a JSON, or of another type, becomes a ValueError that names it, and the `parts` wanted."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise ValueError(f"{file}: not in COCO's format ({type(error).__name__}: {error}); that has {parts}") from error
