"""Time and memory of a prediction against pixels, classes and images in a call: a table, and a picture of it.

usage: python benchmarks/cost_curves.py [--device cpu] [--precision auto] [--engine torch] [--repeats 3]
                                        [--picture docs/images/cost_curves.png] [--json FILE] [--write] [--quick]

R-50 with random weights through panfpn's Predictor: square images of 256² to 4096² pixels with 19 classes, 2 to 1000
classes at 512², 1 to 16 images of 512² in one call. Each point is measured in a fresh process.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from page import add_options, publish

from panfpn import recipes
from panfpn.benchmark import InferenceFigures, InferenceJob, in_child, measure_inference
from panfpn.benchmark.tables import gigabytes

SIDES, CLASSES, BATCHES = (256, 512, 1024, 2048, 3072, 4096), (2, 19, 150, 500, 1000), (1, 2, 4, 8, 16)
SIDE, NUM_CLASSES = 512, 19


def curves(model: str, options: argparse.Namespace) -> dict[str, dict[int, InferenceFigures]]:
    """Figures by what is varied and its value."""
    sides, classes, batches, side = SIDES, CLASSES, BATCHES, SIDE
    if options.quick:
        sides, classes, batches, side = (64, 128), (2, 150), (1, 2), 64
    common = {"model": model, "device": options.device, "precision": options.precision, "engine": options.engine,
              "repeats": 1 if options.quick else options.repeats, "warmup": 1}  # fmt: skip
    jobs = {
        "pixels": {s * s: InferenceJob(size=(s, s), num_classes=NUM_CLASSES, **common) for s in sides},
        "classes": {k: InferenceJob(size=(side, side), num_classes=k, **common) for k in classes},
        "images": {n: InferenceJob(size=(side, side), num_classes=NUM_CLASSES, batch=n, **common) for n in batches},
    }
    found: dict[str, dict[int, InferenceFigures]] = {}
    for what, points in jobs.items():
        found[what] = {}
        for value, job in points.items():
            print(f"{what} {value}", file=sys.stderr, flush=True)
            found[what][value] = in_child(measure_inference, job, False)
    return found


def row(what: str, value: int, figures: InferenceFigures) -> dict[str, str]:
    side = figures.job.size[0]
    job = figures.job
    return {
        "varied": what, "image": f"{side}×{side}", "classes": str(job.num_classes), "images in a call": str(job.batch),
        "seconds a call": f"{figures.percentile(50):.3f}", "peak GB": gigabytes(figures.memory),
        "µs a pixel": f"{1e6 * figures.percentile(50) / (side * side * job.batch):.3f}",
        "bytes a pixel": f"{figures.memory / (side * side * job.batch):.0f}",
    }  # fmt: skip


def draw(found: dict[str, dict[int, InferenceFigures]], path: Path) -> None:
    """Time above, memory below, one column a curve; both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, len(found), figsize=(10, 5), sharex="col", layout="constrained")
    for column, (what, points) in enumerate(found.items()):
        values = list(points)
        for line, measured in enumerate(
            ([p.percentile(50) for p in points.values()], [p.memory / 1e9 for p in points.values()])
        ):
            axis = axes[line][column]
            axis.loglog(values, measured, "o-", color="tab:blue")
            axis.grid(visible=True, which="major", alpha=0.3)
        axes[1][column].set_xlabel({"pixels": "pixels", "classes": "classes, 512²", "images": "images, 512²"}[what])
    axes[0][0].set_ylabel("seconds a call")
    axes[1][0].set_ylabel("peak GB")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=70)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--engine", default="torch")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--picture", type=Path, help="with --write: docs/images/cost_curves.png")
    add_options(parser)
    options = parser.parse_args()
    picture = options.picture
    if options.write and picture is None:
        picture = Path(__file__).parents[1] / "docs" / "images" / "cost_curves.png"
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "fpn_r50.yaml"  # the published network on images of their own size
        model.write_text(recipes.fpn_r50_cityscapes(data__scale=None).to_yaml())
        found = curves(str(model), options)
    rows = [row(what, value, figures) for what, points in found.items() for value, figures in points.items()]
    if picture:
        draw(found, picture)
    one = next(iter(found["pixels"].values())).job
    raw = {what: {value: figures.to_dict() for value, figures in points.items()} for what, points in found.items()}
    notes = [
        f"Medians of {one.repeats}, {one.precision}, {one.engine}; peak memory of a fresh process, weights included."
    ]
    if options.write:
        notes.append("![time and memory of a prediction](images/cost_curves.png)")
    publish("cost_curves", {"R-50, random weights": rows}, options, device=options.device, raw=raw, notes=notes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
