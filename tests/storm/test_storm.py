"""The storm of bad inputs, every so many of each kind; `python tests/storm/run.py` runs all of it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from cases import KINDS
from run import storm

EVERY = {"images": 8, "masks": 30, "labels": 12, "configurations": 40, "releases": 20, "pickles": 12, "packs": 12,
         "panoptic": 12, "videos": 12, "words": 10, "scores": 8, "environments": 7, "runs": 12}  # fmt: skip


def test_nothing_bad_is_taken_or_ends_in_a_traceback(tmp_path: Path) -> None:
    """Refused, in a sentence that names it, in bounded time and memory, with nothing half-written."""
    cases = [case for kind, make in KINDS.items() for case in list(make(tmp_path / kind))[:: EVERY[kind]]]
    assert len(cases) > 80
    faults = [
        f"panfpn {' '.join(v.case.words)[:200]}: {'; '.join(v.faults)}: {v.text[-200:]}"
        for v in storm(cases)
        if v.faults
    ]
    assert not faults, "\n".join(faults)
