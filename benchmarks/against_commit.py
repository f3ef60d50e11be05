"""Speed of this tree against another commit, alternating: prediction and training of both networks.

    python benchmarks/against_commit.py COMMIT [--rounds 5] [--only NAME]

Each measurement is `panfpn benchmark` in a process of its own, with the same options on either side; printed are the
medians of both and of the ratios round by round (below 1: this tree is faster). `chrt -f 5` before python steadies it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
FLOAT32 = ("--precision", "float32")
MEASURED = {
    "predict Semantic FPN R-50 1024x2048": "inference fpn_r50_cityscapes --size 1024 2048 --repeats 3 --warmup 1",
    "predict Panoptic FPN R-50 800x1067": "inference panoptic_r50_coco_1x --size 800 1067 --repeats 3 --warmup 1",
    "train Semantic FPN R-50 4x512x512": "train fpn_r50_ade20k --train.batch-size 4 --repeats 3 --warmup 1",
    "train Panoptic FPN lite0 8x160x224": "train panoptic_scenes --repeats 5 --warmup 2",
}


def seconds(source: Path, words: str) -> float:
    """The median time that `panfpn benchmark` reports."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "figures.json"
        precision = FLOAT32 if words.startswith("inference") else ("--train.precision", "float32")
        command = [sys.executable, "-m", "panfpn", "benchmark", *words.split(), *precision, "--json", str(file)]
        subprocess.run(command, check=True, capture_output=True, env=os.environ | {"PYTHONPATH": str(source / "src")})
        return statistics.median(json.loads(file.read_text())["rows"][0]["seconds"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        before = Path(folder) / "before"
        subprocess.run(["git", "clone", "--quiet", "--no-checkout", str(HERE), str(before)], check=True)
        subprocess.run(["git", "-C", str(before), "checkout", "--quiet", options.commit], check=True)
        for name, words in MEASURED.items():
            if options.only not in name:
                continue
            rounds = [(seconds(before, words), seconds(HERE, words)) for _ in range(options.rounds)]
            ratios = sorted(new / old for old, new in rounds)
            old, new = (statistics.median(side) for side in zip(*rounds, strict=True))
            print(f"{name}: before {old:.3f} s, now {new:.3f} s, ratio {statistics.median(ratios):.3f} "
                  f"({ratios[0]:.3f} to {ratios[-1]:.3f}, {options.rounds} rounds)", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
