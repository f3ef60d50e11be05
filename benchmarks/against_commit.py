"""Speed of this tree against another commit, alternating: prediction, training steps and reading; float32.

    python benchmarks/against_commit.py COMMIT [--rounds 5] [--only NAME] [--folder PHOTOS [--busy]]

With --folder, its photos are repeated to 233 and labelled by the verb (shipped model, the defaults), too; --busy keeps
another program at work on one core meanwhile.
Either side is a process with the same options and random weights, told in turn to measure once; printed are the medians
of both and of the ratios round by round (below 1: this tree is faster). `chrt -f 5` before python steadies it.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
MEASURED = {
    "predict Semantic FPN R-50 1024x2048": "predict fpn_r50_cityscapes 1024 2048",
    "predict Panoptic FPN R-50 800x1067": "predict panoptic_r50_coco_1x 800 1067",
    "train Semantic FPN R-50 2x512x512": "train fpn_r50_ade20k 2",
    "train Panoptic FPN lite0 8x160x224": "train panoptic_scenes 8",
    "train Semantic FPN lite0 8x352x480": "train camvid_lite0 8",
    "read 12 samples of 1024x2048, PNG": "read png 1024 2048",
    "read 12 samples of 1024x2048, JPEG": "read jpg 1024 2048",
    "read 12 samples of 480x640, TIFF": "read tif 480 640",
}
LABELLED = {
    "label 233 photos, torch": "label torch",
    "label 233 photos, openvino": "label openvino",
}
SIDE = """
import sys, time
import numpy as np, torch
from panfpn import recipes
from panfpn.benchmark.inference import InferenceJob, make_predictor
from panfpn.benchmark.training import prepare_training

what, recipe, *numbers = sys.argv[1:]
if what == "predict":
    size = (int(numbers[0]), int(numbers[1]))
    torch.manual_seed(0)
    predictor = make_predictor(InferenceJob(model=recipe, size=size, precision="float32", device="cpu"))
    image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    once = lambda: predictor(image)
elif what == "label":
    import contextlib, io, itertools, os, pathlib, shutil, tempfile
    from panfpn.cli import main
    folder = tempfile.TemporaryDirectory()
    photos, out = pathlib.Path(folder.name) / "photos", pathlib.Path(folder.name) / "out"
    photos.mkdir()
    for i, path in zip(range(233), itertools.cycle(sorted(pathlib.Path(os.environ["PHOTOS"]).iterdir()))):
        (photos / f"{i:03d}{path.suffix}").symlink_to(path.absolute())
    def once():
        with contextlib.redirect_stdout(io.StringIO()):
            assert main(["predict", str(photos), "-o", str(out), "--engine", recipe]) == 0
        assert len(list(out.glob("*.png"))) == 233
        shutil.rmtree(out)
elif what == "read":  # the way of input_pipeline.py, without its peer
    import pathlib, tempfile
    import cv2
    from panfpn.build import build_transform
    from panfpn.config import Data
    from panfpn.data import open_dataset, train_loader
    from panfpn.data.loader import DrawSampler
    cv2.setNumThreads(1)
    folder, rng = tempfile.TemporaryDirectory(), np.random.default_rng(0)
    root, (height, width) = pathlib.Path(folder.name), map(int, numbers)
    (root / "labels.yaml").write_text("classes: [" + ", ".join(f"{{name: c{k}, value: {k}}}" for k in range(19)) + "]")
    for i in range(6):
        coarse = rng.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
        image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        mask = cv2.resize(coarse[:, :, 0] % 19, (width, height), interpolation=cv2.INTER_NEAREST)
        for part, suffix, pixels in (("images", recipe, image), ("masks", "png", mask)):
            (root / part / "train").mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / part / "train" / f"{i}.{suffix}"), pixels)
    data = open_dataset("folder", root, "train")
    transform = build_transform(Data(crop=(256, 512)))
    def once():
        sampler = DrawSampler(steps=range(12), batch_size=1)
        for batch in train_loader(data, transform, sampler, seed=0, num_workers=0):
            assert batch.images.shape[1] == 3
else:
    changes = {"train.batch_size": int(numbers[0]), "train.precision": "float32", "run.device": "cpu",
               "model.pretrained": False}
    trainer, batches = prepare_training(recipes.find(recipe)(**changes))
    try:
        from panfpn.heap import kept_heap
    except ImportError:  # a commit that has none
        pass
    else:
        heap = kept_heap()  # as `panfpn.train` has it
        heap.__enter__()
    once = lambda: trainer.step(batches)
once()
print("ready", flush=True)
for _ in sys.stdin:
    start = time.perf_counter()
    once()
    print(time.perf_counter() - start, flush=True)
"""


def start(source: Path, words: str) -> subprocess.Popen[str]:
    """A side, warmed up."""
    side = subprocess.Popen(
        [sys.executable, "-c", SIDE, *words.split()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(source / "src")},
        stderr=subprocess.DEVNULL if "label" in words else None,
    )  # fmt: skip
    assert side.stdout is not None
    if side.stdout.readline().strip() != "ready":
        raise SystemExit(f"{source}: {words} cannot be measured")
    return side


def measure(side: subprocess.Popen[str]) -> float:
    """Seconds of one run of a side."""
    assert side.stdin is not None and side.stdout is not None
    side.stdin.write("\n")
    side.stdin.flush()
    return float(side.stdout.readline())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--folder", default="")
    parser.add_argument("--busy", action="store_true")
    options = parser.parse_args()
    os.environ["PHOTOS"] = options.folder
    measured = MEASURED | (LABELLED if options.folder else {})
    loop = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if options.busy else None
    with tempfile.TemporaryDirectory() as folder:
        before = Path(folder) / "before"
        subprocess.run(["git", "clone", "--quiet", "--no-checkout", str(HERE), str(before)], check=True)
        subprocess.run(["git", "-C", str(before), "checkout", "--quiet", options.commit], check=True)
        for name, words in measured.items():
            if options.only not in name:
                continue
            sides = [start(tree, words) for tree in (before, HERE)]
            rounds = [[measure(side) for side in sides] for _ in range(options.rounds)]
            for side in sides:
                side.communicate()
            ratios = sorted(new / old for old, new in rounds)
            old, new = (statistics.median(times) for times in zip(*rounds, strict=True))
            print(f"{name}: before {old:.3f} s, now {new:.3f} s, ratio {statistics.median(ratios):.3f} "
                  f"({ratios[0]:.3f} to {ratios[-1]:.3f}, {options.rounds} rounds)", flush=True)  # fmt: skip
    if loop is not None:
        loop.kill()


if __name__ == "__main__":
    main()
