"""The training step beside mmsegmentation's, alternating in one run; and what the fused loss saves.

usage: python benchmarks/training_peers.py MMSEG_PYTHON [--only step|loss] [--rounds 5] [--device cpu]
                                           [--json FILE] [--write] [--quick]

Step: R-50 on ADE20K (150 classes), a batch of four random 512×512 crops in memory; mmengine's own `train_step` in
float32 (preprocess, forward, loss, backward, SGD) against panfpn's trainer's. Peak memory is that of two steps in a
fresh process, above the process after its imports.

Loss: extra memory and time, forward and backward, of logits at stride 4 to the loss at full size: panfpn.losses against
F.interpolate and F.cross_entropy, each in a fresh process; exit code 1 if their gradients differ by more than 1e-5 of
the largest.
"""

import argparse
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from inference_peers import MMSEG
from networks import write_files
from page import add_options, publish
from peers.side import Peer, alternate, memory_cells, peak, timing_row

from panfpn.benchmark import PeakMemory, in_child
from panfpn.benchmark.machine import synchronize
from panfpn.labels import IGNORE, LabelTable
from panfpn.losses import SemanticLoss

CLASSES, BATCH, LIMIT = 150, 4, 1e-5


def compare_steps(folder: Path, crop: tuple[int, int], options: argparse.Namespace) -> tuple[list[dict], dict]:
    """Rows of the table and raw figures."""
    write_files(folder, LabelTable.named("ade20k"), (2048, 512))
    common = {"folder": str(folder), "crop": crop, "batch": BATCH, "device": options.device}
    theirs = {"config": "fpn_r50_4xb4-160k_ade20k-512x512.py", "num_classes": CLASSES, "training": True}
    peers = [Peer(MMSEG, options.mmseg, "mmseg_bench.py", common | theirs)]
    for precision in options.precisions:
        ours = common | {"recipe": "fpn_r50_ade20k", "precision": precision}
        peers.append(Peer(f"panfpn {precision}", sys.executable, "panfpn_bench.py", ours))
    with ExitStack() as stack:
        running = [stack.enter_context(peer.start()) for peer in peers]
        times = alternate(running, options.rounds, "train")
    # two steps: only the second has the optimiser's moments beside it from its beginning
    peaks = {peer.name: peak(peer, "train", steps=2) for peer in peers}
    rows = [timing_row(p.name, times, MMSEG) | memory_cells(p.name, peaks, MMSEG) for p in peers]
    return rows, {"seconds": times, "peak_bytes": peaks}


def loss_figures(kind: str, size: tuple[int, int], device: str) -> tuple[float, float, np.ndarray]:
    """Peak bytes above logits and labels, best seconds of three, and the gradient, of the fused or the naive loss."""
    place = torch.device(device)
    forward = fused_loss if kind == "fused" else naive_loss
    forward(*random_logits((16, 16), place)).backward()  # what the libraries set up once is not the loss's
    logits, target = random_logits(size, place)
    held = torch.cuda.memory_allocated(place) if place.type == "cuda" else 0
    meter, times = PeakMemory(place), []
    for _ in range(3):
        logits.grad = None
        start = time.perf_counter()
        forward(logits, target).backward()
        synchronize(place)
        times.append(time.perf_counter() - start)
    return meter.peak() - held, min(times), logits.grad.cpu().numpy()


def random_logits(size: tuple[int, int], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [B, K, H/4, W/4] and train ids [B, H, W], a tenth of them ignored."""
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(BATCH, CLASSES, size[0] // 4, size[1] // 4, generator=random)
    target = torch.randint(0, CLASSES, (BATCH, *size), generator=random, dtype=torch.int16)
    target[torch.rand(target.shape, generator=random) < 0.1] = IGNORE
    return logits.to(device).requires_grad_(), target.to(device)


def fused_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return SemanticLoss(weights={"cross_entropy": 1.0})(logits, target)["cross_entropy"]


def naive_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    full = F.interpolate(logits, size=target.shape[1:], mode="bilinear", align_corners=False)
    return F.cross_entropy(full, target.long(), ignore_index=IGNORE)


def compare_losses(size: tuple[int, int], device: str) -> tuple[list[dict], dict, bool]:
    """Rows of the table, raw figures, and whether the gradients agree."""
    figures = {kind: in_child(loss_figures, kind, size, device) for kind in ("naive", "fused")}
    naive, fused = figures["naive"], figures["fused"]
    apart = float(np.abs(fused[2] - naive[2]).max() / np.abs(naive[2]).max())
    rows = [
        {
            "": {"naive": "F.interpolate + F.cross_entropy", "fused": "panfpn.losses"}[kind],
            "extra memory": f"{memory / 1e6:.0f} MB", "of naive": f"{100 * memory / naive[0]:.1f} %",
            "time": f"{1e3 * taken:.0f} ms", "gradient apart": f"{apart:.1e}" if kind == "fused" else "–",
        }
        for kind, (memory, taken, _) in figures.items()
    ]  # fmt: skip
    raw = {kind: {"bytes": memory, "seconds": taken} for kind, (memory, taken, _) in figures.items()}
    return rows, raw | {"gradient_apart": apart}, apart <= LIMIT


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mmseg", metavar="MMSEG_PYTHON")
    parser.add_argument("--only", choices=("step", "loss"))
    parser.add_argument("--precisions", nargs="+", default=["float32", "auto"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    add_options(parser)
    options = parser.parse_args()
    size = (64, 64) if options.quick else (512, 512)
    options.rounds = 1 if options.quick else options.rounds
    tables, raws, good = {}, {}, True
    if options.only != "loss":
        caption = f"Training step, R-50, {CLASSES} classes, {BATCH} crops of 512×512"
        with tempfile.TemporaryDirectory() as folder:
            tables[caption], raws["step"] = compare_steps(Path(folder), size, options)
    if options.only != "step":
        caption = f"Logits to loss and back, float32, {CLASSES} classes, {BATCH} crops of 512×512"
        tables[caption], raws["loss"], good = compare_losses(size, options.device)
    notes = [f"Steps: medians of {options.rounds} alternating rounds; in brackets the range of their ratios."]
    publish("training_peers", tables, options, device=options.device, raw=raws, notes=notes)
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
