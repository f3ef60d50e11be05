import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fake_cuda import CUDA, FakeCuda, on_cpu
from panfpn.choices import LOSSES
from panfpn.config import Loss
from panfpn.labels import IGNORE
from panfpn.losses import SemanticLoss
from panfpn.models import SemanticFPN
from panfpn.ops.tiles import TILE

TERMS = tuple(LOSSES)
CLASSES, SIZE = 4, (26, 33)


def random_case(seed: int = 0, ignored: float = 0.3) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, CLASSES, 7, 9, generator=draw) * 2
    target = torch.randint(0, CLASSES, (2, *SIZE), generator=draw).short()
    target[torch.rand(target.shape, generator=draw) < ignored] = IGNORE
    return logits, target


def upsampled(logits: torch.Tensor) -> torch.Tensor:
    return F.interpolate(logits, size=SIZE, mode="bilinear", align_corners=False)


# Plain references at full resolution, written from the papers -------------------------------------------------------
def plain_cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(upsampled(logits), target.long(), ignore_index=IGNORE)


def plain_focal(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    p = upsampled(logits).softmax(1).gather(1, target.clamp(min=0).long()[:, None])[:, 0][target != IGNORE]
    return (-((1 - p) ** 2) * p.log()).mean()


def plain_ohem(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    p = upsampled(logits).softmax(1).gather(1, target.clamp(min=0).long()[:, None])[:, 0][target != IGNORE]
    kept = max(1, int(0.0625 * len(p)))
    limit = max(0.7, p.detach().sort().values[kept - 1].item())
    return -p[p <= limit].log().mean()


def plain_dice(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    p = upsampled(logits).softmax(1).movedim(1, -1)[target != IGNORE]  # [N, K]
    y = F.one_hot(target[target != IGNORE].long(), CLASSES)
    dice = 2 * (p * y).sum(0) / (p.square().sum(0) + y.sum(0))
    return (1 - dice)[y.sum(0) > 0].mean()


def plain_lovasz(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    p = upsampled(logits).softmax(1).movedim(1, -1)[target != IGNORE]
    losses = []
    for k in target[target != IGNORE].unique().tolist():
        truth = (target[target != IGNORE] == k).float()
        error, order = (truth - p[:, k]).abs().sort(descending=True)
        t = truth[order]
        jaccard = 1 - (t.sum() - t.cumsum(0)) / (t.sum() + (1 - t).cumsum(0))
        losses.append(error @ torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]]))
    return torch.stack(losses).mean()


PLAIN: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "cross_entropy": plain_cross_entropy, "focal": plain_focal, "ohem": plain_ohem, "dice": plain_dice,
    "lovasz": plain_lovasz,
}  # fmt: skip


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("tile", [(500, 8), (1 << 17, 64)])
def test_equals_the_plain_loss_and_gradient(name: str, tile: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TILE, "cpu", tile)
    logits, target = random_case()
    ours, plain = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = SemanticLoss(weights={name: 0.7})(ours, target)[name]
    expected = 0.7 * PLAIN[name](plain, target)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, plain.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_logits_of_any_precision(name: str, dtype: torch.dtype) -> None:
    logits, target = random_case()
    logits = logits.to(dtype)
    ours, plain = logits.clone().requires_grad_(), logits.float().requires_grad_()
    loss = SemanticLoss(weights={name: 1.0})(ours, target)[name]
    expected = PLAIN[name](plain, target)
    torch.testing.assert_close(loss.float(), expected, rtol=1e-5, atol=1e-6)
    loss.backward()
    expected.backward()
    assert ours.grad is not None and ours.grad.dtype == dtype
    rtol, atol = (1e-4, 1e-7) if dtype == torch.float64 else (2e-2, 1e-5)
    torch.testing.assert_close(ours.grad.float(), plain.grad, rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", TERMS)
def test_ignored_pixels_have_no_gradient(name: str) -> None:
    """At the size of the labels every logit belongs to one pixel: its gradient shows what that pixel contributes."""
    draw = torch.Generator().manual_seed(3)
    logits = torch.randn(2, CLASSES, *SIZE, generator=draw).requires_grad_()
    _, target = random_case()
    SemanticLoss(weights={name: 1.0})(logits, target)[name].backward()
    assert logits.grad is not None
    ignored = (target == IGNORE)[:, None].expand_as(logits)
    assert (logits.grad[ignored] == 0).all()
    assert (logits.grad[~ignored] != 0).any()


@pytest.mark.parametrize("name", TERMS)
def test_nothing_labelled_gives_zero_and_zero_gradients(name: str) -> None:
    logits = random_case()[0].requires_grad_()
    target = torch.full((2, *SIZE), IGNORE, dtype=torch.int16)
    loss = SemanticLoss(weights={name: 1.0}, class_weights=torch.rand(CLASSES), label_smoothing=0.1)(logits, target)[
        name
    ]
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None and (logits.grad == 0).all()


@pytest.mark.parametrize("name", TERMS)
def test_finite_for_extreme_logits(name: str) -> None:
    logits, target = random_case()
    logits = (logits * 1e4).requires_grad_()
    loss = SemanticLoss(weights={name: 1.0})(logits, target)[name]
    loss.backward()
    assert math.isfinite(loss.item()) and logits.grad is not None and logits.grad.isfinite().all()


def test_denominators() -> None:
    logits, target = random_case(ignored=0.5)
    labelled = SemanticLoss(weights={"cross_entropy": 1.0})(logits, target)["cross_entropy"]
    everything = SemanticLoss(weights={"cross_entropy": 1.0}, denominator="all")(logits, target)["cross_entropy"]
    share = (target != IGNORE).float().mean()
    torch.testing.assert_close(everything, labelled * share)


def test_class_weights_and_smoothing_are_torchs() -> None:
    logits, target = random_case()
    weights = torch.tensor([0.5, 1.0, 2.0, 4.0])
    loss = SemanticLoss(weights={"cross_entropy": 1.0}, class_weights=weights, label_smoothing=0.2)
    total = F.cross_entropy(
        upsampled(logits), target.long(), weights, ignore_index=IGNORE, label_smoothing=0.2, reduction="sum"
    )
    torch.testing.assert_close(loss(logits, target)["cross_entropy"], total / (target != IGNORE).sum())


def test_sum_of_terms_and_split_batches() -> None:
    """Micro-batches that share one denominator add up to the whole batch."""
    logits, target = random_case()
    loss = SemanticLoss(weights={"cross_entropy": 1.0, "focal": 0.5, "dice": 0.0})
    whole = loss(logits, target)
    assert set(whole) == {"cross_entropy", "focal"}
    pixels = loss.count(target)
    parts = [loss(logits[i : i + 1], target[i : i + 1], pixels=pixels, share=0.5) for i in range(2)]
    for name, value in whole.items():
        torch.testing.assert_close(parts[0][name] + parts[1][name], value)


@pytest.mark.parametrize("model", ["cityscapes", "ade20k"])
@pytest.mark.parametrize("size", ["64x128", "97x131"])
def test_golden_losses_of_mmsegmentation(model: str, size: str, fill: ModuleType, golden_files: Path) -> None:
    golden = np.load(golden_files / f"mmseg_r50_{model}.npz")
    logits = torch.from_numpy(golden[f"{size}/logits"])
    height, width = map(int, size.split("x"))
    labels = fill.labels(height, width, logits.shape[1], 7).astype(np.int16)
    target = torch.from_numpy(np.where(labels == 255, IGNORE, labels).astype(np.int16))[None]
    for name in ("labelled", "all"):
        loss = SemanticLoss(weights={"cross_entropy": 1.0}, denominator=name)(logits, target)["cross_entropy"]
        assert loss.item() == pytest.approx(float(golden[f"{size}/loss_{name}_pixels"]), rel=1e-5)


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("ignored", [0.3, 1.1])
def test_on_cuda_the_host_waits_for_no_term(name: str, ignored: float, fake_cuda: FakeCuda) -> None:
    logits, target = random_case(ignored=ignored)
    target[target == 1] = IGNORE  # a class is absent
    loss = SemanticLoss(weights={name: 0.7}, class_weights=torch.rand(CLASSES), denominator="all", label_smoothing=0.1)
    here = logits.clone().requires_grad_()
    expected = loss(here, target)[name]
    expected.backward()
    loss.to(CUDA)
    there, labels = logits.to(CUDA).requires_grad_(), target.to(CUDA)
    fake_cuda.reset()
    result = loss(there, labels, share=1.0)[name]
    result.backward()
    assert not fake_cuda.waits, fake_cuda.report(name)
    torch.testing.assert_close(on_cpu(result.detach()), expected.detach())
    torch.testing.assert_close(on_cpu(there.grad), here.grad)


def test_on_cuda_the_host_waits_for_nothing_in_a_step(fake_cuda: FakeCuda) -> None:
    """The whole step of Semantic FPN: forward, every term, backward, optimiser."""
    network = SemanticFPN("resnet18", CLASSES, fpn_channels=8, head_channels=8).to(CUDA)
    loss = SemanticLoss(weights=dict.fromkeys(TERMS, 1.0), class_weights=torch.rand(CLASSES)).to(CUDA)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    images, target = torch.rand(2, 3, 64, 96).to(CUDA), torch.randint(-1, CLASSES, (2, 64, 96)).to(CUDA)
    fake_cuda.reset()
    for _ in range(2):
        with torch.autocast("cuda", torch.bfloat16):
            logits = network(images)
        torch.stack([*loss(logits, target, pixels=loss.count(target)).values()]).sum().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    assert not fake_cuda.waits, fake_cuda.report("two steps")
    assert fake_cuda.launches["aten::convolution_backward"] > 0


def test_ohem_keeps_a_share_of_the_labelled_pixels() -> None:
    """Where all pixels are easy, as many of the hardest as `ohem_min_kept` says, whatever is ignored."""
    logits, target = random_case(ignored=0.5)
    easy = logits.scatter(1, torch.nn.functional.interpolate(
        target[:, None].clamp(min=0).float(), size=logits.shape[2:]).long(), 50.0)  # fmt: skip
    for share in (0.0, 0.001, 0.3, 1.0):
        loss = SemanticLoss(weights={"ohem": 1.0}, ohem_threshold=1e-9, ohem_min_kept=share)(easy, target)["ohem"]
        every = F.cross_entropy(upsampled(easy), target.long(), ignore_index=IGNORE, reduction="none")
        labelled = every[target != IGNORE].sort(descending=True).values
        limit = torch.tensor(1e-9).log().neg()
        kept = int(share * len(labelled))
        if kept:
            limit = torch.minimum(limit, labelled[kept - 1])
        hard = labelled[labelled >= limit - 1e-4]
        assert loss.item() == pytest.approx(float(hard.mean()) if len(hard) else 0.0, rel=1e-3), share


def test_class_weights_go_where_the_module_goes_and_into_no_file() -> None:
    loss = SemanticLoss(weights={"focal": 1.0}, class_weights=(1.0, 2.0))
    assert loss.class_weights is not None and loss.class_weights.tolist() == [1.0, 2.0]
    assert loss.to(torch.float64).class_weights.dtype == torch.float64
    assert not loss.state_dict() and not list(loss.parameters())


def test_a_new_term_is_a_function_and_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("new_term")
    module.constant = lambda logits, target, settings, pixels, share: logits.new_tensor(settings.focal_gamma) * share
    monkeypatch.setitem(sys.modules, "new_term", module)
    monkeypatch.setitem(LOSSES, "constant", "new_term:constant")
    logits, target = random_case()
    loss = SemanticLoss(weights={"constant": 2.0, "dice": 0.0}, focal_gamma=3.0)(logits, target, share=0.5)
    assert set(loss) == {"constant"} and loss["constant"].item() == pytest.approx(2 * 0.5 * 3.0)


def test_settings_that_are_not_given_are_those_of_the_configuration() -> None:
    loss, config = SemanticLoss(weights={"dice": 1.0}), Loss()
    for name in ("denominator", "label_smoothing", "ohem_threshold", "ohem_min_kept", "focal_gamma"):
        assert getattr(loss, name) == getattr(config, name)


def test_what_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match=r"loss is 'dices'; did you mean dice\?"):
        SemanticLoss(weights={"dices": 1.0})
    with pytest.raises(ValueError, match="denominator is 'al'; choose from labelled, all"):
        SemanticLoss(weights={"dice": 1.0}, denominator="al")
