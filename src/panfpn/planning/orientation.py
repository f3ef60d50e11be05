"""Whether images have an up and a down. In: images and their masks. Out: how much turning changes where things lie."""

import math
from itertools import combinations

import cv2
import numpy as np
import numpy.typing as npt

from panfpn.labels import IGNORE

_CELLS = 8  # along each side of the square in the middle of an image
_PIXELS = 8  # of a mask, along each side of a cell
_PARTS = 8  # of consecutive images, as frames of one film are alike
_FEWEST = 50  # images, below which chance may lie as far apart as up and down

Counts = npt.NDArray[np.float64]  # [parts, classes, cells, cells]


class Orientation:
    """Where classes lie in `count` images, and where they are light: how often each is in each cell of a grid.

    How far the grid lies from itself when it is turned tells up from down only beside what is chance: what two halves
    of the images differ by, or an image from its mirror image (the smaller: a film may change, a lamp stand left).
    """

    def __init__(self, num_classes: int, count: int) -> None:
        self.classes, self.light = (np.zeros((_PARTS, n, _CELLS, _CELLS)) for n in (num_classes, 2))
        self.count, self.images = count, 0

    def add(self, image: npt.NDArray[np.uint8], labels: npt.NDArray[np.int16]) -> None:
        """Take in the next image [H, W, C] and its train ids [H, W]."""
        side = min(labels.shape)
        top, left = ((whole - side) // 2 for whole in labels.shape)
        square = slice(top, top + side), slice(left, left + side)
        step = max(1, side // (_CELLS * _PIXELS))
        bright = image[square][::step, ::step].mean(2)
        part = self.images * _PARTS // self.count
        self.classes[part] += _in_cells(labels[square], self.classes.shape[1])
        self.light[part] += _in_cells((bright > bright.mean()).astype(np.int16), 2)
        self.images += 1

    def turned(self) -> float:
        """How many times as far as by chance images lie from themselves, turned; 0: they are too few to say."""
        if self.images < _FEWEST:
            return 0.0
        return round(max(_times_chance(self.classes), _times_chance(self.light)), 2)


def _in_cells(labels: npt.NDArray[np.int16], num_classes: int) -> Counts:
    """How many pixels of a square, made small, each class has in each cell [classes, cells, cells]."""
    side = _CELLS * _PIXELS
    small = cv2.resize(labels, (side, side), interpolation=cv2.INTER_NEAREST).astype(np.int64)
    cells = np.arange(side) // _PIXELS
    numbers = (small * _CELLS + cells[:, None]) * _CELLS + cells
    shape = (num_classes, _CELLS, _CELLS)
    found: Counts = np.bincount(numbers[small != IGNORE], minlength=math.prod(shape)).reshape(shape).astype(np.float64)
    return found


def _times_chance(parts: Counts) -> float:
    """How far a grid lies from itself turned, in parts of what is chance."""
    whole, numbers = _shares(parts), set(range(_PARTS))
    halves = [(0, *others) for others in combinations(range(1, _PARTS), _PARTS // 2 - 1)]
    apart = [_distance(_shares(parts[list(half)]), _shares(parts[list(numbers - set(half))])) for half in halves]
    chance = min(_distance(whole, whole[:, :, ::-1]), sum(apart) / len(apart) / math.sqrt(2))  # of half the images
    turned = max(_distance(whole, np.rot90(whole, k, (1, 2))) for k in (1, 2))  # three quarters are as far as one
    return turned / max(chance, 1e-9)


def _shares(parts: Counts) -> Counts:
    """How much of each cell is of each class [classes, cells, cells]."""
    total: Counts = parts.sum(0)
    shares: Counts = total / np.maximum(1, total.sum(0))
    return shares


def _distance(one: Counts, other: Counts) -> float:
    return float(np.abs(one - other).mean())
