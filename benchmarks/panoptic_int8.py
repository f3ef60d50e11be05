"""Panoptic FPN in INT8: the time of R-50 at 800 x 1067 against our own bfloat16, and what it costs a trained model.

    python benchmarks/panoptic_int8.py --coco ROOT [--run RUN] [--rounds 7]

R-50 has random weights, the scores of its boxes made so sharp that 1,000 pairs of a box and a class are above the
threshold of 0.05 (as crowded a picture as there is; 100 of them are kept and get masks), and is calibrated on COCO
images of ROOT.
RUN is a run of the recipe panoptic_scenes: its PQ on the recipe's validation scenes, before and after.
"""

import argparse
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from panoptic_inference import alternate

from panfpn import Predictor, build, export, recipes
from panfpn.config import Data, Inference
from panfpn.labels import LabelTable
from panfpn.models.instance import BOX_SIDE, candidates, propose
from panfpn.ops.boxes import pool_boxes
from panfpn.tasks import Task
from panfpn.weights import write_release

PAIRS = 1_000  # of a box and a class, above the threshold


def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (800, 1067, 3), np.uint8)


@torch.inference_mode()
def sharpen(task: Task, image: np.ndarray) -> None:
    """Scale the box head's classifier until `PAIRS` scores of the image are above the threshold."""
    network = task.model
    maps = task.pixels(torch.from_numpy(image[None]))
    proposals = propose(candidates(maps.objectness, maps.deltas, network.anchor_scale), 0, image.shape[:2])
    logits, _ = network.box_head(pool_boxes(maps.pyramid, [proposals.boxes], BOX_SIDE))
    low, high = 1.0, 1e4
    for _ in range(40):
        factor = (low * high) ** 0.5
        enough = int(((factor * logits).softmax(1)[:, :-1] > task.inference.box_score).sum()) >= PAIRS
        low, high = (low, factor) if enough else (factor, high)
    network.box_head.classifier.weight.mul_(high)
    network.box_head.classifier.bias.mul_(high)


def files(folder: Path, coco: Path) -> dict[str, Predictor]:
    """R-50 as it is, and its exported files."""
    table = LabelTable.named("coco_panoptic")
    config = build.resolve(recipes.panoptic_r50_coco_1x(model__pretrained=False), table)
    torch.manual_seed(0)
    config = replace(config, inference=Inference(confidence=0))
    task = build.build_task(config, table, load_weights=False).eval()
    sharpen(task, noise())
    model = folder / "model.safetensors"
    write_release(model, task.model.state_dict(), config, table, scores={}, source={})
    data = Data(dataset="coco_panoptic", root=coco, train_split="val2017", val_split="val2017")
    found = {"torch bfloat16": Predictor.from_file(model, "cpu", "bfloat16")}
    for name, calibrate in (("float", None), ("int8", data)):
        made = export(model, folder / f"{name}.xml", calibrate=calibrate, max_drop=100, say=print)
        print(f"{name}.xml: {made.num_bytes / 1e6:.1f} MB in {made.seconds:.0f} s; {made.int8 or ''}", flush=True)
        for precision in ("float32", "bfloat16"):
            found[f"{name}.xml {precision}"] = Predictor.from_file(made.files[0], precision=precision)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coco", type=Path)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.run:
            config = recipes.panoptic_scenes()
            made = export(options.run, Path(folder) / "run.xml", calibrate=config.data, max_drop=100, say=print)
            print(f"{options.run}: {made.int8}, {made.num_bytes / 1e6:.1f} MB")
        if options.coco:
            image = noise()
            sides = files(Path(folder), options.coco)
            print({name: len(side(image).detections.scores) for name, side in sides.items()}, "detections", flush=True)
            seconds = alternate(sides, image, options.rounds)
            best = statistics.median(seconds["float.xml bfloat16"])
            for name, times in seconds.items():
                speed = best / statistics.median(times)
                print(f"{name}: {statistics.median(times):.3f} s, {speed:.2f} of the speed of float.xml bfloat16")


if __name__ == "__main__":
    main()
