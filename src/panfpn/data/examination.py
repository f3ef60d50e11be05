"""One sample looked at: what its files hold, and what tells it from others. In: a data set. Out: Examinations.

Everything that needs pixels happens here, once a sample and in data workers; what follows from all of them together is
in doctor.py.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader

from panfpn.data.checked import open_sample
from panfpn.data.dataset import Dataset, files_of
from panfpn.data.header import read_header
from panfpn.data.loader import start_worker
from panfpn.files import read_bytes
from panfpn.types import Segments

THUMBNAIL = 32  # side, of what near duplicates are compared by
_HASH = (9, 8)  # width and height of what the signs of differences are taken of
_BATCH = 16


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Examination:
    """One sample."""

    name: str
    image: Path | None  # its file, where it has one
    mask: Path | None
    problem: str = ""  # why it cannot be read; then what follows is empty
    size: tuple[int, int] = (0, 0)
    classes: npt.NDArray[np.int16] = field(default_factory=lambda: np.empty(0, np.int16))  # that it has, and IGNORE
    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))  # their pixels
    num_things: int = 0
    smallest_thing: int = 0  # pixels
    orientation: int = 1  # EXIF's
    contrast: float = 0.0  # standard deviation of its grey values
    pixel_digest: bytes = b""  # of its decoded pixels
    label_digest: bytes = b""
    signs: int = 0  # 64 bits: whether it gets brighter to the right, on a coarse grid
    thumbnail: npt.NDArray[np.uint8] = field(default_factory=lambda: np.empty((0, 0), np.uint8))

    def pixels_of(self, train_id: int) -> int:
        """How many pixels have a class."""
        place = np.flatnonzero(self.classes == train_id)
        return int(self.counts[place[0]]) if len(place) else 0


def examine_all(dataset: Dataset, *, channels: int = 3, num_workers: int = 2) -> Iterator[Examination]:
    """Every sample of a data set, in its order; what cannot be read says so in its `problem`."""
    loader: DataLoader[Any] = DataLoader(
        _Examined(dataset, channels), batch_size=_BATCH, collate_fn=list, num_workers=num_workers,
        worker_init_fn=start_worker,
    )  # fmt: skip
    for batch in loader:
        yield from batch


class _Examined(torch.utils.data.Dataset[Examination]):
    def __init__(self, dataset: Dataset, channels: int) -> None:
        self.dataset, self.channels = dataset, channels

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Examination:
        return examine(self.dataset, index, channels=self.channels)


def examine(dataset: Dataset, index: int, *, channels: int = 3) -> Examination:
    """One sample."""
    name, (image_file, mask_file) = dataset.name(index), files_of(dataset, index)
    try:
        image, target = open_sample(dataset, index, channels=channels)
        labels = target.labels if isinstance(target, Segments) else target[:, :]
    except (ValueError, ImportError) as error:
        return Examination(name=name, image=image_file, mask=mask_file, problem=str(error))
    grey = np.ascontiguousarray(image.mean(2, dtype=np.float32).astype(np.uint8)) if channels != 3 else (
        cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))  # fmt: skip
    small = cv2.resize(grey, _HASH, interpolation=cv2.INTER_AREA)
    counts = np.bincount(labels.ravel().astype(np.int32) + 1)
    there = np.flatnonzero(counts)
    things, smallest = _things(target, dataset) if isinstance(target, Segments) else (0, 0)
    data = read_bytes(image_file) if image_file else b""
    return Examination(
        name=name, image=image_file, mask=mask_file, size=(image.shape[0], image.shape[1]),
        classes=(there - 1).astype(np.int16), counts=counts[there], num_things=things, smallest_thing=smallest,
        orientation=read_header(data, image_file).orientation if data else 1, contrast=float(grey.std()),
        pixel_digest=_digest(np.ascontiguousarray(image).data),
        label_digest=_digest(np.ascontiguousarray(labels).data),
        signs=int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes(), "big"),
        thumbnail=cv2.resize(grey, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA),
    )  # fmt: skip


def _things(segments: Segments, dataset: Dataset) -> tuple[int, int]:
    """How many things there are, and the pixels of the smallest."""
    single = np.array([dataset.table.classes[k].thing for k in segments.classes], np.bool_) & ~segments.crowd
    areas = np.bincount((segments.index.ravel().astype(np.int32) + 1), minlength=len(single) + 1)[1:][single]
    areas = areas[areas > 0]
    return len(areas), int(areas.min()) if len(areas) else 0


def _digest(data: Any) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
