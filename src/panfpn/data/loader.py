"""Batches as a function of (seed, step). In: a data set. Out: an iterator that can start at any step at once.

Draw d of a run takes sample permutation(seed, d // N)[d % N], augmented by a generator seeded with (seed, d), or with
(seed, image, form) where each image is seen in a number of forms; step s
of global batch G uses the draws s·G … s·G + G − 1. So neither workers, nor ranks, nor a restart change the data.
"""

import shutil
import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from panfpn.data.balance import RareCrops
from panfpn.data.checked import read_sample
from panfpn.data.dataset import Dataset
from panfpn.data.main_guard import check_main_guard
from panfpn.data.remembered import Remembered
from panfpn.data.targets import instances_of
from panfpn.data.transforms import TrainTransform, cut, padded
from panfpn.types import Batch, Sample, Segments

T = TypeVar("T")
_HANGS = 600  # seconds without a batch
_UNDER_WAY = 2  # batches of a worker
_TARGET_BYTES = 2  # of a pixel
_SHARED = Path("/dev/shm")
_MORE_MEMORY = "give a container more of it (docker run --shm-size=2g, or --ipc=host), or set data.num_workers to 0"
_DIVISOR = 32  # of whole images: detectron2 pads to it, and few sizes are good for what caches by size


class Forms:
    """Which image a draw is of, and in which form: in a new one every time, or in one of `variants` drawn once."""

    def __init__(self, num_images: int, seed: int, variants: int | None = None) -> None:
        self.num_images, self.seed, self.variants = num_images, seed, variants
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def __call__(self, draw: int) -> tuple[int, int]:
        """The index of the draw's image, and the number of its form: below `variants`, or the draw."""
        epoch, position = divmod(draw, self.num_images)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng((self.seed, 0, epoch)).permutation(self.num_images)
        return int(self._order[position]), draw if self.variants is None else epoch % self.variants

    def generator(self, index: int, form: int) -> np.random.Generator:
        """What an image is augmented with."""
        key = (self.seed, 1, form) if self.variants is None else (self.seed, 3, index, form)
        return np.random.default_rng(key)


class Sampler(Protocol):
    """Lists of draws, or of images and forms, one list per micro-batch."""

    @property
    def micro_batch(self) -> int:
        """The most samples of a list."""

    def __iter__(self) -> Iterator[Any]: ...

    def __len__(self) -> int: ...


class DrawSampler:
    """Lists of draws, one list per micro-batch, for one rank, from `start` to the last step."""

    def __init__(self, *, steps: range, batch_size: int, accumulate: int = 1, rank: int = 0, world: int = 1) -> None:
        self.steps, self.batch_size, self.accumulate, self.rank, self.world = steps, batch_size, accumulate, rank, world

    @property
    def micro_batch(self) -> int:
        """Samples of a list."""
        return self.batch_size // (self.world * self.accumulate)

    def __iter__(self) -> Iterator[list[int]]:
        micro = self.micro_batch
        for step in self.steps:
            first = step * self.batch_size + self.rank * self.accumulate * micro
            for part in range(self.accumulate):
                yield list(range(first + part * micro, first + (part + 1) * micro))

    def __len__(self) -> int:
        return len(self.steps) * self.accumulate


class _Drawn(torch.utils.data.Dataset[Sample | ValueError]):
    """Augmented samples by draw, or by index and form.

    A sample that cannot be read is returned as its error: see `_raising`.
    """

    def __init__(
        self, dataset: Dataset, transform: TrainTransform, forms: Forms, rare: RareCrops | None,
        needs_segments: bool | None, opened: Remembered,
    ) -> None:  # fmt: skip
        self.dataset, self.transform, self.forms, self.rare = dataset, transform, forms, rare
        self.needs_segments, self.opened = needs_segments, opened

    def __getitem__(self, draw: int | tuple[int, int]) -> Sample | ValueError:
        index, form = self.forms(draw) if isinstance(draw, int) else draw
        wanted = None
        if self.rare is not None and isinstance(draw, int):
            index, wanted = self.rare(draw, index)
        try:
            return self._augmented(index, self.forms.generator(index, form), wanted)
        except ValueError as error:
            return error

    def _augmented(self, index: int, rng: np.random.Generator, wanted: int | None) -> Sample:
        name = self.dataset.name(index)
        image, target = self.opened(index)
        _check_segments(isinstance(target, Segments), self.needs_segments, name)
        if isinstance(target, Segments) and self.needs_segments is False:
            target = target.labels
        if not isinstance(target, Segments):
            image, labels = self.transform(image, target, rng, wanted)
            return Sample(image=image, target=labels, name=name)
        geometry = self.transform.draw_geometry(target, rng, wanted)
        image, segments = cut(image, target, geometry)
        image = self.transform.recolored(image, rng)
        outlines = getattr(self.dataset, "outlines", None)
        instances = (
            instances_of(segments, self.dataset.table) if outlines is None
            else outlines.instances(index, target.shape, geometry, segments.shape)
        )  # fmt: skip
        return Sample(image=image, target=segments.labels, name=name, segments=segments, instances=instances)


def _check_segments(has_segments: bool, needs_segments: bool | None, name: str) -> None:
    if needs_segments and not has_segments:
        raise ValueError(f"{name}: has no segments, which Panoptic FPN learns from; let read() give a Sample with "
                         "segments, or use Semantic FPN (model.architecture SemanticFPN)")  # fmt: skip


class _Whole(torch.utils.data.Dataset[Sample | ValueError]):
    """Samples as they are, by number."""

    def __init__(self, dataset: Dataset, needs_segments: bool | None, channels: int) -> None:
        self.dataset, self.needs_segments, self.channels = dataset, needs_segments, channels

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample | ValueError:
        try:
            sample = read_sample(self.dataset, index, channels=self.channels)
            _check_segments(sample.segments is not None, self.needs_segments, sample.name)
        except ValueError as error:
            return error
        return sample


class _Collate:
    """Samples -> one Batch, padded right and below to the crop's size; None: to the largest sample, grown to 32s."""

    def __init__(self, size: tuple[int, int] | None) -> None:
        self.size = size

    def __call__(self, samples: Sequence[Sample | ValueError]) -> Batch | ValueError:
        good = []
        for sample in samples:
            if isinstance(sample, ValueError):
                return sample
            good.append(sample)
        size = self.size or (_grown(s.target.shape[0] for s in good), _grown(s.target.shape[1] for s in good))
        pairs = [padded(s.image, s.target, size) for s in good]
        instances = tuple(s.instances for s in good if s.instances is not None)
        images = torch.from_numpy(np.stack([image for image, _ in pairs]))  # [B, H, W, C]
        sizes = tuple((s.target.shape[0], s.target.shape[1]) for s in good)
        return Batch(
            images=images.permute(0, 3, 1, 2),  # [B, C, H, W], channels_last without a copy
            targets=torch.from_numpy(np.stack([target for _, target in pairs])),
            sizes=sizes,
            extents=None if set(sizes) == {size} else torch.tensor(sizes),
            names=tuple(s.name for s in good),
            instances=instances if len(instances) == len(good) else None,
        )


def _grown(sides: Iterable[int]) -> int:
    return -(-max(sides) // _DIVISOR) * _DIVISOR


def _as_list(samples: list[Sample | ValueError]) -> list[Sample | ValueError]:
    return samples


def start_worker(_: int) -> None:
    """What a data worker begins with: one thread, and deaf to Ctrl-C."""
    cv2.setNumThreads(0)  # workers are the parallelism; OpenCV's own threads would fight the network for the cores
    for number in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C reaches the whole group, but only the loop decides to stop
        signal.signal(number, signal.SIG_IGN)


def train_loader(
    dataset: Dataset, transform: TrainTransform, sampler: Sampler, *, seed: int, num_workers: int,
    variants: int | None = None, rare: RareCrops | None = None, pin: bool = False, needs_segments: bool | None = None,
    channels: int = 3, memory: int = 0,
) -> Iterator[Batch]:  # fmt: skip
    """Micro-batches in the sampler's order; each image comes in so many `variants` (see `Forms`), or as `rare` says.

    Images that were decoded are kept in `memory` bytes, of all workers together, where all of them fit (`Remembered`).

    Samples with segments become batches with instances; with `needs_segments` False they do not, and with True a sample
    without segments is an error. ValueError for a sample that cannot be used.
    """
    check_main_guard(num_workers)
    forms = Forms(len(dataset), seed, variants)
    if transform.crop is not None:
        pixels = transform.crop[0] * transform.crop[1]
        _check_shared_memory(num_workers, sampler.micro_batch * pixels * (channels + _TARGET_BYTES))
    opened = Remembered(dataset, channels, memory // max(1, num_workers))
    loader: DataLoader[Any] = DataLoader(
        _Drawn(dataset, transform, forms, rare, needs_segments, opened), batch_sampler=sampler,
        collate_fn=_Collate(transform.crop), num_workers=num_workers, worker_init_fn=start_worker, pin_memory=pin,
        timeout=_HANGS if num_workers else 0,
    )  # fmt: skip
    return _raising(loader)


def _check_shared_memory(num_workers: int, num_bytes: int) -> None:
    """ValueError unless the batches that are under way fit into what containers give little of."""
    if not num_workers or not _SHARED.is_dir():
        return
    needed, free = (_UNDER_WAY * num_workers + 1) * num_bytes, shutil.disk_usage(_SHARED).free
    if needed > free:
        raise ValueError(f"{_SHARED} has {free >> 20} MiB free, but {num_workers} data workers pass up to "
                         f"{needed >> 20} MiB through it; {_MORE_MEMORY}")  # fmt: skip


def evaluation_loader(
    dataset: Dataset, indices: Sequence[int], *, batch_size: int, num_workers: int,
    needs_segments: bool | None = None, channels: int = 3,
) -> Iterator[list[Sample]]:  # fmt: skip
    """Lists of whole samples, at their own sizes, in the order of `indices`.

    ValueError for a sample that cannot be used, and with `needs_segments` for one without segments.
    """
    check_main_guard(num_workers)
    loader: DataLoader[Any] = DataLoader(
        _Whole(dataset, needs_segments, channels), batch_size=batch_size, sampler=indices, collate_fn=_as_list,
        num_workers=num_workers, worker_init_fn=start_worker, timeout=_HANGS if num_workers else 0,
    )  # fmt: skip
    for samples in _raising(loader):
        yield [_checked(sample) for sample in samples]


def _raising(loader: Iterable[T | ValueError]) -> Iterator[T]:
    """Errors travel from workers as values, so that they reach the user as the sentence they are."""
    for item in loader:
        yield _checked(item)


@contextmanager
def named_worker_errors() -> Iterator[None]:
    """ValueError, in a sentence that helps, where data workers of the block ended or hang.

    Around all that is done with their data: torch notices the end of a worker wherever the program is.
    """
    try:
        yield
    except RuntimeError as error:
        if sentence := _worker_fault(str(error)):
            raise ValueError(f"{sentence}; {_MORE_MEMORY}") from None  # what torch says of it helps nobody
        raise


def _worker_fault(text: str) -> str:
    if text.startswith("DataLoader timed out"):
        return f"no data came for {_HANGS} s: the data workers hang, or wait for a disk"
    if text.startswith("DataLoader worker"):
        return f"a data worker has ended, as when memory runs out ({text.splitlines()[0].partition('. ')[0]})"
    return ""


def _checked(item: T | ValueError) -> T:
    if isinstance(item, ValueError):
        raise item
    return item
