"""Kill a training (SIGKILL) at random moments, resume it each time, and compare its weights with a run left alone.

usage: python benchmarks/exact_resume.py [--recipe scenes|panoptic_scenes] [--backbone NAME] [--kills 5] [--steps 40]

Every run is `panfpn train` in a process of its own, once with 0 and once with 2 loader workers. Printed: the steps at
which it was killed, and three SHA-256 of both runs: weights with optimiser state and weight average; released weights;
curves. Exit code 1 if they differ.
"""

import argparse
import hashlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from panfpn.engine.run_log import read_history
from panfpn.weights.files import read_checkpoint, tensors_digest


def command(recipe: str, backbone: str, folder: Path, workers: int, steps: int) -> list[str]:
    options = {
        "run.dir": folder, "data.num-workers": workers, "train.steps": steps, "train.batch-size": 4,
        "optim.ema-decay": 0.99, "optim.warmup-steps": 5, "model.dropout": 0.1, "run.log-every": 1,
        "run.checkpoint-every": 4, "run.val-every": 15, "data.scenes": "32 4", "data.scene-size": "96 128",
        "data.crop": "64 96", "data.cat-max-ratio": 0.75,
        "model.backbone": backbone, "model.start-from": "None", "model.pretrained": "False",
        "model.fpn-channels": 32,
    }  # fmt: skip
    words = [word for key, value in options.items() for word in (f"--{key}", *str(value).split())]
    return [sys.executable, "-m", "panfpn", "train", recipe, *words]


def last_step(folder: Path) -> int:
    rows = read_history(folder / "metrics.jsonl")
    return rows[-1]["step"] if rows else 0


def digest(folder: Path) -> str:
    """Of the last state, of the released weights, and of the curves."""
    parts = [tensors_digest(read_checkpoint(folder / "last.safetensors", role="run")[0])]
    parts.append(tensors_digest(read_checkpoint(folder / "model.safetensors", role="release")[0]))
    curves = [
        [row.get(key) for key in ("step", "loss", "lr", "miou", "pq")] for row in read_history(folder / "metrics.jsonl")
    ]
    parts.append(hashlib.sha256(repr(curves).encode()).hexdigest())
    return "  ".join(parts)


def run_and_kill(start: list[str], folder: Path, steps: int, kills: int, draw: random.Random) -> list[int]:
    killed: list[int] = []
    moments = sorted(draw.sample(range(2, steps - 6), kills))
    for moment in moments:
        process = subprocess.Popen(start, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while last_step(folder) < moment and process.poll() is None:
            time.sleep(0.02)
        time.sleep(draw.uniform(0, 0.3))  # somewhere within a step, a validation or a save
        process.kill()
        if process.wait() != -signal.SIGKILL:
            raise RuntimeError(f"the run ended by itself ({process.returncode}) before it could be killed at {moment}")
        killed.append(last_step(folder))
        start = [sys.executable, "-m", "panfpn", "train", "--resume", str(folder)]
    subprocess.run(start, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return killed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backbone", default="mobilenetv2_050")
    parser.add_argument("--recipe", choices=("scenes", "panoptic_scenes"), default="scenes")
    options = parser.parse_args()
    steps = options.steps
    differ = False
    with tempfile.TemporaryDirectory() as temporary:
        for workers in (0, 2):
            whole, cut = Path(temporary) / f"whole_{workers}", Path(temporary) / f"cut_{workers}"
            starts = [command(options.recipe, options.backbone, place, workers, steps) for place in (whole, cut)]
            subprocess.run(starts[0], check=True, capture_output=True)
            killed = run_and_kill(starts[1], cut, steps, options.kills, random.Random(options.seed + workers))
            first, second = digest(whole), digest(cut)
            differ |= first != second
            print(f"{workers} workers: killed after steps {killed}, resumed {len(killed)} times")
            print(
                f"  uninterrupted {first}\n  killed        {second}\n  {'EQUAL' if first == second else 'DIFFERENT'}",
                flush=True,
            )
    return int(differ)


if __name__ == "__main__":
    sys.exit(main())
