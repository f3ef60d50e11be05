"""What stands in a street, drawn at a given position: vehicles, people, signs and trees."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from panfpn.data.scenes.painter import UP, VEGETATION, Card, Floats, Painter, disc, rectangles


class Body(NamedTuple):
    """A vehicle: its side profile (length, height), clockwise from the tail, is extruded over its width."""

    profile: Floats  # the last three edges are the underbody
    screens: tuple[int, ...]  # the profile's edges that are glass
    width: float
    wheels: tuple[float, float]
    radius: float
    windows: Floats  # on the side, [n, 4, 2]
    lamps: float  # their height
    is_bus: bool = False


# fmt: off
_BAYS = np.arange(-5.0, 4.6, 1.42)
BUS_BODY = Body(
    np.array([(-5.4, .45), (-5.5, 1), (-5.4, 3.1), (5.3, 3.1), (5.5, 1.1), (5.5, .4), (5.3, .25), (-5.2, .25)]),
    (3,), 2.5, (-3.2, 3.5), 0.52, rectangles(_BAYS, 1.45, _BAYS + 1.28, 2.55), 0.85, is_bus=True)
_SALOON = Body(
    np.array([(-2.2, .35), (-2.25, .95), (-1.5, 1.02), (-.85, 1.48), (.55, 1.48), (1.25, 1), (2.15, .86), (2.25, .35),
              (2, .18), (-2, .18)]), (2, 4), 1.85, (-1.4, 1.4), 0.36,
    np.array([[(-1.35, 1.03), (-.8, 1.4), (-.2, 1.4), (-.2, 1.03)],
              [(-.08, 1.03), (-.08, 1.4), (.5, 1.4), (1.05, 1.03)]]), 0.72)
_HATCHBACK = Body(
    np.array([(-1.9, .35), (-1.95, .98), (-1.6, 1.55), (.35, 1.58), (1.05, 1.08), (1.85, .92), (1.95, .35),
              (1.7, .18), (-1.7, .18)]), (1, 3), 1.8, (-1.25, 1.25), 0.36,
    np.array([[(-1.7, 1.06), (-1.45, 1.48), (-.5, 1.5), (-.5, 1.06)],
              [(-.38, 1.06), (-.38, 1.5), (.3, 1.5), (.85, 1.08)]]), 0.75)
_VAN = Body(
    np.array([(-2.4, .4), (-2.4, 2.1), (-2.2, 2.2), (.95, 2.2), (1.75, 1.25), (2.35, 1.05), (2.4, .4), (2.1, .2),
              (-2.1, .2)]), (3,), 1.95, (-1.5, 1.5), 0.38,
    np.array([[(.1, 1.25), (.1, 1.95), (.85, 1.95), (1.4, 1.25)]]), 0.8)
CARS = (_SALOON, _HATCHBACK, _VAN)
# fmt: on


def draw_vehicle(painter: Painter, body: Body, position: Floats, ahead: Floats, segment: int) -> None:
    """Extrude the profile, paint the faces turned to the camera far to near, then dress the side and the end."""
    paint, glass = painter.paint(110), np.array((52, 62, 74)) * painter.rng.uniform(0.6, 1.7)
    left, profile, wide = np.array([-ahead[2], 0.0, ahead[0]]), body.profile, body.width / 2
    taper = 1 - (0.0 if body.is_bus else 0.16) * np.clip((profile[:, 1:] - 1.0) / 0.5, 0, 1)
    rail = position + profile[:, :1] * ahead + profile[:, 1:] * UP
    rims = [rail + wide * taper * left, rail - wide * taper * left]
    quads = np.stack([rims[0], np.roll(rims[0], -1, 0), np.roll(rims[1], -1, 0), rims[1]], 1)
    step = np.roll(profile, -1, 0) - profile
    normals = (step[:, :1] * UP - step[:, 1:] * ahead) / np.linalg.norm(step, axis=1, keepdims=True)
    colours = np.tile(paint, (len(step), 1))
    colours[list(body.screens)], colours[-3:] = glass, 28.0
    colours = colours * painter.mood.light * painter.shade(normals)[:, None]
    order = np.argsort(-((quads.mean(1) - painter.eye) ** 2).sum(1))
    order = order[((painter.eye - rail) * normals).sum(1)[order] > 0]
    if len(order):  # none where the camera looks straight at the flank
        painter.fill(quads[order].reshape(-1, 3), [4] * len(order), colours[order], segment)
    beside, before = float(left @ (painter.eye - position)), float(ahead @ (painter.eye - position))
    if abs(beside) > wide:
        rim, flank = rims[beside < 0], position + math.copysign(wide, beside) * left
        with Card(painter, segment, flank, ahead) as card:
            painter.fill(rim, [len(rim)], paint[None] * card.light, segment)
            card(body.windows, glass)
            if body.is_bus:
                card(rectangles(-5.3, 0.75, 5.4, 1.1), painter.paint(110))
            for x in body.wheels:
                card(disc(14, body.radius, x, body.radius), (26, 26, 28))
                card(disc(10, body.radius * 0.5, x, body.radius), (128, 130, 134))
    if abs(before) > profile[:, 0].max():
        tip = position + math.copysign(profile[:, 0].max() + 0.02, before) * ahead
        with Card(painter, segment, tip, left) as card:
            _dress_end(card, body, glass, front=before > 0)


def _dress_end(card: Card, body: Body, glass: Floats, *, front: bool) -> None:
    """Lamps, number plate and, where the profile has none, the rear window; buses show their line."""
    wide, lamps, slots = body.width / 2, body.lamps, np.arange(-0.7, 0.6, 0.3)
    left, right = np.array((-wide + 0.05, wide - 0.4)), np.array((-wide + 0.4, wide - 0.05))
    card(rectangles(left, lamps - 0.1, right, lamps + 0.1), (238, 236, 214) if front else (206, 34, 30), glow=True)
    card(rectangles(-0.28, lamps - 0.3, 0.28, lamps - 0.17), (224, 222, 210))
    if not front and body.profile[:, 1].max() > 1.8:
        low, high = body.profile[:, 1].max() * np.array((0.55, 0.82))
        card(rectangles(np.array((-0.85, 0.05)), low, np.array((-0.05, 0.85)), high), glass)
    if body.is_bus:
        card(rectangles(-1.0, 2.62, 1.0, 2.95), (30, 28, 26))
        card(rectangles(slots, 2.7, slots + 0.18, 2.88), (244, 160, 40), glow=True)


def draw_person(painter: Painter, position: Floats, segment: int) -> None:
    """A walker: legs, shoes, arms, coat or shirt, perhaps a bag, head and hair, on a card turned to the camera."""
    rng, size = painter.rng, painter.rng.uniform(0.92, 1.08)
    stride, swing, hem = rng.uniform(0.05, 0.34), rng.uniform(0.02, 0.25), (0.88, 0.88, 0.55)[rng.integers(3)]
    trousers, shirt, shoes = painter.paint(90) * 0.8, painter.paint(120), painter.paint(20) * 0.5
    hip, flare = 0.09, 0.24 + 0.3 * (0.88 - hem)
    limbs = [
        (trousers * 0.85, [(-stride - 0.1, 0), (-hip - 0.07, 0.92), (-hip + 0.08, 0.92), (-stride + 0.1, 0)]),
        (trousers, [(stride - 0.1, 0), (hip - 0.08, 0.92), (hip + 0.07, 0.92), (stride + 0.1, 0)]),
        *((shoes, [(x - 0.1, 0), (x - 0.1, 0.1), (x + 0.16, 0.1), (x + 0.16, 0)]) for x in (-stride, stride)),
        (shirt * 0.8, [(-0.2, 1.46), (-0.31, 1.42), (-0.33 - swing, 0.84), (-0.22 - swing, 0.82)]),
        (shirt, [(-flare, hem), (-0.26, 1.46), (0.26, 1.46), (flare, hem)]),
        (shirt * 0.9, [(0.2, 1.46), (0.31, 1.42), (0.33 + swing / 2, 0.84), (0.22 + swing / 2, 0.82)]),
    ]
    if rng.random() < 0.4:
        limbs.append((painter.paint(110), [(0.12, 0.8), (0.12, 1.25), (0.42, 1.25), (0.42, 0.8)]))
    with Card(painter, segment, position, painter.turn[:, 0]) as card:
        card(size * np.array([limb for _, limb in limbs]), np.array([colour for colour, _ in limbs]))
        card(size * disc(12, 0.155, 0.0, 1.64), np.array((70, 52, 38)) * rng.uniform(0.3, 2.4))
        if rng.random() < 0.65:  # else we see the back of the head
            face = size * disc(10, 0.12, rng.uniform(-0.05, 0.05), 1.60)
            card(face, np.array((224, 178, 146)) * rng.uniform(0.4, 1.05))


_PLATES = (  # corners, turned by, rim, face
    (16, 0.0, (196, 30, 36), (238, 238, 232)),
    (16, 0.0, (240, 240, 240), (28, 74, 168)),
    (3, 0.0, (200, 30, 36), (240, 238, 230)),
    (3, math.pi, (200, 30, 36), (240, 238, 230)),
    (8, math.pi / 8, (236, 236, 236), (190, 26, 32)),
    (4, 0.0, (238, 238, 230), (246, 186, 30)),
    (4, math.pi / 4, (236, 240, 244), (30, 84, 176)),
    (16, 0.0, (120, 122, 124), (138, 140, 142)),  # seen from behind
)
_MARKS = ((0.5, 0.12), (0.1, 0.45), (0.3, 0.3))


def draw_sign(painter: Painter, position: Floats, segment: int) -> None:
    """A pole with one or two plates turned to the camera."""
    rng, top, radius = painter.rng, painter.rng.uniform(2.2, 2.7), painter.rng.uniform(0.48, 0.62)
    with Card(painter, segment, position, painter.turn[:, 0]) as card:
        card(rectangles(-0.1, 0, 0.1, top), np.array((132, 134, 136)) * rng.uniform(0.5, 1.2))
        for y in (top, top - 2.1 * radius)[: 2 if rng.random() < 0.3 else 1]:
            corners, phase, rim, face = _PLATES[rng.integers(len(_PLATES))]
            dirt, outer, inner = rng.uniform(0.75, 1.0), *((1.2, 0.85) if corners < 8 else (1.0, 0.74))
            card(disc(corners, radius * outer, 0.0, y, phase), np.array(rim) * dirt)
            card(disc(corners, radius * inner, 0.0, y, phase), np.array(face) * dirt)
            wide, high = radius * np.array(_MARKS[rng.integers(len(_MARKS))])
            card(rectangles(-wide, y - high, wide, y + high), np.full(3, 24 if sum(face) > 450 else 240) * dirt)


def draw_tree(painter: Painter, position: Floats, height: float) -> None:
    """A trunk and a crown of leafy lumps lit from above, or a conifer, or (low) a bush."""
    rng, leaf, girth = painter.rng, painter.leaf(), 0.05 * height
    with Card(painter, VEGETATION, position, painter.turn[:, 0]) as card:
        trunk = [(-girth, 0), (-girth * 0.6, height * 0.6), (girth * 0.6, height * 0.6), (girth, 0)]
        card(np.array([trunk]), np.array((92, 72, 56)) * rng.uniform(0.5, 1.3))
        if height > 3 and rng.random() < 0.22:
            tiers = ((0.24, 0.16, 0.6), (0.19, 0.38, 0.8), (0.13, 0.6, 1.0))
            cone = np.array([[(-wide, low), (0, top), (wide, low)] for wide, low, top in tiers]) * height
            card(cone, leaf * [[0.6], [0.7], [0.82]])
            return
        crown, lumps, angle = 0.3 * height * rng.uniform(0.75, 1.15), 9, np.arange(11) * (2 * math.pi / 11)
        x = rng.uniform(-0.85, 0.85, (lumps, 1)) * crown
        rise = np.sort(rng.uniform(-0.75, 0.8, lumps))[:, None] * crown * rng.uniform(0.7, 1.2)
        radius = crown * rng.uniform(0.42, 0.66, (lumps, 1)) * rng.uniform(0.82, 1.12, (lumps, 11))
        y = (0.66 if height > 3 else 0.45) * height + rise + radius * np.cos(angle)
        card(np.stack([x + radius * np.sin(angle), y], 2), leaf * np.linspace(0.55, 1.12, lumps)[:, None])
