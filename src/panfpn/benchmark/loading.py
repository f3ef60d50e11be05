"""The training loader by itself. In: data settings. Out: images per second."""

import time
from dataclasses import asdict, dataclass
from typing import Any

from panfpn.build import build_dataset, build_transform
from panfpn.config import Data
from panfpn.data import train_loader
from panfpn.data.loader import DrawSampler
from panfpn.parsing import plain


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadingFigures:
    """What was measured."""

    data: Data
    batch_size: int
    batches: int
    seconds: float  # of all batches together

    @property
    def images_per_second(self) -> float:
        """Crops read, augmented and collated, over the whole time."""
        return self.batches * self.batch_size / self.seconds

    def to_dict(self) -> dict[str, Any]:
        """Figures and data settings as plain data."""
        return {
            "images_per_s": self.images_per_second, "batch_size": self.batch_size, "batches": self.batches,
            "seconds": self.seconds, "data": plain(asdict(self.data)),
        }  # fmt: skip


def measure_loading(data: Data, *, batch_size: int = 8, batches: int = 50, seed: int = 0) -> LoadingFigures:
    """Draw `batches` batches of augmented crops and take the time.

    What the workers had ready when the clock started is used up before it does.

    Raises:
        ValueError: data that cannot be used, or fewer than one batch or image.
    """
    if min(batch_size, batches) < 1:
        raise ValueError(f"{batches} batches of {batch_size} images; both must be at least 1")
    dataset = build_dataset(data, data.train_split)
    warmup = 1 + 2 * data.num_workers  # a worker has up to two batches ready
    sampler = DrawSampler(steps=range(warmup + batches), batch_size=batch_size)
    loader = train_loader(dataset, build_transform(data), sampler, seed=seed, num_workers=data.num_workers)
    for _ in range(warmup):
        next(loader)
    start = time.perf_counter()
    for _ in range(batches):
        next(loader)
    return LoadingFigures(data=data, batch_size=batch_size, batches=batches, seconds=time.perf_counter() - start)
