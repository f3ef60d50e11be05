"""A data set looked through from end to end. In: where it stands. Out: a sentence for everything wrong in it."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from panfpn.choices import LAYOUTS, lookup
from panfpn.data.dataset import Dataset, open_split
from panfpn.data.layouts.request import NoInstancesError, SplitRequest
from panfpn.listing import LeftOut
from panfpn.progress import progress_bar


def check_dataset(layout: str, root: Path | None, split: str, *, progress: bool = True) -> Iterator[str]:
    """What is wrong in a split of the data set under `root`, file by file; every pixel is read."""
    try:
        opener = lookup(LAYOUTS, layout, "data.dataset")
        read_all = partial(reading_problems, opener)
        problems = getattr(sys.modules[opener.__module__], "problems", read_all)  # a layout may know more
        yield from problems(SplitRequest(layout=layout, root=root, split=split), progress=progress)
    except ValueError as error:
        yield str(error)


def reading_problems(
    opener: Callable[[SplitRequest], Dataset], request: SplitRequest, *, progress: bool
) -> Iterator[str]:
    """The sentence of every sample of a split that cannot be read, and of every file without its partner."""
    data, unpaired = open_with_segments(opener, request)
    yield from unpaired
    with progress_bar("checking", len(data), show=progress) as advance:
        for i in range(len(data)):
            try:
                data.read(i)
            except ValueError as error:
                yield str(error)
            advance(i + 1)


def open_with_segments(opener: Callable[[SplitRequest], Dataset], request: SplitRequest) -> tuple[Dataset, list[str]]:
    """A split, its things told apart where the data do so; and a sentence for every file without its partner."""
    unpaired: list[str] = []
    try:
        asked = replace(request, panoptic=True, unpaired=unpaired, left_out=LeftOut())
        return open_split(opener, asked), unpaired
    except NoInstancesError:
        others: list[str] = []
    except ValueError as error:  # of the instances, unless the classes alone cannot be opened either
        others = [str(error)]
    unpaired = []
    asked = replace(request, panoptic=False, unpaired=unpaired, left_out=LeftOut())  # nothing is counted twice
    return open_split(opener, asked), [*others, *unpaired]
