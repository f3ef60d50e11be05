"""How large images may be. In: a predictor. Out: megapixels that this machine's memory allows."""

import numpy as np

from panfpn.deploy.predictor import Predictor
from panfpn.memory import PeakMemory, free_memory

MOST_MEGAPIXELS = 50.0
BYTES_PER_PIXEL = 4  # of a request: more than any photo has
_SMALL, _LARGE = (256, 384), (1024, 1536)  # images that are tried
_SHARE = 0.7  # of the free memory that all workers together may take


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
