"""Features of a frozen backbone, computed once. In: a data set in few forms. Out: batches without images.

Where nothing of the backbone is trained and each image is seen in `data.variants` forms only, its maps are always the
same. They are kept in files of the run folder, in 16 bits, and the head trains from them. All are
computed before the first step, in batches that do not depend on where a run was interrupted, so that a resumed run
sees the same numbers.
"""

import contextlib
import json
import math
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from panfpn.config import TrainConfig
from panfpn.data import Dataset, TrainTransform, identity_of, train_loader
from panfpn.data.loader import DrawSampler, Forms
from panfpn.engine.distributed import Ranks
from panfpn.files import write_json
from panfpn.progress import progress_bar
from panfpn.tasks import Task
from panfpn.types import Batch
from panfpn.weights.files import tensors_digest

FOLDER = "features"
_KEY = "key.json"
_ELSEWHERE = (
    "root",
    "pack",
    "pack_url",
    "pack_cache",
    "pack_cache_gb",
    "num_workers",
    "memory_gb",
)  # settings of data that change nothing of what is computed
_AS_BEFORE = (("fold", 0), ("rotate90", 0.0))  # settings that once were not, and their values then
_TOGETHER = 8  # images that go through the backbone at a time
_SAVED = 16  # batches between two notes of how far it is
_STORED = {"float32": torch.float16, "float16": torch.float16, "bfloat16": torch.bfloat16}  # by precision


class FeatureCache:
    """The maps and targets of every form of every training image, in a folder.

    Args: `folder` is the run's. `fill` computes what is missing.

    Raises:
        ValueError: they take more than `train.cache_gb`, or than the disk has.
    """

    def __init__(
        self, folder: Path, task: Task, dataset: Dataset, transform: TrainTransform, config: TrainConfig
    ) -> None:
        assert config.data.crop is not None and config.data.variants is not None
        self.folder, self.task, self.dataset, self.transform = folder / FOLDER, task, dataset, transform
        self.config, self.crop, self.variants = config, config.data.crop, config.data.variants
        self.num_forms = len(dataset) * self.variants
        self.dtype = _STORED[config.train.precision]
        with torch.inference_mode():
            blank = torch.zeros(1, *self.crop, config.model.in_channels, dtype=torch.uint8, device=task.device)
            maps = task.eval().pixels.features(blank)
        self.shapes = [tuple(m.shape[1:]) for m in maps]  # [C, h, w] of each level
        self.width = sum(math.prod(shape) for shape in self.shapes)  # numbers of a form
        self._check_size()

    def _check_size(self) -> None:
        needed = 2 * self.num_forms * (self.width + math.prod(self.crop)) / 1e9
        allowed = self.config.train.cache_gb
        stored = sum(file.stat().st_blocks * 512 for file in self.folder.glob("*")) if self.folder.is_dir() else 0
        free = (shutil.disk_usage(self.folder.parent).free + stored) / 1e9
        each = f"{len(self.dataset)} images in {self.variants} forms"
        if needed > allowed:
            raise ValueError(f"train.cache_gb is {allowed:g}, but the features of {each} take {needed:.2f} GB; "
                             "raise it, or lower data.variants or data.crop")  # fmt: skip
        if needed > free:
            raise ValueError(f"{self.folder}: the features of {each} take {needed:.2f} GB, but the disk has {free:.2f} "
                             "GB left; lower data.variants or data.crop, or choose another run.dir")  # fmt: skip

    def fill(self, ranks: Ranks) -> None:
        """Compute what an earlier process has not; ranks take turns by batches."""
        if ranks.first:
            self._prepare(ranks.world)
        ranks.wait()
        nonce = json.loads((self.folder / _KEY).read_text())["nonce"]
        note = self.folder / f"done_{ranks.rank}.json"
        done = self._done(note, nonce)
        maps, targets = (
            np.memmap(self.folder / name, np.int16, "r+", shape=(self.num_forms, count))
            for name, count in self._counts().items()
        )
        mine = range(ranks.rank, -(-self.num_forms // _TOGETHER), ranks.world)
        batches = train_loader(
            self.dataset, self.transform, _Chunks([self._rows(number) for number in mine[done:]], self.variants),
            seed=self.config.train.seed, variants=self.variants, num_workers=self.config.data.num_workers,
            needs_segments=False, channels=self.config.model.in_channels,
        )  # fmt: skip
        show = ranks.first and done < len(mine)
        with progress_bar("features", len(mine) * _TOGETHER, show=show) as advance, torch.inference_mode():
            self.task.eval()
            for count, batch in enumerate(batches, done + 1):
                rows = self._rows(mine[count - 1])
                on_device = batch.to(self.task.device)
                found = self.task.pixels.features(on_device.images.permute(0, 2, 3, 1), on_device.extents)
                flat = torch.cat([m.to(self.dtype).flatten(1) for m in found], 1).cpu()  # [B, width]
                if not flat.isfinite().all():
                    raise ValueError(f"the features of {', '.join(batch.names)} are not finite in {self.dtype}; train "
                                     "with train.precision bfloat16, or without train.cache_gb")  # fmt: skip
                maps[rows.start : rows.stop] = flat.view(torch.int16).numpy()
                targets[rows.start : rows.stop] = batch.targets.flatten(1).numpy()
                if count % _SAVED == 0 or count == len(mine):
                    maps.flush()
                    targets.flush()
                    write_json(note, {"nonce": nonce, "done": count})
                advance(count * _TOGETHER)
        ranks.wait()

    def batches(self, sampler: DrawSampler) -> Iterator[Batch]:
        """The micro-batches of a sampler, from the files."""
        forms = Forms(len(self.dataset), self.config.train.seed, self.variants)
        counts = self._counts()
        for draws in sampler:
            rows = [index * self.variants + form for index, form in map(forms, draws)]
            maps, targets = (_rows_of(self.folder / name, rows, count) for name, count in counts.items())
            flat = torch.from_numpy(maps).view(self.dtype)
            parts = torch.split(flat, [math.prod(shape) for shape in self.shapes], 1)
            features = tuple(
                part.reshape(-1, *shape).contiguous(memory_format=self.task.pixels.layout)
                for part, shape in zip(parts, self.shapes, strict=True)
            )
            yield Batch(
                images=torch.empty(len(rows), 0, *self.crop, dtype=torch.uint8), features=features,
                targets=torch.from_numpy(targets).reshape(-1, *self.crop), sizes=(self.crop,) * len(rows),
                names=tuple(self.dataset.name(row // self.variants) for row in rows),
            )  # fmt: skip

    def remove(self) -> None:
        """When the run has ended."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _rows(self, number: int) -> range:
        return range(number * _TOGETHER, min((number + 1) * _TOGETHER, self.num_forms))

    def _counts(self) -> dict[str, int]:
        """Numbers of a form in each file, int16."""
        return {"maps": self.width, "targets": math.prod(self.crop)}

    def _prepare(self, world: int) -> None:
        """Make the files, unless they are there and of the same backbone, data and settings.

        The key is written last, with a nonce that notes repeat: none is believed of files that are not its own.
        """
        key = {
            "backbone": tensors_digest(self.task.model.backbone.state_dict()), "shapes": [list(s) for s in self.shapes],
            "forms": self.num_forms, "dtype": str(self.dtype), "ranks": world, "seed": self.config.train.seed,
            "data": {name: value for name, value in self.config.to_dict()["data"].items()
                     if name not in _ELSEWHERE and (name, value) not in _AS_BEFORE},
            "images": identity_of(self.dataset).digest, "mean": self.config.model.mean, "std": self.config.model.std,
        }  # fmt: skip
        key = json.loads(json.dumps(key))
        sizes = {name: 2 * self.num_forms * count for name, count in self._counts().items()}
        file = self.folder / _KEY
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(file.read_text())
            whole = all((self.folder / name).stat().st_size == size for name, size in sizes.items())
            if whole and {name: value for name, value in found.items() if name != "nonce"} == key:
                return
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(exist_ok=True)
        for name, size in sizes.items():
            with (self.folder / name).open("wb") as empty:
                if hasattr(os, "posix_fallocate"):  # a disk that is full says so now, and not by a signal later
                    os.posix_fallocate(empty.fileno(), 0, size)
                empty.truncate(size)
        write_json(file, {**key, "nonce": uuid.uuid4().hex})

    @staticmethod
    def _done(note: Path, nonce: str) -> int:
        """How many batches of this rank lie there already."""
        try:
            found = json.loads(note.read_text())
        except (OSError, ValueError):
            return 0
        return int(found["done"]) if found.get("nonce") == nonce else 0


def _rows_of(file: Path, rows: Sequence[int], count: int) -> npt.NDArray[np.int16]:
    """Rows [len(rows), count] of a file; read, as pages that are mapped cost a fault each, and count as memory."""
    found = np.empty((len(rows), count), np.int16)
    with file.open("rb", buffering=0) as stream:
        for place, row in zip(found, rows, strict=True):
            stream.seek(2 * row * count)
            got = stream.readinto(place.data)
            if got != place.nbytes:
                raise ValueError(f"{file}: ends too early; delete {file.parent}, so that it is computed again")
    return found


class _Chunks:
    """Batches of given rows, as indices and forms."""

    micro_batch = _TOGETHER

    def __init__(self, rows: Sequence[range], variants: int) -> None:
        self.rows, self.variants = rows, variants

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return ([divmod(row, self.variants) for row in rows] for rows in self.rows)

    def __len__(self) -> int:
        return len(self.rows)
