"""Batches on their way to the device. In: an iterator of batches in memory. Out: the same ones, where they are used.

A CUDA device copies the next batch on a stream of its own while it computes with this one.
"""

from collections.abc import Iterable, Iterator

import torch

from panfpn.types import Batch


def prefetched(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """The batches on `device`, in their order; on CUDA the next one is under way while this one is used."""
    if device.type != "cuda":
        for batch in batches:
            yield batch.to(device)
        return
    stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    source = iter(batches)
    following = _started(next(source, None), device, stream)
    while following is not None:
        current = following
        _handed_over(current, stream, torch.cuda.current_stream(device))
        following = _started(next(source, None), device, stream)
        yield current


def _started(batch: Batch | None, device: torch.device, stream: torch.cuda.Stream) -> Batch | None:
    """The batch on `device`, copied on `stream` from page-locked memory: from other memory the host would wait."""
    if batch is None:
        return None
    if not batch.images.is_pinned():
        batch = batch.pin_memory()
    with torch.cuda.stream(stream):
        return batch.to(device)


def _handed_over(batch: Batch, stream: torch.cuda.Stream, user: torch.cuda.Stream) -> None:
    """Make the `user` wait, on the device, for what `stream` has copied so far."""
    user.wait_stream(stream)

    def hold(tensor: torch.Tensor) -> torch.Tensor:
        tensor.record_stream(user)  # or else its memory were given to the next copy while the user still reads it
        return tensor

    batch.each(hold)
