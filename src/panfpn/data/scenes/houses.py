"""Rows of houses along the street: where they stand, their walls and roofs, windows and shops."""

from __future__ import annotations

import math

import numpy as np

from panfpn.data.scenes.painter import BUILDING, NEAR, UP, Card, Floats, Painter, X, Z, rectangles
from panfpn.data.scenes.street import Item, Street


def plan_houses(painter: Painter, street: Street) -> list[Item]:
    """Rows of houses along the built sides, with gaps; sometimes a row that closes the view behind the crossing."""
    rng, line = painter.rng, street.half + street.walk
    spread = 1.2 * painter.canvas.shape[1] / painter.focal  # generous half width of the view at depth 1
    houses: list[Item] = []

    def add(x0: float, z0: float, x1: float, z1: float, tall: float) -> None:
        corners = np.array([[x0, 0, z0], [x1, 0, z0], [x1, 0, z1], [x0, 0, z1]])
        right, _, depth = painter.see(corners).T
        if depth.max() > NEAR and not (right > spread * depth).all() and not (-right > spread * depth).all():
            houses.append(Item((x0, z0, x1, z1), tall, lambda: _draw_house(painter, corners, tall)))

    start, end = (math.inf, math.inf) if street.crossing is None else (street.crossing - 6.0, street.crossing + 6.0)
    closed = not street.across and math.isfinite(start) and rng.random() < 0.3
    for side in street.built:
        z = rng.uniform(-34, -24)
        while z < (start if closed else 80):
            length, tall = rng.uniform(8, 19), rng.uniform(5, 10) if rng.random() < 0.3 else rng.uniform(9, 24)
            length = min(length, start - z) if z < start else length  # up to the corner …
            near, far = sorted((side * (line + (0, 0, 0.6, 2.0)[rng.integers(4)]), side * (line + 10.0)))
            if length > 3 and rng.random() > 0.1:
                add(near, z, far, z + length, tall)
            z += length + (rng.uniform(2, 6) if rng.random() < 0.15 else 0.0)
            z = end if start <= z < end else z  # … and on behind it
    if closed:
        for x in (-30.0, -14.0, 2.0, 18.0):
            add(x, end + 0.5, x + 16.0, end + 9.0, rng.uniform(7, 20))
    return houses


def _draw_house(painter: Painter, corners: Floats, tall: float) -> None:
    """A box of walls, of which those turned to the camera are painted; low houses get a pitched roof."""
    rng, (x0, _, z0), (x1, _, z1) = painter.rng, corners[0], corners[2]
    wall, trim = painter.paint(36), painter.paint(20)
    glass = np.array((62, 78, 96)) * rng.uniform(0.5, 1.8) + rng.uniform(-10, 10, 3)
    storey, bay, plan = rng.uniform(2.8, 3.8), rng.uniform(1.8, 3.4), rng.random(3) < (0.4, 0.2, 0.5)
    if tall < 10:
        a, b, c, d = corners + tall * UP
        e, f = (np.array([(x0 + x1) / 2, tall + 2.6, z]) for z in (z0, z1))
        slopes = [[b, e, f, c], [a, e, f, d]] if painter.eye[0] < x0 else [[a, e, f, d], [b, e, f, c]]
        colours = np.stack([trim * 0.6, trim * 0.75, wall * 0.85]) * painter.mood.light
        painter.fill(np.array([*slopes, [a, e, e, b]]).reshape(-1, 3), [4, 4, 4], colours, BUILDING)
    for start, end in zip(corners, np.roll(corners, -1, 0), strict=True):
        length = float(np.abs(end - start).sum())
        along = (end - start) / length
        if (along[2] * X - along[0] * Z) @ (painter.eye - start) > 0:
            with Card(painter, BUILDING, start, along) as card:
                _dress_wall(painter, card, (length, tall, storey, bay), (wall, trim, glass), plan.tolist())


def _dress_wall(
    painter: Painter,
    card: Card,
    size: tuple[float, float, float, float],
    colours: tuple[Floats, Floats, Floats],
    plan: list[bool],
) -> None:
    """One facade: brick courses, cornice, windows, and at the street perhaps a shop with its sign."""
    rng, (length, tall, storey, bay), (wall, trim, glass), (brick, bands, shop) = painter.rng, size, colours, plan
    card(rectangles(0, -0.3, length, tall), wall)
    if brick:
        rows = np.arange(0.7, tall, 0.7)
        card(rectangles(0, rows, length, rows + 0.12), wall * 0.86)
    card(rectangles(0, tall - 0.45, length, tall + 0.1), trim)
    base = 3.9 if shop else 1.1
    bays, storeys = max(1, int(length / bay)), max(1, int((tall - base - 0.5) / storey))
    pitch, rise, inset = length / bays, (tall - base - 0.6) / storeys, 0.04 if bands else 0.24
    left, low = np.tile(np.arange(bays) * pitch, storeys), base + np.repeat(np.arange(storeys) * rise, bays)
    if not bands:
        card(rectangles(left + pitch * 0.19, low + 0.1, left + pitch * 0.81, low + rise * 0.74), trim * 0.92)
    panes = rectangles(left + pitch * inset, low + 0.25, left + pitch * (1 - inset), low + rise * 0.7)
    card(panes, glass * rng.uniform(0.7, 1.35, (len(panes), 1)))
    lit = rng.random(len(panes)) < (0.4 if max(painter.mood.light) < 0.7 else 0.03)
    card(panes[lit], (236, 196, 120), glow=True)
    if shop:
        gate, posts, letters = length * rng.uniform(0.1, 0.7), np.arange(0.5, length, 2.2), np.arange(0.3, 0.7, 0.05)
        card(rectangles(0.5, 0.5, length - 0.5, 2.7), glass * 1.25)
        card(rectangles(posts, 0, posts + 0.2, 2.8), trim * 0.8)
        card(rectangles(gate, 0, gate + 1.1, 2.4), painter.paint(60) * 0.7)
        card(rectangles(0.3, 2.8, length - 0.3, 3.6), painter.paint(110))
        card(rectangles(length * letters, 3.0, length * (letters + 0.03), 3.4), painter.paint(60))
