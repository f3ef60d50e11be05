"""`train auto` beside the recipe for a folder, in equal time: nuclei, scenes, 26 images of COCO, CamVid.

    python benchmarks/automatic.py DATA OUT [--minutes 30] [--weights FILE] [--only NAME ...] [--by auto recipe]

DATA holds dsb2018/, coco_panoptic/ and camvid/; OUT gets the data sets (links) and a run a line, which is gone on with
where it was stopped. Nuclei: by name, the first 150 images train, the other 50 are held out. The recipes begin with the
model that ships, as they always do; `auto` with WEIGHTS where they are named.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from panoptic_trainings import nuclei

RECIPES = {"SemanticFPN": "folder", "PanopticFPN": "panoptic_folder"}
TRAININGS = {  # name: (data set, architecture)
    "nuclei": ("folder", "SemanticFPN"), "nuclei, things": ("folder", "PanopticFPN"),
    "scenes": ("scenes", "SemanticFPN"), "COCO, 26 images": ("coco_panoptic", "PanopticFPN"),
    "CamVid": ("camvid", "SemanticFPN"),
}  # fmt: skip


def root_of(dataset: str, data: Path, out: Path) -> Path | None:
    if dataset == "folder":
        nuclei(data, out / "nuclei")
        return out / "nuclei"
    return None if dataset == "scenes" else data / dataset


def train(name: str, by: str, options: argparse.Namespace) -> dict[str, Any]:
    """The last validation of one training, and what the command took."""
    dataset, architecture = TRAININGS[name]
    folder = options.out / f"{name.replace(', ', '_').replace(' ', '_')}-{by}"
    root = root_of(dataset, options.data, options.out)
    settings = {"model.architecture": architecture, "run.dir": folder, "run.loggers": ""}
    if root is not None:
        settings["data.root"] = root
    if dataset != "folder":
        settings["data.dataset"] = dataset
    if dataset == "coco_panoptic":
        settings |= {"data.train-split": "train2017", "data.val-split": "val2017"}
    first, minutes = ("auto", "minutes") if by == "auto" else (RECIPES[architecture], "train.minutes")
    settings[minutes] = options.minutes
    if options.weights and by == "auto":
        settings["weights"] = options.weights
    words = [word for key, value in settings.items() for word in (f"--{key}", *str(value).split())]
    command = ["--resume", str(folder)] if (folder / "config.yaml").is_file() else [first, *words]
    with (options.out / f"{folder.name}.log").open("a") as log:
        subprocess.run([sys.executable, "-m", "panfpn", "train", *command], check=True, stdout=log, stderr=log)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    val = [row for row in rows if row["kind"] == "val"]
    return {"steps": val[-1]["step"], **{key: val[-1][key] for key in ("miou", "pq") if key in val[-1]}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--only", nargs="+", choices=TRAININGS, default=list(TRAININGS))
    parser.add_argument("--by", nargs="+", choices=["auto", "recipe"], default=["recipe", "auto"])
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        for by in options.by:
            print(f"{name} | {by} | {options.minutes:g} min | {train(name, by, options)}", flush=True)


if __name__ == "__main__":
    main()
