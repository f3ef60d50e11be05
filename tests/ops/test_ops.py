import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fake_cuda import CUDA, FakeCuda, on_cpu
from panfpn import ops
from panfpn.ops.tiles import TILE

SIZES = [(92, 124), (97, 131), (23, 31), (20, 30), (1, 1), (23, 200)]


@pytest.mark.parametrize("multiple", [1, 7, 32])
def test_sides_grow_to_the_next_multiple(multiple: int) -> None:
    for side in range(1, 100):
        height, width = ops.grown((side, 2 * side), multiple)
        assert height % multiple == width % multiple == 0
        assert 0 <= height - side < multiple and 0 <= width - 2 * side < multiple


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("tile", [(1, 1), (500, 7), (1 << 17, 64)])
def test_tiles_are_the_interpolated_logits_each_pixel_once(
    size: tuple[int, int], tile: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TILE, "cpu", tile)
    logits = torch.randn(2, 5, 23, 31, generator=torch.Generator().manual_seed(0))
    result, visits = torch.zeros(2, 5, *size), torch.zeros(2, *size)

    def keep(part: torch.Tensor, index: ops.TileIndex) -> None:
        image, rows, columns = index
        result[image, :, rows, columns] = part.transpose(0, 1)
        visits[index] += 1

    ops.each_tile(logits, size, keep)
    assert (visits == 1).all()
    expected = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(result, expected, rtol=0, atol=5e-6)


def test_a_tile_is_bounded_however_many_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TILE, "cpu", (40_000, 64))
    sizes: list[int] = []
    for classes in (3, 100, 600):
        ops.each_tile(torch.zeros(1, classes, 16, 16), (64, 64), lambda tile, _: sizes.append(tile.numel()))
    assert max(sizes) <= 40_000


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
    cropped = (padded[0] - cut, padded[1] - cut)
    size = cropped if same else (max(1, int(cropped[0] * tall)), max(1, int(cropped[1] * wide)))
    view = ops.View(windows=((logits,),), tops=(0,), lefts=(0,), window=cropped, padded=padded, size=cropped)
    labels, _ = ops.upsample_argmax([view], size)
    first = F.interpolate(logits, size=padded, mode="bilinear", align_corners=False)[:, :, : cropped[0], : cropped[1]]
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


@pytest.mark.parametrize("tile", [(60, 4), (1 << 17, 64)])
def test_sum_over_tiles_has_exact_gradients(tile: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TILE, "cpu", tile)
    logits = torch.randn(2, 3, 6, 7, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weight = torch.randn(2, 25, 3, 29, generator=torch.Generator().manual_seed(1))

    def function(part: torch.Tensor, index: ops.TileIndex) -> torch.Tensor:
        image, rows, columns = index
        return (part.sin() * weight[image, rows, :, columns]).sum()

    total = ops.sum_over_tiles(logits, (25, 29), function)
    (3 * total).backward()
    other = logits.detach().clone().requires_grad_()
    up = F.interpolate(other, size=(25, 29), mode="bilinear", align_corners=False)
    expected = (up.sin() * weight.transpose(1, 2)).sum()
    (3 * expected).backward()
    torch.testing.assert_close(total, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits.grad, other.grad, rtol=1e-4, atol=1e-4)


def test_sum_over_tiles_without_gradients() -> None:
    total = ops.sum_over_tiles(torch.ones(1, 2, 3, 3), (6, 6), lambda tile, _: tile.sum())
    assert total.item() == pytest.approx(72) and not total.requires_grad


@given(
    classes=st.integers(1, 7), height=st.integers(1, 6), width=st.integers(1, 6), tall=st.floats(0.4, 5),
    wide=st.floats(0.4, 5), weighted=st.booleans(), smoothing=st.sampled_from([0.0, 0.1]), seed=st.integers(0, 99),
    tile=st.sampled_from([(1, 1), (50, 3), (1 << 17, 64)]),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_cross_entropy_is_torch_s_with_its_gradient(
    classes: int, height: int, width: int, tall: float, wide: float, weighted: bool, smoothing: float, seed: int,
    tile: tuple[int, int],
) -> None:  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, height, width, generator=generator, dtype=torch.float64).requires_grad_()
    size = (max(1, int(height * tall)), max(1, int(width * wide)))
    target = torch.randint(-1, classes, (2, *size), generator=generator).to(torch.int16)
    weights = torch.rand(classes, generator=generator, dtype=torch.float64) if weighted else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TILE, "cpu", tile)
        total = ops.upsample_cross_entropy(logits, target, weights=weights, label_smoothing=smoothing)
    (gradient,) = torch.autograd.grad(total, logits)
    full = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
    expected = F.cross_entropy(
        full, target.long(), weights, ignore_index=-1, reduction="sum", label_smoothing=smoothing
    )
    (wanted,) = torch.autograd.grad(expected, logits)
    # F.interpolate computes its weights in float64, ours are float32
    torch.testing.assert_close(total, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=1e-5)


def test_a_second_derivative_is_an_error_not_half_of_it() -> None:
    logits = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = ops.upsample_cross_entropy(logits, torch.zeros(1, 8, 8, dtype=torch.int16))
    (gradient,) = torch.autograd.grad(loss.square(), logits, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("views", [1, 2])
def test_on_cuda_labels_wait_for_nothing_but_the_mixed_pixels(views: int, fake_cuda: FakeCuda) -> None:
    """One view: the host learns how many pixels are mixed. Several views, windows or confidences: it learns nothing."""
    logits = torch.randn(2, 5, 16, 24, generator=torch.Generator().manual_seed(0))

    def labels(maps: torch.Tensor) -> torch.Tensor:
        whole = ops.View.whole(maps, (64, 96))
        windows = ops.View(windows=((maps, maps), (maps, maps)), tops=(0, 8), lefts=(0, 10), window=(62, 95),
                           padded=(64, 96), size=(70, 105), mirrored=True)  # fmt: skip
        return ops.upsample_argmax([whole, windows][:views], (53, 71))[0]

    expected, there = labels(logits), logits.to(CUDA)
    fake_cuda.reset()
    result = labels(there)
    assert sum(fake_cuda.waits.values()) == (2 if views == 1 else 0), fake_cuda.report()
    assert all(what == "aten::nonzero" for _, what in fake_cuda.waits)
    assert torch.equal(on_cpu(result), expected)
