import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import nms

from fake_cuda import CUDA, FakeCuda, on_cpu
from panfpn.ops import nms as ops
from panfpn.ops.nms import nms_mask


def random_boxes(rows: int, count: int, seed: int, spread: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(rows, count, 2, generator=generator) * spread
    return torch.cat([low, low + 10 + torch.rand(rows, count, 2, generator=generator) * 10], -1)


def by_torchvision(boxes: torch.Tensor, valid: torch.Tensor, threshold: float) -> torch.Tensor:
    """The same mask, from its indices row by row."""
    mask = torch.zeros_like(valid)
    for row in range(len(boxes)):
        index = valid[row].nonzero()[:, 0]
        mask[row, index[nms(boxes[row, index], -index.float(), threshold)]] = True
    return mask


def a_chain(length: int) -> torch.Tensor:
    """Boxes of which each overlaps its two neighbours by an IoU of 0.6."""
    left = torch.arange(length) * 2.5
    return torch.stack([left, torch.zeros(length), left + 10, torch.full((length,), 10.0)], 1)[None]


@given(
    st.integers(1, 3), st.integers(1, 60), st.integers(0, 2**31), st.sampled_from([2.0, 20.0, 200.0]),
    st.sampled_from([0.3, 0.5, 0.7]), st.floats(0, 1),
)  # fmt: skip
@settings(deadline=None)
def test_it_is_torchvisions_nms(
    rows: int, count: int, seed: int, spread: float, threshold: float, share: float
) -> None:
    boxes = random_boxes(rows, count, seed, spread)
    valid = torch.rand(rows, count, generator=torch.Generator().manual_seed(seed)) <= share
    assert torch.equal(nms_mask(boxes, valid, threshold), by_torchvision(boxes, valid, threshold))


def test_boxes_without_area_suppress_nothing() -> None:
    boxes = torch.tensor([[[5.0, 5, 5, 5], [5, 5, 5, 5], [0, 0, 10, 10]]])
    assert nms_mask(boxes, torch.ones(1, 3, dtype=torch.bool), 0.5).all()
    assert nms_mask(boxes, torch.tensor([[False, False, True]]), 0.5).tolist() == [[False, False, True]]


def test_chains_are_exact_up_to_the_rounds_and_lose_nothing_beyond() -> None:
    boxes = a_chain(ops.ROUNDS)
    every_other = torch.arange(ops.ROUNDS)[None] % 2 == 0
    assert torch.equal(nms_mask(boxes, torch.ones_like(every_other), 0.5), every_other)
    boxes = a_chain(3 * ops.ROUNDS)
    mask = nms_mask(boxes, torch.ones(1, 3 * ops.ROUNDS, dtype=torch.bool), 0.5)
    exact = torch.arange(3 * ops.ROUNDS)[None] % 2 == 0
    assert mask[exact].all() and torch.equal(mask[:, : ops.ROUNDS], exact[:, : ops.ROUNDS])


def test_the_host_does_not_wait(fake_cuda: FakeCuda) -> None:
    boxes, valid = random_boxes(2, 40, 0, 20), torch.ones(2, 40, dtype=torch.bool)
    moved = boxes.to(CUDA), valid.to(CUDA)
    fake_cuda.reset()
    mask = nms_mask(*moved, 0.5)
    assert not fake_cuda.waits, fake_cuda.report()
    assert torch.equal(on_cpu(mask), nms_mask(boxes, valid, 0.5))
