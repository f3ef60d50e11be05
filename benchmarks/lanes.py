"""What do several images at once bring on this CPU, alone and beside another program?

usage: python benchmarks/lanes.py FOLDER [--model FILE] [--engine torch] [--precision auto] [--images 60] [--rounds 3]

Labels the images of FOLDER (first one at a time on all cores, then one a core), alternating, and compares the labels;
then the same beside a busy loop on one core. Printed: images a second of every round, and the ratio of the medians.
"""

import argparse
import statistics
import subprocess
import sys
import time
from typing import Any

import torch

from panfpn import Predictor
from panfpn.deploy.inputs import Inputs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--model")
    parser.add_argument("--engine", default="torch")
    parser.add_argument("--precision", default=None)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    inputs = [str(path) for _, path in Inputs([options.folder]).files[: options.images]]
    cores = torch.get_num_threads()
    made: dict[int, Predictor] = {}
    for lanes in (1, cores):
        torch.set_num_threads(cores if options.engine == "torch" else cores // lanes)
        made[lanes] = Predictor.from_file(options.model, "cpu", options.precision, engine=options.engine, streams=lanes)

    def labels(lanes: int) -> tuple[float, list[Any]]:
        torch.set_num_threads(cores if options.engine == "torch" else cores // lanes)
        begin = time.perf_counter()
        found = [result.labels for result in made[lanes].stream(Inputs(inputs), lanes=lanes)]
        return len(found) / (time.perf_counter() - begin), found

    for busy in (False, True):
        loop = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
        try:
            rates: dict[int, list[float]] = {1: [], cores: []}
            first, different = None, 0
            for turn in range(options.rounds + 1):
                for lanes, seen in rates.items():
                    rate, found = labels(lanes)
                    seen += [rate] * (turn > 0)  # the first makes graphs
                    first = found if first is None else first
                    different += sum(int((a != b).sum()) for a, b in zip(first, found, strict=True))
        finally:
            if loop is not None:
                loop.kill()
        one, all_of_them = (statistics.median(seen) for seen in rates.values())
        shown = "; ".join(f"{k} at once: {', '.join(f'{r:.1f}' for r in seen)}" for k, seen in rates.items())
        print(f"{made[1].about}, {'beside a busy loop' if busy else 'alone'}: images/s {shown}; ratio "
              f"{all_of_them / one:.2f}; {different} pixels differ", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
