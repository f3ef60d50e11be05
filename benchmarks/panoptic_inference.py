"""Panoptic FPN R-50 at 800 x 1067 on a CPU, beside torchvision's Mask R-CNN R-50 at the same size, in one run.

    python benchmarks/panoptic_inference.py [--rounds 7] [--engines torch openvino] [--size 800 1067]

Mask R-CNN does less: it has no semantic branch and makes no panoptic map. Both have random weights, which leave both
with a thousand proposals and no detection ("empty"); with thresholds of 0 both keep 100 detections and make a mask of
each ("full"). Both see noise; images lie in memory at the network's size.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
import torchvision

from panfpn import build, recipes
from panfpn.config import Inference, TrainConfig
from panfpn.labels import LabelTable


def ours(precision: str, engine: str, full: bool) -> Callable[[np.ndarray], object]:
    config: TrainConfig = recipes.panoptic_r50_coco_1x(model__pretrained=False)
    table = LabelTable.named("coco_panoptic")
    config = build.resolve(config.changed(train__precision=precision), table)
    torch.manual_seed(0)
    inference = Inference(box_score=0, confidence=0) if full else Inference()
    task = build.build_task(
        config.model, table, size_divisor=32, inference=inference, precision=config.train.precision, load=False
    )
    task.to(memory_format=torch.channels_last).eval()
    build.use_engine(task, engine)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--engines", nargs="+", default=["torch", "openvino"])
    parser.add_argument("--size", nargs=2, type=int, default=(800, 1067))
    asked = parser.parse_args()
    image = np.random.default_rng(0).integers(0, 256, (*asked.size, 3), np.uint8)
    for full in (False, True):
        print("full: 100 detections" if full else "empty: no detection")
        sides = {"torchvision float32": torchvisions(full)}
        sides |= {f"panfpn {e} {p}": ours(p, e, full) for e in asked.engines for p in ("float32", "auto")}
        compare(sides, image, asked.rounds)


def compare(sides: dict[str, Callable[[np.ndarray], object]], image: np.ndarray, rounds: int) -> None:
    for run in sides.values():
        run(image)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            start = time.perf_counter()
            run(image)
            seconds[name].append(time.perf_counter() - start)
    peer = seconds["torchvision float32"]
    for name, own in seconds.items():
        ratios = [a / b for a, b in zip(own, peer, strict=True)]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(f"{name:<26} {1000 * statistics.median(own):7.0f} ms  {statistics.median(ratios):.2f} x  ({spread})")


if __name__ == "__main__":
    main()
