"""Height and width. In: a size. Out: the one that a network wants."""

from collections.abc import Sequence

Size = tuple[int, int]  # height, width


def grown(size: Sequence[int], multiple: int) -> Size:
    """Each side the least multiple that is not smaller.

    Also of a graph's free sides: written so, quotients of the result stay simple.
    """
    height, width = ((side + multiple - 1) // multiple * multiple for side in size)
    return height, width
