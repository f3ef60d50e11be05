"""Time and memory of rasters by their size, and how much of one is labelled as in one piece.

usage: python benchmarks/rasters.py PHOTOS --out FOLDER [--sizes 10000 20000 30000] [--memory 1.5GB] [--model FILE]

Makes a GeoTIFF of each size (N × N) of the photos in PHOTOS, side by side, and labels it by `panfpn predict --tiles` in
a process of its own. Then a cut of 4096 × 4096, once in one piece and once in windows: printed is the share of pixels
with equal labels, in all and farther than 512 pixels from every seam.
"""

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rasterio
from rasterio.transform import from_origin

from panfpn import Predictor
from panfpn.data.rasters import open_raster
from panfpn.deploy.tiles import TileOptions, label_raster
from panfpn.deploy.window_size import cut

FAR = 512


def photos_in(folder: Path) -> list[np.ndarray]:
    found = [cv2.imread(str(path)) for path in sorted(folder.rglob("*.png"))[:60]]
    return [photo[:, :, ::-1] for photo in found if photo is not None and photo.shape == found[0].shape]


def make(path: Path, size: int, photos: list[np.ndarray]) -> None:
    if path.exists():
        return
    rng, (height, width) = np.random.default_rng(0), photos[0].shape[:2]
    profile: dict[str, Any] = {
        "driver": "GTiff", "height": size, "width": size, "count": 3, "dtype": "uint8", "crs": "EPSG:32632",
        "transform": from_origin(500_000, 5_000_000, 0.5, 0.5), "tiled": True, "compress": "deflate", "zlevel": 1,
        "photometric": "RGB", "BIGTIFF": "YES",
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as file:
        for top in range(0, size, height):
            row = np.concatenate([photos[k] for k in rng.integers(0, len(photos), -(-size // width))], 1)
            part = row[: size - top, :size]
            file.write(np.moveaxis(part, -1, 0), window=rasterio.windows.Window(0, top, size, len(part)))


def agreement(path: Path, model: str | None, out: Path) -> None:
    by, window = Predictor.from_file(model, "cpu"), rasterio.windows.Window(0, 0, 4096, 4096)
    with rasterio.open(path) as file:
        image = np.ascontiguousarray(np.moveaxis(file.read(window=window), 0, -1))
    np.save(out / "cut.npy", image)
    label_raster(out / "cut.npy", out, name="cut", predictor=by, options=TileOptions(window=1024, form="png"))
    tiled = cv2.imread(str(out / "cut.png"), cv2.IMREAD_COLOR)[:, :, ::-1]
    whole = by.table.palette[by(image).labels]
    equal, far = (tiled == whole).all(2), np.ones((4096, 4096), bool)
    for axis, cuts in enumerate(cut(open_raster(out / "cut.npy"), by.task, 1024)):
        for first, stop in cuts.zones:
            side = [slice(None), slice(None)]
            side[axis] = slice(max(0, 4 * first - FAR), 4 * stop + FAR)
            far[tuple(side)] = False
    print(f"cut of 4096²: {equal.mean():.4%} equal labels")
    if far.any():
        print(f"{equal[far].mean():.4%} of the {far.mean():.0%} that are more than {FAR} pixels from a seam")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 20_000, 30_000])
    parser.add_argument("--memory", default="1.5GB")
    parser.add_argument("--model")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    photos = photos_in(options.photos)
    for size in options.sizes:
        path = options.out / f"raster_{size}.tif"
        make(path, size, photos)
        words = [sys.executable, "-m", "panfpn", "predict", str(path), "-o", str(options.out / f"labels_{size}"),
                 "--tiles", "--memory", options.memory]  # fmt: skip
        begin = time.perf_counter()
        subprocess.run([*words, *(["--model", options.model] if options.model else [])], check=True)
        seconds = time.perf_counter() - begin
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
        print(f"{size}²: {seconds:.0f} s, {size**2 / seconds / 1e6:.2f} megapixels/s, at most {peak:.2f} GB so far",
              flush=True)  # fmt: skip
    agreement(options.out / f"raster_{options.sizes[0]}.tif", options.model, options.out)


if __name__ == "__main__":
    main()
