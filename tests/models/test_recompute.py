import pytest
import torch

from panfpn.models import Backbone, SemanticFPN
from panfpn.models.recompute import recompute_stages


def network(backbone: str) -> SemanticFPN:
    torch.manual_seed(0)
    return SemanticFPN(Backbone(backbone, drop_path=0.1), 3, fpn_channels=16, head_channels=16, dropout=0.1).train()


def trained(model: SemanticFPN, images: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], int]:
    """Gradients, buffers, and the number of values kept for the backward pass."""
    kept = 0

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.numel()
        return tensor

    torch.manual_seed(1)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        logits = model(images)
    count = kept
    logits.square().mean().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return gradients, {name: b.clone() for name, b in model.named_buffers()}, count


@pytest.mark.parametrize("backbone", ["resnet18", "convnext_atto", "swin_tiny_patch4_window7_224"])
def test_the_same_gradients_and_statistics_from_less_memory(backbone: str) -> None:
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(2))
    gradients, buffers, kept = trained(network(backbone), images)
    model = network(backbone)
    recompute_stages(model.backbone)
    again, statistics, less = trained(model, images)
    assert less < 0.6 * kept
    assert gradients.keys() == again.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(again[name], gradient, rtol=1e-4, atol=1e-6)
    for name, buffer in buffers.items():
        assert torch.equal(statistics[name], buffer), name


def test_frozen_norms_stay_frozen_and_prediction_is_untouched() -> None:
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(2))
    plain, model = network("resnet18"), recompute_stages(network("resnet18").backbone)
    plain.backbone.eval()
    model.eval()
    with torch.no_grad():
        for mine, theirs in zip(model(images), plain.backbone(images), strict=True):
            assert torch.equal(mine, theirs)
    before = {name: b.clone() for name, b in model.named_buffers()}
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    sum(m.mean() for m in model(images)).backward()
    assert all(torch.equal(before[name], b) for name, b in model.named_buffers())
