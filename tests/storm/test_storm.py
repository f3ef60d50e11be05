"""The storm of bad inputs, every so many of each kind; `python tests/storm/run.py` runs all of it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from cases import KINDS
from run import storm

EVERY = {"images": 6, "masks": 60, "labels": 20, "configurations": 140, "releases": 24, "pickles": 16, "packs": 16,
         "panoptic": 16, "videos": 16, "words": 13, "scores": 10, "environments": 7, "runs": 20}  # fmt: skip


def test_nothing_bad_is_taken_or_ends_in_a_traceback(tmp_path: Path) -> None:
    """Refused, in a sentence that names it, in bounded time and memory, with nothing half-written."""
    cases = [case for kind, make in KINDS.items() for case in list(make(tmp_path / kind))[:: EVERY[kind]]]
    assert len(cases) > 40
    faults = [
        f"panfpn {' '.join(v.case.words)[:200]}: {'; '.join(v.faults)}: {v.text[-200:]}"
        for v in storm(cases)
        if v.faults
    ]
    assert not faults, "\n".join(faults)
