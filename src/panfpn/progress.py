"""A progress bar on stderr, on a terminal and in a notebook. In: a total. Out: a function that takes what is done."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def has_bars(console: Console) -> bool:
    """Whether somebody watches where bars can move; a notebook without ipywidgets shows lines only."""
    return console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)


@contextmanager
def progress_bar(
    what: str, total: int | None, *, show: bool = True, unit: str = "images"
) -> Iterator[Callable[..., None]]:
    """A bar over `total` units for the time of the block; silent where nobody watches, or `show` is false.

    It yields a function of how many are done, and of a new total where that is only known then; None: nobody knows.
    """
    console = Console(stderr=True)
    watched = show and has_bars(console)
    speed = TextColumn(f"{{task.fields[speed]:.1f}} {unit}/s")
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), speed, TimeRemainingColumn())
    start = time.monotonic()
    with Progress(*columns, console=console, disable=not watched, transient=True) as bar:
        task = bar.add_task("", total=total, speed=0.0)

        def advance(done: int, whole: int | None = None) -> None:
            bar.update(task, total=whole or total, completed=done, speed=done / max(1e-9, time.monotonic() - start))

        yield advance
