"""The make-believe device catches the faults that it is there for."""

from collections.abc import Callable

import pytest
import torch

from fake_cuda import CUDA, CudaTensor, FakeCuda, on_cpu

MIXED: dict[str, Callable[[torch.Tensor, torch.Tensor], object]] = {
    "sum": lambda there, here: there + here,
    "cat": lambda there, here: torch.cat([there, here]),
    "written into": lambda there, here: here.add_(there),
    "gather": lambda there, here: there.gather(1, torch.zeros(2, 1, dtype=torch.int64)),
    "where": lambda there, here: torch.where(here > 0, there, 0),
    "linear": lambda there, here: torch.nn.functional.linear(there, here),
}
WAITING: dict[str, Callable[[torch.Tensor], object]] = {
    "item": lambda t: t.sum().item(),
    "int": lambda t: int(t.sum()),
    "list": lambda t: t.tolist(),
    "a truth value": lambda t: bool((t > 0).all()),
    "a mask": lambda t: t[t > 0],
    "a mask that is written to": lambda t: t.__setitem__(t > 0, t.sum()),
    "new_tensor": lambda t: t.new_tensor([1.0]),
    "tensor": lambda t: torch.tensor([1.0], device="cuda"),
    "as_tensor": lambda t: torch.as_tensor([1.0], device=t.device),
    "an index in a list": lambda t: t[[0, 1]],
    "an index on the CPU": lambda t: t[torch.tensor([0, 1])],
    "unique": lambda t: t.unique(),
    "nonzero": lambda t: t.nonzero(),
    "bincount": lambda t: t.long().flatten().bincount(),
    "pageable memory": lambda t: torch.ones(2, 3).to(t.device),
    "pageable memory, asynchronous": lambda t: torch.ones(2, 3).to(t.device, non_blocking=True),
    "copy_ from pageable memory": lambda t: t.copy_(torch.ones(2, 3), non_blocking=True),
    "to the CPU, asynchronous": lambda t: t.to("cpu", non_blocking=True),
    "synchronize": lambda t: torch.cuda.synchronize(),
}
FREE: dict[str, Callable[[torch.Tensor], object]] = {
    "one number under one mask": lambda t: t.__setitem__(t > 2, 0),
    "a slice": lambda t: t[:1, 1:],
    "an index on the device": lambda t: t[torch.arange(2, device="cuda")],
    "new_full": lambda t: t.new_full((2,), 3.0),
    "a number": lambda t: t * 2 + torch.tensor(1.0),
    "topk and sort": lambda t: (t.topk(2), t.sort()),
    "another type": lambda t: t.to(torch.float16),
    "pinned memory": lambda t: torch.ones(2, 3).pin_memory()[:1].to(t.device, non_blocking=True),
    "into pinned memory": lambda t: torch.empty(2, 3, pin_memory=True).copy_(t, non_blocking=True),
}


@pytest.mark.parametrize("name", MIXED)
def test_it_refuses_tensors_of_another_device(name: str, fake_cuda: FakeCuda) -> None:
    there, here = torch.ones(2, 3, device="cuda"), torch.ones(2, 3)
    assert there.device == CUDA and isinstance(there, CudaTensor)
    with pytest.raises(RuntimeError, match="same device"):
        MIXED[name](there, here)


def test_it_refuses_numpy(fake_cuda: FakeCuda) -> None:
    with pytest.raises(TypeError, match="cuda:0"):
        torch.ones(2, device="cuda").numpy()


@pytest.mark.parametrize("name", WAITING)
def test_it_counts_a_wait(name: str, fake_cuda: FakeCuda) -> None:
    tensor = torch.ones(2, 3, device="cuda")
    fake_cuda.reset()
    WAITING[name](tensor)
    assert sum(fake_cuda.waits.values()) == 1, fake_cuda.report(name)


@pytest.mark.parametrize("name", FREE)
def test_it_counts_nothing_where_the_host_goes_on(name: str, fake_cuda: FakeCuda) -> None:
    tensor = torch.ones(2, 3, device="cuda")
    fake_cuda.reset()
    FREE[name](tensor)
    assert not fake_cuda.waits, fake_cuda.report(name)


def test_it_names_the_line() -> None:
    with FakeCuda(package="torch.nn") as gpu:
        torch.nn.utils.clip_grad_norm_([torch.ones(2, device="cuda", requires_grad=True)], 1.0)
        assert not gpu.waits
        layer = torch.nn.Linear(2, 2)
        layer.to("cuda")
    assert all(line.startswith("modules/module.py:") for line, _ in gpu.waits) and len(gpu.waits) > 0


def test_its_numbers_are_the_cpus() -> None:
    torch.manual_seed(0)
    layer, x = torch.nn.Conv2d(3, 4, 3), torch.randn(2, 3, 8, 8)
    layer(x).square().mean().backward()
    expected = layer.weight.grad
    with FakeCuda():
        other = torch.nn.Conv2d(3, 4, 3)
        other.load_state_dict(layer.state_dict())
        other.to("cuda")
        with torch.autocast("cuda", torch.bfloat16):
            assert other(x.to("cuda")).dtype == torch.bfloat16
        other(x.to("cuda")).square().mean().backward()
        torch.testing.assert_close(on_cpu(other.weight.grad), expected)
    with pytest.raises(RuntimeError, match="outlived"):
        other.weight + 1
