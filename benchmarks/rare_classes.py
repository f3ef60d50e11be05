"""What do class weights and rare crops do to CamVid's rare classes? Same steps, same seeds, with and without.

usage: python benchmarks/rare_classes.py ROOT --weights FILE [--steps 500] [--out FOLDER]

Trains tf_efficientnet_lite0 (FILE: its ImageNet weights) with a light head at 240x320, cross-entropy alone, four times:
plain, with loss.class_weights median, with data.rare_crops 0.5, and with both. Printed: IoU of each class and mIoU.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

VARIANTS = {
    "plain": {}, "class weights": {"loss.class-weights": "median"}, "rare crops": {"data.rare-crops": "0.5"},
    "both": {"loss.class-weights": "median", "data.rare-crops": "0.5"},
}  # fmt: skip


def train(name: str, options: argparse.Namespace) -> dict[str, float]:
    """IoU by class of one training, which goes on where it was stopped."""
    folder = options.out / name.replace(" ", "_")
    settings = {
        "data.root": options.root, "model.backbone-weights": options.weights, "model.pretrained": "False",
        "model.fpn-channels": 64, "model.head-channels": 64, "loss.dice": 0, "data.crop": "240 320",
        "train.steps": options.steps, "optim.warmup-steps": options.steps // 10, "run.dir": folder,
        "run.val-every": options.steps, "run.log-every": 50, "train.seed": options.seed, **VARIANTS[name],
    }  # fmt: skip
    words = [word for key, value in settings.items() for word in (f"--{key}", *str(value).split())]
    begun = (folder / "config.yaml").is_file()
    command = ["--resume", str(folder)] if begun else ["camvid_lite0", *words]
    subprocess.run([sys.executable, "-m", "panfpn", "train", *command], check=True, stdout=subprocess.DEVNULL)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in rows if row["kind"] == "val"][-1]
    return {**last["iou"], "mIoU": last["miou"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/rare_classes"))
    options = parser.parse_args()
    found = {name: train(name, options) for name in VARIANTS}
    print("| class | " + " | ".join(found) + " |\n|---|" + "--:|" * len(found))
    for name in next(iter(found.values())):
        print(f"| {name} | " + " | ".join(f"{100 * scores[name]:.2f}" for scores in found.values()) + " |")


if __name__ == "__main__":
    main()
