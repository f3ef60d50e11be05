"""panopticapi's side of the comparison of Panoptic Quality (see side.py); without panfpn."""

import json
from pathlib import Path

import numpy as np
from panopticapi import evaluation
from PIL import Image
from side import seconds, serve

TOTAL = evaluation.PQStat()
rgb2id = evaluation.rgb2id


class InMemory:
    """Stands for PIL's Image: gives the id map that it was told before."""

    def __init__(self) -> None:
        self.maps: dict[str, np.ndarray] = {}

    def open(self, path: str) -> np.ndarray:
        return self.maps[path]


def _count(truth: str, found: str) -> None:
    """What `pq_compute` does, but in one process: it starts as many as there are cores."""
    data, predicted = (json.loads(Path(file).read_text()) for file in (truth, found))
    categories = {category["id"]: category for category in data["categories"]}
    own = {annotation["image_id"]: annotation for annotation in predicted["annotations"]}
    pairs = [(annotation, own[annotation["image_id"]]) for annotation in data["annotations"]]
    _count_pairs(pairs, truth, found, categories)


def _count_pairs(pairs: list, truth: str, found: str, categories: dict) -> None:
    global TOTAL
    folders = (str(Path(file).with_suffix("")) for file in (truth, found))
    TOTAL += evaluation.pq_compute_single_core(0, pairs, *folders, categories)


def files(files: list[str]) -> float:
    return seconds(lambda: _count(*files))


def arrays(files: list[str]) -> float:
    """The maps are decoded before the clock runs, and the step from colours to ids is left out."""
    memory = InMemory()
    for file in files:
        for path in Path(file).with_suffix("").iterdir():
            memory.maps[str(path)] = rgb2id(np.array(Image.open(path), np.uint32))
    data, predicted = (json.loads(Path(file).read_text()) for file in files)
    categories = {category["id"]: category for category in data["categories"]}
    own = {annotation["image_id"]: annotation for annotation in predicted["annotations"]}
    pairs = [(annotation, own[annotation["image_id"]]) for annotation in data["annotations"]]
    evaluation.Image, evaluation.rgb2id = memory, lambda ids: ids
    taken = seconds(lambda: _count_pairs(pairs, *files, categories))
    evaluation.Image, evaluation.rgb2id = Image, rgb2id
    return taken


def sums() -> dict[str, list[float]]:
    """IoU sum, TP, FP, FN by category id, of all that was counted."""
    return {
        str(k): [float(c.iou), int(c.tp), int(c.fp), int(c.fn)]
        for k, c in TOTAL.pq_per_cat.items()
        if c.tp + c.fp + c.fn
    }


if __name__ == "__main__":
    serve({"files": files, "arrays": arrays, "sums": sums})
