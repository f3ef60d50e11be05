import numpy as np
import pytest
import torch
from torchvision.ops import roi_align

from fake_cuda import CUDA, FakeCuda, on_cpu
from panfpn.data.targets import instances_of
from panfpn.labels import IGNORE, LabelClass, LabelTable
from panfpn.losses import box_losses, in_first, mask_loss, rpn_losses, sample_boxes
from panfpn.losses.instance import ANCHORS, mask_targets, match_anchors
from panfpn.types import Instances, Segments

TABLE = LabelTable(
    name="t",
    classes=tuple(
        LabelClass(name=n, color=(k, k, k), thing=n != "sky", values=(k,)) for k, n in enumerate(("sky", "cat", "dog"))
    ),
)


def instances(*boxes: tuple[int, int, int, int, int], crowd: tuple[int, ...] = (), size: int = 64) -> Instances:
    """Filled boxes (left, top, right, bottom, class)."""
    index = np.full((size, size), IGNORE, np.int16)
    for k, (left, top, right, bottom, _) in enumerate(boxes):
        index[top:bottom, left:right] = k
    classes = np.array([b[4] for b in boxes], np.int16)
    flags = np.array([k in crowd for k in range(len(boxes))], bool)
    return instances_of(Segments(index=index, classes=classes, crowd=flags, ids=np.arange(1, len(boxes) + 1)), TABLE)


def test_anchors_on_things_on_background_and_between() -> None:
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 18], [40, 40, 50, 50], [0, 0, 10, 28]])
    labels, matched = match_anchors(anchors, instances((0, 0, 10, 10, 1)))
    assert labels.tolist() == [1, -1, 0, -1]  # IoU 1, 0.56, 0, 0.36
    assert matched[0] == 0


def test_the_best_anchor_of_a_thing_is_on_it_however_bad() -> None:
    anchors = torch.tensor([[0.0, 0, 30, 30], [30, 30, 60, 60], [0, 30, 30, 60]])
    labels, _ = match_anchors(anchors, instances((0, 0, 5, 5, 1), (29, 29, 33, 33, 2)))
    assert labels.tolist() == [1, 1, 0]


def test_background_in_a_crowd_is_not_sampled() -> None:
    crowd = instances((0, 0, 40, 40, 1), crowd=(0,))
    anchors = torch.tensor([[5.0, 5, 15, 15], [50, 50, 60, 60], [30, 0, 60, 10]])
    assert match_anchors(anchors, crowd)[0].tolist() == [-1, 0, 0]
    sample = sample_boxes(anchors, crowd, 8)
    assert sorted(sample.boxes.tolist()) == [[30, 0, 60, 10], [50, 50, 60, 60]]
    assert sample.labels.tolist() == [IGNORE, IGNORE] and len(sample.targets) == 0


def test_rpn_losses_by_hand() -> None:
    anchors = torch.tensor([[0.0, 0, 10, 10], [40, 40, 50, 50]])
    logits = torch.tensor([[2.0, -1.0]], requires_grad=True)
    deltas = torch.full((1, 2, 4), 0.5, requires_grad=True)
    found = rpn_losses(anchors, logits, deltas, (instances((0, 0, 10, 10, 1)),))
    wanted = (torch.tensor(2.0).sigmoid().log() + torch.tensor(1.0).sigmoid().log()) / -ANCHORS
    assert found["rpn_class"].item() == pytest.approx(wanted.item())
    assert found["rpn_box"].item() == pytest.approx(4 * 0.5 / ANCHORS)  # the target is 0


def test_at_most_256_anchors_half_of_them_on_things() -> None:
    torch.manual_seed(0)
    anchors = torch.cat(
        [torch.tensor([[0.0, 0, 10, 10]]).repeat(300, 1), torch.tensor([[40.0, 40, 50, 50]]).repeat(900, 1)]
    )
    logits = torch.zeros(1, 1200, requires_grad=True)
    loss = rpn_losses(anchors, logits, torch.zeros(1, 1200, 4), (instances((0, 0, 10, 10, 1)),))["rpn_class"]
    loss.backward()
    assert logits.grad is not None
    assert (logits.grad[0, :300] != 0).sum() == 128 and (logits.grad[0, 300:] != 0).sum() == 128


def test_boxes_are_sampled_with_a_quarter_on_things() -> None:
    torch.manual_seed(0)
    truth = instances((0, 0, 20, 20, 1), (30, 30, 60, 60, 2))
    proposals = torch.cat([truth.boxes.repeat(20, 1) + 0.5, torch.tensor([[0.0, 40, 10, 60]]).repeat(50, 1)])
    sample = sample_boxes(proposals, truth, 32)
    assert len(sample.boxes) == 32 and len(sample.targets) == 8
    assert set(sample.labels[:8].tolist()) <= {1, 2} and set(sample.labels[8:].tolist()) == {IGNORE}
    for box, label, target in zip(sample.boxes, sample.labels, sample.targets, strict=False):
        assert (box - target).abs().max() <= 0.5
        assert target.tolist() == truth.boxes[int(label) - 1].tolist()


def test_true_boxes_are_among_the_sampled() -> None:
    sample = sample_boxes(torch.empty(0, 4), instances((3, 4, 20, 30, 2)), 4)
    assert sample.boxes.tolist() == [[3, 4, 20, 30]] and sample.labels.tolist() == [2]
    assert sample.masks.shape == (1, 28, 28) and sample.masks.all()


def test_mask_targets_are_those_of_roi_align_on_the_mask() -> None:
    index = np.full((64, 64), IGNORE, np.int16)
    y, x = np.mgrid[:64, :64]
    index[(y - 20) ** 2 + (x - 24) ** 2 < 15**2] = 0
    index[(y - 44) ** 2 * 2 + (x - 40) ** 2 < 14**2] = 1
    segments = Segments(index=index, classes=np.array([2, 1], np.int16), crowd=np.zeros(2, bool), ids=np.arange(1, 3))
    found = instances_of(segments, TABLE)
    for number in range(2):
        mask = torch.from_numpy(index == {2: 0, 1: 1}[int(found.classes[number])]).float()[None, None]
        boxes = torch.tensor([[8.3, 4.1, 40.2, 37.7], [20, 30, 60, 60], [0, 0, 63, 63], [25, 25, 30, 44]])
        numbers = torch.full((4,), number)
        wanted = roi_align(mask, [boxes], 28, 1.0, 0, True)[:, 0]
        clear = (wanted - 0.5).abs() > 0.2
        ours = mask_targets(found, numbers, boxes)
        assert clear.float().mean() > 0.8 and ours.unique().tolist() == [0, 1]
        assert torch.equal(ours[clear].bool(), (wanted >= 0.5)[clear])


def test_box_and_mask_losses_by_hand() -> None:
    truth = instances((0, 0, 16, 16, 1))
    sample = sample_boxes(torch.tensor([[40.0, 40, 60, 60]]), truth, 8)
    labels = torch.tensor([0, 2])  # cat is thing 0 of 2; background is 2
    logits = torch.tensor([[3.0, 0, 0], [0, 0, 1]])
    found = box_losses(logits, torch.ones(2, 2, 4), labels, [sample])
    wanted = -(logits.log_softmax(1)[0, 0] + logits.log_softmax(1)[1, 2]) / 2
    assert found["class"].item() == pytest.approx(wanted.item())
    assert found["box"].item() == pytest.approx(4 * 1 / 2)  # L1 to 0, by the number of boxes
    masks = torch.full((1, 28, 28), 4.0)
    assert mask_loss(masks, [sample]).item() == pytest.approx(0.01815, abs=1e-5)  # −log σ(4)


def test_no_things_no_gradient_but_no_nan() -> None:
    logits, deltas = torch.randn(1, 3, requires_grad=True), torch.randn(1, 3, 4, requires_grad=True)
    anchors = torch.tensor([[0.0, 0, 5, 5]] * 3)
    losses = rpn_losses(anchors, logits, deltas, (instances(),))
    masks = torch.randn(0, 28, 28, requires_grad=True)
    total = sum(losses.values()) + mask_loss(masks, [])
    assert isinstance(total, torch.Tensor)
    total.backward()
    assert losses["rpn_box"] == 0 and deltas.grad is not None and not deltas.grad.any()
    assert losses["rpn_class"] > 0 and logits.grad is not None and logits.grad.all()


TRUTHS = {
    "things": instances((0, 0, 20, 20, 1), (30, 30, 60, 60, 2)),
    "none": instances(),
    "a crowd": instances((0, 0, 20, 20, 1), (30, 30, 60, 60, 2), crowd=(1,)),
    "only a crowd": instances((30, 30, 60, 60, 2), crowd=(0,)),
}


def losses(
    truths: tuple[Instances, ...], device: torch.device, seed: int
) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
    """All losses of the instance branch and the gradients of what they are of; every anchor and box is sampled."""
    generator = torch.Generator().manual_seed(seed)
    count = len(truths)
    low = torch.rand(60, 2, generator=generator) * 50
    anchors = torch.cat([low, low + 4 + torch.rand(60, 2, generator=generator) * 20], 1)
    anchors = torch.cat([anchors, *(t.boxes + 1 for t in truths)]).to(device)
    leaves = [torch.randn(count, len(anchors), generator=generator),
              torch.randn(count, len(anchors), 4, generator=generator)]  # fmt: skip
    leaves = [leaf.to(device).requires_grad_() for leaf in leaves]
    moved = tuple(t.each(lambda tensor: tensor.pin_memory().to(device, non_blocking=True)) for t in truths)
    terms = rpn_losses(anchors, *leaves, moved)
    valid = torch.ones(len(anchors), dtype=torch.bool, device=device)
    samples = [sample_boxes(anchors, truth, 512, valid) for truth in moved]
    labels = torch.cat([s.labels for s in samples])
    labels = torch.where(labels < 0, 2, labels - 1)  # cat is thing 0, dog 1, and 2 background
    row = torch.cat([s.boxes.sum(1) + s.boxes[:, 0] for s in samples])  # what is said of a box depends on nothing else
    leaves += [torch.ones(1, device=device, requires_grad=True) for _ in range(3)]
    logits = leaves[2] * torch.stack([row.sin(), row.cos(), row.sin() * 2], 1)
    deltas = leaves[3] * torch.stack([row.cos() * k for k in range(8)], 1).view(-1, 2, 4)
    masks = leaves[4] * (in_first(row, samples)[:, None, None] + torch.arange(28, device=device)).sin().expand(
        -1, 28, 28
    )
    terms |= box_losses(logits, deltas, labels, samples) | {"mask": mask_loss(masks, samples)}
    sum(terms.values()).backward()  # type: ignore[union-attr]
    return terms, [leaf.grad for leaf in leaves if leaf.grad is not None]


@pytest.mark.parametrize("name", [*TRUTHS, "all"])
def test_losses_of_a_device_are_the_cpus(name: str, fake_cuda: FakeCuda) -> None:
    """Where all that may be drawn is drawn, and nothing is left to chance."""
    truths = tuple(TRUTHS.values()) if name == "all" else (TRUTHS[name],)
    wanted = losses(truths, torch.device("cpu"), 3)
    torch.ones(1, device=CUDA)
    fake_cuda.reset()
    found = losses(truths, CUDA, 3)
    torch.testing.assert_close(on_cpu(found), wanted, rtol=1e-5, atol=1e-5)
    assert len(found[1]) == 5 and any(gradient.any() for gradient in on_cpu(found)[1])


def test_proposals_that_are_not_valid_are_not_sampled() -> None:
    truth = instances((0, 0, 20, 20, 1))
    proposals = torch.cat([truth.boxes, torch.tensor([[40.0, 40, 60, 60], [0, 40, 10, 60]])])
    sample = sample_boxes(proposals, truth, 8, torch.tensor([False, True, False]))
    assert sample.boxes.tolist() == [[0, 0, 20, 20], [40, 40, 60, 60]]  # the true box, and one of background
