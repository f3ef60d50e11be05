"""Deterministic weights, inputs and labels, so that two programs can hold the same network without sharing a file.

Every tensor is drawn from a generator seeded by the CRC-32 of its own name (the peer's name, before any
renaming), so the order of the keys does not matter. NumPy's RandomState streams are frozen by NumPy's policy.
"""

import zlib

import numpy as np


def values(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """float32 values of `shape` for the tensor called `name` in the peer's state dict."""
    rng = np.random.RandomState((zlib.crc32(name.encode()) + seed) % 2**32)
    draw = rng.standard_normal(shape).astype(np.float32)
    if name.endswith("running_var"):
        return 1 + 0.2 * np.abs(draw)
    if name.endswith("running_mean"):
        return 0.1 * draw
    if name.endswith(("bn3.weight", "conv3.norm.weight")):  # the residual branch stays small beside its shortcut
        return 0.3 + 0.03 * draw
    if len(shape) >= 2:  # convolution, transposed convolution or linear weight
        return draw * np.float32(1.4 / np.sqrt(np.prod(shape[1:])))
    if name.endswith("weight"):  # scale of a normalisation layer
        return 1 + 0.1 * draw
    return 0.1 * draw


def image(height: int, width: int, seed: int) -> np.ndarray:
    """A smooth uint8 image [H, W, 3] with some noise."""
    rng = np.random.RandomState(seed)
    yy, xx = np.mgrid[0:height, 0:width].astype(np.float64)
    waves = [
        np.sin(xx * a / width * 6.3 + b) + np.cos(yy * c / height * 6.3 + d)
        for a, b, c, d in rng.uniform(0.5, 4, (3, 4))
    ]
    noise = rng.uniform(-20, 20, (height, width, 3))
    return np.clip(np.stack(waves, -1) * 50 + 127 + noise, 0, 255).astype(np.uint8)


def labels(height: int, width: int, num_classes: int, seed: int, ignore: float = 0.1) -> np.ndarray:
    """uint8 labels [H, W] in blocks of 8 x 8 pixels, a share `ignore` of the blocks being 255."""
    rng = np.random.RandomState(seed)
    blocks = rng.randint(0, num_classes, (-(-height // 8), -(-width // 8))).astype(np.uint8)
    blocks[rng.uniform(size=blocks.shape) < ignore] = 255
    return blocks.repeat(8, 0).repeat(8, 1)[:height, :width]
