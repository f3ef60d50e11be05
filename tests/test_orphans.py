"""Killed processes leave nothing for good."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from panfpn.orphans import complete_or_nothing

HOLDS = """
import sys, time
from pathlib import Path
from panfpn.orphans import complete_or_nothing
with complete_or_nothing(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("x")
    print("there", flush=True)
    time.sleep(600)
"""
PARENT = """
import os, sys, time
from panfpn.orphans import end_with_parent
mine = os.getpid()
child = os.fork()
if not child:
    end_with_parent(mine)
    time.sleep(600)
print(child, flush=True)
time.sleep(600)
"""


def started(code: str, *words: str) -> tuple["subprocess.Popen[str]", str]:
    job = subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, text=True)
    assert job.stdout is not None
    return job, job.stdout.readline().strip()


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    out = tmp_path / "out"
    job, said = started(HOLDS, str(out))
    assert said == "there"
    (tmp_path / ".out-20240131").mkdir()  # somebody's own
    with complete_or_nothing(out) as folder:
        (folder / "whole").write_text("y")
    assert [p.name for p in out.iterdir()] == ["whole"]
    assert len(list(tmp_path.glob(".out.panfpn-*"))) == 1  # of the one that lives
    job.kill()
    job.wait()
    (out / "whole").unlink()
    with complete_or_nothing(out) as folder:
        (folder / "again").write_text("z")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".out-20240131", "out"]
    assert [p.name for p in out.iterdir()] == ["again"]


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bad"), complete_or_nothing(tmp_path / "a/b/out") as folder:
        (folder / "half").write_text("x")
        raise ValueError("bad")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_a_child_ends_with_its_parent() -> None:
    job, child = started(PARENT)
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    end = time.monotonic() + 20
    while time.monotonic() < end:
        state = Path(f"/proc/{child}/stat")
        if not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return
        time.sleep(0.05)
    raise AssertionError("it lives")
