"""The published models on a GPU: images/s, training memory, and mmsegmentation on the same GPU.

usage: python benchmarks/gpu.py [--mmseg PYTHON] [--device cuda] [--precisions float32 bfloat16] [--models NAME …]
                                [--rounds 10] [--repeats 50] [--tests] [--json FILE] [--write] [--quick]

Inference: image in memory to labels at the test size, one image a call, beside the published column (one V100).
Training: the step with the batch that one of the four GPUs had, beside the published memory. With --mmseg both are also
run in mmsegmentation, alternating. Panoptic FPN (detectron2's recipes on COCO, 800 x 1333, 2 images a step) stands
beside detectron2's published column (one of eight V100). Host waits: how often a training step, and one prediction,
makes the host wait for the device (torch.cuda.set_sync_debug_mode), and from where. --tests first runs the suite's
part that needs a GPU. `--device cpu --quick` shows on any machine that it works.
"""

import argparse
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from inference_peers import CASES, MMSEG
from networks import write_files
from page import add_options, publish
from peers.side import Peer, alternate, memory_cells, peak, timing_row

from panfpn import recipes
from panfpn.benchmark import (
    InferenceJob,
    in_child,
    measure_inference,
    measure_training,
    prepare_training,
    published_config,
)
from panfpn.benchmark.inference import make_predictor
from panfpn.benchmark.tables import inference_rows, training_rows
from panfpn.labels import LabelTable
from panfpn.weights.zoo import PUBLISHED

TESTS = Path(__file__).parents[1] / "tests"
CONFIGS = {
    "fpn_r50_cityscapes": "fpn_r50_4xb2-80k_cityscapes-512x1024.py",
    "fpn_r101_cityscapes": "fpn_r101_4xb2-80k_cityscapes-512x1024.py",
    "fpn_r50_ade20k": "fpn_r50_4xb4-160k_ade20k-512x512.py",
    "fpn_r101_ade20k": "fpn_r101_4xb4-160k_ade20k-512x512.py",
}
PANOPTIC = {  # detectron2's seconds an image, seconds a step and GB of one of eight V100 (docs/facts.md, C1)
    "panoptic_r50_coco_3x": (0.053, 0.302, 4.8),
    "panoptic_r101_coco_3x": (0.066, 0.392, 6.0),
}


def inference(options: argparse.Namespace) -> tuple[list[dict[str, str]], list]:
    """Rows and raw figures of every model in every precision."""
    size = (64, 128) if options.quick else None
    found = []
    for name in options.models:
        for precision in options.precisions:
            print(f"inference {name} {precision}", file=sys.stderr, flush=True)
            job = InferenceJob(model=name, size=size, device=options.device, precision=precision,
                               repeats=options.repeats, warmup=options.warmup)  # fmt: skip
            found.append(in_child(measure_inference, job))
    rows = inference_rows(found)
    for row, figures in zip(rows, found, strict=True):
        row["published = 1"] = f"{figures.images_per_second / PUBLISHED[figures.job.model].fps:.2f}"
    return rows, [figures.to_dict() for figures in found]


def training(options: argparse.Namespace) -> tuple[list[dict[str, str]], list]:
    """Rows and raw figures of every model's step in every precision."""
    found = []
    for name in options.models:
        for precision in options.precisions:
            print(f"training {name} {precision}", file=sys.stderr, flush=True)
            config = published_config(name).changed(run__device=options.device, train__precision=precision)
            config = config.changed(data__crop=(64, 64)) if options.quick else config
            found.append(in_child(measure_training, config, options.repeats, options.warmup))
    rows = training_rows(found)
    for row, figures in zip(rows, found, strict=True):
        row["published GB = 1"] = f"{figures.memory / 1e9 / PUBLISHED[figures.config.run.name].train_gb:.2f}"
    return rows, [figures.to_dict() for figures in found]


def panoptic(options: argparse.Namespace) -> tuple[list[dict[str, str]], list]:
    """Rows and raw figures of Panoptic FPN: prediction and the training step, in every precision."""
    rows, raw = [], []
    for name, (seconds, step, memory) in PANOPTIC.items():
        for precision in options.precisions:
            print(f"panoptic {name} {precision}", file=sys.stderr, flush=True)
            job = InferenceJob(model=name, size=(64, 128) if options.quick else (800, 1333), device=options.device,
                               precision=precision, repeats=options.repeats, warmup=options.warmup)  # fmt: skip
            config = recipes.find(name)(run__device=options.device, train__precision=precision, train__batch_size=2)
            config = config.changed(data__crop=(64, 64)) if options.quick else config
            predicted = in_child(measure_inference, job)
            trained = in_child(measure_training, config, options.repeats, options.warmup)
            rows.append({
                "model": name, "precision": precision, "image ms": f"{1000 * predicted.percentile(50):.1f}",
                "published = 1": f"{predicted.percentile(50) / seconds:.2f}",
                "step ms": f"{1000 / trained.steps_per_second:.0f}",
                "published step = 1": f"{1 / trained.steps_per_second / step:.2f}",
                "step GB": f"{trained.memory / 1e9:.2f}", "published GB = 1": f"{trained.memory / 1e9 / memory:.2f}",
            })  # fmt: skip
            raw.append({"inference": predicted.to_dict(), "training": trained.to_dict()})
    return rows, raw


def waits(options: argparse.Namespace) -> tuple[list[dict[str, str]], list]:
    """Rows of every model: host waits of a training step and of a prediction, and the lines that they come from."""
    rows, raw = [], []

    def cell(lines: dict[str, int]) -> str:
        return str(sum(lines.values())) if options.device.startswith("cuda") else "–"  # only CUDA counts them

    for name in (*options.models, *PANOPTIC):
        print(f"host waits {name}", file=sys.stderr, flush=True)
        counts = in_child(count_waits, name, options.device, options.quick)
        rows.append({"model": name, **{work: cell(lines) for work, lines in counts.items()}})
        raw.append({"model": name, **counts})
    return rows, raw


def count_waits(name: str, device: str, quick: bool) -> dict[str, dict[str, int]]:
    """Waits by source line of one training step and one prediction, once the first of each are done."""
    config = recipes.find(name)(run__device=device, train__batch_size=2, train__accumulate=1)
    config = config.changed(data__crop=(64, 64)) if quick else config
    predictor = make_predictor(InferenceJob(model=name, device=device))
    if quick:
        task = predictor.task
        task.set_inference(scale=None, size_divisor=task.preprocess.size_divisor, inference=task.inference)
    image = np.zeros((64, 128, 3) if quick else (512, 1024, 3), np.uint8)
    trainer, batches = prepare_training(config)
    work = {"training step": lambda: trainer.step(batches), "prediction": lambda: predictor(image)}
    counts: dict[str, dict[str, int]] = {}
    for label, function in work.items():
        for _ in range(2):
            function()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if device.startswith("cuda"):
                torch.cuda.set_sync_debug_mode("warn")
            try:
                function()
            finally:
                if device.startswith("cuda"):
                    torch.cuda.set_sync_debug_mode("default")
        lines = (f"{Path(w.filename).name}:{w.lineno}" for w in caught if "synchronizing CUDA" in str(w.message))
        counts[label] = dict(Counter(lines).most_common())
    return counts


def beside_mmseg(name: str, folder: Path, options: argparse.Namespace, do: str) -> tuple[list[dict[str, str]], dict]:
    """Rows and raw figures of one model: "predict" or "train", alternating with mmsegmentation on the same device."""
    config = published_config(name)
    case, table = CASES[PUBLISHED[name].table], LabelTable.named(PUBLISHED[name].table)
    write_files(folder, table, case.scale, backbone=config.model.backbone)
    common = {"folder": str(folder), "device": options.device}
    # mmsegmentation's own file for R-101 on ADE20K assigns `model` twice and so says depth 50
    theirs = {"config": CONFIGS[name], "num_classes": table.num_classes, "depth": 101 if "r101" in name else 50}
    ours: dict[str, object] = {}
    asked = {}
    if do == "train":
        common |= {"crop": (64, 64) if options.quick else config.data.crop, "batch": config.train.batch_size}
        theirs["training"], ours["recipe"] = True, name
    else:
        image = np.random.default_rng(0).integers(0, 256, (*case.network, 3), np.uint8)
        image = image[:64, :128] if options.quick else image
        np.save(folder / "image.npy", image)
        asked["image"] = str(folder / "image.npy")
    peers = [Peer(MMSEG, options.mmseg, "mmseg_bench.py", common | theirs)]
    for precision in options.precisions:
        told = common | ours | {"precision": precision}
        peers.append(Peer(f"panfpn {precision}", sys.executable, "panfpn_bench.py", told))
    with ExitStack() as stack:
        running = [stack.enter_context(peer.start()) for peer in peers]
        times = alternate(running, options.rounds, do, **asked)
    peaks = {peer.name: peak(peer, do, **asked, **({"steps": 2} if do == "train" else {})) for peer in peers}
    rows = [
        {"model": name} | timing_row(peer.name, times, MMSEG) | memory_cells(peer.name, peaks, MMSEG) for peer in peers
    ]
    return rows, {"seconds": times, "peak_bytes": peaks}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mmseg", metavar="PYTHON")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--models", nargs="+", choices=PUBLISHED, default=list(PUBLISHED))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--warmup", type=int, default=10)
    parser.add_argument("--tests", action="store_true")
    add_options(parser)
    options = parser.parse_args()
    if options.quick:
        options.rounds = options.repeats = options.warmup = 1
    if options.tests and (code := subprocess.call([sys.executable, "-m", "pytest", "-m", "gpu", str(TESTS)])):
        return code
    tables, raw = {}, {}
    tables["Inference, one image a call"], raw["inference"] = inference(options)
    tables["Training step, the batch of one of four GPUs"], raw["training"] = training(options)
    tables["Panoptic FPN"], raw["panoptic"] = panoptic(options)
    tables["Host waits"], raw["waits"] = waits(options)
    for do in ("predict", "train") if options.mmseg else ():
        caption = {"predict": "Inference beside mmsegmentation", "train": "Training step beside mmsegmentation"}[do]
        tables[caption], raw[do] = [], {}
        for name in options.models:
            with tempfile.TemporaryDirectory() as folder:
                rows, raw[do][name] = beside_mmseg(name, Path(folder), options, do)
            tables[caption] += rows
    notes = ["Published: mmsegmentation on V100 GPUs. Peak memory on CUDA is what torch's allocator gave out at most."]
    publish("gpu", tables, options, device=options.device, raw=raw, notes=notes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
