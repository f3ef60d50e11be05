"""From things and stuff to one panoptic map. In: scored masks that overlap, semantic labels. Out: segments that do not.

Paper §4.1, after Kirillov et al., Panoptic Segmentation; detectron2's order and thresholds (docs/facts.md, C4).
This file needs NumPy alone: `panfpn export` lays a copy of it beside a Panoptic FPN.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

_VOID = -1  # train id of nothing, as panfpn.labels.IGNORE

Floats = npt.NDArray[np.float32]
Mask = tuple[int, int, npt.NDArray[np.bool_]]  # top, left, and the mask [h, w] there; nothing outside


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeRules:
    """What enters a panoptic map; the usual numbers stand in `panfpn.config.Inference`."""

    confidence: float
    """Things with a lower score are left out."""
    overlap: float
    """A thing is left out if more than this share of it is covered by better ones; else it gets what is free of it."""
    stuff_area: int
    """A class of stuff is left out if it has fewer free pixels."""


def paste_mask(probability: Floats, box: Floats, size: tuple[int, int]) -> Mask:
    """The pixels of an image of `size` where a mask [m, m] stretched over a box [4] has at least 0.5.

    Bilinear, with 0 outside of the mask, as detectron2's `paste_masks_in_image`; the resize is a product with a small
    matrix on either side.
    """
    left, right = max(0, int(np.floor(box[0])) - 1), min(size[1], int(np.ceil(box[2])) + 1)
    top, bottom = max(0, int(np.floor(box[1])) - 1), min(size[0], int(np.ceil(box[3])) + 1)
    rows = _weights(top, bottom, float(box[1]), float(box[3]), probability.shape[0])
    columns = _weights(left, right, float(box[0]), float(box[2]), probability.shape[1])
    return top, left, rows @ probability @ columns.T >= 0.5


def _weights(start: int, stop: int, low: float, high: float, steps: int) -> Floats:
    """How much each of `steps` between low and high counts in pixels start … stop − 1: [pixels, steps]."""
    at = (np.arange(start, stop, dtype=np.float32) + 0.5 - low) / (high - low) * steps - 0.5
    distance = np.abs(at[:, None] - np.arange(steps, dtype=np.float32))
    return np.asarray(np.maximum(0, 1 - distance), np.float32)


def merge(
    scores: Sequence[float] | npt.NDArray[np.float32],
    classes: Sequence[int] | npt.NDArray[np.int16],
    masks: Sequence[Mask],
    semantic: npt.NDArray[np.integer],
    rules: MergeRules,
) -> tuple[npt.NDArray[np.int32], list[tuple[int, int]]]:
    """Segments [H, W] numbered from 1 (0 is void), and of each its class and the number of its thing (−1 for stuff).

    Things (train ids `classes`, falling `scores`) come first, in their order: in conflicts the better one wins, and
    things win against stuff. Then the classes of `semantic` [H, W] in rising order; what is negative stays void.
    ValueError if scores rise.
    """
    if any(first < second for first, second in pairwise(scores)):
        raise ValueError("scores rise; sort the things by falling score")
    segments = np.zeros(semantic.shape, np.int32)
    info: list[tuple[int, int]] = []
    for number, (score, label, (top, left, mask)) in enumerate(zip(scores, classes, masks, strict=True)):
        if score < rules.confidence:
            break
        area = np.count_nonzero(mask)
        if not area:
            continue
        window = segments[top : top + mask.shape[0], left : left + mask.shape[1]]
        free = mask & (window == 0)
        if (area - np.count_nonzero(free)) / area > rules.overlap:
            continue
        info.append((int(label), number))
        window[free] = len(info)
    left_over = np.where(segments == 0, semantic, _VOID).astype(np.int64)
    counts = np.bincount(left_over.ravel() - _VOID)[-_VOID:]  # free pixels of each class
    numbers = np.zeros(len(counts) + 1, np.int32)  # the last entry is _VOID's
    for label in np.flatnonzero(counts >= max(1, rules.stuff_area)).tolist():
        info.append((label, -1))
        numbers[label] = len(info)
    segments += numbers[left_over]
    return segments, info


def detections_of(
    arrays: Mapping[str, npt.NDArray[Any]], index: int, thing_ids: Sequence[int], semantic_ids: Sequence[int]
) -> tuple[Floats, Floats, npt.NDArray[np.int16], tuple[Mask, ...], npt.NDArray[np.int16]]:
    """What an exported graph says of one image of its batch, in train ids.

    Boxes [N, 4], scores [N], classes [N], the masks of the best of them, and what the semantic branch says [H, W].
    """
    there = arrays["images"] == index
    probabilities = arrays["every_mask" if "every_mask" in arrays else "masks"]
    boxes = np.asarray(arrays["boxes"][there], np.float32)
    semantic = np.asarray(np.array(semantic_ids, np.int16)[arrays["semantic"][index]])
    size = (semantic.shape[0], semantic.shape[1])
    chosen = probabilities[there[: len(probabilities)]]
    masks = tuple(paste_mask(p, b, size) for p, b in zip(chosen, boxes, strict=False))
    return boxes, arrays["scores"][there], np.array(thing_ids, np.int16)[arrays["classes"][there]], masks, semantic


def only_stuff(semantic: npt.NDArray[np.integer], things: Sequence[bool]) -> npt.NDArray[np.integer]:
    """Semantic train ids [H, W] with the classes that are things made void."""
    return np.asarray(np.array([_VOID if thing else k for k, thing in enumerate(things)] + [_VOID])[semantic])


def segments_of(
    arrays: Mapping[str, npt.NDArray[Any]], index: int, header: Mapping[str, Any]
) -> tuple[npt.NDArray[np.int32], list[dict[str, Any]]]:
    """The map of one image of an exported graph's batch, by the header of its file.

    Segments [H, W] numbered from 1 (0 is void), and of each its class, whether it is a thing, and its score.
    """
    classes, settings = header["table"]["classes"], header["inference"]
    things = [bool(c.get("thing")) for c in classes]
    thing_ids = [k for k, thing in enumerate(things) if thing]
    every = header["model"]["semantic_things"] == "all"
    semantic_ids = range(len(things)) if every else [_VOID, *(k for k, thing in enumerate(things) if not thing)]
    _, scores, labels, masks, semantic = detections_of(arrays, index, thing_ids, list(semantic_ids))
    rules = MergeRules(**{key: settings[key] for key in ("confidence", "overlap", "stuff_area")})
    count = len(masks)
    segments, info = merge(scores[:count], labels[:count], masks, only_stuff(semantic, things), rules)
    return segments, [
        {"id": number, "class": classes[label]["name"], "thing": thing >= 0,
         "score": float(scores[thing]) if thing >= 0 else None}
        for number, (label, thing) in enumerate(info, 1)
    ]  # fmt: skip
