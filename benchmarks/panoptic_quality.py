"""Panoptic Quality beside panopticapi's: time of 1,000 synthetic pairs of 640×480 maps, the figures, and memory.

usage: taskset -c 1 python benchmarks/panoptic_quality.py PANOPTICAPI_PYTHON [--json FILE] [--write] [--quick]
       python benchmarks/panoptic_quality.py PANOPTICAPI_PYTHON --files TRUTH.json FOUND.json

Ten sets of 100 pairs; both sides run each set, in turn and in one process each: from arrays in memory (panopticapi: id
maps; panfpn: Segments, as the network's maps are), and from COCO's PNG and JSON. With --files only the figures of two
COCO results are compared (PNGs in folders of the JSONs' names). Exit code 1 if IoU sums or counts of a class differ by
more than 1e-9.
"""

import argparse
import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
from page import add_options, publish
from peers.side import Peer, Side, memory_cells, timing_row

from panfpn.files import write_image, write_json

THEIRS, LIMIT = "panopticapi", 1e-9
CATEGORIES = [{"id": 3 * c + 1, "name": f"c{c}", "isthing": int(c < 12), "color": [c, c, c]} for c in range(20)]


def draw_map(fields: np.ndarray) -> np.ndarray:
    """Blobs [H, W]: at each pixel the place of the highest of some smooth fields, 0 for the first of them."""
    return np.argmax([cv2.resize(field, (640, 480), interpolation=cv2.INTER_CUBIC) for field in fields], 0)


def write_pair(random: np.random.Generator, folder: Path, name: str) -> list[dict]:
    """PNGs of a true and a predicted map of about 18 segments and void; their entries in the JSONs."""
    fields = random.normal(size=(19, 12, 16)).astype(np.float32)
    disturbed = fields + 0.35 * random.normal(size=fields.shape).astype(np.float32)
    kinds = random.permutation([*range(12, 20), *random.integers(0, 12, 10)])  # stuff stands once
    ids = np.append(0, random.choice(2**24 - 1, len(fields) - 1, replace=False) + 1)
    entries = []
    for part, values in (("truth", fields), ("found", disturbed)):
        index = draw_map(values)
        colors = ids[index]
        write_image(folder / part / name, np.stack([colors >> s & 255 for s in (0, 8, 16)], -1).astype(np.uint8))
        areas, wrong = np.bincount(index.ravel(), minlength=len(ids)), random.random(len(ids)) < 0.1
        own = (
            np.where(wrong, random.integers(0, 12, len(ids)), np.append(-1, kinds)) if part == "found" else [-1, *kinds]
        )
        entries.append({
            "image_id": name, "file_name": name,
            "segments_info": [
                {"id": int(ids[k]), "category_id": CATEGORIES[own[k]]["id"], "area": int(areas[k]),
                 "iscrowd": int(part == "truth" and own[k] < 12 and random.random() < 0.05)}
                for k in range(1, len(ids)) if areas[k]
            ],
        })  # fmt: skip
    return entries


def write_set(folder: Path, seed: int, pairs: int) -> list[str]:
    """COCO's files of one set; paths of the JSONs of truth and prediction."""
    random = np.random.default_rng(seed)
    entries = [write_pair(random, folder, f"{i:04d}.png") for i in range(pairs)]
    for k, part in enumerate(("truth", "found")):
        annotations = [entry[k] for entry in entries]
        write_json(folder / f"{part}.json", {"annotations": annotations, "categories": CATEGORIES})
    return [str(folder / "truth.json"), str(folder / "found.json")]


def difference(theirs: dict, ours: dict) -> float:
    """The largest, over categories, of IoU sums and counts."""
    keys = theirs.keys() | ours.keys()
    none = [0.0] * 4
    return max((abs(a - b) for key in keys for a, b in zip(theirs.get(key, none), ours.get(key, none), strict=True)),
               default=0.0)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("panopticapi", metavar="PANOPTICAPI_PYTHON")
    parser.add_argument("--files", nargs=2, metavar=("TRUTH.json", "FOUND.json"))
    add_options(parser)
    options = parser.parse_args()
    peers = [Peer(THEIRS, options.panopticapi, "panopticapi_bench.py", warmup=0),
             Peer("panfpn", sys.executable, "panfpn_pq_bench.py", warmup=0)]  # fmt: skip
    if options.files:
        with ExitStack() as stack:
            sides = [stack.enter_context(Side(peer)) for peer in peers]
            for side in sides:
                side.ask("files", files=options.files)
            theirs, ours = (side.ask("sums") for side in sides)
        apart = difference(theirs, ours)
        print(json.dumps({"categories": len(theirs), "segments": sum(sum(row[1:]) for row in theirs.values()),
                          "largest difference": apart}))  # fmt: skip
        return int(not apart <= LIMIT)

    sets, pairs = (2, 10) if options.quick else (10, 100)
    tables, raw, notes = {}, {}, []
    with tempfile.TemporaryDirectory() as folder:
        files = [write_set(Path(folder) / str(k), k, pairs) for k in range(sets)]
        apart = 0.0
        for way, caption in (("arrays", "from arrays in memory"), ("files", "from COCO's PNG and JSON")):
            times: dict[str, list[float]] = {peer.name: [] for peer in peers}
            with ExitStack() as stack:
                sides = [stack.enter_context(Side(peer)) for peer in peers]
                for k, own in enumerate(files):
                    for side in reversed(sides) if k % 2 else sides:
                        times[side.name].append(side.ask(way, files=own))
                theirs, ours = (side.ask("sums") for side in sides)
            apart = max(apart, difference(theirs, ours))
            tables[f"PQ of {pairs} pairs of 640×480 maps, {caption} ({sets} sets)"] = [
                timing_row(peer.name, times, THEIRS) for peer in peers
            ]
            raw[way] = times
            whole = {name: sum(taken) for name, taken in times.items()}
            notes.append(f"All {sets * pairs:,} pairs {caption}: {whole[THEIRS]:.2f} s and {whole['panfpn']:.2f} s.")
        peaks = {n: {peer.name: peak_over(peer, files[:n]) for peer in peers} for n in (1, sets)}
    for n, own in peaks.items():
        tables[f"Peak memory above the imports, {n * pairs:,} pairs from files"] = [
            {"": peer.name} | memory_cells(peer.name, own, THEIRS) for peer in peers
        ]
    raw["peaks"] = {str(n): own for n, own in peaks.items()}
    notes.append(f"Largest difference of a category's IoU sum or counts: {apart:.1e}.")
    publish("panoptic_quality", tables, options, raw=raw, notes=notes)
    return int(not apart <= LIMIT)


def peak_over(peer: Peer, files: list[list[str]]) -> float:
    """Peak bytes of a fresh process that scores these sets one after the other."""
    with Side(peer) as side:
        for own in files:
            side.ask("files", files=own)
        return side.ask("peak")


if __name__ == "__main__":
    sys.exit(main())
