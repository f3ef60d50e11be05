"""The augmentation beside mmsegmentation's own: pixels for given draws, statistics of 10,000 free draws, speed.

usage: python benchmarks/augmentation.py PYTHON      (an interpreter with mmsegmentation 1.2.2 and mmcv or mmcv-lite)

Exit code 1 if a colour differs in one bit, a size or a whole image differs, or two distributions differ by more than
1 of 100 pairs of equal ones do (Kolmogorov–Smirnov).
"""

import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
import types
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

DRAWS = 10_000
SCALE, CROP = (2048, 1024), (512, 1024)  # Cityscapes
SMALL_SCALE, SMALL_CROP = (256, 128), (64, 128)  # the same in small, for the statistics
PIXELS = np.array([[[200, 120, 60], [40, 90, 160], [130, 135, 140]]], np.uint8)  # [1, 3, RGB], whose ends are watched


def make_input(folder: Path) -> dict[str, np.ndarray]:
    """A smooth image of Cityscapes' size with labels of few classes, a small one, and a noisy one for the colours."""
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 256, (64, 128, 3)).astype(np.uint8), (2048, 1024), interpolation=cv2.INTER_CUBIC)
    labels = rng.choice(np.array([0, 1, 2, 255], np.uint8), (8, 16), p=(0.7, 0.1, 0.1, 0.1))
    large, small = (cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST) for size in ((2048, 1024), (256, 128)))
    noise = rng.integers(0, 256, (101, 131, 3)).astype(np.uint8)
    given = {"image": image, "labels": large, "small": small, "noise": noise}
    np.savez(folder / "input.npz", **given)
    return given


def digest(image: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()


def median_ms(sample: object, count: int = 100) -> float:
    cv2.setNumThreads(1)
    times = []
    for i in range(count + 5):
        start = time.perf_counter()
        sample(i)
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[5:])


# --- mmsegmentation's side, run by its own interpreter ---


def import_mmseg() -> types.ModuleType:
    from peers.mmseg_shim import pretend_operators

    pretend_operators()
    import mmseg.datasets.transforms as transforms

    return transforms


def play(values: list[float]) -> None:
    """From now on numpy's global generator gives these values, whatever it is asked for."""
    script = iter(values)
    for name in ("randint", "uniform", "random_sample"):
        setattr(np.random, name, lambda *_, **__: next(script))


def run_mmseg(folder: Path) -> None:
    transforms = import_mmseg()
    from mmcv.transforms import RandomFlip, RandomResize

    given, orders = np.load(folder / "input.npz"), json.loads((folder / "orders.json").read_text())
    own = {name: getattr(np.random, name) for name in ("randint", "uniform", "random_sample")}

    def sample(image: str, labels: str) -> dict:
        pixels = given[image][:, :, ::-1].copy()
        return {"img": pixels, "img_shape": pixels.shape[:2], "gt_seg_map": given[labels], "seg_fields": ["gt_seg_map"]}

    distort, digests = transforms.PhotoMetricDistortion(), []
    noise = given["noise"][:, :, ::-1].copy()
    for values in orders["colors"]:
        play(values)
        digests.append(digest(distort.transform({"img": noise.copy()})["img"][:, :, ::-1]))

    resize, crop = RandomResize(scale=SCALE, ratio_range=(0.5, 2.0), keep_ratio=True), transforms.RandomCrop(CROP)
    crops = {}
    for i, (ratio, top, left) in enumerate(orders["crops"]):
        play([(ratio - 0.5) / 1.5, top, left])
        resized = resize.transform(sample("image", "labels"))
        crops[f"size{i}"] = np.array(resized["gt_seg_map"].shape)
        cropped = crop.transform(resized)
        crops[f"image{i}"], crops[f"labels{i}"] = cropped["img"][:, :, ::-1], cropped["gt_seg_map"]

    for name, function in own.items():
        setattr(np.random, name, function)
    np.random.seed(0)
    ends = np.stack([distort.transform({"img": PIXELS[:, :, ::-1].copy()})["img"][0, :, ::-1] for _ in range(DRAWS)])
    resize_small = RandomResize(scale=SMALL_SCALE, ratio_range=(0.5, 2.0), keep_ratio=True)
    crop_small = transforms.RandomCrop(SMALL_CROP, cat_max_ratio=0.75)
    places = []
    for _ in range(DRAWS):
        resized = resize_small.transform({"img": given["small"], "gt_seg_map": given["small"]})
        top, _, left, _ = crop_small.crop_bbox(resized)
        places.append((resized["img"].shape[1], top, left))

    steps = [resize, transforms.RandomCrop(CROP, cat_max_ratio=0.75), RandomFlip(prob=0.5), distort]
    big = sample("image", "labels")

    def whole(_: int) -> None:
        results = dict(big)
        for step in steps:
            results = step.transform(results)

    np.savez(folder / "mmseg.npz", digests=digests, ends=ends, places=places, ms=median_ms(whole), **crops)


# --- panfpn's side ---


def train_ids(labels: np.ndarray) -> np.ndarray:
    """panfpn's form of a mask: int16 with -1 where mmsegmentation's has 255."""
    ids = labels.astype(np.int16)
    ids[ids == 255] = -1
    return ids


def order_of(draw: object) -> list[float]:
    """A draw of colours as the answers that mmsegmentation's questions want, in its order."""

    def branch(value: float | None) -> list[float]:
        return [0] if value is None else [1, value]

    contrast = branch(draw.contrast)
    return [
        *branch(draw.brightness), int(draw.contrast_first), *(contrast if draw.contrast_first else []),
        *branch(draw.saturation), *branch(draw.hue), *([] if draw.contrast_first else contrast),
    ]  # fmt: skip


def distance(first: np.ndarray, second: np.ndarray) -> float:
    """Two samples' Kolmogorov–Smirnov distance over its bound at 1 of 100."""
    values = np.union1d(first, second)
    shares = [np.searchsorted(np.sort(v), values, side="right") / len(v) for v in (first, second)]
    return float(np.abs(shares[0] - shares[1]).max() / (1.63 * np.sqrt(1 / len(first) + 1 / len(second))))


def compare(peer: str, folder: Path) -> bool:
    from panfpn.build import build_transform
    from panfpn.config import Data
    from panfpn.data.colors import distort_colors, draw_colors
    from panfpn.data.transforms import cut

    given = make_input(folder)
    target, small = (train_ids(given[name]) for name in ("labels", "small"))
    draws = [draw_colors(np.random.default_rng((0, i))) for i in range(1000)]
    # The first view is smaller than the crop and shows the whole image; the others show windows of it.
    plain = build_transform(Data(crop=CROP, scale=SCALE, cat_max_ratio=1.0, flip=0.0))
    rng = np.random.default_rng(1)
    ratios = [0.43, *rng.uniform(0.5, 2.0, 19).tolist()]
    views = [replace(plain, ratio=(ratio, ratio)).draw_geometry(target, rng) for ratio in ratios]
    crops = [(ratio, *view.window[:2]) for ratio, view in zip(ratios, views, strict=True)]
    (folder / "orders.json").write_text(json.dumps({"colors": [order_of(d) for d in draws], "crops": crops}))
    subprocess.run([peer, __file__, "--mmseg", str(folder)], check=True)
    theirs = np.load(folder / "mmseg.npz")

    equal = sum(digest(distort_colors(given["noise"], d)) == t for d, t in zip(draws, theirs["digests"], strict=True))
    print(f"colours of {len(draws)} given draws: {equal} equal bit by bit")
    sizes, off, wrong = 0, [], []
    for i, view in enumerate(views):
        image, labels = cut(given["image"], target, view)
        sizes += view.size == tuple(theirs[f"size{i}"])
        off.append(float(np.abs(image.astype(int) - theirs[f"image{i}"]).mean()))
        wrong.append(float((labels != train_ids(theirs[f"labels{i}"])).mean()))
    print(f"scaled sizes of {len(views)} given draws: {sizes} equal; whole image: mean difference {off[0]}, "
          f"labels that differ {wrong[0]}")  # fmt: skip
    print(f"crops, which begin on a whole source pixel here (decision 0004): mean difference {np.mean(off[1:]):.2f} of "
          f"255 (largest {max(off[1:]):.2f}), labels that differ {np.mean(wrong[1:]):.2%}")  # fmt: skip

    ends = np.stack([distort_colors(PIXELS, draw_colors(np.random.default_rng((2, i))))[0] for i in range(DRAWS)])
    ruled = build_transform(Data(crop=SMALL_CROP, scale=SMALL_SCALE))
    ours = [ruled.draw_geometry(small, np.random.default_rng((3, i))) for i in range(DRAWS)]
    places = np.array([(g.size[1], *g.window[:2]) for g in ours])
    far = {name: distance(places[:, i], theirs["places"][:, i]) for i, name in enumerate(("width", "top", "left"))}
    far |= {f"pixel {p} {c}": distance(ends[:, p, i], theirs["ends"][:, p, i]) for p in range(3)
            for i, c in enumerate("RGB")}  # fmt: skip
    print(f"{DRAWS} free draws each, distance of the distributions over its bound (1 of 100 equal ones exceeds 1):")
    print("  " + ", ".join(f"{name} {value:.2f}" for name, value in far.items()))

    transform = build_transform(Data(crop=CROP, scale=SCALE))
    own_ms = median_ms(lambda i: transform(given["image"], target, np.random.default_rng((4, i))))
    print(f"median of 100 samples, 1024×2048 to 512×1024, one thread: panfpn {own_ms:.1f} ms, "
          f"mmsegmentation {float(theirs['ms']):.1f} ms")  # fmt: skip
    exact = equal == len(draws) and sizes == len(views) and off[0] == wrong[0] == 0
    return exact and max(far.values()) <= 1


def main(arguments: list[str]) -> int:
    if len(arguments) == 2 and arguments[0] == "--mmseg":
        run_mmseg(Path(arguments[1]))
        return 0
    if len(arguments) != 1:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        return 0 if compare(arguments[0], Path(folder)) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
