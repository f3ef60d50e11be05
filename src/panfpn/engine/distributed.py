"""The ranks of a `torchrun` job. Alone, every call is free and does nothing."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from panfpn.device import resolve_device

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ranks:
    """Which of how many processes this one is."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def total(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over all ranks, in place."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether `flag` holds on any rank; the host waits for the device, as in `least`."""
        return flag if self.world == 1 else -self.least(-int(flag), device) > 0

    def agreed(self, value: T) -> T:
        """The first rank's `value`, on all."""
        box = [value]
        if self.world > 1:
            dist.broadcast_object_list(box)
        return box[0]

    def least(self, number: int, device: torch.device) -> int:
        """The smallest `number` of all ranks."""
        if self.world == 1:
            return number
        box = torch.tensor(number, device=device if dist.get_backend() == "nccl" else None)  # gloo's lie on the CPU
        dist.all_reduce(box, dist.ReduceOp.MIN)
        return int(box.item())

    def share(self, tensors: Iterable[torch.Tensor]) -> None:
        """Copy the first rank's tensors over all others', in place."""
        if self.world > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def gathered(self, value: T) -> list[T]:
        """Every rank's `value`."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Until every rank is here."""
        if self.world > 1:
            dist.barrier()


def is_lost_rank(error: RuntimeError) -> bool:
    """Whether an error says that another process of the job is gone, or does not answer."""
    text = str(error)
    return isinstance(error, dist.DistBackendError) or any(
        sign in text
        for sign in ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "gloo", "NCCL")
    )


@contextmanager
def joined_ranks(device: str) -> Iterator[tuple[Ranks, str]]:
    """Join the job that `torchrun` started, if it did; yields the ranks and this rank's device name."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks(), device
        return
    if dist.is_initialized():  # by who called
        yield Ranks(dist.get_rank(), dist.get_world_size()), device
        return
    cuda = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if cuda:
        card = resolve_device(f"cuda:{os.environ['LOCAL_RANK']}")
        torch.cuda.set_device(card)  # for good: this process has no other
        dist.init_process_group("nccl", device_id=card)
        device = str(card)
    else:
        dist.init_process_group("gloo")
    try:
        yield Ranks(dist.get_rank(), world), device
    except BaseException:
        # The other ranks may be dead or stuck: leaving in order would wait for them. torchrun ends them.
        if cuda:
            dist.distributed_c10d._abort_process_group()
        raise
    dist.destroy_process_group()
