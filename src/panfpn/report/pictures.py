"""The pictures of a report. In: an image and how its prediction and target are drawn. Out: small JPEGs as data URIs."""

import base64
import math

import cv2
import numpy as np
import numpy.typing as npt

from panfpn.draw import as_rgb
from panfpn.metrics.layers import Layers

_PIXELS = 640 * 320  # of one picture
_BYTES = 1_900_000  # of all pictures of a page together; base64 adds a third


def pictures(image: npt.NDArray[np.uint8], layers: Layers, count: int) -> dict[str, str]:
    """Image, truth, prediction and errors as data URIs, small enough for `count` images on one page."""
    image = as_rgb(image)
    height, width = image.shape[:2]
    scale = min(1.0, math.sqrt(_PIXELS / (height * width)))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    target, prediction = layers.target.over(image), layers.prediction.over(image)
    drawn = {"image": image, "truth": target, "prediction": prediction, "errors": _errors(image, layers)}
    budget = _BYTES // (len(drawn) * count)
    return {name: data_uri(picture, budget) for name, picture in drawn.items()}


def _errors(image: npt.NDArray[np.uint8], layers: Layers) -> npt.NDArray[np.uint8]:
    """The image [H, W, 3] in grey with the masks in colour."""
    size = image.shape[1], image.shape[0]
    wrong, unmatched, ignored = (
        cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        for mask in (layers.wrong, layers.unmatched, layers.ignored)
    )
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    errors: npt.NDArray[np.uint8] = (110 + grey * 0.55).astype(np.uint8)
    errors[unmatched] = (grey[unmatched] * 0.25 + np.array([190, 120, 10])).astype(np.uint8)
    errors[wrong] = (grey[wrong] * 0.25 + np.array([180, 20, 20])).astype(np.uint8)
    errors[ignored] = grey[ignored] // 5  # last: an ignored pixel is never wrong
    return errors


def data_uri(picture: npt.NDArray[np.uint8], budget: int) -> str:
    """A picture [H, W, 3] as a JPEG of at most `budget` bytes, or of the lowest quality."""
    pixels = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    for quality in (85, 75, 60, 45, 30, 15):
        data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        if len(data) <= budget:
            break
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode('ascii')}"
