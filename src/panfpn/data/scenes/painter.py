"""The classes, the camera and the paint: flat polygons in metres become pixels that carry colour and segment id."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

CLASSES: tuple[str, ...] = (
    "sky", "building", "road", "sidewalk", "vegetation", "car", "bus", "person", "traffic sign",
)  # fmt: skip

# Class index + 1, which is also the segment id that a stuff class is painted with; 0 is void, things count on from 6.
SKY, BUILDING, ROAD, SIDEWALK, VEGETATION, CAR, BUS, PERSON, SIGN = range(1, 10)
NEAR = 0.6  # metres; polygons are clipped here
SHIFT = 4  # fractional bits of the corners given to OpenCV

Floats = npt.NDArray[np.float64]
X, UP, Z = np.eye(3)


class Mood(NamedTuple):
    """Weather and hour: colours of zenith, horizon and light, strength of the sun, range of sight in metres."""

    zenith: Sequence[float]
    horizon: Sequence[float]
    light: Sequence[float]
    sun: float
    sight: float


@dataclass(slots=True)
class Painter:
    """A canvas [H, W, 4] (red, green, blue, segment id) behind a pinhole camera in a lit, hazy world."""

    rng: np.random.Generator
    grain: np.random.Generator  # for what is drawn by the pixel: `rng`, and so the street, must not depend on the size
    canvas: npt.NDArray[np.uint8]
    mood: Mood
    focal: float  # pixels
    centre: Floats  # pixels [2]; the row is the horizon
    eye: Floats  # metres [3]
    turn: Floats  # [3, 3]; its columns are right, down, forward
    sun: Floats  # unit vector [3] towards the sun
    categories: list[int] = field(default_factory=lambda: [0, 0, 1, 2, 3, 4])

    def new_segment(self, category: int) -> int:
        """A fresh segment id for a thing."""
        self.categories.append(category - 1)
        assert len(self.categories) <= 256, "segment ids live in a byte"
        return len(self.categories) - 1

    def see(self, points: Floats) -> Floats:
        """World points [..., 3] -> right, down, depth."""
        view: Floats = (points - self.eye) @ self.turn
        return view

    def pixels(self, view: Floats) -> npt.NDArray[np.int32]:
        """Right, down, depth [..., 3] -> fixed-point column and row [..., 2]; what is too near is only kept finite."""
        pixels = self.centre + self.focal * view[..., :2] / np.maximum(view[..., 2:], NEAR)
        return np.rint(pixels * (1 << SHIFT)).astype(np.int32)

    def fill(self, points: Floats, counts: Sequence[int], colours: Floats, segment: int, *, hazy: bool = True) -> None:
        """Paint n polygons in order: corners [sum of counts, 3], how many each has, colours [n, 3]."""
        stops: npt.NDArray[np.intp] = np.cumsum(counts, dtype=np.intp)
        starts = stops - np.asarray(counts, np.intp)
        view = self.see(points)
        pixels = self.pixels(view)
        nearest, farthest = np.minimum.reduceat(view[:, 2], starts), np.maximum.reduceat(view[:, 2], starts)
        cut = np.flatnonzero((nearest < NEAR) & (farthest >= NEAR))
        if hazy:
            depth = np.maximum(np.add.reduceat(view[:, 2], starts) / counts, 0)[:, None]
            colours = colours + depth / (depth + self.mood.sight) * (self.mood.horizon - colours)
        paints = np.clip(colours, 0, 255).tolist()
        outlines = {n: self.pixels(_clip(view[starts[n] : stops[n]])) for n in cut.tolist()}
        for n in np.flatnonzero(farthest >= NEAR).tolist():
            outline = outlines[n] if n in outlines else pixels[starts[n] : stops[n]]
            cv2.fillPoly(self.canvas, [outline], (*paints[n], segment), cv2.LINE_8, SHIFT)

    def shade(self, normals: Floats) -> Floats:
        """Brightness [...] of surfaces with these unit normals [..., 3]."""
        sunny: Floats = self.mood.sun * np.maximum(normals @ self.sun, 0)
        return sunny + 0.78 - 0.25 * self.mood.sun + 0.12 * normals[..., 1]

    def paint(self, tint: float) -> Floats:
        """Any colour: cars, clothes, shops and walls draw from here, so that colour alone tells little."""
        return np.clip(self.rng.uniform(40, 225) + self.rng.uniform(-tint, tint, 3), 15, 245)

    def leaf(self) -> Floats:
        """Mostly green, but autumn is brown, orange or red."""
        greens = (88, 122, 52), (88, 122, 52), (60, 92, 48), (60, 92, 48), (128, 138, 62), (172, 112, 42), (140, 70, 44)
        return np.array(greens[self.rng.integers(7)]) * self.rng.uniform(0.75, 1.15) + self.rng.uniform(-12, 12, 3)


def _clip(polygon: Floats) -> Floats:
    """The part of a polygon [k, 3] (right, down, depth) in front of the camera."""
    corners: list[Floats] = []
    for start, end in zip(polygon, np.roll(polygon, -1, 0), strict=True):
        if start[2] >= NEAR:
            corners.append(start)
        if (start[2] >= NEAR) != (end[2] >= NEAR):
            corners.append(start + (end - start) * ((NEAR - start[2]) / (end[2] - start[2])))
    return np.array(corners)


class Card:
    """A flat sheet in the world; call it to add figures, leave the `with` block to paint them all in one go."""

    def __init__(
        self, painter: Painter, segment: int, origin: Floats, across: Floats, up: Floats = UP, *, hazy: bool = True
    ) -> None:
        self.painter, self.segment, self.origin, self.across, self.up = painter, segment, origin, across, up
        (ax, ay, az), (ux, uy, uz) = across.tolist(), up.tolist()
        normal = np.array([ay * uz - az * uy, az * ux - ax * uz, ax * uy - ay * ux])  # np.cross takes 20 times as long
        towards = normal if normal @ (painter.eye - origin) >= 0 else -normal
        self.light = np.asarray(painter.mood.light) * painter.shade(towards)
        self.hazy = hazy
        self.figures: list[Floats] = []
        self.counts: list[int] = []
        self.colours: list[Floats] = []

    def __call__(self, figures: Floats, colour: npt.ArrayLike, *, glow: bool = False) -> None:
        """Add figures [n, k, 2] in one colour [3] or n [n, 3]; those that glow heed neither hour nor sun."""
        colours = np.empty((len(figures), 3))
        colours[:] = np.asarray(colour) * (1.0 if glow else self.light)
        self.figures.append(figures.reshape(-1, 2))
        self.counts += [figures.shape[1]] * len(figures)
        self.colours.append(colours)

    def __enter__(self) -> Card:
        return self

    def __exit__(self, *_: object) -> None:
        flat = np.concatenate(self.figures)
        points = self.origin + flat[:, :1] * self.across + flat[:, 1:] * self.up
        self.painter.fill(points, self.counts, np.concatenate(self.colours), self.segment, hazy=self.hazy)


def rectangles(left: npt.ArrayLike, low: npt.ArrayLike, right: npt.ArrayLike, high: npt.ArrayLike) -> Floats:
    """Rectangles [n, 4, 2] from edges that are numbers or [n]."""
    figures = np.empty((np.broadcast(left, low, right, high).size, 4, 2))
    figures[:, 0, 0] = figures[:, 1, 0] = left
    figures[:, 2, 0] = figures[:, 3, 0] = right
    figures[:, 0, 1] = figures[:, 3, 1] = low
    figures[:, 1, 1] = figures[:, 2, 1] = high
    return figures


def disc(corners: int, radius: float, x: float, y: float, phase: float = 0.0) -> Floats:
    """A regular polygon [1, k, 2]."""
    angle = phase + np.arange(corners) * (2 * math.pi / corners)
    return np.stack([x + radius * np.sin(angle), y + radius * np.cos(angle)], 1)[None]
