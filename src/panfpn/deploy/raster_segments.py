"""The segments of a raster, once all its windows are labelled. In: ids on disk. Out: final ids, areas, boxes."""

from dataclasses import replace

import numpy as np

from panfpn.deploy.raster_files import Labels
from panfpn.tasks.tiles import Tiles
from panfpn.types import Segment


def final_segments(labels: Labels, tiles: Tiles) -> tuple[Labels, list[Segment]]:
    """The same with ids 1, 2, … of the segments that have pixels, and these: things first, then stuff by class."""
    segments, same = tiles.segments(), tiles.same()
    assert segments is not None and same is not None
    count = len(same)
    areas = np.zeros(count, np.int64)
    boxes = [np.full(count, start, np.int64) for start in (labels.shape[1], labels.shape[0], 0, 0)]
    for top, strip in labels.strips():
        ids = same[strip]
        first = np.ones(ids.shape, np.bool_)  # pixels with which a run of one segment begins
        first[:, 1:] = ids[:, 1:] != ids[:, :-1]
        rows, starts = np.nonzero(first)
        runs = ids[rows, starts]
        stops = np.append(starts[1:], 0)
        stops[stops == 0] = ids.shape[1]  # the last of its row
        areas += np.bincount(runs, stops - starts, count).astype(np.int64)
        np.minimum.at(boxes[0], runs, starts)
        np.minimum.at(boxes[1], runs, rows + top)
        np.maximum.at(boxes[2], runs, stops)
        np.maximum.at(boxes[3], runs, rows + top + 1)
    left, up, right, down = (side.tolist() for side in boxes)
    left_over = [one for one in segments if areas[one.id]]
    left_over.sort(key=lambda one: (not one.thing, 0 if one.thing else one.train_id, one.id))
    ids_by_old = np.zeros(count, np.int32)
    final = []
    for number, one in enumerate(left_over, 1):
        k = one.id
        ids_by_old[k] = number
        box = (left[k], up[k], right[k] - left[k], down[k] - up[k])
        final.append(replace(one, id=number, area=int(areas[k]), box=box))
    by_id = ids_by_old[same]
    names = {one.id: one.name for one in final}
    return replace(labels, names=names, change=lambda strip: by_id[strip]), final
