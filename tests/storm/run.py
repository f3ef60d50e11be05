"""Run the storm of bad inputs through the command line, and judge what it said.

    python tests/storm/run.py [KIND ...] [--every N]

A child runs one call after the other; it is ended, and another one begun, when a call takes longer than 20 s. Judged are
the exit code, tracebacks, whether every bad input is named, leftovers of unfinished files, seconds, and peak memory.
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from cases import KINDS, Case

_SECONDS = 20.0
_BYTES = 2 << 30
_BATCH = 0.5  # seconds more for each input of a call with several


@dataclass(frozen=True)
class Verdict:
    """What a call did that it should not have done; nothing, where `faults` is empty."""

    case: Case
    faults: tuple[str, ...]
    text: str
    seconds: float = 0.0
    peak: int = 0


def serve(pipe: Connection, folder: str) -> None:
    """In the child, which stands in a folder of its own: calls in, what they did out."""
    from panfpn.cli import main

    os.chdir(folder)

    while (case := pipe.recv()) is not None:
        out, err = io.StringIO(), io.StringIO()
        status = Path("/proc/self/clear_refs")
        with contextlib.suppress(OSError):
            status.write_text("5")  # forget the peak
        before = dict(os.environ)
        os.environ.update(case.environment)
        begin = time.monotonic()
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code: object = main(case.words)
        except SystemExit as error:
            code = error.code
        except BaseException as error:
            code = f"{type(error).__name__}: {error}"
        os.environ.clear()
        os.environ.update(before)
        peak = next(int(line.split()[1]) * 1024 for line in Path("/proc/self/status").read_text().splitlines()
                    if line.startswith("VmHWM"))  # fmt: skip
        pipe.send((code, out.getvalue(), err.getvalue(), time.monotonic() - begin, peak))


def storm(cases: list[Case]) -> list[Verdict]:
    """The verdicts on cases, each called in a child."""
    context = multiprocessing.get_context("spawn")
    home = tempfile.TemporaryDirectory()  # for what a call writes where it stands
    child, pipe = None, None
    verdicts = []
    for case in cases:
        if child is None or not child.is_alive():
            pipe, end = context.Pipe()
            child = context.Process(target=serve, args=(end, home.name))
            child.start()
            end.close()
        if case.prepare is not None:
            case.prepare()
        pipe.send(replace(case, prepare=None))
        limit = _SECONDS + _BATCH * len(case.culprits) + (60 if not verdicts else 0)  # the child imports torch first
        try:
            if not pipe.poll(limit):
                verdicts.append(Verdict(case, ("hangs",), ""))
                child.kill()
                child.join()
                child = None
                continue
            verdicts.append(judged(case, *pipe.recv()))
        except (EOFError, ConnectionError):
            verdicts.append(Verdict(case, (f"ends the process ({child.exitcode})",), ""))
            child = None
    if child is not None and child.is_alive():
        pipe.send(None)
        child.join()
    return verdicts


def judged(case: Case, code: object, out: str, err: str, seconds: float, peak: int) -> Verdict:
    said = out + err
    faults = []
    if "Traceback" in said or not isinstance(code, int):
        faults.append(f"traceback ({code})")
    elif code == 0:
        faults.append("accepted")
    elif code != case.code:
        faults.append(f"exit code {code}")
    unnamed = [culprit for culprit in case.culprits if culprit not in said]
    if unnamed and not faults:
        faults.append(f"does not name {len(unnamed)}: {unnamed[0]}")
    if any(len(line) > 2500 or not line.isprintable() for line in err.splitlines()):
        faults.append("a line that is endless, or has control characters")
    if "(--debug shows where)" in err:
        faults.append("a raw exception")
    if seconds > _SECONDS + _BATCH * len(case.culprits):
        faults.append(f"{seconds:.0f} s")
    if peak > _BYTES:
        faults.append(f"{peak / 2**30:.1f} GiB")
    if case.out is not None and case.out.is_dir():
        faults += [f"leaves {path}" for path in case.out.rglob(".*") if not path.name.endswith(".lock")][:1]
    return Verdict(case, tuple(faults), said[-600:], seconds, peak)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", default=[])
    parser.add_argument("--every", type=int, default=1, help="only each N-th call of a kind")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    total, inputs, bad = 0, Counter[str](), []
    slowest = heaviest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for kind in options.kinds or KINDS:
            cases = list(KINDS[kind](Path(folder) / kind))[:: options.every]
            verdicts = storm(cases)
            total += len(cases)
            inputs[kind] += sum(max(1, len(case.culprits)) for case in cases)
            bad += [verdict for verdict in verdicts if verdict.faults]
            slowest = max([slowest, *(v.seconds for v in verdicts)])
            heaviest = max([heaviest, *(v.peak for v in verdicts)])
            faults = Counter(fault.partition(" (")[0].partition(":")[0] for v in verdicts for fault in v.faults)
            print(f"{kind}: {inputs[kind]} inputs in {len(cases)} calls; {dict(faults) or 'all refused'}", flush=True)
    for verdict in bad[:60]:
        print(f"\n{verdict.case.kind}: panfpn {' '.join(verdict.case.words)[:300]}\n  {'; '.join(verdict.faults)}\n"
              f"  {verdict.text[-400:]!r}")  # fmt: skip
    print(f"\n{sum(inputs.values())} bad inputs in {total} calls: {len(bad)} with a fault; slowest {slowest:.1f} s, peak "
          f"{heaviest / 2**30:.2f} GiB (the program itself among it)")  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps([{"words": v.case.words, "faults": v.faults, "text": v.text} for v in bad]))
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
