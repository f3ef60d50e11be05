"""Label maps made visible. In: train ids and a palette; out: RGB pictures."""

import cv2
import numpy as np
import numpy.typing as npt


def colorize(labels: npt.NDArray[np.integer], palette: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """RGB uint8 [H, W, 3] of train ids [H, W]; IGNORE is black."""
    colors = np.concatenate([palette, np.zeros((1, 3), np.uint8)])  # IGNORE = -1 reaches the last row
    return np.asarray(colors[labels], np.uint8)


def overlay(
    image: npt.NDArray[np.uint8], labels: npt.NDArray[np.integer], palette: npt.NDArray[np.uint8], opacity: float = 0.55
) -> npt.NDArray[np.uint8]:
    """The image [H, W, 3] tinted by class, a light line where two classes meet; ignored pixels stay as they are."""
    tinted = cv2.addWeighted(image, 1 - opacity, colorize(labels, palette), opacity, 0)
    edge = np.zeros(labels.shape, bool)
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[1:] |= labels[1:] != labels[:-1]
    tinted[edge] = cv2.addWeighted(image, 0.2, np.full_like(image, 255), 0.8, 0)[edge]
    tinted[labels < 0] = image[labels < 0]
    return tinted  # type: ignore[no-any-return]


def side_by_side(*pictures: npt.NDArray[np.uint8], gap: int = 4) -> npt.NDArray[np.uint8]:
    """Pictures of one height in a row, white between them."""
    space = np.full((pictures[0].shape[0], gap, 3), 255, np.uint8)
    row = [part for picture in pictures for part in (space, picture)]
    return np.concatenate(row[1:], axis=1)
