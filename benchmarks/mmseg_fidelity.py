"""panfpn beside mmsegmentation 1.2.2: the same weights, images and batches through both, and how far they differ.

usage: python benchmarks/mmseg_fidelity.py PEER_PYTHON [--old OLD_PYTHON] [--images FOLDER] [--only infer|train]
                                           [--steps 50]

PEER_PYTHON is the interpreter of an environment with: torch mmengine mmcv-lite mmsegmentation ftfy regex (pip installs
them all). OLD_PYTHON adds mmsegmentation 0.30 (pip install "setuptools<80" wheel torch torchvision "numpy<2", then
MMCV_WITH_OPS=0 pip install --no-build-isolation mmcv==1.7.2 mmsegmentation==0.30.0).

Printed: for whole, slide and multi-scale + flip (flip: of 1.x, flip0: of 0.x), the share of pixels whose labels agree,
and how many disagree where the peer's two best scores differ by more than 1e-3; then the losses of 50 training steps
side by side. Exit code 1 if a label or a loss (1e-3 relative) differs.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from networks import make_task, network

from panfpn import recipes
from panfpn.build import build_transform
from panfpn.config import Data, Inference, Optim, TrainConfig
from panfpn.data import train_loader
from panfpn.data.images import read_image
from panfpn.data.layouts.scenes import SceneDataset, scenes_table
from panfpn.data.loader import DrawSampler
from panfpn.data.scenes import draw_scene
from panfpn.engine.optim import build_optimizer, lr_at, set_lr
from panfpn.engine.time_budget import Plan
from panfpn.labels import LabelTable
from panfpn.tasks import SemanticTask
from panfpn.types import Batch
from panfpn.weights.interop.mmseg import write_mmseg

WINDOW, STRIDE, RATIOS = (320, 384), (200, 256), (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
LIMIT = 1e-3
CROP, WARM_UP = (128, 192), 300


def run_peer(
    python: str, script: str, mode: str, task: dict, arrays: dict[str, np.ndarray], model: SemanticTask
) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write_mmseg(
            place / "model.pth",
            model.model.state_dict(),
            TrainConfig(model=network(model.table.num_classes)),
            model.table,
        )
        (place / "task.json").write_text(json.dumps(task))
        np.savez(place / "input.npz", **arrays)
        subprocess.run([python, str(Path(__file__).parent / "peers" / script), mode, folder], check=True)
        with np.load(place / "output.npz") as output:
            return dict(output)


def compare_inference(python: str, old: str | None, folder: Path | None) -> bool:
    if folder:
        files = sorted(p for p in folder.rglob("*") if p.suffix in (".jpg", ".png"))
        images = {p.stem: read_image(p) for p in (files[0], files[len(files) // 2], files[-1])}
    else:
        sizes = ((360, 480), (333, 500), (640, 427))
        images = {f"scene{i}": draw_scene(0, i, height=h, width=w).image for i, (h, w) in enumerate(sizes)}
    table = LabelTable.named("ade20k")
    task = make_task(150, table).eval()
    asked = {"config": "fpn_r50_4xb4-160k_ade20k-512x512.py", "config0": "fpn_r50_512x512_160k_ade20k.py",
             "num_classes": 150, "window": WINDOW, "stride": STRIDE}  # fmt: skip
    peer = run_peer(python, "mmseg_side.py", "infer", asked, images, task)
    if old:
        peer |= run_peer(old, "mmseg0_side.py", "infer", asked, images, task)
    forms = {
        "whole": Inference(),
        "slide": Inference(mode="slide", window=WINDOW, stride=STRIDE),
        "flip": Inference(ratios=RATIOS, flip=True, ratios_of="original"),
    } | ({"flip0": Inference(ratios=RATIOS, flip=True)} if old else {})
    good = True
    print(f"{'image':<20} {'size':<10} {'form':<6} {'equal':>9} {'clear':>9}  different where clear")
    for name, image in images.items():
        for form, inference in forms.items():
            task.set_inference(scale=(2048, 512), size_divisor=1, inference=inference)
            labels = task.predict([image])[0].labels
            different = labels != peer[f"{name}/{form}/labels"]
            clear = peer[f"{name}/{form}/margin"] > LIMIT
            bad = int((different & clear).sum())
            good &= bad == 0
            size = f"{image.shape[0]}x{image.shape[1]}"
            print(f"{name:<20} {size:<10} {form:<6} {1 - different.mean():9.5%} {clear.mean():9.5%}  {bad}")
    return good


def training_batches(steps: int, size: int, seed: int) -> list[Batch]:
    scenes = SceneDataset(table=scenes_table(), split="train", count=64, size=(192, 256))
    transform = build_transform(Data(crop=CROP, ratio=(0.5, 2.0), scale=(256, 192)))
    sampler = DrawSampler(steps=range(steps), batch_size=size)
    return list(train_loader(scenes, transform, sampler, seed=seed, num_workers=0))


def train(task: SemanticTask, batches: list[Batch], optim: Optim) -> tuple[list[float], list[float]]:
    """Losses and learning rates of one step a batch."""
    optimizer = build_optimizer(task.model, optim)
    losses, rates = [], []
    task.train()
    for step, batch in enumerate(batches):
        rates.append(lr_at(step, Plan(steps=len(batches)), optim))
        set_lr(optimizer, rates[-1])
        loss = sum(task(batch).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, rates


def compare_training(python: str, steps: int) -> bool:
    """Rounding grows in training: in float32 a change of 1e-7 is one of 1e-3 after 12 steps of the published rate.

    So the published rate is compared in float64, and float32 at a tenth of it. Both begin with a network that has
    learnt a little, as the published trainings begin with ImageNet weights.
    """
    size, table = 4, scenes_table()
    published = recipes.published.fpn_r50_cityscapes().optim
    task = make_task(table.num_classes, table, "all")
    with torch.no_grad():
        task.model.head.classifier.weight.mul_(0.1)
        for name, tensor in task.model.named_parameters():
            if name.endswith("bn3.weight"):
                tensor.zero_()
    task.pixels.precision = torch.bfloat16
    losses, _ = train(task, training_batches(WARM_UP, size, seed=1), published)
    print(f"{WARM_UP} steps of panfpn alone: loss {losses[0]:.3f} -> {sum(losses[-10:]) / 10:.3f}", flush=True)
    task.pixels.precision, task.pixels.channels_last = torch.float32, False  # the peer's layout: the same rounding
    task.to(memory_format=torch.contiguous_format)
    start = {name: t.clone() for name, t in task.model.state_dict().items()}
    batches = training_batches(steps, size, seed=0)
    padded = sum(s != CROP for b in batches for s in b.sizes)
    arrays = {}
    for i, batch in enumerate(batches):
        arrays |= {f"{i}/images": batch.images.numpy(), f"{i}/targets": batch.targets.numpy(),
                   f"{i}/sizes": np.array(batch.sizes)}  # fmt: skip
    asked = {"config": "fpn_r50_4xb2-80k_cityscapes-512x1024.py", "num_classes": table.num_classes, "dropout": 0.0,
             "steps": steps, "crop": CROP}  # fmt: skip
    good = True
    for kind, lr in ((torch.float32, published.lr / 10), (torch.float64, published.lr)):
        task.to(kind).model.load_state_dict(start)
        asked |= {"lr": lr, "dtype": str(kind).removeprefix("torch.")}
        peer = run_peer(python, "mmseg_side.py", "train", asked, arrays, task)
        losses, rates = train(task, batches, replace(published, lr=lr))
        apart = np.abs(np.array(losses) / peer["losses"] - 1)
        apart_rates = np.abs(np.array(rates) / peer["rates"] - 1).max()
        for step, (ours, theirs) in enumerate(zip(losses, peer["losses"], strict=True)):
            print(f"step {step:2d}  panfpn {ours:.6f}  mmsegmentation {theirs:.6f}  {apart[step]:.1e}")
        print(f"{kind}, lr {lr}, {steps} steps of {size} crops ({padded} of {steps * size} padded): largest relative")
        print(f"difference of the loss {apart.max():.1e}, of the learning rate {apart_rates:.1e}", flush=True)
        good &= bool(apart.max() <= LIMIT and apart_rates <= 1e-9)
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer_python")
    parser.add_argument("--old")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--only", choices=("infer", "train"))
    parser.add_argument("--steps", type=int, default=50)
    options = parser.parse_args()
    good = True
    if options.only != "train":
        good &= compare_inference(options.peer_python, options.old, options.images)
    if options.only != "infer":
        good &= compare_training(options.peer_python, options.steps)
    sys.exit(not good)


if __name__ == "__main__":
    main()
