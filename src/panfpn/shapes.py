"""Regions of a map in few numbers. In: the index of each pixel's region. Out: COCO's run lengths, polygons.

Polygons run along the pixels' edges: whoever fills them by pixel centres gets the same pixels back.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.int64]  # [P, 2] x, y; pixel (x, y) covers x..x + 1, y..y + 1
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """A piece of a region whose pixels touch by their sides: its border, and those of its holes."""

    border: Points  # clockwise
    holes: tuple[Points, ...]  # anticlockwise

    def moved(self, left: int, top: int) -> "Outline":
        """The same elsewhere."""
        by = np.array([left, top])
        return Outline(self.border + by, tuple(hole + by for hole in self.holes))

    def joined(self) -> Points:
        """One ring, for formats without holes: to every hole leads a cut of no width, there and back."""
        ring = self.border
        for hole in self.holes:
            at = int(np.argmin(hole[:, 0]))
            near = int(np.argmin(((ring - hole[at]) ** 2).sum(1)))
            around = np.roll(hole, -at, axis=0)
            ring = np.concatenate([ring[: near + 1], around, around[:1], ring[near:]])
        return ring


def run_lengths(index: npt.NDArray[np.integer], count: int) -> list[Ints]:
    """COCO's uncompressed run lengths (down the columns, first of pixels outside) of regions 0..`count` - 1.

    `index` [H, W] holds the region of each pixel; other values belong to none.
    """
    flat = np.ascontiguousarray(index.T).ravel()
    starts = np.flatnonzero(np.diff(flat)) + 1
    starts = np.concatenate([[0], starts]) if flat.size else starts
    ends, regions = np.append(starts[1:], flat.size), flat[starts].astype(np.int64)
    order = np.argsort(regions, kind="stable")
    bounds = np.searchsorted(regions[order], np.arange(count + 1))
    lengths = []
    for k in range(count):
        mine = order[bounds[k] : bounds[k + 1]]
        edges = np.stack([starts[mine], ends[mine]], 1).ravel()
        counts = np.diff(edges, prepend=0)
        left = flat.size - (int(edges[-1]) if edges.size else 0)
        lengths.append(np.append(counts, left) if left else counts)
    return lengths


def outlines(mask: npt.NDArray[np.bool_], *, tolerance: float = 0) -> list[Outline]:
    """The pieces of a mask [H, W], largest first.

    `tolerance` in pixels: how far the outline may be moved to get by with fewer points; 0 keeps every pixel.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return []
    top, left = int(rows[0]), int(columns[0])
    part = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    pieces = cv2.connectedComponents(part.astype(np.uint8), connectivity=4)[1]
    borders: dict[int, Points] = {}
    holes: dict[int, list[Points]] = {}
    for ring, inside in _rings(part):
        piece, ring_there = int(pieces[inside]), _simplified(ring + np.array([left, top]), tolerance)
        if _twice_area(ring) > 0:
            borders[piece] = ring_there
        else:
            holes.setdefault(piece, []).append(ring_there)
    found = [Outline(ring, tuple(holes.get(piece, ()))) for piece, ring in borders.items()]
    return sorted(found, key=lambda outline: -_twice_area(outline.border))


def _rings(mask: npt.NDArray[np.bool_]) -> list[tuple[Points, tuple[int, int]]]:
    """Closed borders, the mask on their right, each with a pixel of the mask beside it (row, column)."""
    height, width = mask.shape
    framed = np.zeros((height + 2, width + 2), np.int8)
    framed[1:-1, 1:-1] = mask
    # Horizontal edges run east where the mask is below, west where it is above; vertical ones south where it is on
    # their left, north where it is on their right. At every corner one kind ends and the other begins.
    across = _runs(np.diff(framed, axis=0)[:, 1:-1])  # row of the edge, first and last column, sign
    along = _runs(-np.diff(framed, axis=1)[1:-1].T)  # column of the edge, first and last row, sign
    from_x, to_x = _directed(across)
    from_y, to_y = _directed(along)
    stride, y, x = width + 1, across[0], along[0]
    east, south = across[3] > 0, along[3] > 0
    # Where two pieces meet at a corner, two edges end and two begin: the border turns right, and keeps them apart.
    then = _next(y * stride + to_x, east, from_y * stride + x, south)
    after = _next(to_y * stride + x, ~south, y * stride + from_x, east)
    following = after[then].tolist()
    rings, seen = [], np.zeros(len(following), np.bool_).tolist()
    for first in range(len(following)):
        if seen[first]:
            continue
        ring, k = [], first
        while not seen[k]:
            seen[k] = True
            ring.append(k)
            k = following[k]
        corners = np.stack([from_x[ring], y[ring], to_x[ring], y[ring]], 1).reshape(-1, 2)
        row, column = (y[first], from_x[first]) if east[first] else (y[first] - 1, from_x[first] - 1)
        rings.append((corners, (int(row), int(column))))
    return rings


def _runs(signs: npt.NDArray[np.int8]) -> tuple[Ints, Ints, Ints, Ints]:
    """Runs of one sign in the rows of [N, L]: their row, first and last + 1 place, and sign."""
    framed = np.zeros((signs.shape[0], signs.shape[1] + 2), np.int8)
    framed[:, 1:-1] = signs
    line, place = np.nonzero(framed[:, 1:] != framed[:, :-1])
    sign = framed[line, place + 1]
    begins = sign != 0
    ends = framed[line, place] != 0
    return line[begins], place[begins], place[ends], sign[begins].astype(np.int64)


def _directed(runs: tuple[Ints, Ints, Ints, Ints]) -> tuple[Ints, Ints]:
    """Where runs start and end when they are walked in the direction of their sign."""
    _, low, high, sign = runs
    return np.where(sign > 0, low, high), np.where(sign > 0, high, low)


def _next(
    ends: Ints, wanted: npt.NDArray[np.bool_], starts: Ints, directions: npt.NDArray[np.bool_]
) -> Ints:  # fmt: skip
    """Of each end, the start at the same corner; of two, that in the wanted direction."""
    keys = starts * 2 + directions
    order = np.argsort(keys)
    keys = keys[order]
    place = np.searchsorted(keys, ends * 2 + wanted).clip(max=len(keys) - 1)
    other = np.searchsorted(keys, ends * 2 + ~wanted).clip(max=len(keys) - 1)
    return np.asarray(order[np.where(keys[place] == ends * 2 + wanted, place, other)])


def _twice_area(ring: Points) -> int:
    """Positive for a ring that is walked clockwise."""
    x, y = ring.T
    return int((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())


def _simplified(ring: Points, tolerance: float) -> Points:
    if not tolerance:
        return ring
    fewer: Ints = np.asarray(cv2.approxPolyDP(ring.astype(np.int32), tolerance, True)[:, 0], np.int64)
    return fewer if len(fewer) >= 3 else ring  # small pieces stay
