"""Run in processes of their own: the heap is one for the process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

glibc = pytest.mark.skipif(
    sys.platform != "linux" or not Path("/proc/self/status").exists(), reason="the heap that is tuned is glibc's"
)

_SCRIPT = """
import gc, resource
import torch
from contextlib import nullcontext
from panfpn.heap import kept_heap
from panfpn.memory import resident

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def work():
    torch.ones(16_000_000).sum()  # 64 MB: 15,625 pages

with {context}:
    work()
    with kept_heap() if {nested} else nullcontext():
        pass
    start = faults()
    for _ in range(20):
        work()
    during, held = faults() - start, resident()
returned = held - resident()
torch.ones(2_000_000).sum()
start = faults()
for _ in range(20):
    torch.ones(2_000_000).sum()  # 8 MB: 1,953 pages
print(during, returned, faults() - start)
"""


def _figures(context: str, *, nested: bool = False, **env: str) -> tuple[int, float, int]:
    """Pages that were mapped in 20 rounds, of 312,500 without help, bytes that were returned, and pages after it."""
    script = _SCRIPT.format(context=context, nested=nested)
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, env={**os.environ, **env}
    )
    faults, returned, after = done.stdout.split()
    return int(faults), float(returned), int(after)


@glibc
def test_memory_that_is_asked_for_again_is_not_mapped_again_and_is_returned_at_the_end() -> None:
    faults, returned, after = _figures("kept_heap()")
    assert faults < 80_000 and returned > 40e6
    assert after < 8_000  # smaller blocks are as quick as they were: not a page each time
    assert _figures("kept_heap()", nested=True)[0] < 80_000  # an inner block does not end the outer


@glibc
def test_a_heap_that_the_user_tunes_is_left_alone() -> None:
    assert _figures("kept_heap()", MALLOC_TRIM_THRESHOLD_="131072")[0] > 250_000
