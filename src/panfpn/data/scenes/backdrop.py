"""Sky, ground with its marks and shadows, and the far woods or skyline that close the horizon."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from panfpn.data.scenes.painter import (
    BUILDING,
    NEAR,
    ROAD,
    SHIFT,
    SIDEWALK,
    SKY,
    VEGETATION,
    Card,
    Painter,
    X,
    Z,
    rectangles,
)
from panfpn.data.scenes.street import Item, Street


def clouds(rng: np.random.Generator, height: int, width: int, cells: int) -> npt.NDArray[np.float32]:
    """Smooth noise [height, width] in [-1, 1], `cells` blobs high."""
    seeds = rng.integers(0, 256, (cells + 1, max(2, round(cells * width / height) + 1)), dtype=np.uint8)
    smooth = cv2.resize(seeds, (width, height), interpolation=cv2.INTER_LINEAR_EXACT)
    noise: npt.NDArray[np.float32] = smooth.astype(np.float32) * np.float32(2 / 255) - 1
    return noise


def draw_sky(painter: Painter) -> None:
    """A gradient from zenith to horizon, and clouds that are flat and wide."""
    height, width = painter.canvas.shape[:2]
    rows = min(height, math.ceil(painter.centre[1]) + 1)
    zenith, horizon = np.asarray(painter.mood.zenith, np.float32), np.asarray(painter.mood.horizon, np.float32)
    sky = zenith + (horizon - zenith) * np.linspace(0, 1, rows, dtype=np.float32)[:, None, None] ** 2
    narrow = width // 3 + 1
    puffs = clouds(painter.grain, rows, narrow, 4) + 0.5 * clouds(painter.grain, rows, narrow, 9)
    puffs += painter.rng.uniform(-0.9, 0.5)
    cover = cv2.resize(np.clip(puffs * 255, 0, 230).astype(np.uint8), (width, rows))[..., None] * np.float32(1 / 255)
    white = horizon * 0.6 + 100 * min(1.0, max(painter.mood.light))
    painter.canvas[:rows, :, :3] = np.clip(sky + cover * (white - sky), 0, 255)
    painter.canvas[:rows, :, 3] = SKY


def draw_ground(painter: Painter, street: Street) -> None:
    """Lawn to the horizon, sidewalks with joints and kerb, the road with its patches and marks."""
    rng, half, walk, far, z = painter.rng, street.half, street.walk, 260.0, street.crossing

    def lay(segment: int) -> Card:  # haze is left to `settle_ground`, since these figures reach to the horizon
        return Card(painter, segment, np.zeros(3), X, Z, hazy=False)

    road = rng.uniform(55, 115) + rng.uniform(-9, 9, 3)
    slabs = road + rng.uniform(40, 75) + np.array((14, 0, -14)) * rng.uniform(0, 2)
    gaps = [(-60.0, far)] if z is None else [(-60.0, z - 3.6), (z + 3.6, far)]
    with lay(VEGETATION) as card:
        card(rectangles(-far, -far, far, far), painter.leaf())
    with lay(SIDEWALK) as card:
        for side in (-1, 1):
            card(rectangles(side * half, -far, side * (half + walk + 12.0 * (side in street.built)), far), slabs)
            joints = np.arange(-16.0, 36.0, 1.5)
            card(rectangles(side * half, joints, side * (half + walk), joints + 0.09), slabs * 0.8)
        if z is not None:
            card(rectangles(-far, z - 6.0, far, z + 6.0), slabs)
    with lay(ROAD) as card:
        if z is not None:
            card(rectangles(-far, z - 3.6, far, z + 3.6), road)
        card(rectangles(-half, -far, half, far), road)
        x0, z0 = rng.uniform((-half, -6), (half - 1.5, 24), (4, 2)).T
        card(rectangles(x0, z0, x0 + 1.4, z0 + 3), road * rng.uniform(0.82, 1.05))
        _mark_road(card, rng, street)
    kerb = slabs * rng.choice((0.72, 1.18))
    with lay(SIDEWALK) as card:
        for start, end in gaps:
            card(rectangles(np.array((-half - 0.22, half)), start, np.array((-half, half + 0.22)), end), kerb)


def _mark_road(card: Card, rng: np.random.Generator, street: Street) -> None:
    """Dashes or a double line in the middle, edge lines, zebra stripes."""
    half, white = street.half, np.array((225, 222, 214)) * rng.uniform(0.75, 1.1)
    middle = np.array((222, 178, 60)) if rng.random() < 0.25 else white
    if rng.random() < 0.7:
        dashes = np.arange(-30.0, 90.0, 5.0) + rng.uniform(0, 5)
        card(rectangles(-0.09, dashes, 0.09, dashes + 2.4), middle)
    elif rng.random() < 0.7:
        card(rectangles(np.array((-0.22, 0.1)), -60, np.array((-0.1, 0.22)), 200), middle)
    if rng.random() < 0.5:
        lines = np.array((-half + 0.35, half - 0.47))
        card(rectangles(lines, -60, lines + 0.12, 200), white)
    if rng.random() < 0.45:
        z = rng.uniform(6, 14) if street.crossing is None else street.crossing - 7.0
        stripes = np.arange(-half + 0.4, half - 0.5, 1.1)
        card(rectangles(stripes, z, stripes + 0.55, z + 2.6), white)


def settle_ground(painter: Painter, items: list[Item]) -> None:
    """Cast every item's shadow on the bare ground, then veil the ground with haze row by row."""
    height, width = painter.canvas.shape[:2]
    shadow = np.zeros((height, width), np.uint8)
    throw = -painter.sun * (1, 0, 1) / painter.sun[1]  # where the shadow of a point one metre up falls
    for (x0, z0, x1, z1), tall, _ in items:
        foot = np.array([[x0, 0, z0], [x0, 0, z1], [x1, 0, z1], [x1, 0, z0]])
        view = painter.see(np.concatenate([foot, foot + throw * tall]))
        if view[:, 2].min() >= NEAR:
            pixels = painter.pixels(view)
            cv2.fillConvexPoly(shadow, cv2.convexHull(pixels), int(240 * painter.mood.sun + 60), cv2.LINE_8, SHIFT)
            cv2.fillConvexPoly(shadow, pixels[:4], 170, cv2.LINE_8, SHIFT)  # it is dark underneath at any hour
    first = min(height - 1, math.ceil(painter.centre[1]) + 1)
    depth = painter.focal * painter.eye[1] / (np.arange(first, height) + 0.5 - painter.centre[1])
    veil = (depth / (depth + painter.mood.sight)).astype(np.float32)[:, None, None]
    ground = painter.canvas[first:, :, :3] * (1 - cv2.blur(shadow, (3, 3))[first:, :, None] * np.float32(0.62 / 255))
    painter.canvas[first:, :, :3] = ground + veil * (np.asarray(painter.mood.horizon, np.float32) - ground)


def draw_ridge(painter: Painter) -> None:
    """Close the horizon with far woods or a skyline."""
    rng, distant = painter.rng, painter.eye * (1, 0, 1) + 170.0 * painter.turn[:, 2]
    edges, heights = np.cumsum(rng.uniform(8, 24, 40)) - 310.0, rng.uniform(4, 34, 39)
    skyline = rng.random() < 0.5
    with Card(painter, BUILDING if skyline else VEGETATION, distant, painter.turn[:, 0]) as card:
        if skyline:
            card(rectangles(edges[:-1], -6, edges[1:], heights), painter.paint(25) + rng.uniform(-40, 40, (39, 1)))
        else:
            hills = np.stack([edges[:-1], 3 + heights * 0.35], 1)
            card(np.concatenate([hills, [(edges[-2], -6), (edges[0], -6)]])[None], painter.leaf())
