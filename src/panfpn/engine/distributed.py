"""The ranks of a `torchrun` job. Alone, every call is free and does nothing."""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from panfpn.device import resolve_device

T = TypeVar("T")
_SILENCE = timedelta(minutes=10)  # of another rank, after which this one ends; NCCL's own limit, gloo's is 30
_AGAIN = 10.0  # seconds after which a first rank that failed is asked again
_BEGINNING = "panfpn/beginning"  # the first rank's word, in the job's store


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

    def copied(self, tensors: Mapping[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
        """The first rank's tensors, on all, in the host's memory; `device` is where its backend works."""
        if self.world == 1:
            return dict(tensors)
        forms = self.agreed({name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()})
        place, found = device if dist.get_backend() == "nccl" else torch.device("cpu"), {}
        for name, (shape, dtype) in forms.items():
            tensor = tensors[name].to(place) if self.first else torch.empty(shape, dtype=dtype, device=place)
            dist.broadcast(tensor, 0)
            found[name] = tensor.cpu()
        return found

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


class CommonStop:
    """Several ranks stop between the same two steps; the host waits for the others' word every few seconds only."""

    _EVERY = 4.0  # seconds
    _MOST_STEPS = 100

    def __init__(self, ranks: Ranks, device: torch.device, step: int) -> None:
        self.ranks, self.device = ranks, device
        self._looked, self._looked_step, self._next = time.monotonic(), step, 0

    def agreed(self, step: int, stop: bool) -> bool:
        """Whether any rank wants to stop after `step`; asked at steps that all ranks know."""
        if self.ranks.world == 1:
            return stop
        if step < self._next:
            return False
        now = time.monotonic()
        seconds = (now - self._looked) / max(1, step - self._looked_step)  # of a step
        self._looked, self._looked_step = now, step
        steps = 0 if stop else max(1, min(self._MOST_STEPS, int(self._EVERY / seconds)))
        steps = self.ranks.least(steps, self.device)
        self._next = step + steps
        return steps == 0


def is_lost_rank(error: RuntimeError) -> bool:
    """Whether an error says that another process of the job is gone, or does not answer."""
    text = str(error)
    return isinstance(error, dist.DistError) or any(
        sign in text
        for sign in ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "gloo", "NCCL")
    )


def is_elastic() -> bool:
    """Whether torchrun calls the same command again after a failure (--max-restarts); it says so from the start."""
    return int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0


def starts_again() -> bool:
    """Whether a launcher does, or has done so: torchrun, or Slurm's requeue, which says so from the second start on."""
    return is_elastic() or int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0


@contextmanager
def joined_ranks(begin: Callable[[], T], device: Callable[[T], str]) -> Iterator[tuple[Ranks, T, str]]:
    """Join the job that `torchrun` started, if it did; yields the ranks, what `begin` gave, and this rank's device.

    `begin` is called on the first rank only, as it may read what lies on that one's disk, and gives plain data (JSON's)
    to all; `device` names the device that is wanted, from it.

    Raises:
        ConnectionError: the first rank could not begin, or another one is gone or silent before all have joined.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        begun = begin()
        yield Ranks(), begun, device(begun)
        return
    if dist.is_initialized():  # by who called
        ranks = Ranks(dist.get_rank(), dist.get_world_size())
        begun = ranks.agreed(begin() if ranks.first else None)  # type: ignore[assignment]
        yield ranks, begun, device(begun)
        return
    with named_loss(Ranks(int(os.environ.get("RANK", "0")), world), lambda: "start the job again"):
        store, rank, world = next(rendezvous("env://", timeout=_SILENCE))
        begun = _first_word(store, rank, begin)
        name = device(begun)
        cuda = name.startswith("cuda") or (name == "auto" and torch.cuda.is_available())
        where: dict[str, Any] = {"store": store, "rank": rank, "world_size": world, "timeout": _SILENCE}
        if cuda:
            card = resolve_device(f"cuda:{os.environ['LOCAL_RANK']}")
            torch.cuda.set_device(card)  # for good: this process has no other
            dist.init_process_group("nccl", device_id=card, **where)
            name = str(card)
        else:
            dist.init_process_group("gloo", **where)
        if rank == 0:  # all have read it; torchrun's store lives on, and its next attempt has a word of its own
            store.delete_key(_BEGINNING)
    try:
        yield Ranks(rank, world), begun, name
    except BaseException:
        # The other ranks may be dead or stuck: leaving in order would wait for them. torchrun ends them.
        if cuda:
            dist.distributed_c10d._abort_process_group()
        raise
    dist.destroy_process_group()


def _first_word(store: Any, rank: int, begin: Callable[[], T]) -> T:
    """What `begin` gives on the first rank, on all."""
    if rank == 0:
        try:
            begun = begin()
        except BaseException as error:
            store.set(_BEGINNING, json.dumps({"error": str(error) or type(error).__name__}))
            raise
        store.set(_BEGINNING, json.dumps({"begun": begun}))
        return begun
    try:
        word = json.loads(store.get(_BEGINNING))
        if "error" in word:  # maybe of an attempt before this one
            time.sleep(_AGAIN)
            word = json.loads(store.get(_BEGINNING))
    except RuntimeError as error:
        raise ConnectionError("the first rank of this job has ended before it began; see what it said") from error
    if "error" in word:
        raise ConnectionError(f"the first rank of this job could not begin: {word['error']}")
    return word["begun"]  # type: ignore[no-any-return]


@contextmanager
def named_loss(ranks: Ranks, again: Callable[[], str]) -> Iterator[None]:
    """ConnectionError where another rank of the block ended or is silent; `again` says what goes on then."""
    try:
        yield
    except RuntimeError as error:
        if ranks.world == 1 or not is_lost_rank(error):
            raise
        here = f"this is rank {ranks.rank} of {ranks.world}"
        raise ConnectionError(f"another rank of this job has ended, or was silent for ten minutes ({here}); see what "
                              f"it said, and {again()}") from error  # fmt: skip
