"""Every kind of network as every kind of file: the gate's figures, sizes, seconds, and how fast each file predicts.

    python benchmarks/exports.py [--only NAME] [--formats onnx openvino torch] [--size 512 512]

Random weights, but for the model that ships. A line is a model and a format: the route (torch.export or tracing), how
many clear pixels or segments agree with torch over all shapes, seconds to write, megabytes, milliseconds an image.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from panfpn import Predictor, export
from panfpn.benchmark.settings import starting_config, table_for, without_weights
from panfpn.build import build_task, resolve
from panfpn.weights import write_release
from panfpn.weights.exported.program import format_named

MODELS = {  # name -> recipe and changes; None: the model in the package
    "Semantic FPN R-50": ("fpn_r50_ade20k", {}),
    "Semantic FPN lite0 (ships)": None,
    "Semantic FPN PVTv2-B0": ("fpn_r50_ade20k", {"model__backbone": "pvt_v2_b0"}),
    "Semantic FPN ConvNeXt-T": ("fpn_r50_ade20k", {"model__backbone": "convnext_tiny"}),
    "Semantic FPN ViT-S/16": ("fpn_r50_ade20k", {"model__backbone": "vit_small_patch16_224"}),
    "Semantic FPN DINOv3-S/16": ("fpn_r50_ade20k", {"model__backbone": "vit_small_patch16_dinov3"}),
    "Panoptic FPN R-50": ("panoptic_r50_coco_1x", {}),
    "Panoptic FPN lite0": ("panoptic_scenes", {}),
}


def random_model(recipe: str, changes: dict[str, object], path: Path) -> Path:
    """A release file of a recipe's network with random weights whose classes differ."""
    config = without_weights(starting_config(recipe)).changed(**changes, train__precision="float32", run__device="cpu")
    table = table_for(config, None)
    config = resolve(config.changed(model__num_classes=None), table)
    torch.manual_seed(0)
    task = build_task(config, table, load_weights=False)
    nn.init.normal_(task.model.head.classifier.weight)
    write_release(path, task.model.state_dict(), config, table, scores={}, source={})
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    parser.add_argument("--formats", nargs="+", default=["onnx", "openvino", "torch"])
    parser.add_argument("--size", nargs=2, type=int, default=[512, 512])
    options = parser.parse_args()
    print("| model | format | route | clear agree | seconds | MB | ms |\n|---|---|---|---|---|---|---|")
    image = np.random.default_rng(0).integers(0, 256, (*options.size, 3), np.uint8)
    for name, recipe in MODELS.items():
        if options.only not in name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            model = "camvid_lite0" if recipe is None else random_model(*recipe, Path(folder) / "model.safetensors")
            for form in options.formats:
                try:
                    made = export(model, Path(folder) / f"model{format_named(form).suffix}")
                except ValueError as error:
                    print(f"| {name} | {form} | {str(error).replace(folder, '')} | | | | |", flush=True)
                    continue
                predictor = Predictor.from_file(made.files[0], precision="float32")
                predictor(image)
                times = []
                for _ in range(5):
                    begin = time.perf_counter()
                    predictor(image)
                    times.append(time.perf_counter() - begin)
                agree, clear = sum(a.agreeing for a in made.gate), sum(a.clear for a in made.gate)
                print(f"| {name} | {form} | {made.route} | {agree} of {clear} | {made.seconds:.0f} | "
                      f"{made.num_bytes / 1e6:.1f} | {1000 * statistics.median(times):.0f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
