"""Counting one image for the metric beside mmsegmentation's `IoUMetric.process`: 1024×2048 pixels, 19 classes.

usage: python benchmarks/metric_peers.py MMSEG_PYTHON [--rounds 15] [--json FILE] [--write] [--quick]

Timed is the count of one predicted map against the truth, both in memory; 5 % of the pixels are ignored. Exit code 1 if
the IoU of a class differs by more than 1e-6.
"""

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from inference_peers import MMSEG
from page import add_options, publish
from peers.side import Peer, Side, alternate, timing_row

CLASSES, IGNORED, LIMIT = 19, 255, 1e-6


def street(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A predicted and a true map, uint8: blocks of classes, 80 % of the pixels hit."""
    random = np.random.default_rng(0)
    true = np.kron(random.integers(0, CLASSES, (height // 16, width // 16)), np.ones((16, 16), int)).astype(np.uint8)
    found = np.where(random.random(true.shape) < 0.8, true, random.integers(0, CLASSES, true.shape)).astype(np.uint8)
    true[random.random(true.shape) < 0.05] = IGNORED
    return found, true


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mmseg", metavar="MMSEG_PYTHON")
    parser.add_argument("--rounds", type=int, default=15)
    add_options(parser)
    options = parser.parse_args()
    peers = [Peer(MMSEG, options.mmseg, "mmseg_bench.py"), Peer("panfpn", sys.executable, "panfpn_bench.py")]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        place = Path(folder)
        for name, array in zip(("found", "true"), street(*((64, 128) if options.quick else (1024, 2048))), strict=True):
            np.save(place / f"{name}.npy", array)
        asked = {"found": str(place / "found.npy"), "true": str(place / "true.npy"), "num_classes": CLASSES}
        sides = [stack.enter_context(Side(peer)) for peer in peers]  # nothing to load
        times = alternate(sides, 1 if options.quick else options.rounds, "count", **asked)
        for side in sides:
            side.ask("count", **asked, save=str(place / f"{side.name}.npy"))
        theirs, ours = (np.load(place / f"{side.name}.npy") for side in sides)
    apart = float(np.abs(theirs - ours).max())
    rows = [timing_row(peer.name, times, MMSEG) for peer in peers]
    notes = [f"Largest difference of a class's IoU: {apart:.1e}."]
    caption = "Counting one map of 1024×2048, 19 classes"
    publish("metric_peers", {caption: rows}, options, raw={"seconds": times, "apart": apart}, notes=notes)
    return int(not apart <= LIMIT)


if __name__ == "__main__":
    sys.exit(main())
