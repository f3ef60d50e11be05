"""What training and evaluation read from: a `Dataset`. In: files, or anything that gives samples by number.

`open_dataset` opens one that lies on disk (layouts/ has a file for each way); adapters.py makes one of other objects.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from panfpn.choices import LAYOUTS, lookup
from panfpn.data.header import read_header
from panfpn.data.images import decode_mask, decode_with_header, fit_mask, mask_of
from panfpn.data.layouts.request import SplitRequest
from panfpn.data.segments import PanopticDataset, different_sizes
from panfpn.files import read_bytes
from panfpn.labels import LabelTable
from panfpn.listing import LeftOut
from panfpn.types import RGB, RawMask, Reading, Sample, Segments


class Dataset(Protocol):
    """Samples by number, in an order that stays; these four members are all that a data set of one's own needs.

    A class with them can be trained and evaluated on; it need not inherit from this one::

        class Mine:
            table = panfpn.LabelTable.from_yaml(Path("labels.yaml"))

            def __len__(self) -> int:
                return len(self.files)

            def name(self, index: int) -> str:
                return self.files[index].stem

            def read(self, index: int) -> panfpn.Sample:
                image, labels = ...  # uint8 [H, W, 3] RGB; [H, W] of 0..K - 1, or -1 (IGNORE) where nothing is known
                return panfpn.Sample(image=image, target=labels, name=self.name(index))

    Samples may have any sizes. With loading workers (`data.num_workers`), objects of the class must be picklable. For
    Panoptic FPN, samples carry `segments` too, and `target` is their `labels`. See also `WindowedDataset`.
    """

    @property
    def table(self) -> LabelTable:
        """The classes: train id k is the k-th of them."""

    def __len__(self) -> int:
        """Number of samples."""

    def name(self, index: int) -> str:
        """The sample's name, unique in the data set; what is written for it is named after it."""

    def read(self, index: int) -> Sample:
        """One whole sample; ValueError names the file that cannot be used, and why.

        The image is uint8 [H, W, 3] RGB, the target [H, W] of any integer type: train ids, IGNORE = -1 where nothing
        is to be learnt. Both are checked (see `check_sample`).
        """


@runtime_checkable
class WindowedDataset(Dataset, Protocol):
    """A `Dataset` that can also give a sample without translating, or even reading, all of its pixels.

    It vouches for what it gives: nothing of it is checked again.
    """

    def open(self, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int16] | RawMask | Segments]:
        """An image, RGB [H, W, 3], and its train ids, made where they are looked at: what training cuts from.

        Of a panoptic data set the segments, which give train ids too.

        ValueError, at the latest then, names the file that cannot be used, and why.
        """


@dataclass(frozen=True, eq=False)
class FileDataset:
    """Images and masks on disk, paired by name. `mask_table` reads masks that hold other values than `table`'s."""

    table: LabelTable
    items: tuple[tuple[str, Path, Path], ...]  # (name, image, mask)
    mask_table: LabelTable | None = None
    reading: Reading = RGB
    left_out: LeftOut = field(default_factory=LeftOut)

    def __len__(self) -> int:
        return len(self.items)

    def name(self, index: int) -> str:
        """The sample's name: its path below the split, without suffix."""
        return self.items[index][0]

    def open(self, index: int) -> tuple[npt.NDArray[np.uint8], RawMask]:
        """Decode one image and its mask; see `WindowedDataset.open`."""
        _, image_path, mask_path = self.items[index]
        return self.decode(index, read_bytes(image_path), read_bytes(mask_path))

    def decode(self, index: int, image_data: bytes, mask_data: bytes) -> tuple[npt.NDArray[np.uint8], RawMask]:
        """`open` for an item whose two files have been read already."""
        _, image_path, mask_path = self.items[index]
        table = self.mask_table or self.table
        image, header = decode_with_header(image_data, image_path, self.reading)
        mask_header = read_header(mask_data, mask_path, self.reading.page or 1)
        mask = mask_of(mask_header, mask_data, mask_path, colors=table.masks == "colors", page=self.reading.page)
        if header.orientation > 1:
            mask = fit_mask(mask, header, self.reading, image_path, mask_path)
        if image.shape[:2] != mask.shape[:2]:
            raise ValueError(different_sizes(image_path, image.shape[:2], mask_path, mask.shape[:2]))
        if mask_header.palette is not None and table.masks == "values":
            self._check_palette(mask, mask_header.palette, mask_path)
        return image, RawMask(table.in_form(mask, mask_path), table, mask_path)

    def labels(self, index: int) -> npt.NDArray[np.int16]:
        """The train ids of one mask as it is stored [H, W]; the image is not looked at."""
        path, table = self.items[index][2], self.mask_table or self.table
        mask = decode_mask(read_bytes(path), path, colors=table.masks == "colors", page=self.reading.page)
        return table.encode(mask, path)

    @cached_property
    def _first_palette(self) -> npt.NDArray[np.uint8] | None:
        path = self.items[0][2]
        return read_header(read_bytes(path), path).palette

    def _check_palette(self, mask: npt.NDArray[np.generic], palette: npt.NDArray[np.uint8], path: Path) -> None:
        """ValueError if a colour of this file's palette is another index in the first file's: another order."""
        first = self._first_palette
        if first is None or np.array_equal(first, palette):
            return
        index_of = {tuple(color): k for k, color in reversed(list(enumerate(first.tolist())))}
        for k in np.unique(mask).tolist():
            color = tuple(palette[k].tolist())
            if k < len(first) and tuple(first[k].tolist()) != color and color in index_of:
                raise ValueError(
                    f"{path}: its palette has another order than that of {self.items[0][2]}: colour "
                    f"#{bytes(color).hex()} is {k} here and {index_of[color]} there; declare the classes by their "
                    "colours (`masks: colors` in labels.yaml), or save all with one palette"
                )

    def read(self, index: int) -> Sample:
        """Decode one image and its mask; see `Dataset.read`."""
        image, mask = self.open(index)
        return Sample(image=image, target=mask[:, :], name=self.name(index))


def open_dataset(
    layout: str, root: str | Path | None, split: str, *, panoptic: bool = False, scene_count: int = 64,
    scene_size: tuple[int, int] = (192, 256), instances: str = "panoptic", reading: Reading = RGB,
    unpaired: list[str] | None = None, table: LabelTable | None = None, stuff: tuple[str, ...] = (),
) -> Dataset:  # fmt: skip
    """A split of the data set under `root` in a layout of `panfpn.choices.LAYOUTS`.

    `reading` says what images' files leave open. With `panoptic`, samples carry segments too, and with `instances`
    "json" the things of COCO are those of instances_SPLIT.json in training. A list `unpaired` gets a sentence for every
    image without mask and mask without image, which are then left out. `table` says what values of the layout mean in
    place of its own table (as a labels.yaml in the root does); `stuff` names classes of shapes that are no things.

    Raises:
        ValueError: an unknown layout, a missing root, an empty split, an image without mask or a mask without image; it
            names what was looked for, and where. With `panoptic`, a data set that knows no things or no instances.
    """
    request = SplitRequest(
        layout=layout, root=None if root is None else Path(root), split=split, panoptic=panoptic, instances=instances,
        scene_count=scene_count, scene_size=scene_size, reading=reading, unpaired=unpaired,
        table=table, stuff=stuff,
    )  # fmt: skip
    return open_split(lookup(LAYOUTS, layout, "data.dataset"), request)


def open_split(opener: Callable[[SplitRequest], Dataset], request: SplitRequest) -> Dataset:
    """The split that a layout's opener finds, read as the request says."""
    data = opener(request)
    if isinstance(data, FileDataset | PanopticDataset):
        return replace(data, reading=request.reading, left_out=request.left_out)
    return data


def files_of(dataset: Dataset, index: int) -> tuple[Path | None, Path | None]:
    """The files of a sample's image and of its mask, where it has any."""
    if isinstance(dataset, FileDataset):
        return dataset.items[index][1:]
    if isinstance(dataset, PanopticDataset):
        return dataset.images[index][1], dataset.source.file(index)
    return None, None
