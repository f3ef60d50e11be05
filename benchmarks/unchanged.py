"""What a change of structure must not change: SHA-256 of weights, label maps and panoptic maps, on the CPU in float32.

usage: python benchmarks/unchanged.py [--weights FILE] [--images DIR] [--panoptic-images DIR] [--json FILE]
                                      [--compare FILE]

Run it before and after: with the same machine, torch and number of threads (one) the sums are equal. Only public calls
are made, so one script serves both.

--weights          tf_efficientnet_lite0.safetensors, from which `scenes` starts; without it, from random weights
--images           pictures for the model that ships with panfpn: the first 20 by name; left out without it
--panoptic-images  pictures for the Panoptic FPN trained here: the first 10 by name; left out without it
--compare          sums written by --json before: the exit code is 1 if one differs
"""

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path

import cv2
import torch
from safetensors.torch import load_file

import panfpn

STEPS = 20
SUFFIXES = (".png", ".jpg", ".jpeg")


def weights_sum(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of names, types, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def trained(recipe: str, folder: Path, weights: Path | None) -> panfpn.RunResult:
    """A run of a few steps that ends with a validation."""
    config = getattr(panfpn.recipes, recipe)()
    changes = {"train.steps": STEPS, "train.precision": "float32", "run.dir": folder, "run.device": "cpu",
               "run.val_every": STEPS, "data.num_workers": 0, "data.scenes": (512, 4),
               "train.batch_size": min(config.train.batch_size, 4),
               "optim.warmup_steps": min(config.optim.warmup_steps, 5), "model.pretrained": False}  # fmt: skip
    if weights and config.model.backbone == weights.stem:
        changes["model.backbone_weights"] = weights
    return panfpn.train(config.changed(**changes))


def pictures(folder: Path, count: int) -> Iterable[Path]:
    """The first of a folder, by name."""
    return islice((file for file in sorted(folder.rglob("*")) if file.suffix.lower() in SUFFIXES), count)


def label_sum(folder: Path, count: int = 20) -> str:
    """SHA-256 of the label maps of the model that ships with panfpn."""
    predictor, digest = panfpn.Predictor.from_file(None, "cpu", "float32"), hashlib.sha256()
    for file in pictures(folder, count):
        digest.update(predictor(file).labels.tobytes())
    return digest.hexdigest()


def panoptic_sum(run: Path, folder: Path, count: int = 10) -> str:
    """SHA-256 of segments, what they are, and labels, of a run's Panoptic FPN."""
    predictor, digest = panfpn.Predictor.from_file(run, "cpu", "float32"), hashlib.sha256()
    for file in pictures(folder, count):
        result = predictor(file)
        digest.update(result.segments.tobytes())
        digest.update(repr([(s.id, s.train_id, s.area, s.box, s.score) for s in result.info]).encode())
        digest.update(result.semantic.tobytes())
    return digest.hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--weights", "--images", "--panoptic-images", "--json", "--compare"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    sums: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for recipe in ("scenes", "panoptic_scenes"):
            result = trained(recipe, Path(folder) / recipe, options.weights)
            sums[recipe] = weights_sum(load_file(result.dir / "last.safetensors"))
            sums[f"{recipe} score"] = repr(result.value)
        if options.panoptic_images:
            sums["panoptic maps"] = panoptic_sum(result.dir, options.panoptic_images)
    if options.images:
        sums["label maps"] = label_sum(options.images)
    for name, value in sums.items():
        print(f"{name}: {value}")
    if options.json:
        options.json.write_text(json.dumps(sums, indent=2) + "\n")
    if options.compare:
        before = json.loads(options.compare.read_text())
        different = [name for name in sums if name in before and sums[name] != before[name]]
        print(f"differ: {', '.join(different)}" if different else "all are as before")
        return int(bool(different))
    return 0


if __name__ == "__main__":
    sys.exit(main())
