"""What losses learn from, drawn at random among many. In: masks of what may be drawn. Out: indices, in slots."""

from typing import NamedTuple

import torch


class Slots(NamedTuple):
    """Members drawn from a set, positives first.

    On a CPU there are as many slots as members drawn, and every one is valid. On a device their numbers are fixed, as
    the host does not wait to know how many were there to be drawn; losses leave out slots that are not valid.
    """

    members: torch.Tensor  # int64 [S] indices
    positive: torch.Tensor  # bool [S]
    valid: torch.Tensor  # bool [S]
    num_first: int  # the positives are among the first so many


def draw(positive: torch.Tensor, negative: torch.Tensor, count: int, most: int) -> Slots:
    """At most `count` members of which `positive` or `negative` (bool [N]) is true, at most `most` of them positive.

    On a CPU from torch's global generator, on a device from the device's.
    """
    return (_draw_on_cpu if positive.device.type == "cpu" else _draw_on_device)(positive, negative, count, most)


def _draw_on_cpu(positive: torch.Tensor, negative: torch.Tensor, count: int, most: int) -> Slots:
    first = _members(positive, most)
    index = torch.cat([first, _members(negative, count - len(first))])
    valid = torch.ones(len(index), dtype=torch.bool)
    return Slots(index, torch.arange(len(index)) < len(first), valid, len(first))


def _members(mask: torch.Tensor, most: int) -> torch.Tensor:
    """Indices of at most `most` True values [N], drawn at random."""
    index = mask.nonzero()[:, 0]
    return index if len(index) <= most else index[torch.randperm(len(index))[:most]]


def _draw_on_device(positive: torch.Tensor, negative: torch.Tensor, count: int, most: int) -> Slots:
    """The members with the largest of random keys, which are in 0..1 for negatives, in 1..2 for positives, else −1."""
    key = torch.rand(len(positive), device=positive.device)
    keys, index = zip(
        key.where(positive, -1).topk(min(most, len(key))), key.where(negative, -1).topk(min(count, len(key))),
        strict=True,
    )  # fmt: skip
    first = (keys[0] + 1).where(keys[0] >= 0, -1)
    best, slot = torch.cat([first, keys[1]]).topk(min(count, len(key)))
    return Slots(torch.cat(index)[slot], best >= 1, best >= 0, len(first))
