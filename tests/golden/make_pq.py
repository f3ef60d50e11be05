"""Writes pq_cases.npz/.json: Panoptic Quality of panopticapi on small random panoptic maps with void, crowd and misses.

Needs an environment in which `import panopticapi` works.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
from panopticapi.evaluation import pq_compute
from panopticapi.utils import id2rgb
from PIL import Image

CATEGORIES = [
    {"id": c, "name": f"c{c}", "supercategory": "s", "isthing": int(c <= 4), "color": [c, c, c]} for c in range(1, 10)
]
HEIGHT, WIDTH, IMAGES = 60, 80, 8


def scene(rng: np.random.RandomState) -> tuple[np.ndarray, dict[int, int]]:
    """A segment-id map [H, W] (0 is void) and the category of each id; ids reach beyond 255."""
    ids = np.zeros((HEIGHT, WIDTH), np.int64)
    category = {}
    for top in range(0, HEIGHT, 20):  # stuff, one segment a category
        c = int(rng.randint(5, 9))
        ids[top : top + 20] = 1000 + c
        category[1000 + c] = c
    for k in range(rng.randint(3, 8)):  # things
        y, x, h, w = rng.randint(0, 50), rng.randint(0, 65), rng.randint(4, 25), rng.randint(4, 25)
        sid = 70000 + 13 * k
        ids[y : y + h, x : x + w] = sid
        category[sid] = int(rng.randint(1, 5))
    ids[:, -6:] = 0
    return ids, {s: c for s, c in category.items() if (ids == s).any()}


def disturb(ids, category, rng):
    """A prediction: shifted, some segments dropped to void, some given another category."""
    dy, dx = rng.randint(-2, 3), rng.randint(-2, 3)
    pred = np.roll(ids, (dy, dx), (0, 1)).copy()
    cats = dict(category)
    for s in list(cats):
        draw = rng.uniform()
        if draw < 0.12:
            pred[pred == s] = 0
        elif draw < 0.25:
            cats[s] = int(rng.randint(1, 10))
    return pred, {s: c for s, c in cats.items() if (pred == s).any()}


def record(ids, category, image_id, name, crowd=()):
    return {
        "image_id": image_id,
        "file_name": name,
        "segments_info": [
            {"id": s, "category_id": c, "area": int((ids == s).sum()), "iscrowd": int(s in crowd)}
            for s, c in category.items()
        ],
    }


def main() -> None:
    here = Path(__file__).parent
    rng = np.random.RandomState(3)
    arrays, gt_ann, pred_ann, images = {}, [], [], []
    with tempfile.TemporaryDirectory() as tmp:
        for folder in ("gt", "pred"):
            (Path(tmp) / folder).mkdir()
        for i in range(IMAGES):
            gt, gt_cat = scene(rng)
            pred, pred_cat = disturb(gt, gt_cat, rng)
            crowd = [s for s, c in gt_cat.items() if c <= 4 and rng.uniform() < 0.2]
            name = f"{i}.png"
            images.append({"id": i, "file_name": f"{i}.jpg", "height": HEIGHT, "width": WIDTH})
            gt_ann.append(record(gt, gt_cat, i, name, crowd))
            pred_ann.append(record(pred, pred_cat, i, name))
            arrays[f"gt{i}"], arrays[f"pred{i}"] = gt.astype(np.int32), pred.astype(np.int32)
            for folder, ids in (("gt", gt), ("pred", pred)):
                Image.fromarray(id2rgb(ids)).save(Path(tmp) / folder / name)
        for key, ann in (("gt", gt_ann), ("pred", pred_ann)):
            (Path(tmp) / f"{key}.json").write_text(
                json.dumps({"images": images, "annotations": ann, "categories": CATEGORIES})
            )
        result = pq_compute(f"{tmp}/gt.json", f"{tmp}/pred.json", f"{tmp}/gt", f"{tmp}/pred")
    result["per_class"] = {str(k): v for k, v in result["per_class"].items()}
    np.savez_compressed(here / "pq_cases.npz", **arrays)
    (here / "pq_cases.json").write_text(
        json.dumps({"categories": CATEGORIES, "images": images, "gt": gt_ann, "pred": pred_ann, "result": result})
    )
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
