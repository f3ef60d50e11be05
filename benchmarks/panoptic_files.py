"""COCO results that `panfpn predict` writes, scored by panopticapi, beside what `panfpn eval` says of the same model.

usage: python benchmarks/panoptic_files.py PANOPTICAPI_PYTHON MODEL COCO OUT [--split val2017]

COCO is a root in the original layout, OUT gets the results. Printed: PQ, SQ, RQ of both, for all classes, things and
stuff. Exit code 1 if a figure differs by more than 1e-9.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from panfpn.cli import main as panfpn
from panfpn.files import read_json

LIMIT = 1e-9
PEER = """
import json, sys
from panopticapi.evaluation import pq_compute
truth, found, truth_folder, found_folder, out = sys.argv[1:]
result = pq_compute(truth, found, truth_folder, found_folder)
groups = {k: {m: result[k][m] for m in ("pq", "sq", "rq", "n")} for k in ("All", "Things", "Stuff")}
json.dump({k.lower(): figures for k, figures in groups.items()}, open(out, "w"))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("panopticapi", metavar="PANOPTICAPI_PYTHON")
    parser.add_argument("model")
    parser.add_argument("coco", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--split", default="val2017")
    asked = parser.parse_args()
    root, split, out = asked.coco, asked.split, asked.out
    truth = root / "annotations" / f"panoptic_{split}.json"
    predicted = ["predict", str(root / split), "--model", asked.model, "--format", "coco-panoptic", "--out", str(out)]
    scored = [
        "eval",
        asked.model,
        "--data.dataset",
        "coco_panoptic",
        "--data.root",
        str(root),
        "--data.val-split",
        split,
    ]
    code = panfpn([*predicted, "--annotations", str(truth)])
    # The engine that predict takes: it folds norms, which moves the last bits.
    code = code or panfpn([*scored, "--engine", "torch", "--json", str(out / "panfpn.json")])
    if code:
        return code
    files = [truth, out / "panoptic.json", truth.with_suffix(""), out / "panoptic", out / "panopticapi.json"]
    subprocess.run([asked.panopticapi, "-c", PEER, *map(str, files)], check=True)
    theirs, ours = json.loads(files[-1].read_text()), read_json(out / "panfpn.json")["groups"]
    differ = False
    for group, figures in theirs.items():
        for name, value in figures.items():
            apart = abs(value - ours[group][name])
            differ |= not apart <= LIMIT
            print(f"{group:<7} {name}  panopticapi {value:.12f}  panfpn {ours[group][name]:.12f}  apart {apart:.1e}")
    return int(differ)


if __name__ == "__main__":
    sys.exit(main())
