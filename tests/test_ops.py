import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from panfpn import ops

SIZES = [(92, 124), (97, 131), (23, 31), (20, 30), (1, 1), (23, 200)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("block", [1, 5_000, 1 << 22])
def test_upsample_blocks_equal_interpolate(size: tuple[int, int], block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "BLOCK_ELEMENTS", block)
    logits = torch.randn(2, 5, 23, 31, generator=torch.Generator().manual_seed(0))
    parts = list(ops.upsample_blocks(logits, size))
    assert [rows.start for rows, _ in parts] == [0, *(rows.stop for rows, _ in parts[:-1])]
    result = torch.cat([part for _, part in parts], 2)
    expected = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(result, expected, rtol=0, atol=5e-6)


def test_a_block_is_bounded_however_many_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "BLOCK_ELEMENTS", 40_000)
    largest = [
        max(block.numel() for _, block in ops.upsample_blocks(torch.zeros(1, classes, 16, 16), (64, 64)))
        for classes in (3, 100, 600)
    ]
    assert max(largest) <= 40_000


@given(classes=st.integers(1, 9), height=st.integers(1, 9), width=st.integers(1, 9), factor=st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_upsample_argmax_is_the_argmax(classes: int, height: int, width: int, factor: int) -> None:
    logits = torch.randn(1, classes, height, width, generator=torch.Generator().manual_seed(classes * 100 + height))
    size = (height * factor + 1, width * factor)
    labels, winner = ops.upsample_argmax(logits, size, confidence=True)
    full = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
    best, second = (full.topk(2, 1).values.unbind(1)) if classes > 1 else (full[:, 0], full[:, 0] - 1)
    clear = best - second > 1e-4  # rounding may decide a tie
    assert torch.equal(labels.long()[clear], full.argmax(1)[clear])
    assert winner is not None
    torch.testing.assert_close(winner, full.softmax(1).max(1).values, rtol=1e-4, atol=1e-5)


@given(
    classes=st.integers(1, 9), height=st.integers(1, 9), width=st.integers(1, 9), cut=st.integers(0, 3),
    tall=st.floats(0.2, 3.0), wide=st.floats(0.2, 3.0), same=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_labels_of_one_view_are_the_argmax_of_both_resizes(
    classes: int, height: int, width: int, cut: int, tall: float, wide: float, same: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, height, width, generator=generator)
    logits[:, 0, : height // 2] += 5  # so that there is a part where one class wins everywhere
    padded = (4 * height, 4 * width)
    seen = (padded[0] - cut, padded[1] - cut)
    size = seen if same else (max(1, int(seen[0] * tall)), max(1, int(seen[1] * wide)))
    view = ops.View(windows=((logits,),), tops=(0,), lefts=(0,), window=seen, padded=padded, size=seen)
    labels, _ = ops.upsample_argmax([view], size)
    first = F.interpolate(logits, size=padded, mode="bilinear", align_corners=False)[:, :, : seen[0], : seen[1]]
    full = F.interpolate(first, size=size, mode="bilinear", align_corners=False)
    best, second = full.topk(2, 1).values.unbind(1) if classes > 1 else (full[:, 0], full[:, 0] - 1)
    clear = best - second > 1e-4
    assert torch.equal(labels.long()[clear], full.argmax(1)[clear])


def test_labels_are_int16_above_256_classes() -> None:
    logits = torch.zeros(1, 300, 2, 2)
    logits[:, 299] = 1
    labels, winner = ops.upsample_argmax(logits, (8, 8))
    assert labels.dtype == torch.int16 and (labels == 299).all() and winner is None
    assert ops.upsample_argmax(logits[:, :256], (8, 8))[0].dtype == torch.uint8


@pytest.mark.parametrize("block", [200, 1 << 22])
def test_sum_over_rows_has_exact_gradients(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "BLOCK_ELEMENTS", block)
    logits = torch.randn(2, 3, 6, 7, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weight = torch.randn(2, 3, 25, 29, generator=torch.Generator().manual_seed(1))
    total = ops.sum_over_rows(logits, (25, 29), lambda b, rows: (b.sin() * weight[:, :, rows]).sum())
    (2.5 * total).backward()
    twin = logits.detach().clone().requires_grad_()
    full = F.interpolate(twin, size=(25, 29), mode="bilinear", align_corners=False)
    expected = (full.sin() * weight).sum()
    (2.5 * expected).backward()
    torch.testing.assert_close(total, expected, rtol=1e-5, atol=1e-5)
    assert logits.grad is not None and twin.grad is not None
    assert (logits.grad - twin.grad).abs().max() <= 1e-6 * twin.grad.abs().max()


def test_sum_over_rows_without_gradients() -> None:
    total = ops.sum_over_rows(torch.ones(1, 2, 3, 3), (6, 6), lambda block, _: block.sum())
    assert total.item() == pytest.approx(72) and not total.requires_grad
