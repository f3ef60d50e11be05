"""Whether images have an up and a down. In: images and their masks. Out: how much turning changes where things lie."""

import cv2
import numpy as np
import numpy.typing as npt

from panfpn.labels import IGNORE

_CELLS = 8  # along each side
_PIXELS = 8  # of a mask, along each side of a cell
_FEWEST = 30  # images, below which chance lies as far apart as up and down


class Orientation:
    """Where classes and brightness lie in the images added so far, on a grid over the image.

    A mirror image is as good an image as any, so what the mean grid and its mirror image differ by is chance; what it
    and its turned self differ by, in parts of that, tells images of a ground and a sky from those of no direction.
    """

    def __init__(self, num_classes: int) -> None:
        self.classes = np.zeros((num_classes, _CELLS, _CELLS))  # pixels of the reduced masks
        self.light = np.zeros((1, _CELLS, _CELLS))  # in deviations of each image's own
        self.images = 0

    def add(self, image: npt.NDArray[np.uint8], labels: npt.NDArray[np.int16]) -> None:
        """Count an image [H, W, C] and its train ids [H, W]."""
        side = _CELLS * _PIXELS
        small = cv2.resize(labels, (side, side), interpolation=cv2.INTER_NEAREST).astype(np.int64)
        rows, columns = np.divmod(np.arange(side * side), side)
        place = (rows // _PIXELS * _CELLS + columns // _PIXELS)[small.ravel() != IGNORE]
        numbers = small[small != IGNORE] * _CELLS**2 + place
        self.classes += np.bincount(numbers, minlength=self.classes.size).reshape(self.classes.shape)
        step = max(1, min(image.shape[:2]) // side)
        light = cv2.resize(image[::step, ::step].mean(2), (_CELLS, _CELLS), interpolation=cv2.INTER_AREA)
        self.light += (light - light.mean()) / max(1.0, light.std())
        self.images += 1

    def turned(self) -> float:
        """How many times as far from the images' layout it lies turned by quarters as mirrored; 0: too few images."""
        if self.images < _FEWEST:
            return 0.0
        shares = self.classes / np.maximum(1, self.classes.sum(0))
        return round(max(_turned(shares), _turned(self.light)), 2)


def _turned(grid: npt.NDArray[np.float64]) -> float:
    mirrored = np.abs(grid - grid[:, :, ::-1]).mean()
    turned = [np.abs(grid - np.rot90(grid, k, (1, 2))).mean() for k in (1, 2)]  # three quarters are as far as one
    return float(max(turned) / max(mirrored, 1e-9))
