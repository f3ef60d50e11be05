"""Minutes of training against mIoU beside mmsegmentation: same data, same backbone (ResNet-18, random), same minutes.

usage: python benchmarks/curve_peers.py MMSEG_PYTHON CAMVID OUT [--minutes 15] [--crop 160 224] [--seed 0]
                                        [--only mmsegmentation recipe auto]

Three trainings on two cores, one after the other: mmsegmentation by its Semantic FPN configuration for ADE20K; panfpn
by the same recipe (pyramid, head, crops, augmentation, SGD, polynomial), and by `train auto`, its default for a folder
of photos. mIoU is each library's own on every `--every`th validation image, at six points of the training; a
validation's time does not count. OUT keeps the runs and `curves.json`; what is there is not trained again.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from panoptic_trainings import link

from panfpn.labels import LabelTable

POINTS = 6
ROW = dict[str, Any]


def mmsegmentation(options: argparse.Namespace, out: Path) -> list[ROW]:
    settings = {
        "root": str(options.camvid), "out": str(out), "minutes": options.minutes, "batch": options.batch,
        "crop": options.crop, "scale": [480, 360], "points": POINTS, "depth": 18, "every": options.every,
        "num_val": len(list((options.camvid / "val").iterdir())), "seed": options.seed,
        "classes": list(LabelTable.named("camvid").names),
    }  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    (out / "settings.json").write_text(json.dumps(settings))
    script = Path(__file__).parent / "peers" / "mmseg_train.py"
    called([options.mmseg, str(script), str(out / "settings.json")], out)
    return json.loads((out / "curve.json").read_text())


def ours(options: argparse.Namespace, out: Path, words: list[str]) -> list[ROW]:
    common = {
        "data.root": fewer(options.camvid, options.out / "camvid", options.every), "data.dataset": "camvid",
        "model.backbone": "resnet18", "model.pretrained": "False", "run.dir": out, "train.seed": options.seed,
        "run.log-every": 1, "run.loggers": "",
    }  # fmt: skip
    given = [word for key, value in common.items() for word in (f"--{key}", *str(value).split())]
    called([sys.executable, "-m", "panfpn", "train", *words, *given], out)
    rows, apart, curve, last = [json.loads(line) for line in (out / "metrics.jsonl").open()], 0.0, [], 0.0
    for row in rows:
        if row["kind"] == "train":
            last = row["minutes"]
        elif row["kind"] == "val":
            curve.append({"minutes": last - apart, "step": row["step"], "miou": row["miou"]})
            apart += row["minutes"] - last
    return curve


def recipe(options: argparse.Namespace, out: Path) -> list[ROW]:
    """mmsegmentation's recipe; validated a few times, of which the pace decides how many."""
    steps = options.recipe_steps
    words = {"data.crop": "{} {}".format(*options.crop), "data.scale": "480 360", "train.batch-size": options.batch,
             "train.minutes": options.minutes, "data.num-workers": 1, "run.val-every": max(1, steps // POINTS),
             "run.checkpoint-every": 1000}  # fmt: skip
    return ours(options, out, ["fpn_r50_ade20k", *(w for k, v in words.items() for w in (f"--{k}", *str(v).split()))])


def auto(options: argparse.Namespace, out: Path) -> list[ROW]:
    return ours(options, out, ["auto", "--minutes", str(options.minutes)])


def fewer(camvid: Path, folder: Path, every: int) -> Path:
    """CamVid, of whose validation images only each so many-th is there."""
    for part in ("train", "trainannot", "val", "valannot"):
        files = sorted((camvid / part).iterdir())
        (folder / part).mkdir(parents=True, exist_ok=True)
        for file in files if part.startswith("train") else files[::every]:
            link(folder / part / file.name, file)
    return folder


def called(command: list[str], out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.with_suffix(".log").open("w") as log:
        subprocess.run(command, check=True, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "2"})


def reached(curve: list[ROW], score: float) -> float | None:
    """Minutes at which a curve first has a score, between two of its points by a straight line; from (0, 0)."""
    before = {"minutes": 0.0, "miou": 0.0}
    for row in curve:
        if row["miou"] >= score:
            share = (score - before["miou"]) / max(1e-9, row["miou"] - before["miou"])
            return before["minutes"] + share * (row["minutes"] - before["minutes"])
        before = row
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mmseg", metavar="MMSEG_PYTHON")
    parser.add_argument("camvid", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--crop", type=int, nargs=2, default=[160, 224])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recipe-steps", type=int, default=240, help="about as many as fit, for six validations")
    parser.add_argument("--only", nargs="+", default=["mmsegmentation", "recipe", "auto"])
    options = parser.parse_args()
    options.camvid = options.camvid.resolve()
    file = options.out / "curves.json"
    curves = json.loads(file.read_text()) if file.is_file() else {}
    for name in options.only:
        if name not in curves:
            curves[name] = globals()[name](options, options.out / name)
            file.write_text(json.dumps(curves, indent=1))
        print(
            f"{name}: " + ", ".join(f"{r['minutes']:.1f} min {100 * r['miou']:.1f}" for r in curves[name]), flush=True
        )
    last = curves["mmsegmentation"][-1]
    for name in options.only:
        minutes = reached(curves[name], last["miou"])
        ratio = "never" if minutes is None else f"{minutes:.1f} min, {last['minutes'] / minutes:.2f}x sooner"
        print(f"{name} reaches mmsegmentation's last {100 * last['miou']:.1f}: {ratio}")


if __name__ == "__main__":
    main()
