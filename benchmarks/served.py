"""A server of `panfpn serve` for the scripts that load it, and its memory."""

import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def served(*options: str, log: Path) -> Iterator[tuple[subprocess.Popen, str]]:
    """The process and its address, once it is ready; what it says goes to `log`. It must end well when told to."""
    command = [sys.executable, "-m", "panfpn", "serve", *options, "--port", "0"]
    with log.open("w") as written, subprocess.Popen(command, stderr=written) as server:
        while not (found := re.search(r"http://\S+:\d+", log.read_text())):
            assert server.poll() is None, log.read_text()
            time.sleep(0.2)
        while True:
            try:
                urllib.request.urlopen(f"{found[0]}/ready")
                break
            except OSError:
                time.sleep(0.2)
        yield server, found[0]
        server.terminate()
        assert server.wait(60) == 0, "the server did not end well"


def resident(process: int) -> float:
    """Megabytes."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024
