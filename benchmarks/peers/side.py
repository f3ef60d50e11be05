"""A side of a comparison: a process that loads its model once and answers requests, so that alternating costs nothing.

`serve` is the side's half and runs in the peer's own environment; `Peer`, `alternate` and `peak` are the asking half.
Requests and answers are JSON, one a line. Only the standard library and NumPy are used.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent


# --- the side ---------------------------------------------------------------------------------------------------------


def serve(handlers: Mapping[str, Callable]) -> None:
    """Answer requests until stdin ends: `{"do": NAME, …}` calls `handlers[NAME](**rest)`, which returns plain data.

    "peak" is answered here: bytes at the highest, above what the process held when it was called, so after the side's
    imports and before its model is built. On CUDA it is what torch's allocator gave out at most.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not stand among the answers
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark falls back to what is resident now
    start = _resident("VmRSS")
    for line in sys.stdin:
        request = json.loads(line)
        do = request.pop("do")
        answer = _peak(start) if do == "peak" else handlers[do](**request)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _resident(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def _peak(start: int) -> float:
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    return _resident("VmHWM") - start


def seconds(work: Callable[[], object], device: str = "cpu") -> float:
    """How long `work` takes, until a GPU has finished too."""
    _wait(device)
    start = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - start


def cpu_seconds(work: Callable[[], object]) -> float:
    """What `work` costs the processor, which other programs beside it hardly change; for work of one thread."""
    start = time.process_time()
    work()
    return time.process_time() - start


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        sys.modules["torch"].cuda.synchronize()


# --- who asks ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Peer:
    """A side that can be started: its interpreter, its script beside this file, and what its "load" is told."""

    name: str
    python: str
    script: str
    load: Mapping[str, object] = field(default_factory=dict)
    warmup: int = 1  # jobs before it is as fast as it gets

    def start(self) -> "Side":
        """A process of it, loaded."""
        side = Side(self)
        side.ask("load", **self.load)
        return side


class Side:
    """A running side; ends with its `with` block."""

    def __init__(self, peer: Peer) -> None:
        self.name, self.warmup = peer.name, peer.warmup
        words = [peer.python, "-W", "ignore", str(HERE / peer.script)]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, do: str, **rest: object) -> object:
        """The answer to one request; RuntimeError if the side has died (what it said stands on stderr)."""
        self._process.stdin.write(json.dumps({"do": do, **rest}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name}: ended with code {self._process.wait()} when asked to {do}")
        return json.loads(line)

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait()


def alternate(sides: Sequence[Side], rounds: int, do: str, **request: object) -> dict[str, list[float]]:
    """Seconds of every side by name, asked in turn `rounds` times, after what each needs to warm up.

    The first begins every other round, the last the others, so that none is always the one after a slow one.
    """
    times: dict[str, list[float]] = {side.name: [] for side in sides}
    for side in sides:
        for _ in range(side.warmup):
            side.ask(do, **request)
    for k in range(rounds):
        for side in reversed(sides) if k % 2 else sides:
            times[side.name].append(side.ask(do, **request))
        print(f"  round {k + 1} of {rounds}", file=sys.stderr, flush=True)
    return times


def peak(peer: Peer, do: str, **request: object) -> float:
    """Peak bytes of a fresh process that loads and does one job, above the process after its imports."""
    with peer.start() as side:
        side.ask(do, **request)
        return side.ask("peak")


def timing_row(name: str, times: Mapping[str, Sequence[float]], base: str) -> dict[str, str]:
    """Cells: median time, and how many times as fast as `base`: the median of the rounds' ratios, and their range."""
    ratios = [theirs / own for theirs, own in zip(times[base], times[name], strict=True)]
    return {
        "": name, "median": _time(statistics.median(times[name])), "fastest": _time(min(times[name])),
        f"speed, {base} = 1": f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
    }  # fmt: skip


def memory_cells(name: str, peaks: Mapping[str, float], base: str) -> dict[str, str]:
    """Cells: peak memory, and its share of that of `base`."""
    return {"peak GB": f"{peaks[name] / 1e9:.2f}", f"memory, {base} = 1": f"{peaks[name] / peaks[base]:.2f}"}


def _time(taken: float) -> str:
    return f"{taken:.3f} s" if taken >= 1 else f"{1e3 * taken:.1f} ms"
