import pytest
import torch

from panfpn import device as devices
from panfpn.device import describe_choice, kept_generators, resolve_device, resolve_precision, tuned_backend

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("name", ["hpu", "garbage", "meta", "vulkan", "cuda:99", "cuda:-1", ""])
def test_what_is_no_device_here_is_one_sentence(name: str) -> None:
    with pytest.raises(ValueError, match=f"^device {name!r} is not available here; choose from auto, cpu[^\n]*$"):
        resolve_device(name)


def test_cuda_keeps_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name without a number: a run's settings must not be bound to one card."""
    monkeypatch.setattr(torch, "zeros", lambda *_, device: torch.ones(1))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert str(resolve_device("auto")) == "cuda" and str(resolve_device("cuda:1")) == "cuda:1"
    assert str(resolve_device("cpu")) == "cpu"


def test_precision_follows_the_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_precision("float16", CPU) == "float16"
    assert resolve_precision("auto", CPU) == ("bfloat16" if devices.cpu_has_bfloat16() else "float32")
    with pytest.raises(ValueError, match="precision is 'half'; choose from auto, float32"):
        resolve_precision("half", CPU)
    for native, fast in ((True, "bfloat16"), (False, "float16")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, native=native: native)
        assert resolve_precision("auto", CUDA) == fast
        assert resolve_precision("auto", CUDA, ("float32",)) == "float32"
        assert resolve_precision("float32", CUDA) == "float32"


def test_the_choice_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cpu_has_bfloat16", lambda: True)
    assert (
        describe_choice("x", CPU, torch.bfloat16, "auto")
        == "x on cpu in bfloat16 (auto: this cpu computes fast in bfloat16)"
    )
    assert describe_choice("x", CPU, torch.float32, "auto") == "x on cpu in float32 (auto: x has no bfloat16)"
    assert describe_choice("x", CPU, torch.float32, "float32") == "x on cpu in float32"
    monkeypatch.setattr(devices, "cpu_has_bfloat16", lambda: False)
    assert describe_choice("x", CPU, torch.float32, "auto").endswith("(auto: this cpu is not faster in bfloat16)")


def test_generators_and_cudnn_are_left_as_they_were() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    with kept_generators(CPU):
        torch.manual_seed(0)
    assert torch.equal(torch.rand(1), expected)
    before = torch.backends.cudnn.benchmark
    with tuned_backend(CUDA, fixed_sizes=True):
        assert torch.backends.cudnn.benchmark
        with tuned_backend(CUDA, fixed_sizes=False):
            assert not torch.backends.cudnn.benchmark
        assert torch.backends.cudnn.benchmark
    assert torch.backends.cudnn.benchmark == before
