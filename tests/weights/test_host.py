"""Downloads: the same values, and one wait for a whole network."""

from pathlib import Path

import pytest
import torch

from fake_cuda import FakeCuda
from panfpn.weights import first_not_finite, to_host
from panfpn.weights.files import read_checkpoint, tensors_digest, write_checkpoint


def named(count: int = 5) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    weights = {f"w{i}": torch.randn(4, 3, 3, 3, generator=generator) for i in range(count)}
    layouts = {n: t.to(memory_format=torch.channels_last) for n, t in weights.items()}
    return layouts | {"steps": torch.tensor(7), "half": torch.ones(3, dtype=torch.bfloat16), "none": torch.zeros(0, 2)}


def test_what_is_on_the_host_already_is_not_copied() -> None:
    tensors = {"plain": torch.ones(3, 2), "turned": torch.arange(6.0).view(2, 3).T}
    copies = to_host(tensors)
    assert copies["plain"].data_ptr() == tensors["plain"].data_ptr()
    assert copies["turned"].is_contiguous() and torch.equal(copies["turned"], tensors["turned"])
    weight = torch.nn.Parameter(torch.ones(2))
    assert not to_host({"w": weight * 2})["w"].requires_grad


def test_a_network_is_downloaded_with_one_wait(fake_cuda: FakeCuda, tmp_path: Path) -> None:
    here = named()
    there = {name: tensor.to("cuda") for name, tensor in here.items()}
    fake_cuda.reset()
    copies = to_host(there)
    assert sum(fake_cuda.waits.values()) == 1, fake_cuda.report("download")
    assert list(copies) == list(here)
    for name, tensor in here.items():
        assert copies[name].dtype == tensor.dtype and torch.equal(copies[name], tensor), name
        assert copies[name].device.type == "cpu" and copies[name].is_contiguous()
    fake_cuda.reset()
    write_checkpoint(tmp_path / "x.safetensors", copies, {"digest": tensors_digest(copies)}, role="run")
    assert not fake_cuda.waits, fake_cuda.report("writing what was downloaded")
    write_checkpoint(tmp_path / "y.safetensors", there, {"digest": tensors_digest(here)}, role="run")
    assert sum(fake_cuda.waits.values()) == 1, fake_cuda.report("writing what is on the device")
    (one, header), (other, same) = (read_checkpoint(tmp_path / f"{n}.safetensors", role="run") for n in "xy")
    assert header == same and one.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_the_first_bad_tensor_is_named(value: float) -> None:
    tensors = named()
    assert first_not_finite(tensors) is None
    tensors["w3"][0, 0, 0, 0] = value
    tensors["half"][1] = value
    assert first_not_finite(tensors) == "w3"
    assert first_not_finite({}) is None and first_not_finite({"steps": torch.tensor(3)}) is None


def test_a_network_is_checked_with_one_wait(fake_cuda: FakeCuda) -> None:
    there = {name: tensor.to("cuda") for name, tensor in named().items()}
    fake_cuda.reset()
    assert first_not_finite(there) is None
    assert sum(fake_cuda.waits.values()) == 1, fake_cuda.report("check")
    there["w2"].mul_(float("inf"))
    assert first_not_finite(there | {"here": torch.tensor(float("nan"))}) == "w2"
