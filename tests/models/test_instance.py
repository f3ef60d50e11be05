import math

import pytest
import torch

from fake_cuda import CUDA, FakeCuda, on_cpu
from panfpn.models.instance import Candidates, MaskHead, candidates, choose_boxes, propose


def test_masks_of_one_class_each() -> None:
    head = MaskHead(8, 3, 16)
    pooled, classes = torch.randn(4, 8, 14, 14), torch.tensor([2, 0, 0, 1])
    hidden = pooled
    for conv in head.convs:
        hidden = conv(hidden).relu()
    every = head.classifier(head.deconv(hidden).relu())  # [4, 3, 28, 28]
    torch.testing.assert_close(head(pooled, classes), every[torch.arange(4), classes])
    assert head(pooled[:0], classes[:0]).shape == (0, 28, 28)


def test_candidates_keep_deltas_with_their_anchors() -> None:
    """The anchor of ratio 1 at row 1, column 2 of p2 is moved; nothing else is."""
    objectness = [torch.zeros(1, 3, 4, 4)] + [torch.zeros(1, 3, 1, 1)] * 4
    deltas = [torch.zeros(1, 12, 4, 4)] + [torch.zeros(1, 12, 1, 1)] * 4
    objectness[0][0, 1, 1, 2] = 9
    deltas[0][0, 4 + 0, 1, 2] = 0.25  # dx
    found = candidates(objectness, deltas, 2.0)
    boxes, logits = propose(found, 0, (100, 100))
    assert logits[0] == 9
    assert boxes[0].tolist() == [8 + 2 - 4, 0, 8 + 2 + 4, 8]  # centre (8, 4), side 8, moved by 2


def test_boxes_are_chosen_by_class() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60]])[:, None].repeat(1, 2, 1)
    scores = torch.tensor([[0.9, 0.3], [0.8, 0.7], [0.04, 0.6]])
    settings = {"score": 0.05, "nms": 0.5, "most": 10}
    _, score, label = choose_boxes(boxes, scores, nms_over_classes=False, **settings)
    assert list(zip(score.tolist(), label.tolist(), strict=True)) == [
        (pytest.approx(0.9), 0), (pytest.approx(0.7), 1), (pytest.approx(0.6), 1)]  # fmt: skip
    _, score, _ = choose_boxes(boxes, scores, nms_over_classes=True, **settings)
    assert score.tolist() == pytest.approx([0.9, 0.6])
    assert len(choose_boxes(boxes, scores, nms_over_classes=False, **settings | {"most": 1})[0]) == 1


def some_candidates(seed: int, count: int = 1) -> Candidates:
    generator = torch.Generator().manual_seed(seed)
    sizes = [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)]
    objectness = [torch.randn(count, 3, *size, generator=generator) for size in sizes]
    return candidates(objectness, [torch.randn(count, 12, *size, generator=generator) / 2 for size in sizes], 4.0)


def to_device(every: Candidates) -> Candidates:
    return Candidates(*([t.to(CUDA) for t in part] for part in every))


@pytest.mark.parametrize("total", [50, 1000])
def test_proposals_of_a_device_are_the_cpus(total: int, fake_cuda: FakeCuda) -> None:
    every = some_candidates(0, 2)
    every.logits[0][1, 5], every.deltas[1][1, 7] = math.nan, math.inf  # damaged ones are left out
    moved = to_device(every)
    for image in (0, 1):
        wanted = propose(every, image, (60, 90), per_level=300, total=total)
        fake_cuda.reset()
        proposals = propose(moved, image, (60, 90), per_level=300, total=total)
        assert not fake_cuda.waits, fake_cuda.report()
        boxes, logits, valid = on_cpu((proposals.boxes, proposals.logits, proposals.valid))
        number = int(valid.sum())
        assert wanted.valid.all() and valid[:number].all() and number == len(wanted.boxes) > 40
        torch.testing.assert_close((boxes[:number], logits[:number]), tuple(wanted))
        assert not boxes[number:].any() and len(boxes) == min(total, 5 * 300)


def test_detections_of_a_device_are_the_cpus_with_two_waits(fake_cuda: FakeCuda) -> None:
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(60, 3, 2, generator=generator) * 50
    boxes = torch.cat([low, low + 20], -1)
    boxes[7, 1, 2] = math.nan
    scores = torch.rand(60, 3, generator=generator)
    settings = {"score": 0.3, "nms": 0.5, "nms_over_classes": False, "most": 20}
    wanted = choose_boxes(boxes, scores, **settings)
    moved = boxes.to(CUDA), scores.to(CUDA)
    fake_cuda.reset()
    detections = choose_boxes(*moved, **settings)
    assert sum(fake_cuda.waits.values()) <= 3, fake_cuda.report()
    torch.testing.assert_close(on_cpu(detections), wanted)
    assert wanted[0].isfinite().all() and len(wanted[0]) == 20
