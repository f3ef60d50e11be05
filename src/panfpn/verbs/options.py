"""Options of a verb into a dataclass, and the notes a verb prints. In: words of the command line."""

import contextlib
import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

T = TypeVar("T")


def parse_options(kind: type[T], verb: str, arguments: list[str], description: str, default: Any = None) -> T:
    """Options of one verb into a dataclass; ValueError for one that is unknown, missing or of the wrong type."""
    config = (tyro.conf.HelptextFromCommentsOff, tyro.conf.FlagConversionOff)
    prog = f"panfpn {verb}"
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            parsed: T = tyro.cli(
                kind, prog=prog, description=description, args=arguments, default=default, config=config
            )
    except SystemExit as leaving:
        if leaving.code:
            raise ValueError(f"{_sentence(box.getvalue())} (see {prog} --help)") from None
        raise
    return parsed


def _sentence(framed: str) -> str:
    """What stands in tyro's framed message, without frame, title and pointer to the help text."""
    lines = [line.strip("\u2500\u2502\u256d\u256e\u2570\u256f ") for line in framed.splitlines()]
    text = " ".join(line for line in lines[1:] if line).partition("For full helptext")[0]
    return re.sub(r"Error parsing [\w.-]+: |Argument helptext: ", "", text).strip()


def check_json(path: Path | None, what: str) -> None:
    """ValueError unless `what` can go into the file `path`; asked before hours of work."""
    if path and (path.is_dir() or path.suffix != ".json"):
        raise ValueError(f"{path}: the {what} go into a file whose name ends in .json")


def print_notes(notes: Sequence[str]) -> None:
    """What a reader of foreign checkpoints left out or assumed; beside the results, not among them."""
    for note in notes:
        sys.stderr.write(f"note: {note}\n")
