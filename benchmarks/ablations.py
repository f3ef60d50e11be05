"""What single choices of `train auto` are worth: equal minutes, two seeds, one core each.

    python benchmarks/ablations.py DATA OUT --weights FILE [--dataset folder] [--minutes 8] [--only NAME ...]

Each line is `train auto` (EfficientNet-Lite0, FILE: its ImageNet weights) with one setting changed, on CamVid at
240×180 or a folder as it is (some lines are of CamVid's sizes and steps); the seeds train beside each other, each
pinned to a core. mIoU of the last validation. OUT keeps the runs: what has ended is not trained again.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import mean

VARIANTS = {
    "as auto chooses": {},
    "no class weights": {"loss.class-weights": "None"},
    "median class weights": {"loss.class-weights": "median"},
    "no class weights, no rare crops": {"loss.class-weights": "None", "data.rare-crops": "0"},
    "median class weights, twice the rate": {"loss.class-weights": "median", "optim.lr": "3e-3"},
    "no rare crops": {"data.rare-crops": "0"},
    "no Dice": {"loss.dice": "0"},
    "Lovász in place of Dice": {"loss.dice": "0", "loss.lovasz": "0.5"},
    "backbone at the whole rate": {"optim.backbone-lr-factor": "1"},
    "twice the rate": {"optim.lr": "3e-3"},
    "scales 0.5 to 2": {"data.ratio": "0.5 2"},
    "pyramid of 64 channels": {"model.fpn-channels": "64", "model.head-channels": "64"},
    "half the batch": {"train.batch-size": "4"},
    "never turned": {"data.rotate90": "0"},
    "no weight average": {"optim.ema-decay": "None"},
    "a warm-up four times as long": {"optim.warmup-steps": "38"},
    "layer-wise rates, 0.8 a block": {"optim.layer-decay": "0.8"},
    "images of 320×240": {"data.scale": "320 240"},
}
SEEDS = (0, 1)


def folder_of(options: argparse.Namespace, name: str, seed: int) -> Path:
    return options.out / f"{name.replace(' ', '_').replace(',', '')}-{seed}"


def start(options: argparse.Namespace, name: str, seed: int) -> subprocess.Popen[bytes] | None:
    """A training that is begun, or None for one that has ended."""
    folder = folder_of(options, name, seed)
    if (folder / "ended").is_file():
        return None
    settings = {
        "data.root": options.data, "data.dataset": options.dataset, "weights": options.weights,
        "minutes": options.minutes, "run.dir": folder, "run.loggers": "", "train.seed": seed, "run.val-every": 100_000,
        "folds": 1, "model.architecture": "SemanticFPN",
        **({"data.scale": "240 180", "train.batch-size": 8} if options.dataset == "camvid" else {}), **VARIANTS[name],
    }  # fmt: skip
    machine = options.out / "plan.json"
    if machine.is_file() and "model.fpn-channels" not in settings:
        settings["machine"] = machine
    words = [word for key, value in settings.items() for word in (f"--{key}", *str(value).split())]
    core = sorted(os.sched_getaffinity(0))[seed % os.cpu_count()]
    with folder.with_suffix(".log").open("w") as log:
        return subprocess.Popen([sys.executable, "-m", "panfpn", "train", "auto", *words], stdout=log, stderr=log,
                                env={**os.environ, "OMP_NUM_THREADS": "1"},
                                preexec_fn=lambda: os.sched_setaffinity(0, {core}))  # fmt: skip


def scores(options: argparse.Namespace, name: str) -> list[tuple[float, int]]:
    """mIoU and steps, by seed."""
    found = []
    for seed in SEEDS:
        rows = [json.loads(line) for line in (folder_of(options, name, seed) / "metrics.jsonl").open()]
        last = [row for row in rows if row["kind"] == "val"][-1]
        found.append((100 * last["miou"], last["step"]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--dataset", choices=("camvid", "folder"), default="camvid")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        trainings = [(seed, start(options, name, seed)) for seed in SEEDS]
        for seed, training in trainings:
            if training is not None and training.wait():
                sys.exit(f"{name}, seed {seed}: failed; see {folder_of(options, name, seed).with_suffix('.log')}")
            (folder_of(options, name, seed) / "ended").touch()
        if not (options.out / "plan.json").is_file():
            (options.out / "plan.json").write_bytes((folder_of(options, name, 0) / "plan.json").read_bytes())
        found = scores(options, name)
        each = ", ".join(f"{score:.2f} ({steps} steps)" for score, steps in found)
        print(f"| {name} | {mean(score for score, _ in found):.2f} | {each} |", flush=True)


if __name__ == "__main__":
    main()
