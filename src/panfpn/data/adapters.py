"""Data sets of what users have. In: pairs of images and masks, a torch data set. Out: a `Dataset` of them.

Masks hold raw values of the label table, as those in files do; the table translates them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from panfpn.data.checked import check_image
from panfpn.data.dataset import Dataset
from panfpn.data.images import as_channels, pillow_pixels, read_image, read_mask
from panfpn.labels import LabelTable
from panfpn.types import RGB, RawMask, Reading, Sample

_MEMBERS = ("__len__", "name", "read")
_PROTOCOL = "a data set has __len__, name(i), read(i) and table (see panfpn.Dataset)"


@dataclass(frozen=True, eq=False)
class PairDataset:
    """Images and masks by number: paths, arrays, PIL images or tensors, in a sequence of pairs or a torch data set."""

    table: LabelTable
    pairs: Any  # pairs[i] -> (image, mask)
    names: tuple[str, ...]
    reading: Reading = RGB

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        """The sample's name."""
        return self.names[index]

    def open(self, index: int) -> tuple[npt.NDArray[np.uint8], RawMask]:
        """One image and its mask; see `WindowedDataset.open`."""
        name, pair = self.names[index], self.pairs[index]
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise ValueError(f"{name}: expected a pair (image, mask), but there is {_described(pair)}")
        image, mask = _as_image(pair[0], name, self.reading), _as_mask(pair[1], name, self.table.masks == "colors")
        if image.shape[:2] != mask.shape[:2]:
            raise ValueError(f"{name}: the image is {image.shape[1]}×{image.shape[0]} pixels, but its mask "
                             f"{mask.shape[1]}×{mask.shape[0]}; they must agree")  # fmt: skip
        source = pair[1] if isinstance(pair[1], str | Path) else f"mask of {name}"
        return image, RawMask(self.table.in_form(mask, source), self.table, source)

    def read(self, index: int) -> Sample:
        """One whole sample; see `Dataset.read`."""
        image, mask = self.open(index)
        return Sample(image=image, target=mask[:, :], name=self.name(index))


def from_pairs(
    pairs: Sequence[tuple[Any, Any]], table: LabelTable, names: Sequence[str] | None = None, *, reading: Reading = RGB
) -> PairDataset:
    """The data set of (image, mask) pairs: each a path, an array, a PIL image or a tensor.

    Images are RGB or grey of 8 bits, or what `reading` says of other bands and bits; masks [H, W] of integers (or RGB,
    for a table of colours) with the raw values that `table` knows. Samples are called as in `names`, else like the
    images' files, else by number.

    Raises:
        ValueError: no pairs, what is no pair, or names that are not one for each and all different. When a sample is
            read: what cannot be used, by its name.
    """
    _check_table(table)
    if not len(pairs):
        raise ValueError("there are no pairs of images and masks")
    for i, pair in enumerate(pairs):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise ValueError(f"pairs[{i}]: expected a pair (image, mask), but there is {_described(pair)}")
    unique = tuple(map(str, names)) if names is not None else _names(pairs)
    if len(unique) != len(pairs):
        raise ValueError(f"there are {len(unique)} names for {len(pairs)} pairs; give one for each")
    name, count = Counter(unique).most_common(1)[0]
    if count > 1:
        raise ValueError(f"{count} samples are named {name!r}; a name is unique in its data set")
    return PairDataset(table, tuple((image, mask) for image, mask in pairs), unique, reading)


def from_torch(dataset: Any, table: LabelTable, *, reading: Reading = RGB) -> PairDataset:
    """The data set of a torch one, whose items are (image, mask); samples are named by their numbers.

    An image is a PIL image, a uint8 array [H, W, 3] or a uint8 tensor [3, H, W]; a mask a PIL image, an array, or an
    integer tensor [H, W] or [1, H, W], with the raw values that `table` knows. What draws at random or makes floats of
    images (ToTensor, Normalize) is left out of it: panfpn augments and normalises itself.

    Raises:
        ValueError: a data set without length or numbers. When a sample is read: what cannot be used, by its name.
    """
    _check_table(table)
    for member in ("__len__", "__getitem__"):
        if not hasattr(dataset, member):
            raise ValueError(f"{type(dataset).__name__} has no {member}; a torch data set here gives its items by "
                             "number, as a Map-style one does")  # fmt: skip
    if not len(dataset):
        raise ValueError(f"{type(dataset).__name__} has no items")
    return PairDataset(table, dataset, tuple(f"{i:06d}" for i in range(len(dataset))), reading)


def as_dataset(data: Any, table: LabelTable | None = None) -> Dataset:
    """`data` as a `Dataset`: that itself, a list of (image, mask) pairs, or a torch data set with a label `table`.

    ValueError says what is missing in anything else.
    """
    name = type(data).__name__
    missing = [member for member in _MEMBERS if not callable(getattr(data, member, None))]
    if not missing:
        if not isinstance(getattr(data, "table", None), LabelTable):
            raise ValueError(f"{name} has no `table`, the panfpn.LabelTable of its train ids; {_PROTOCOL}")
        if table is not None and table != data.table:
            raise ValueError(f"{name} has a label table of its own ({data.table.name!r}), so no other can be given")
        if not len(data):
            raise ValueError(f"{name} has no samples")
        return data  # type: ignore[no-any-return]
    if isinstance(data, str | Path):
        raise ValueError(f"{str(data)!r} is a path; open what lies there with panfpn.data.open_dataset(layout, root, "
                         "split), or name it in the settings (data.dataset, data.root)")  # fmt: skip
    if isinstance(data, list | tuple):
        if table is None:
            raise ValueError(f"a {name} has no `table`; pass panfpn.from_pairs(pairs, table)")
        return from_pairs(data, table)
    if "name" in missing and "read" in missing and hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        if table is None:
            raise ValueError(f"{name} has no `table`; pass panfpn.from_torch(dataset, table)")
        return from_torch(data, table)
    raise ValueError(f"{name} has no {', '.join(missing)}; {_PROTOCOL}")


def _check_table(table: object) -> None:
    if not isinstance(table, LabelTable):
        raise ValueError(f"table is {_described(table)}; give a panfpn.LabelTable: LabelTable.from_yaml(path), "
                         "LabelTable.named(name), or one of your own")  # fmt: skip


def _names(pairs: Sequence[tuple[Any, Any]]) -> tuple[str, ...]:
    """The images' stems where they have different ones, else with their numbers before them."""
    stems = [Path(image).stem if isinstance(image, str | Path) else "" for image, _ in pairs]
    if all(stems) and len(set(stems)) == len(stems):
        return tuple(stems)
    return tuple(f"{i:06d}_{stem}" if stem else f"{i:06d}" for i, stem in enumerate(stems))


def _as_image(image: object, name: str, reading: Reading) -> npt.NDArray[np.uint8]:
    """uint8 [H, W, C] of whatever holds an image."""
    if isinstance(image, str | Path):
        return read_image(Path(image).expanduser(), reading)
    if isinstance(image, Image.Image):
        image = pillow_pixels(image)
    elif isinstance(image, torch.Tensor):
        if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] not in (1, 3, reading.channels):
            raise ValueError(f"{name}: the image is a {_described(image)}; a tensor holds uint8 "
                             f"[{reading.channels}, H, W] in 0..255, which panfpn normalises itself")  # fmt: skip
        image = image.permute(1, 2, 0).numpy(force=True)
    if isinstance(image, np.ndarray) and image.ndim in (2, 3) and image.size:
        grey = image.dtype == np.uint8 and (image.ndim == 2 or image.shape[2] == 1)
        image = as_channels(image, reading, name) if grey or reading is not RGB else image
    return check_image(image, name, reading.channels)


def _as_mask(mask: object, name: str, colors: bool) -> npt.NDArray[np.generic]:
    """Raw values [H, W], or RGB uint8 [H, W, 3], of whatever holds a mask."""
    if isinstance(mask, str | Path):
        return read_mask(Path(mask).expanduser(), colors=colors)
    if isinstance(mask, Image.Image):
        mask = mask.convert("RGB") if mask.mode == "P" and colors else mask
        pixels = np.array(mask)
        pixels = pixels.astype(np.uint8) if pixels.dtype == np.bool_ else pixels
        if pixels.ndim == 3:  # an alpha channel says nothing
            pixels = pixels[:, :, 0] if pixels.shape[2] == 2 else pixels[:, :, :3]
        return np.ascontiguousarray(pixels)
    if isinstance(mask, torch.Tensor):
        mask = mask[0] if mask.ndim == 3 and mask.shape[0] == 1 else mask
        mask = mask.numpy(force=True)
    if not isinstance(mask, np.ndarray):
        raise ValueError(f"{name}: the mask is {_described(mask)}; give a path, an array, a PIL image or a tensor")
    if mask.dtype == np.bool_:
        mask = mask.astype(np.uint8)
    return np.ascontiguousarray(mask[:, :, 0] if mask.ndim == 3 and mask.shape[2] == 1 else mask)


def _described(value: object) -> str:
    """Type and form of a value, in words."""
    if isinstance(value, np.ndarray | torch.Tensor):
        return f"{type(value).__name__} of {value.dtype} and shape {tuple(value.shape)}"
    if isinstance(value, tuple | list | dict | str):
        return f"{type(value).__name__} of length {len(value)}"
    return type(value).__name__
