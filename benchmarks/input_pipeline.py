"""Training samples per second, 2048×1024 PNG to 512×1024, beside mmsegmentation's own Cityscapes pipeline.

usage: python benchmarks/input_pipeline.py PEER_PYTHON --camvid DIR [--encoder pillow|opencv] [--json FILE]
       (PEER_PYTHON: an interpreter with mmsegmentation 1.2.2 and mmcv or mmcv-lite)

Ten Cityscapes-like files are made of CamVid's photos (enlarged, with the noise that gives PNGs of Cityscapes' 2.3 MB).
The sides take turns, each in one process with one OpenCV thread: mmsegmentation's dataset and pipeline from its
configuration, and panfpn's loader without workers, collating included, from PNG with and without kornia-rs (extra
`fast`) and from the pack. All files are in the page cache. Exit code 1 below 1.3 × from PNG or 4 × from the pack.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from panfpn.build import build_transform
from panfpn.config import Data
from panfpn.data import Dataset, open_dataset, open_pack, train_loader, write_pack
from panfpn.data.formats import png as png_format
from panfpn.data.loader import DrawSampler

IMAGES, ROUNDS, SAMPLES, NOISE = 10, 9, 24, 0.7
SIZE = (2048, 1024)
TRANSFORM = build_transform(Data(crop=(512, 1024), scale=SIZE))
WANTED = {"PNG": 1.3, "pack": 4.0}


def make_files(camvid: Path, root: Path, encoder: str) -> list[int]:
    """The data set; returns the images' sizes in bytes."""
    rng, sizes = np.random.default_rng(0), []
    sources = sorted((camvid / "train").glob("*.png"))
    for i, source in enumerate(sources[:: len(sources) // IMAGES][:IMAGES]):
        image = cv2.resize(cv2.imread(str(source))[60:300], SIZE, interpolation=cv2.INTER_CUBIC)  # 2:1, as Cityscapes
        image = np.clip(image + rng.normal(0, NOISE, image.shape), 0, 255).astype(np.uint8)
        mask = cv2.imread(str(camvid / "trainannot" / source.name), cv2.IMREAD_UNCHANGED)[60:300]
        mask = cv2.resize(np.where(mask == 11, 255, mask).astype(np.uint8), SIZE, interpolation=cv2.INTER_NEAREST)
        name = f"ulm_{i:06d}_000019"
        for path, pixels in ((root / f"leftImg8bit/train/ulm/{name}_leftImg8bit.png", image),
                             (root / f"gtFine/train/ulm/{name}_gtFine_labelTrainIds.png", mask)):  # fmt: skip
            path.parent.mkdir(parents=True, exist_ok=True)
            if encoder == "opencv":
                cv2.imwrite(str(path), pixels)
            else:
                Image.fromarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB) if pixels.ndim == 3 else pixels).save(path)
        sizes.append((root / f"leftImg8bit/train/ulm/{name}_leftImg8bit.png").stat().st_size)
    return sizes


def own_side(dataset: Dataset, decoder: Callable[[], object]) -> Callable[[int], float]:
    """What runs a number of samples and returns the seconds; every call goes on with the next draws."""
    place = 0

    def run(count: int) -> float:
        nonlocal place
        png_format.fast_decoder = decoder
        sampler = DrawSampler(steps=range(place, place + count), batch_size=1)
        start = time.perf_counter()
        for batch in train_loader(dataset, TRANSFORM, sampler, seed=0, num_workers=0):
            assert batch.images.shape == (1, 3, 512, 1024)
        place += count
        return time.perf_counter() - start

    return run


def peer_side(peer: subprocess.Popen[str]) -> Callable[[int], float]:
    def run(count: int) -> float:
        peer.stdin.write(f"{count}\n")
        peer.stdin.flush()
        return float(peer.stdout.readline())

    return run


def compare(peer: subprocess.Popen[str], root: Path, pack: Path) -> dict[str, list[float]]:
    """Milliseconds per sample of each side in each round."""
    png, own_decoder = open_dataset("cityscapes", root, "train"), png_format.fast_decoder
    sides = {"mmsegmentation": peer_side(peer), "PNG, OpenCV alone": own_side(png, lambda: None)}
    if own_decoder() is not None:
        sides["PNG, kornia-rs"] = own_side(png, own_decoder)
    sides["pack"] = own_side(open_pack(pack, "cityscapes", "train", root), own_decoder)
    times: dict[str, list[float]] = {name: [] for name in sides}
    for i in range(ROUNDS + 1):
        for name, run in sides.items():
            seconds = run(SAMPLES)
            if i:  # the first round warms up
                times[name].append(1000 * seconds / SAMPLES)
    return times


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer_python")
    parser.add_argument("--camvid", type=Path, required=True, help="CamVid's folder: its photos are enlarged")
    parser.add_argument("--encoder", choices=("pillow", "opencv"), default="pillow")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        root, pack = Path(folder) / "data", Path(folder) / "pack"
        sizes = make_files(options.camvid, root, options.encoder)
        packed = write_pack("cityscapes", root, pack, ["train"])[0]
        print(f"{len(sizes)} images of {SIZE[0]}×{SIZE[1]}, PNG by {options.encoder}: {min(sizes) / 1e6:.2f} to "
              f"{max(sizes) / 1e6:.2f} MB each; packed {packed.num_bytes / 1e6:.0f} MB")  # fmt: skip
        script = Path(__file__).parent / "peers/mmseg_pipeline.py"
        command = [options.peer_python, str(script), str(root)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as peer:
            print("mmsegmentation:", peer.stdout.readline().strip())
            times = compare(peer, root, pack)
            peer.stdin.close()
    theirs, ratios = times["mmsegmentation"], {}
    for name, own in times.items():
        ratios[name] = statistics.median(their / mine for their, mine in zip(theirs, own, strict=True))
        print(f"{name:18} {statistics.median(own):6.1f} ms/sample (best {min(own):.1f}, worst {max(own):.1f}); "
              f"{ratios[name]:.2f} × mmsegmentation's speed")  # fmt: skip
    print(f"medians of {ROUNDS} rounds of {SAMPLES} samples each")
    if options.json:
        options.json.write_text(json.dumps({"ms": times, "ratio": ratios, "png_bytes": sizes}, indent=1) + "\n")
    best_png = max(ratio for name, ratio in ratios.items() if name.startswith("PNG"))
    return 0 if best_png >= WANTED["PNG"] and ratios["pack"] >= WANTED["pack"] else 1


if __name__ == "__main__":
    sys.exit(main())
