"""Pictures that are there more than once. In: examinations of all splits. Out: groups of copies.

The same picture has the same pixels; nearly the same one is a copy at another size or quality; pictures that are
neither and have exactly the same labels cannot both have their own mask.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from panfpn.data.examination import Examination

_NEAR_SIGNS = 4  # of 64 that may differ between pictures that are nearly the same
# Of 255, the mean and the largest difference of their thumbnails. Copies of CamVid at JPEG quality 30, or a quarter of
# the size, reach 1.4 and 16; frames of a video that follow each other begin at 2.2 and 26.
_NEAR_GREY, _NEAR_MOST = 2.0, 20
_NEAR_SHARE = 0.1  # of a thumbnail's standard deviation that the mean may reach
_BANDS = _NEAR_SIGNS + 1  # parts of the signs: two pictures that differ in fewer have one in common
_MANY = 5_000  # pictures of one part of the signs beyond which they are not compared (all black, all alike)

Group = list[tuple[str, Examination]]  # samples with their splits


@dataclass(frozen=True, slots=True, kw_only=True)
class Copies:
    """Groups of samples, each of two at least."""

    same: list[Group]
    near: list[Group]
    one_mask: list[Group]  # of pictures that are no copies of each other
    not_compared: int  # pictures, as too many are alike in outline


def find_copies(samples: Group) -> Copies:
    """The copies among samples, on whose pictures something is to be seen."""
    by_pixels, by_labels = _grouped(samples, _pixels), _grouped(samples, _labels)
    near, not_compared = _near([group[0] for group in by_pixels.values()])
    picture = {_pixels(s): number for number, group in enumerate(near) for _, s in group}
    one_mask = [
        group for group in by_labels.values()
        if len(group[0][1].classes) > 1 and len({picture.get(_pixels(s), _pixels(s)) for _, s in group}) > 1
    ]  # fmt: skip
    same = [group for group in by_pixels.values() if len(group) > 1]
    return Copies(same=same, near=near, one_mask=one_mask, not_compared=not_compared)


def _pixels(sample: Examination) -> Any:
    return sample.pixel_digest, sample.size


def _labels(sample: Examination) -> Any:
    return sample.label_digest, sample.size


def _grouped(samples: Group, key: Callable[[Examination], Any]) -> dict[Any, Group]:
    groups: dict[Any, Group] = defaultdict(list)
    for split, sample in samples:
        groups[key(sample)].append((split, sample))
    return groups


def _near(samples: Group) -> tuple[list[Group], int]:
    """Groups of pictures that differ in few signs and little in their thumbnails: copies at another size or quality.

    And how many were not compared. Of pictures that differ in at most 4 of 64 signs, one of five parts of the signs is
    the same, so that only those which share one are compared.
    """
    if len(samples) < 2:
        return [], 0
    signs = np.array([s.signs for _, s in samples], np.uint64)
    thumbnails = np.stack([s.thumbnail for _, s in samples]).reshape(len(samples), -1)
    limits = np.minimum(_NEAR_GREY, _NEAR_SHARE * thumbnails.std(1))  # dark pictures differ by little
    parent = list(range(len(samples)))
    skipped: set[int] = set()

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    edges = np.linspace(0, 64, _BANDS + 1).astype(int)
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        part = (signs >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        order = np.argsort(part, kind="stable")
        for run in np.split(order, np.flatnonzero(np.diff(part[order])) + 1):
            if len(run) > _MANY:
                skipped.update(run.tolist())
                continue
            for place, i in enumerate(run[:-1].tolist()):
                others = run[place + 1 :]
                others = others[_ones(signs[others] ^ signs[i]) <= _NEAR_SIGNS]
                difference = np.abs(thumbnails[others].astype(np.int16) - thumbnails[i])
                alike = (difference.mean(1) < np.minimum(limits[others], limits[i])) & (difference.max(1) <= _NEAR_MOST)
                for j in others[alike].tolist():
                    parent[root(j)] = root(i)
    groups: dict[int, Group] = defaultdict(list)
    for i, sample in enumerate(samples):
        groups[root(i)].append(sample)
    return [group for group in groups.values() if len(group) > 1], len(skipped)


def _ones(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """How many bits of each are set."""
    bits: npt.NDArray[np.int64] = np.unpackbits(values[:, None].view(np.uint8), axis=1).sum(1, dtype=np.int64)
    return bits
