"""Predictions in other libraries' forms. In: pieces of a map. Out: what transformers and supervision work with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from panfpn.extras import optional


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Piece:
    """A class, or a segment, of one image."""

    name: str
    train_id: int
    mask: npt.NDArray[np.bool_]  # [H, W]
    score: float | None = None  # of a thing


def to_hf(pieces: Sequence[Piece]) -> list[dict[str, Any]]:
    """What transformers' pipeline "image-segmentation" returns: score, label, and mask (PIL, mode L: 0 or 255)."""
    from PIL import Image  # noqa: PLC0415 - only who wants pictures pays for it

    return [
        {"score": p.score, "label": p.name, "mask": Image.fromarray(p.mask.astype(np.uint8) * np.uint8(255))}
        for p in pieces
    ]


def to_supervision(pieces: Sequence[Piece], size: tuple[int, int]) -> Any:
    """Supervision's `Detections` of an image of `size`: boxes and masks, train ids, scores (1 for stuff), class names.

    ImportError: supervision is not installed.
    """
    supervision = optional("supervision", "supervision", "to_supervision needs")
    masks = np.stack([p.mask for p in pieces]) if pieces else np.zeros((0, *size), np.bool_)
    return supervision.Detections(
        xyxy=np.array([_box(p.mask) for p in pieces], np.float32).reshape(-1, 4),
        mask=masks,
        confidence=np.array([1.0 if p.score is None else p.score for p in pieces], np.float32),
        class_id=np.array([p.train_id for p in pieces], np.int64),
        data={"class_name": np.array([p.name for p in pieces], np.str_)},
    )


def _box(mask: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom around a mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def to_fiftyone(pieces: Sequence[Piece], size: tuple[int, int]) -> Any:
    """FiftyOne's `Detections` of an image of `size`: a label, a box in shares of the sides, a mask in it and a score.

    ImportError: fiftyone is not installed.
    """
    fiftyone = optional("fiftyone", "fiftyone", "to_fiftyone needs")
    found = []
    for piece in pieces:
        left, top, right, bottom = _box(piece.mask)
        box = [left / size[1], top / size[0], (right - left) / size[1], (bottom - top) / size[0]]
        found.append(fiftyone.Detection(label=piece.name, bounding_box=box, mask=piece.mask[top:bottom, left:right],
                                        confidence=piece.score))  # fmt: skip
    return fiftyone.Detections(detections=found)
