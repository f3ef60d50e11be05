"""The bilinear resize of torch (align_corners=False) as weights. In: sizes along one side. Out: indices and weights."""

import functools

import torch


def resize_rows(size_in: int, size_out: int, start: int, stop: int) -> tuple[int, torch.Tensor]:
    """The first input row that output rows start … stop − 1 need, and their bilinear weights [stop − start, inputs].

    A product with the weights is fast forward and backward, where gathering rows is not.
    """
    taps, shares = bilinear_taps(size_in, size_out, start, stop)
    first, last = int(taps[0, 0]), int(taps[-1, 1])
    return first, torch.zeros(stop - start, last + 1 - first).scatter_add_(1, taps - first, shares)


def bilinear_taps(size_in: int, size_out: int, start: int, stop: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The two inputs that outputs start … stop − 1 of a bilinear resize lie between, and their weights: [n, 2] each."""
    position = ((torch.arange(start, stop, dtype=torch.float32) + 0.5) * (size_in / size_out) - 0.5).clamp(min=0)
    above = position.long().clamp(max=size_in - 1)
    below = (above + 1).clamp(max=size_in - 1)
    share = position - above
    return torch.stack([above, below], 1), torch.stack([1 - share, share], 1)


def constant(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor that was made on the CPU, on `device`; CUDA takes it from pinned memory, so the host does not wait."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def as_float(x: torch.Tensor) -> torch.Tensor:
    """At least float32: what autocast left in 16 bits is widened."""
    return x if x.dtype == torch.float64 else x.float()


@functools.lru_cache(maxsize=64)  # the images of a data set are of a few sizes
def two_resizes(
    size_in: int, padded: int, view: int, size_out: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Two bilinear resizes along one side as one, size_in -> padded, cut to view -> size_out.

    Returns the first input of every output [size_out], and the weights of it and the inputs after it [size_out, taps].
    Both are kept for the next call, so they may not be written to.
    """
    with torch.inference_mode(False):  # what is kept is used by training too
        taps, weights = bilinear_taps(size_in, padded, 0, view)  # [view, 2]
        if size_out != view:
            second, shares = bilinear_taps(view, size_out, 0, size_out)
            taps, weights = taps[second].flatten(1), (shares[:, :, None] * weights[second]).flatten(1)
        used = weights > 0
        first = taps.where(used, size_in).amin(1)
        length = int((taps.where(used, 0).amax(1) - first).max()) + 1
        first = first.clamp(max=size_in - length)
        # A tap without weight may lie outside of the band: adding its 0 anywhere does no harm.
        index = (taps - first[:, None]).clamp(0, length - 1)
        band = torch.zeros(size_out, length).scatter_add_(1, index, weights)
        return constant(first, device), constant(band, device)
