"""Batches on their way to the device: the same ones in the same order, the next under way while one is used."""

from collections.abc import Iterator

import pytest
import torch

from fake_cuda import CUDA, CudaTensor, FakeCuda, on_cpu
from panfpn.data import prefetched
from panfpn.types import Batch, Instances


def batch(number: int) -> Batch:
    one = Instances(
        boxes=torch.full((2, 4), float(number)), classes=torch.tensor([number, 0]),
        bits=torch.ones(5, dtype=torch.uint8), num_crowds=number,
    )  # fmt: skip
    return Batch(
        images=torch.full((1, 3, 4, 6), number, dtype=torch.uint8), targets=torch.full((1, 4, 6), number - 1).short(),
        sizes=((4, 5),), names=(f"image {number}",), instances=(one,), extents=torch.tensor([[4, 5]]),
    )  # fmt: skip


def tensors(of: Batch) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    of.each(lambda tensor: found.append(tensor) or tensor)  # type: ignore[func-returns-value]
    return found


def assert_same(moved: Batch, source: Batch) -> None:
    assert (moved.names, moved.sizes) == (source.names, source.sizes)
    assert moved.instances is not None and source.instances is not None
    assert moved.instances[0].num_crowds == source.instances[0].num_crowds
    pairs = list(zip(tensors(moved), tensors(source), strict=True))
    assert len(pairs) == 6
    for ours, theirs in pairs:
        inner = on_cpu(ours) if isinstance(ours, CudaTensor) else ours
        assert torch.equal(inner, theirs) and inner.dtype == theirs.dtype


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_same_batches_on_the_cpu(count: int) -> None:
    moved = list(prefetched((batch(k) for k in range(count)), torch.device("cpu")))
    assert len(moved) == count
    for k, one in enumerate(moved):
        assert_same(one, batch(k))


@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_same_batches_on_cuda_without_waiting(count: int, pinned: bool) -> None:
    with FakeCuda() as gpu:
        source = [batch(k).pin_memory() if pinned else batch(k) for k in range(count)]
        moved = list(prefetched(source, CUDA))
        assert len(moved) == count and all(isinstance(t, CudaTensor) for one in moved for t in tensors(one))
        for k, one in enumerate(moved):
            assert_same(one, batch(k))
        assert not gpu.waits, gpu.report()


def test_the_next_batch_is_under_way_while_one_is_used() -> None:
    pulled: list[int] = []

    def source() -> Iterator[Batch]:
        for k in range(3):
            pulled.append(k)
            yield batch(k)

    with FakeCuda():
        after = [(one.names, len(pulled)) for one in prefetched(source(), CUDA)]
    assert after == [(("image 0",), 2), (("image 1",), 3), (("image 2",), 3)]


def test_every_tensor_is_held_for_the_stream_that_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """In order: the copy on its own stream, then the computing stream waits, and memory is kept for that one."""
    events: list[str] = []
    with FakeCuda():
        copying, computing = torch.cuda.Stream(), torch.cuda.Stream()
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: copying)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: computing)
        stream, to = torch.cuda.stream, Batch.to

        def chosen(which: object) -> object:
            assert which is copying
            events.append("stream")
            return stream(which)  # type: ignore[arg-type]

        def copied(self: Batch, device: torch.device) -> Batch:
            events.append("copy")
            return to(self, device)

        monkeypatch.setattr(torch.cuda, "stream", chosen)
        monkeypatch.setattr(Batch, "to", copied)
        monkeypatch.setattr(type(computing), "wait_stream", lambda self, other: events.append(
            "wait" if self is computing and other is copying else "wrong"))  # fmt: skip
        monkeypatch.setattr(CudaTensor, "record_stream", lambda self, other: events.append(
            "hold" if other is computing else "wrong"))  # fmt: skip
        for _ in prefetched([batch(0), batch(1)], CUDA):
            events.append("step")
    copy, use = ["stream", "copy"], ["wait", *["hold"] * 6]
    assert events == [*copy, *use, *copy, "step", *use, "step"]
