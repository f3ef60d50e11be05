"""A scene from seed to picture: choose world and camera, paint far to near, develop the canvas like a photograph."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from panfpn.data.scenes.backdrop import clouds, draw_ground, draw_ridge, draw_sky, settle_ground
from panfpn.data.scenes.houses import plan_houses
from panfpn.data.scenes.painter import BUILDING, ROAD, SIDEWALK, VEGETATION, Mood, Painter
from panfpn.data.scenes.street import Item, Street, populate

_MIN_PIXELS = 12  # segments with fewer visible pixels turn void: nobody could name them


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A picture and its segments.

    `image` is uint8 [H, W, 3] RGB. `segments` is int32 [H, W]: 0 is void, 1..n are segments, one for each thing and one
    for each stuff class in view. `categories` is uint8 [n + 1]: the class index of each segment id (entry 0 is unused).
    """

    image: npt.NDArray[np.uint8]
    segments: npt.NDArray[np.int32]
    categories: npt.NDArray[np.uint8]

    @property
    def labels(self) -> npt.NDArray[np.int16]:
        """Train ids [H, W], -1 where void."""
        train_ids = self.categories.astype(np.int16)
        train_ids[0] = -1
        return train_ids[self.segments]


_NOON = Mood((70, 130, 215), (190, 214, 238), (1.05, 1.0, 0.95), 0.55, 320)
_OVERCAST = Mood((158, 166, 178), (207, 210, 214), (0.86, 0.89, 0.93), 0.10, 150)
_GOLDEN = Mood((104, 128, 190), (250, 192, 124), (1.10, 0.90, 0.72), 0.60, 130)
_DUSK = Mood((58, 60, 112), (222, 132, 112), (0.74, 0.62, 0.70), 0.25, 140)
_MOODS = (_NOON, _NOON, _NOON, _NOON, _OVERCAST, _OVERCAST, _OVERCAST, _GOLDEN, _GOLDEN, _DUSK)


def draw_scene(seed: int, index: int, *, height: int = 192, width: int = 256) -> Scene:
    """Draw scene `index` of the endless data set `seed`: a pure function of its arguments."""
    rng = np.random.default_rng((seed, index))
    built = tuple(side for side in (-1, 1) if rng.random() < 0.75)
    across, crossing = bool(rng.random() < 0.12), rng.uniform(11, 26) if rng.random() < 0.4 else None
    street = Street(rng.uniform(3.2, 6.0), rng.uniform(2.6, 4.8), across, crossing, built)
    painter = _set_up(rng, street, height, width)

    def distance(item: Item) -> float:  # to the nearest point of its box: the order that gets long buses right
        (x0, z0, x1, z1), (x, _, z) = item.box, painter.eye
        return -math.hypot(max(x0 - x, 0, x - x1), max(z0 - z, 0, z - z1))

    draw_sky(painter)
    draw_ground(painter, street)
    houses, items = plan_houses(painter, street), populate(painter, street)
    settle_ground(painter, houses + items)
    draw_ridge(painter)
    for item in sorted(houses, key=distance) + sorted(items, key=distance):
        item.draw()
    _draw_bonnet(painter)
    return _develop(painter)


def _set_up(rng: np.random.Generator, street: Street, height: int, width: int) -> Painter:
    """Choose the hour, the camera and the sun."""
    mood = _MOODS[rng.integers(len(_MOODS))]
    light = mood.light * (rng.uniform(0.8, 1.15) * rng.uniform(0.94, 1.06, 3))
    if street.across:
        x, yaw = -street.half - street.walk * 0.8, math.pi / 2 + rng.uniform(-0.35, 0.35)
    else:
        x = rng.uniform(-0.7, 0.7) * street.half if rng.random() < 0.7 else rng.choice((-1, 1)) * (street.half + 1.0)
        yaw = rng.uniform(-0.3, 0.3) - 0.03 * x
    cos, sin, angle, length = math.cos(yaw), math.sin(yaw), rng.uniform(0, 2 * math.pi), rng.uniform(0.4, 1.6)
    sun = np.array([length * math.sin(angle), 1.0, length * math.cos(angle)])
    return Painter(
        rng=rng,
        grain=rng.spawn(1)[0],
        canvas=np.zeros((height, width, 4), np.uint8),
        mood=mood._replace(light=light.tolist(), sight=mood.sight * rng.uniform(0.7, 1.5)),
        focal=height * rng.uniform(0.85, 1.2),
        centre=np.array([width * rng.uniform(0.4, 0.6), height * rng.uniform(0.36, 0.52)]),
        eye=np.array([x, rng.uniform(1.6, 2.9), 0.0]),
        turn=np.array([[cos, 0, sin], [0, -1, 0], [-sin, 0, cos]]),
        sun=sun / np.linalg.norm(sun),
    )


def _draw_bonnet(painter: Painter) -> None:
    """Sometimes the bonnet of our own car shows at the bottom: void."""
    rng, (height, width) = painter.rng, painter.canvas.shape[:2]
    if rng.random() < 0.2:
        x = np.linspace(-0.05, 1.05, 13)
        y = height * (1 - rng.uniform(0.03, 0.08) * (1 - (2 * x - 1) ** 4))
        below = (1.05 * width, height + 2), (-0.05 * width, height + 2)
        outline = np.concatenate([np.stack([x * width, y], 1), below])
        red, green, blue = (painter.paint(60) * 0.6).tolist()
        cv2.fillPoly(painter.canvas, [np.rint(outline).astype(np.int32)], (red, green, blue, 0))


def _develop(painter: Painter) -> Scene:
    """Make a photograph of the canvas (grain of surfaces, noise, blur) and number the visible segments 1..n."""
    rng, ids, (height, width) = painter.grain, painter.canvas[..., 3], painter.canvas.shape[:2]
    rough = np.zeros(256, np.float32)
    rough[[BUILDING, ROAD, SIDEWALK, VEGETATION]] = (0.05, 0.08, 0.06, 0.27)
    grain = 1 + clouds(rng, height, width, 64) * rough[ids] + clouds(rng, height, width, 10) * np.float32(0.05)
    # The sum of three bytes is nearly Gaussian, and exact: the generator's own normals call the machine's libm.
    sums = rng.integers(0, 256, (3, height, width, 3), dtype=np.uint8).sum(0, dtype=np.int16)
    noise = sums.astype(np.float32) - 382.5
    image = painter.canvas[..., :3] * grain[..., None] + noise * np.float32(rng.uniform(0.01, 0.04))
    exposed = np.clip(image, 0, 255).astype(np.uint8)
    if rng.random() < 0.6:
        exposed = cv2.GaussianBlur(exposed, (3, 3), rng.uniform(0.4, 0.9))
    counts = np.bincount(ids.ravel(), minlength=256)
    kept = np.flatnonzero(counts[1:] >= _MIN_PIXELS) + 1
    renumber = np.zeros(256, np.int32)
    renumber[kept] = np.arange(1, len(kept) + 1)
    return Scene(exposed, renumber[ids], np.array([0, *np.array(painter.categories)[kept]], np.uint8))
