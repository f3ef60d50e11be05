"""Panoptic FPN R-50 at 800 x 1067 on a CPU, beside torchvision's Mask R-CNN R-50 at the same size, in one run.

usage: python benchmarks/panoptic_inference.py [--rounds 7] [--engines torch openvino] [--json FILE] [--write] [--quick]

Mask R-CNN does less: it has no semantic branch and makes no panoptic map. Both have random weights, which leave both
with a thousand proposals and no detection ("empty"); with thresholds of 0 both keep 100 detections and make a mask of
each ("full"). Both see noise; images lie in memory at the network's size.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import torchvision
from page import add_options, publish
from peers.side import timing_row

from panfpn import build, recipes
from panfpn.config import Inference, TrainConfig
from panfpn.deploy.predictor import use_engine
from panfpn.labels import LabelTable

PEER = "torchvision float32"


def ours(precision: str, engine: str, full: bool) -> Callable[[np.ndarray], object]:
    config: TrainConfig = recipes.panoptic_r50_coco_1x(model__pretrained=False)
    table = LabelTable.named("coco_panoptic")
    config = build.resolve(config.changed(train__precision=precision), table)
    torch.manual_seed(0)
    inference = Inference(box_score=0, confidence=0) if full else Inference()
    task = build.build_task(replace(config, inference=inference), table, load_weights=False)
    task.to(memory_format=torch.channels_last).eval()
    use_engine(task, engine)
    return lambda image: task.predict([image])[0]


def torchvisions(full: bool) -> Callable[[np.ndarray], object]:
    torch.manual_seed(0)
    network = torchvision.models.detection.maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, box_score_thresh=0.0 if full else 0.05
    ).eval()

    def run(image: np.ndarray) -> object:
        with torch.inference_mode():
            return network([torch.from_numpy(image).permute(2, 0, 1).float() / 255])

    return run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--engines", nargs="+", default=["torch", "openvino"])
    add_options(parser)
    options = parser.parse_args()
    size = (128, 160) if options.quick else (800, 1067)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    tables, raw = {}, {}
    for full in (False, True):
        sides = {PEER: torchvisions(full)}
        sides |= {f"panfpn {e} {p}": ours(p, e, full) for e in options.engines for p in ("float32", "auto")}
        seconds = alternate(sides, image, 1 if options.quick else options.rounds)
        caption = "R-50, 800×1067, " + ("100 detections with masks" if full else "no detection")
        tables[caption] = [timing_row(name, seconds, PEER) for name in sides]
        raw[caption] = seconds
    publish("panoptic_inference", tables, options, raw=raw)
    return 0


def alternate(
    sides: dict[str, Callable[[np.ndarray], object]], image: np.ndarray, rounds: int
) -> dict[str, list[float]]:
    """Seconds of every side in every round, after one to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, run in sides.items():
            start = time.perf_counter()
            run(image)
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


if __name__ == "__main__":
    sys.exit(main())
