"""Prediction beside mmsegmentation, smp.FPN and torchvision's fcn_resnet50: the same images, alternating, one run.

usage: python benchmarks/inference_peers.py MMSEG_PYTHON [--smp PYTHON] [--engines torch openvino] [--only CASE …]
                                            [--exported] [--rounds 5]
                                            [--device cpu] [--json FILE] [--write] [--quick]

MMSEG_PYTHON and the one for smp are made by benchmarks/peers/setup.sh. Timed is the whole job, an image in memory to
its label map at the image's size: mmsegmentation's `inference_model`, panfpn's `Predictor`; for the two others, which
bring a network and no more, what a user writes around it (peers/plain_bench.py). Weights of panfpn and mmsegmentation
are the same. Peak memory is that of one job in a fresh process, above the process after its imports. Exit code 1 if
labels of panfpn in float32 differ from mmsegmentation's on more than 1 pixel in 10,000.
"""

import argparse
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from networks import write_exported, write_files
from page import add_options, publish
from peers.side import Peer, alternate, memory_cells, peak, timing_row
from sklearn.datasets import load_sample_image

from panfpn.data.images import read_image
from panfpn.deploy.runtime import ENGINES
from panfpn.labels import LabelTable

MMSEG, LIMIT = "mmsegmentation", 1e-4


@dataclass(frozen=True, kw_only=True)
class Case:
    """One model on one image."""

    caption: str
    table: str
    config: str  # mmsegmentation's own
    image: tuple[int, int]  # height and width of the photo
    scale: tuple[int, int]  # longer and shorter side that it is fitted into
    network: tuple[int, int]  # what it then is


CASES = {
    "cityscapes": Case(
        caption="R-50, 19 classes, image 1024×2048 in memory to labels of that size", table="cityscapes",
        config="fpn_r50_4xb2-80k_cityscapes-512x1024.py", image=(1024, 2048), scale=(2048, 1024), network=(1024, 2048),
    ),
    "ade20k": Case(
        caption="R-50, 150 classes, image 1200×1600 (512×683 in the network) to labels of its size", table="ade20k",
        config="fpn_r50_4xb4-160k_ade20k-512x512.py", image=(1200, 1600), scale=(2048, 512), network=(512, 683),
    ),
}  # fmt: skip
QUICK = {
    "cityscapes": {"image": (128, 256), "scale": (256, 128), "network": (128, 256)},
    "ade20k": {"image": (150, 200), "scale": (256, 64), "network": (64, 85)},
}


def sides(case: Case, folder: Path, options: argparse.Namespace) -> list[Peer]:
    """mmsegmentation first, then panfpn in its precisions and engines, then the others."""
    classes, device = LabelTable.named(case.table).num_classes, options.device
    asked = {"folder": str(folder), "config": case.config, "num_classes": classes, "scale": case.scale}
    found = [Peer(MMSEG, options.mmseg, "mmseg_bench.py", asked | {"device": device})]
    for engine in options.engines:
        for precision in options.precisions:
            told = {"folder": str(folder), "engine": engine, "precision": precision, "device": device}
            found.append(Peer(f"panfpn {engine} {precision}", sys.executable, "panfpn_bench.py", told))
    for file, precision in (("model.xml", "float32"), ("model.xml", "auto"), ("int8.xml", "auto")):
        if (folder / file).is_file():
            told = {"folder": str(folder), "file": file, "precision": precision, "device": device}
            found.append(Peer(f"panfpn {file} {precision}", sys.executable, "panfpn_bench.py", told))
    plain = {"num_classes": classes, "device": device, "size": case.network}
    if options.smp:
        found.append(Peer("smp.FPN", options.smp, "plain_bench.py", plain | {"network": "smp"}))
    if options.torchvision:
        found.append(
            Peer("torchvision fcn_resnet50", sys.executable, "plain_bench.py", plain | {"network": "torchvision"})
        )
    return found


def compare(case: Case, folder: Path, options: argparse.Namespace) -> tuple[list[dict[str, str]], dict, bool]:
    """Rows of the table, the raw figures, and whether panfpn's float32 labels are mmsegmentation's."""
    write_files(folder, LabelTable.named(case.table), case.scale)
    photo = read_image(options.photo) if options.photo else load_sample_image("china.jpg")
    image = folder / "image.npy"
    np.save(image, cv2.resize(photo, case.image[::-1]))
    if options.exported:
        for int8 in (False, True):
            write_exported(folder, np.load(image), int8=int8)
    peers = sides(case, folder, options)
    with ExitStack() as stack:
        running = [stack.enter_context(peer.start()) for peer in peers]
        times = alternate(running, options.rounds, "predict", image=str(image))
        for k, side in enumerate(running):
            side.ask("predict", image=str(image), save=str(folder / f"{k}.npy"))
    peaks = {peer.name: peak(peer, "predict", image=str(image)) for peer in peers}
    labels = [np.load(folder / f"{k}.npy") for k in range(len(peers))]
    rows, good = [], True
    for peer, found in zip(peers, labels, strict=True):
        ours = peer.script == "panfpn_bench.py"
        equal = float((found == labels[0]).mean())
        good &= equal >= 1 - LIMIT or not (ours and peer.load["precision"] == "float32")
        shown = {"labels equal": f"{equal:.4%}" if ours else "–"}
        rows.append(timing_row(peer.name, times, MMSEG) | memory_cells(peer.name, peaks, MMSEG) | shown)
    raw = {"seconds": times, "peak_bytes": peaks, "classes_in_labels": len(np.unique(labels[0]))}
    return rows, raw, good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mmseg", metavar="MMSEG_PYTHON")
    parser.add_argument("--smp", metavar="PYTHON")
    parser.add_argument("--no-torchvision", dest="torchvision", action="store_false")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=["torch", "openvino"])
    parser.add_argument("--precisions", nargs="+", default=["float32", "auto"])
    parser.add_argument("--exported", action="store_true", help="also files of panfpn export, in OpenVINO and INT8")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--photo", type=Path, help="without it, scikit-learn's china.jpg")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    add_options(parser)
    options = parser.parse_args()
    tables, raws, good = {}, {}, True
    for name in options.only:
        case = CASES[name]
        if options.quick:
            options.rounds = 1
            case = Case(**(vars(case) | QUICK[name]))
        with tempfile.TemporaryDirectory() as folder:
            tables[case.caption], raws[name], same = compare(case, Path(folder), options)
        good &= same
    notes = [f"Medians of {options.rounds} alternating rounds; in brackets the range of their ratios."]
    publish("inference_peers", tables, options, device=options.device, raw=raws, notes=notes)
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
