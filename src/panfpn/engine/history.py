"""The rows of metrics.jsonl. In: the file. Out: its rows, or which line is damaged."""

import json
from pathlib import Path
from typing import Any


def read_history(path: Path, *, before: int | None = None) -> list[dict[str, Any]]:
    """Rows of a metrics.jsonl, those of steps up to `before`; a half-written last line is left out.

    ValueError names any other line that is no row of a run.
    """
    if not path.is_file():
        return []
    rows = []
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            sound = (
                type(row["step"]) is int and isinstance(row["minutes"], float | int) and isinstance(row["kind"], str)
            )
        except (ValueError, KeyError, TypeError, RecursionError):
            sound = False
        if not sound and number == len(lines):  # a kill while it was written
            continue
        if not sound:
            raise ValueError(f"{path}: line {number} is damaged; take it out")
        if before is None or row["step"] <= before:
            rows.append(row)
    return rows
