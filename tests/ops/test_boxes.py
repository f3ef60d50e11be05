import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import roi_align

from fake_cuda import CUDA, FakeCuda, on_cpu
from panfpn.models.merge import paste_mask
from panfpn.ops import boxes as ops
from panfpn.ops.boxes import (
    BOX_WEIGHTS,
    anchors,
    clip_boxes,
    covered_share,
    decode_boxes,
    encode_boxes,
    has_area,
    mirror_boxes,
    pool_boxes,
    scale_boxes,
)


def random_boxes(count: int, seed: int = 0, size: float = 200) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=generator) * size
    return torch.cat([low, low + 5 + torch.rand(count, 2, generator=generator) * size], 1)


def test_anchors_are_centred_on_cells_and_not_rounded() -> None:
    found = anchors((2, 3), 16, 8, torch.device("cpu"))
    assert found.shape == (2 * 3 * 3, 4)
    width, height = math.sqrt(128 * 128 / 0.5), math.sqrt(128 * 128 / 0.5) * 0.5
    torch.testing.assert_close(found[0], torch.tensor([-width / 2, -height / 2, width / 2, height / 2]))
    torch.testing.assert_close(found[1], torch.tensor([-64.0, -64, 64, 64]))
    torch.testing.assert_close(found[3 + 1], torch.tensor([16 - 64.0, -64, 16 + 64, 64]))  # to the right first
    torch.testing.assert_close(found[9 + 1], torch.tensor([-64.0, 16 - 64, 64, 16 + 64]))


@given(st.integers(0, 2**31), st.sampled_from([(1.0, 1.0), (10.0, 5.0)]))
def test_decoding_inverts_encoding(seed: int, weights: tuple[float, float]) -> None:
    boxes, targets = random_boxes(5, seed), random_boxes(5, seed + 1)
    found = decode_boxes(encode_boxes(boxes, targets, weights)[:, None], boxes, weights)[:, 0]
    torch.testing.assert_close(found, targets, atol=1e-2, rtol=1e-4)


def test_deltas_are_bounded() -> None:
    found = decode_boxes(torch.full((1, 1, 4), 100.0), torch.tensor([[0.0, 0, 10, 10]]), (1.0, 1.0))
    assert found[0, 0, 2] - found[0, 0, 0] == pytest.approx(10 * 1000 / 16)


def test_clipping_and_area() -> None:
    boxes = clip_boxes(torch.tensor([[-5.0, -5, 20, 8], [30, 2, 40, 5]]), (10, 15))
    assert boxes.tolist() == [[0, 0, 15, 8], [15, 2, 15, 5]]
    assert has_area(boxes).tolist() == [True, False]


def test_other_sizes_and_mirror_images() -> None:
    boxes = torch.tensor([[1.0, 2, 5, 8]])
    assert scale_boxes(boxes, (10, 20), (30, 10)).tolist() == [[0.5, 6, 2.5, 24]]
    assert mirror_boxes(boxes, 20).tolist() == [[15, 2, 19, 8]]
    assert torch.equal(mirror_boxes(mirror_boxes(boxes, 20), 20), boxes)


def test_covered_share() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]])
    share = covered_share(boxes, torch.tensor([[0.0, 0, 5, 10], [0, 0, 100, 100]]))
    torch.testing.assert_close(share, torch.tensor([[0.5, 1], [0, 1]]))


@pytest.mark.parametrize("side", [7, 14])
def test_pooling_is_roi_align_of_the_level_of_the_size(side: int) -> None:
    generator = torch.Generator().manual_seed(1)
    pyramid = [torch.randn(2, 8, 256 // s, 320 // s, generator=generator) for s in (4, 8, 16, 32)]
    sizes = torch.tensor([8.0, 100, 111.9, 112, 223.9, 224, 447.9, 448, 900])
    low = torch.rand(len(sizes), 2, generator=generator) * 100 - 20  # some reach out of the image
    boxes = torch.cat([low, low + sizes[:, None] * torch.tensor([0.8, 1.25])], 1)
    found = pool_boxes(pyramid, [boxes, boxes[:2]], side)
    levels = [2, 2, 2, 3, 3, 4, 4, 5, 5, 2, 2]
    images = [0] * 9 + [1] * 2
    for k, (level, image) in enumerate(zip(levels, images, strict=True)):
        box = boxes[k % 9][None]
        expected = roi_align(pyramid[level - 2][image : image + 1], [box], side, 1 / 2**level, 0, True)
        torch.testing.assert_close(found[k : k + 1], expected, atol=1e-4, rtol=1e-4)


def test_a_box_without_width_in_float32_pools_to_nothing() -> None:
    features = torch.ones(1, 4, 8, 8)
    boxes = torch.tensor([[0, 1e-9, 1, 2e-9, 9], [0, 3, 3, 3, 9], [0, 3, 3, 3.001, 9]])
    found = ops._pool_level(features, boxes, 7, 1 / 4)
    torch.testing.assert_close(found, roi_align(features, boxes, 7, 1 / 4, 0, True))
    assert not found[:2].any() and found[2].all()


def test_pooling_has_roi_aligns_gradient() -> None:
    pyramid = [torch.randn(1, 4, 64 // s, 64 // s, requires_grad=True) for s in (4, 8, 16, 32)]
    boxes = random_boxes(20, size=40)
    loss = (pool_boxes(pyramid, [boxes], 7) * torch.arange(7)).sum()
    (gradient,) = torch.autograd.grad(loss, [pyramid[0]])
    expected = roi_align(pyramid[0], [boxes], 7, 1 / 4, 0, True)  # all are small: p2
    (wanted,) = torch.autograd.grad((expected * torch.arange(7)).sum(), [pyramid[0]])
    torch.testing.assert_close(gradient, wanted, atol=1e-4, rtol=1e-4)


def test_pooling_on_a_device_is_the_cpus(fake_cuda: FakeCuda) -> None:
    generator = torch.Generator().manual_seed(1)
    pyramid = [torch.randn(2, 4, 256 // s, 320 // s, generator=generator, requires_grad=True) for s in (4, 8, 16, 32)]
    sizes = torch.tensor([0, 8.0, 100, 150, 300, 900])  # the first is a slot that is not filled
    low = torch.rand(len(sizes), 2, generator=generator) * 100 * (sizes[:, None] > 0)
    boxes = torch.cat([low, low + sizes[:, None]], 1)
    moved, moved_boxes = [level.detach().to(CUDA).requires_grad_() for level in pyramid], boxes.to(CUDA)
    fake_cuda.reset()
    pooled = pool_boxes(moved, [moved_boxes, moved_boxes[:2]], 7)
    (pooled * 2).sum().backward()
    assert not fake_cuda.waits, fake_cuda.report()
    wanted = pool_boxes(pyramid, [boxes, boxes[:2]], 7)
    (wanted * 2).sum().backward()
    torch.testing.assert_close(on_cpu(pooled.detach()), wanted.detach(), atol=1e-5, rtol=1e-5)
    for level, other in zip(moved, pyramid, strict=True):
        torch.testing.assert_close(on_cpu(level.grad), other.grad, atol=1e-4, rtol=1e-4)


def test_the_host_uploads_no_numbers(fake_cuda: FakeCuda) -> None:
    boxes = random_boxes(8).to(CUDA)
    anchors((4, 5), 16, 8.0, CUDA)  # the second time its cell is there
    fake_cuda.reset()
    assert on_cpu(anchors((6, 7), 16, 8.0, CUDA)).equal(anchors((6, 7), 16, 8.0, torch.device("cpu")))
    decode_boxes(encode_boxes(boxes, boxes + 1, BOX_WEIGHTS)[:, None], boxes, BOX_WEIGHTS)
    mirror_boxes(scale_boxes(clip_boxes(boxes, (50, 60)), (50, 60), (70, 80)), 80)
    covered_share(boxes, boxes), has_area(boxes)
    assert not fake_cuda.waits, fake_cuda.report()


def test_no_box_pools_to_nothing() -> None:
    pyramid = [torch.zeros(1, 4, 8, 8)] * 4
    assert pool_boxes(pyramid, [torch.empty(0, 4)], 7).shape == (0, 4, 7, 7)


def test_taps_are_listed_in_bounded_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    features, boxes = torch.randn(1, 4, 50, 50), random_boxes(30)
    numbered = torch.cat([torch.zeros(30, 1), boxes], 1)
    whole = ops._pool_in_bags(features, numbered, 7, 1 / 4)
    monkeypatch.setattr(ops, "_BAGS", 500)
    torch.testing.assert_close(ops._pool_in_bags(features, numbered, 7, 1 / 4), whole)


@pytest.mark.parametrize("box", [(3.2, 5.1, 40.7, 30.3), (-6.5, 10, 9.5, 60), (20, 20, 20.4, 20.9), (0, 0, 50, 40)])
def test_pasting_is_a_bilinear_grid_sample(box: tuple[float, ...]) -> None:
    size = (40, 50)
    probability = torch.rand(28, 28, generator=torch.Generator().manual_seed(0))
    x, y = (
        (torch.arange(n) + 0.5 - low) / (high - low) * 2 - 1
        for n, low, high in ((50, box[0], box[2]), (40, box[1], box[3]))
    )
    grid = torch.stack([x.expand(40, 50), y[:, None].expand(40, 50)], -1)[None]
    expected = F.grid_sample(probability[None, None], grid, align_corners=False)[0, 0]
    top, left, mask = paste_mask(probability.numpy(), torch.tensor(box).numpy(), size)
    whole = torch.zeros(size, dtype=torch.bool)
    whole[top : top + mask.shape[0], left : left + mask.shape[1]] = torch.from_numpy(mask)
    clear = (expected - 0.5).abs() > 1e-4
    assert torch.equal(whole[clear], (expected >= 0.5)[clear])


def test_a_box_outside_of_the_image_has_an_empty_mask() -> None:
    *_, mask = paste_mask(torch.ones(28, 28).numpy(), torch.tensor([60.0, 5, 90, 9]).numpy(), (40, 50))
    assert not mask.any()
