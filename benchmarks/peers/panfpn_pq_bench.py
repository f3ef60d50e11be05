"""panfpn's side of the comparison of Panoptic Quality (see side.py)."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from side import cpu_seconds, serve

from panfpn.data.images import decode_ids
from panfpn.data.segments import indices_of
from panfpn.files import read_bytes, read_json
from panfpn.metrics import PanopticQuality
from panfpn.types import Segments

STATE: dict = {}


def _segments(png: Path, records: list[dict], places: dict[int, int]) -> Segments:
    own = np.array([record["id"] for record in records], np.int64)
    return Segments(
        index=indices_of(decode_ids(read_bytes(png), png, rgb=True), own, png),
        classes=np.array([places[record["category_id"]] for record in records], np.int16),
        crowd=np.array([bool(record.get("iscrowd", 0)) for record in records], bool),
        ids=own,
    )


def _pairs(truth: str, found: str) -> Iterator[tuple[Segments, Segments]]:
    data, predicted = read_json(Path(truth)), read_json(Path(found))
    STATE.setdefault("places", {category["id"]: k for k, category in enumerate(data["categories"])})
    STATE.setdefault("quality", PanopticQuality(len(data["categories"])))
    own = {annotation["image_id"]: annotation for annotation in predicted["annotations"]}
    for annotation in data["annotations"]:
        yield tuple(
            _segments(Path(file).with_suffix("") / a["file_name"], a["segments_info"], STATE["places"])
            for file, a in ((found, own[annotation["image_id"]]), (truth, annotation))
        )


def _count(pairs: Iterator[tuple[Segments, Segments]]) -> None:
    for found, truth in pairs:
        STATE["quality"].update(found, truth)


def files(files: list[str]) -> float:
    return cpu_seconds(lambda: _count(_pairs(*files)))


def arrays(files: list[str]) -> float:
    """The maps are decoded before the clock runs."""
    pairs = list(_pairs(*files))
    return cpu_seconds(lambda: _count(iter(pairs)))


def sums() -> dict[str, list[float]]:
    """IoU sum, TP, FP, FN by category id, of all that was counted."""
    rows = np.stack(STATE["quality"].sums, 1).tolist()
    return {str(category): rows[k] for category, k in STATE["places"].items() if any(rows[k][1:])}


if __name__ == "__main__":
    serve({"files": files, "arrays": arrays, "sums": sums})
