"""The layout of a street, and where on it vehicles, people, signs and trees find room."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from panfpn.data.scenes.painter import BUS, CAR, PERSON, SIGN, VEGETATION, Floats, Painter, X, Z
from panfpn.data.scenes.things import BUS_BODY, CARS, Body, draw_person, draw_sign, draw_tree, draw_vehicle

Box = tuple[float, float, float, float]  # x0, z0, x1, z1 on the ground


class Street(NamedTuple):
    """The layout, in metres."""

    half: float  # of the road's width
    walk: float  # width of the sidewalk
    across: bool  # the camera looks over the street, not along it
    crossing: float | None  # z of the crossing road
    built: tuple[int, ...]  # sides (-1 left, 1 right) with houses; the others are parks


class Item(NamedTuple):
    """Something that stands on the ground: where, how high, and how to paint it."""

    box: Box
    height: float
    draw: Callable[[], None]


def populate(painter: Painter, street: Street) -> list[Item]:
    """Try to place things and trees where they belong, in view and apart from each other."""
    rng, width, half = painter.rng, painter.canvas.shape[1], street.half
    scale = painter.focal / painter.canvas.shape[0]  # so that the far limits are limits of size in the picture
    items: list[Item] = []

    def free(box: Box, near: float, far: float) -> bool:
        right, _, depth = painter.see(np.array([(box[0] + box[2]) / 2, 0.9, (box[1] + box[3]) / 2])).tolist()
        if not (
            near < depth < far * scale and 0.04 < (painter.centre[0] + painter.focal * right / depth) / width < 0.96
        ):
            return False
        x0, z0, x1, z1 = box[0] - 0.3, box[1] - 0.3, box[2] + 0.3, box[3] + 0.3
        return all(x0 > b[2] or x1 < b[0] or z0 > b[3] or z1 < b[1] for b, _, _ in items)

    def vehicle(category: int, body: Body, near: float, far: float) -> None:
        x, z, ahead = _vehicle_spot(rng, street, far, parks=category == CAR)
        long, wide = float(body.profile[:, 0].max()), body.width / 2
        dx, dz = (long, wide) if ahead[0] else (wide, long)
        if free(box := (x - dx, z - dz, x + dx, z + dz), near, far):
            position, segment = np.array([x, 0.0, z]), painter.new_segment(category)
            tall = float(body.profile[:, 1].max())
            items.append(Item(box, tall, lambda: draw_vehicle(painter, body, position, ahead, segment)))

    def upright(category: int, x: float, zs: tuple[float, float], tall: float, near: float, far: float) -> None:
        z = rng.uniform(-13, 13) if street.across else rng.uniform(*zs)
        if free(box := (x - 0.3, z - 0.3, x + 0.3, z + 0.3), near, far):
            position = np.array([x, 0.0, z])
            if category == VEGETATION:
                items.append(Item(box, tall, lambda: draw_tree(painter, position, tall)))
                return
            draw, segment = draw_person if category == PERSON else draw_sign, painter.new_segment(category)
            items.append(Item(box, tall, lambda: draw(painter, position, segment)))

    def beside(low: float, high: float) -> float:
        return float((half + rng.uniform(low, high)) * (2 * rng.integers(2) - 1))

    for _ in range((0, 2, 4)[rng.integers(3)]):
        vehicle(BUS, BUS_BODY, 7.5, 24)
    for _ in range(rng.integers(2, 9)):
        upright(SIGN, beside(0.35, 0.8), (4, 11), 2.4, 4.2, 10)
    for _ in range((0, 4, 8, 14, 14, 14)[rng.integers(6)]):
        vehicle(CAR, CARS[rng.integers(len(CARS))], 5.0, 20)
    for _ in range((0, 6, 10, 18, 18, 18)[rng.integers(6)]):
        x = rng.uniform(-half, half) if rng.random() < 0.25 else beside(0.4, street.walk - 0.3)
        upright(PERSON, x, (3.5, 11), 1.7, 3.6, 9.5)
    for _ in range((0, 6, 12)[rng.integers(3)]):
        upright(VEGETATION, beside(street.walk - 0.9, street.walk - 0.6), (6, 45), rng.uniform(4, 8), 5, 60)
    for side in (side for side in (-1, 1) if side not in street.built):
        for _ in range(16):
            tall = (1.4, 1.8, 6, 9)[rng.integers(4)] * rng.uniform(0.8, 1.2)
            upright(VEGETATION, side * (half + street.walk + rng.uniform(1.5, 14)), (4, 60), tall, 5, 80)
    return items


def _vehicle_spot(rng: np.random.Generator, street: Street, far: float, *, parks: bool) -> tuple[float, float, Floats]:
    """A position on the road and a heading: in a lane, at the kerb, or on the crossing road."""
    side = 2.0 * rng.integers(2) - 1
    if street.crossing is not None and not street.across and rng.random() < 0.45:
        return rng.uniform(-14, 14), street.crossing + 1.8 * side, -side * X
    x = side * (street.half - 1.15 if parks and rng.random() < 0.5 else street.half * 0.5)
    z = rng.uniform(-14, 14) if street.across else far * rng.uniform(0.1, 1) ** 1.4
    return x, z, side * Z
