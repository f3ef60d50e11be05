"""Score the same random label maps with five evaluators themselves and with panfpn's protocols; print the differences.

usage: python benchmarks/protocols.py [--folder DIR] [--peers mmseg hf …] [--images 4] [--golden]

Each peer runs in an environment of its own below DIR (made when it is not there; `uv` and PyPI are needed) and answers
for every case: classes that are absent, never predicted or never true, ignored pixels, predicted and true values that
are no class, an image and a set without a label, 1 to 150 classes. What no environment can hold is put into
DIR/sources (fetched when it is not there): detectron2's sdist and Hugging Face's metric script. --golden prints
the peers' scores of the small case GOLDEN instead, for tests/metrics/test_protocols.py.

Exit code 1 if a score differs by more than the printed tolerance, or if a peer could not be asked.
"""

import argparse
import json
import math
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import numpy as np
import protocols_peers

from panfpn.metrics import ConfusionMatrix, ImageRows, SemanticScores

PACKAGES = {
    "mmseg": ("mmsegmentation==1.2.2", "mmcv-lite", "mmengine", "torch", "ftfy", "regex", "setuptools<81"),
    "detectron2": ("torch", "numpy", "pillow", "pip<24", "setuptools<81", "wheel"),
    "cityscapes": ("cityscapesscripts",),
    "hf": ("numpy",),
    "smp": ("segmentation-models-pytorch",),
}
MEAN_IOU = "https://raw.githubusercontent.com/huggingface/evaluate/v0.4.6/metrics/mean_iou/mean_iou.py"
# float32 in mmseg and smp; mmseg's means are rounded to the printed digit
TOLERANCE = {"mmseg": 1e-4, "detectron2": 1e-9, "cityscapes": 1e-12, "hf": 1e-12, "smp": 1e-6}
ROUNDED = {"mmseg": 0.005 + 1e-4}

Images = list[tuple[np.ndarray, np.ndarray]]  # (predicted, true) [H, W] train ids; true -1: ignored


# Of six classes: 0 and 1 as usual, 2 never hit, 3 never predicted, 4 never true, 5 absent; 6 and 9 are no class.
GOLDEN: tuple[int, Images] = (6, [
    (np.array([[0, 0, 1, 1], [0, 1, 1, 4], [0, 6, 2, 9]]), np.array([[0, 0, 1, 0], [0, 1, 1, 1], [-1, 0, 3, 2]])),
    (np.array([[1, 1, 0], [0, 0, 1]]), np.array([[1, 6, 9], [0, 2, 1]])),
    (np.array([[0, 1]]), np.array([[-1, -1]])),
])  # fmt: skip


def draw(seed: int, num_classes: int, kind: str, count: int) -> Images:
    """Images of one case; what `kind` names is in them."""
    rng = np.random.default_rng(seed)
    images = []
    for i in range(count):
        height, width = rng.integers(3, 40, 2)
        true = np.repeat(rng.integers(-1, num_classes, (height, 1 + width // 4)), 4, 1)[:, :width]
        found = np.where(rng.random((height, width)) < 0.7, true.clip(0), rng.integers(0, num_classes, (height, width)))
        gone = num_classes // 2
        if kind == "absent":
            true, found = np.where(true == gone, -1, true), np.where(found == gone, 0, found)
        if kind == "never true":
            true = np.where(true == gone, 0, true)
        if kind == "never predicted":
            found = np.where(found == gone, 0, found)
        if kind in ("foreign", "foreign truth"):
            true = np.where(rng.random(true.shape) < 0.1, num_classes + rng.integers(0, 3, true.shape), true)
        if kind in ("foreign", "foreign prediction"):
            found = np.where(rng.random(true.shape) < 0.1, num_classes + rng.integers(0, 3, true.shape), found)
        if kind == "nothing labelled" or (kind == "image without label" and i == 0):
            true = np.full_like(true, -1)
        if kind == "perfect":
            found = true.clip(0)
        images.append((found, true))
    return images


def cases(count: int) -> dict[str, tuple[int, Images]]:
    """Number of classes and images by name."""
    kinds = ("plain", "absent", "never true", "never predicted", "foreign", "foreign truth", "foreign prediction",
             "nothing labelled", "image without label", "perfect")  # fmt: skip
    foreign = {kind for kind in kinds if kind.startswith("foreign")}
    drawn = {}
    for seed, num_classes in enumerate((1, 2, 5, 19, 150)):
        for kind in kinds:
            if num_classes == 1 and (kind in foreign or kind.startswith(("absent", "never"))):
                continue  # torch.histc with one bin counts every value: see panfpn.metrics.protocols
            drawn[f"{kind}, {num_classes} classes"] = num_classes, draw(seed, num_classes, kind, count)
    return drawn


def ours(name: str, num_classes: int, images: Images) -> dict[str, float]:
    matrix = ConfusionMatrix(num_classes, len(images))
    for i, (found, true) in enumerate(images):
        matrix.update(found, true, i)
    rows = ImageRows(tuple(map(str, range(len(images)))), matrix.rows)
    scores = SemanticScores(tuple(map(str, range(num_classes))), matrix.counts, rows).by_protocol(name)
    per_class = {f"{key}/{k}": float(v) for key, values in scores.classes.items() for k, v in enumerate(values)}
    return scores.summary | per_class


def make_environment(name: str, folder: Path) -> Path:
    """The peer's interpreter; its environment and sources are made if they are not there."""
    python = folder / name / "bin" / "python"
    if not python.exists():
        uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(folder / name)], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", str(python), *PACKAGES[name]], check=True)
    sources = folder / "sources"
    sources.mkdir(exist_ok=True)
    if name == "hf" and not (sources / "mean_iou.py").exists():
        urllib.request.urlretrieve(MEAN_IOU, sources / "mean_iou.py")
    if name == "detectron2" and not list(sources.glob("detectron2_cdo*")):
        options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-binary", ":all:", "--dest", str(sources)]
        subprocess.run([str(python), "-m", "pip", "download", *options, "detectron2-cdo==0.5"], check=True)
    return python


def ask(name: str, folder: Path, questions: dict[str, tuple[int, Images]]) -> dict[str, dict[str, float]]:
    """The peer's scores of each case, and its version."""
    python = make_environment(name, folder)
    with tempfile.TemporaryDirectory() as box:
        asked, answered = Path(box) / "asked", Path(box) / "answered"
        asked.write_text(json.dumps(questions, default=np.ndarray.tolist))
        words = [str(python), protocols_peers.__file__, name, str(asked), str(answered), str(folder / "sources")]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])
        return json.loads(answered.read_text())


def difference(a: float, b: float) -> float:
    return 0.0 if math.isnan(a) and math.isnan(b) else math.inf if math.isnan(a) or math.isnan(b) else abs(a - b)


def report(name: str, folder: Path, questions: dict[str, tuple[int, Images]]) -> bool:
    """Print one line; whether all scores agree."""
    # Cityscapes' label table has 19 classes; for a single one, smp's histogram counts ignored pixels as that class.
    fewest, most = {"cityscapes": (1, 19), "smp": (2, 150)}.get(name, (1, 150))
    questions = {key: case for key, case in questions.items() if fewest <= case[0] <= most}
    try:
        answers = ask(name, folder, questions)
    except (OSError, subprocess.CalledProcessError, RuntimeError) as error:
        print(f"{name:11s} not asked: {error}")
        return False
    version = answers.pop("version")
    worst, rounded, compared, bad = 0.0, 0.0, 0, []
    for key, (num_classes, images) in questions.items():
        mine, theirs = ours(name, num_classes, images), answers[key]
        if mine.keys() != theirs.keys():
            bad.append(f"{key}: {sorted(mine.keys() ^ theirs.keys())[:3]}")
            continue
        for what, value in mine.items():
            off, loose = difference(value, theirs[what]), name in ROUNDED and "/" not in what
            worst, rounded = (worst, max(rounded, off)) if loose else (max(worst, off), rounded)
            compared += 1
            if off > (ROUNDED[name] if loose else TOLERANCE[name]):
                bad.append(f"{key}, {what}: {value!r} here, {theirs[what]!r} there")
    extra = f", {rounded:.1g} (≤ {ROUNDED[name]}) to its rounded means" if name in ROUNDED else ""
    verdict = f"{len(bad)} DIFFER" if bad else "equal"
    print(f"{name:11s} {version:34s} {len(questions):3d} cases {compared:6d} scores: largest difference {worst:.1e} "
          f"(≤ {TOLERANCE[name]:.0e}){extra}: {verdict}")  # fmt: skip
    for line in bad[:5]:
        print(f"            {line}")
    return not bad


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "panfpn-peers")
    parser.add_argument("--peers", nargs="+", choices=PACKAGES, default=list(PACKAGES))
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--golden", action="store_true")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.golden:
        for name in options.peers:
            answer = ask(name, options.folder, {"golden": GOLDEN})
            print(f"{name} ({answer['version']}): {answer['golden']}")
        return
    questions = cases(options.images)
    agreed = [report(name, options.folder.resolve(), questions) for name in options.peers]
    sys.exit(not all(agreed))


if __name__ == "__main__":
    main()
