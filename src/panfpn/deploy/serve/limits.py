"""How large images may be. In: a predictor. Out: what this machine's memory allows, and what an image asks for."""

import math
from dataclasses import dataclass

import numpy as np

from panfpn.deploy.predictor import Predictor
from panfpn.memory import PeakMemory, free_memory
from panfpn.ops import grown
from panfpn.tasks import view_sizes

MOST_MEGAPIXELS = 50.0
_SMALL, _LARGE = (256, 384), (1024, 1536)  # images that are tried
_SHARE = 0.7  # of the free memory that all workers together may take
_STRIDE = 32  # to a multiple of which networks pad at least


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one image."""

    megapixels: float

    @property
    def pixels(self) -> float:
        """The same as a number of pixels."""
        return self.megapixels * 1e6

    def file_bytes(self, predictor: Predictor) -> int:
        """Of a request's body: what an image takes that nothing compresses."""
        return int(max(self.megapixels, 1) * 1e6 * _bytes_a_pixel(predictor))

    def decoded_bytes(self, predictor: Predictor) -> float:
        """Of an image's samples."""
        return self.pixels * 2 * _bytes_a_pixel(predictor)

    def refusal(self, predictor: Predictor, height: int, width: int, images: int = 1) -> str | None:
        """Why so many images of this size are not taken; None if they are."""
        if images * height * width > self.pixels:
            several = f"{images} images of " if images > 1 else ""
            return (f"{several}{width}×{height} pixels are more than the {self.megapixels:g} megapixels that are "
                    "taken")  # fmt: skip
        if images * seen_pixels(predictor, height, width) > max(self.pixels, seen_pixels(predictor, *_LARGE)):
            seen = images * seen_pixels(predictor, height, width)
            return (f"{width}×{height} pixels become {seen:.0f} in the network, which pads or fits their sides; cut "
                    "the image into squarer parts")  # fmt: skip
        return None


def seen_pixels(predictor: Predictor, height: int, width: int) -> float:
    """How many pixels the network computes of an image of this size, with padding, in its largest view."""
    task = predictor.task
    stride = max(_STRIDE, task.preprocess.size_divisor)
    views = view_sizes(height, width, task.preprocess, task.inference)
    return max(float(math.prod(grown(size, stride))) for size in views)


def warm_up(predictor: Predictor) -> float:
    """Predict twice; returns the bytes that a pixel takes at the peak, NaN where the system does not say."""
    channels = predictor.task.preprocess.reading.channels
    rng, device = np.random.default_rng(0), predictor.task.device
    images = [rng.integers(0, 256, (*size, channels), np.uint8) for size in (_SMALL, _LARGE)]
    predictor.task.predict(images[:1])
    meter = PeakMemory(device)
    predictor.task.predict(images[1:])
    return max(meter.peak(), 0.0) / (_LARGE[0] * _LARGE[1])


def allowed_megapixels(bytes_per_pixel: float, free: float, workers: int) -> float:
    """What all workers can take at once; `MOST_MEGAPIXELS` where nobody knows."""
    if not bytes_per_pixel > 0 or not free > 0:
        return MOST_MEGAPIXELS
    return round(min(MOST_MEGAPIXELS, max(0.1, _SHARE * free / workers / bytes_per_pixel / 1e6)), 1)


def measured_megapixels(predictor: Predictor, workers: int) -> float:
    """See `allowed_megapixels`; takes the time of two images."""
    return allowed_megapixels(warm_up(predictor), free_memory(predictor.task.device), workers)


def _bytes_a_pixel(predictor: Predictor) -> int:
    """Of a file: a band more than the network sees, of 16 bits where values of more than 8 are read."""
    reading = predictor.task.preprocess.reading
    bands = max(3, reading.channels, *reading.bands) + 1
    return bands if reading.range is None else 2 * bands
