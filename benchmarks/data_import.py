"""How fast do polygons come in, and in how much memory? Writes a COCO instances JSON, imports it, looks it through.

usage: python benchmarks/data_import.py [--images 10000] [--polygons 10] [--folder DIR]

Every photo is a JPEG of 480x360 of its own. Printed: images a second and peak memory of `panfpn.data.import_dataset`
and of `panfpn.data.diagnose` on what it wrote, each in a process of its own.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

SIZE = (360, 480)
WORK = {
    "import": "from panfpn.data import import_dataset; import_dataset(root / 'theirs', root / 'ours', progress=False)",
    "check": "from panfpn.data import diagnose; print(len(diagnose('folder', root / 'ours', ['train']).problems))",
}


def write(root: Path, count: int, polygons: int) -> None:
    generator = np.random.default_rng(0)
    (root / "train").mkdir(parents=True)
    images, annotations = [], []
    for i in range(count):
        coarse = generator.integers(0, 255, (12, 16, 3)).astype(np.uint8)
        picture = cv2.resize(coarse, SIZE[::-1], interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(root / "train" / f"{i:06d}.jpg"), picture)
        images.append({"id": i, "file_name": f"{i:06d}.jpg", "height": SIZE[0], "width": SIZE[1]})
        for _ in range(polygons):
            angles = np.sort(generator.uniform(0, 2 * np.pi, 20))
            center, radius = generator.uniform(0, SIZE[::-1]), generator.uniform(8, 80)
            points = center + radius * np.stack([np.cos(angles), np.sin(angles)], 1)
            flat = points.clip(0, np.array(SIZE[::-1]) - 1).round(2).ravel().tolist()
            annotations.append({
                "id": len(annotations), "image_id": i, "category_id": 1 + len(annotations) % 5, "iscrowd": 0, "area": 1,
                "bbox": [0, 0, 1, 1], "segmentation": [flat],
            })  # fmt: skip
    categories = [{"id": k, "name": f"class {k}"} for k in range(1, 6)]
    (root / "train" / "_annotations.coco.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )


def timed(what: str, root: Path, count: int) -> None:
    """A process that does one thing, and says how much memory it had before and at most."""
    program = (
        "import resource, sys; from pathlib import Path; import panfpn.data; root = Path(sys.argv[1]); "
        "who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN); "
        "used = lambda: max(resource.getrusage(w).ru_maxrss for w in who); "
        f"before = used(); {WORK[what]}; print(before // 1024, used() // 1024)"
    )
    start = time.monotonic()
    run = subprocess.run([sys.executable, "-c", program, root], check=True, capture_output=True, text=True)
    seconds = time.monotonic() - start
    *problems, before, most = run.stdout.split()
    found = f", {problems[0]} problems" if problems else ""
    print(f"{what}: {count / seconds:.0f} images/s ({seconds:.1f} s), at most {most} MB (of them {before} the program)"
          f"{found}", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--polygons", type=int, default=10)
    parser.add_argument("--folder", type=Path, help="where the data are written; without, a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        root = Path(folder)
        write(root / "theirs", options.images, options.polygons)
        size = (root / "theirs" / "train" / "_annotations.coco.json").stat().st_size
        print(f"{options.images} images, {options.images * options.polygons} polygons, JSON of {size / 1e6:.0f} MB")
        for what in WORK:
            timed(what, root, options.images)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss


if __name__ == "__main__":
    main()
