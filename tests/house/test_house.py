"""What a change touches: each addition of DESIGN's table is a file and a line, and everything that derives from it."""

import os
import subprocess
import sys
from pathlib import Path


def test_an_addition_is_a_file_and_a_line(tmp_path: Path) -> None:
    here = Path(__file__).parent
    lines = [line for line in (here / "run.py").read_text().splitlines() if '"] = ' in line]
    assert len(lines) == 6  # layout, loss, architecture, engine, logger, verb: one each
    paths = os.pathsep.join([str(here), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, str(here / "run.py"), str(tmp_path)], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "hello house" in done.stdout and "SemanticFPN, PanopticFPN, TinyFCN" in done.stdout
