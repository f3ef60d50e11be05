"""How a network gets to see an image: sizes, windows, groups of equal images. In: sizes and settings. Out: numbers."""

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
import numpy.typing as npt
import torch

from panfpn.config import Inference
from panfpn.data.transforms import fit_size, resized_image
from panfpn.ops import Size, grown
from panfpn.types import Preprocess


def check_batch_size(batch_size: int) -> None:
    """ValueError unless at least one image goes through the network at a time."""
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1")


def groups_of_a_size(images: Sequence[npt.NDArray[np.uint8]], batch_size: int) -> Iterator[list[int]]:
    """Numbers of neighbouring images of one size, at most `batch_size` together."""
    for _, group in groupby(range(len(images)), key=lambda i: images[i].shape):
        numbers = list(group)
        yield from (numbers[i : i + batch_size] for i in range(0, len(numbers), batch_size))


def view_sizes(height: int, width: int, preprocess: Preprocess, inference: Inference) -> list[Size]:
    """Sizes at which the network sees an image; rounded as mmsegmentation 0.x or 1.x does (docs/facts.md, B4)."""
    scale, ratios = preprocess.scale, inference.ratios
    if ratios == (1.0,) and not (inference.flip and inference.ratios_of == "original"):
        sizes = [fit_size(height, width, scale)]
    elif inference.ratios_of == "original":
        sizes = [fit_size(height, width, (int(max(height, width) * r + 0.5), int(min(height, width) * r + 0.5)))
                 for r in ratios]  # fmt: skip
    else:
        long, short = scale or (max(height, width), min(height, width))
        sizes = [fit_size(height, width, (max(1, int(long * r)), max(1, int(short * r)))) for r in ratios]
    if inference.stretch:
        sizes = [grown(size, preprocess.size_divisor) for size in sizes]
    return sizes


def list_views(height: int, width: int, preprocess: Preprocess, inference: Inference) -> list[tuple[Size, bool]]:
    """Size of every pass over an image, and whether it is mirrored."""
    mirrors = (False, True) if inference.flip else (False,)
    return [(size, mirror) for size in view_sizes(height, width, preprocess, inference) for mirror in mirrors]


def window_starts(length: int, window: int, stride: int) -> tuple[int, ...]:
    """Where windows begin along one side; the last is moved back to end with the image."""
    return tuple(min(i * stride, length - window) for i in range(-(-(length - window) // stride) + 1))


def pixels_at(images: Sequence[npt.NDArray[np.uint8]], size: Size, *, mirrored: bool) -> torch.Tensor:
    """Images of one size as the network may see them: uint8 [B, h, w, C]."""
    resized = [resized_image(image, size) for image in images]
    array = resized[0][None] if len(resized) == 1 else np.stack(resized)
    array = array[:, :, ::-1].copy() if mirrored else array  # torch takes no negative strides
    return torch.from_numpy(np.require(array, requirements=("C", "W")))
