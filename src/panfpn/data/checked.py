"""Samples of a user's own data set, checked. In: what `read(i)` gave. Out: a Sample in the one form that is trained on.

Everything that is wrong becomes a ValueError of one sentence, which names the sample and what to do.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from panfpn.data.dataset import Dataset, WindowedDataset
from panfpn.data.segments import first_pixel
from panfpn.labels import IGNORE, LabelTable
from panfpn.types import RawMask, Sample, Segments


def open_sample(
    dataset: Dataset, index: int, *, channels: int = 3
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int16] | RawMask | Segments]:
    """What training cuts from: by `open` where the data set has that, else a whole sample, checked."""
    if isinstance(dataset, WindowedDataset):
        image, target = dataset.open(index)
        return check_image(image, dataset.name(index), channels) if image.shape[2] != channels else image, target
    sample = read_sample(dataset, index, channels=channels)
    return sample.image, sample.target if sample.segments is None else sample.segments


def read_sample(dataset: Dataset, index: int, *, channels: int = 3) -> Sample:
    """One whole sample, checked unless the data set vouches for it (see `WindowedDataset`) but for its channels."""
    sample, name = dataset.read(index), dataset.name(index)
    if not isinstance(dataset, WindowedDataset):
        return check_sample(sample, dataset.table, name, channels=channels)
    if sample.image.shape[2] != channels:
        check_image(sample.image, name, channels)
    return sample


def check_sample(sample: Sample, table: LabelTable, name: str, *, channels: int = 3) -> Sample:
    """The sample under its `name`: image uint8 [H, W, channels], target int16 [H, W], both contiguous.

    Raises:
        ValueError: no Sample; an image of another type or shape (tensors and floats too); a target that is no integer
            array of the image's size, or has ids other than IGNORE = -1 and 0..K - 1; segments that do not fit.
    """
    if not isinstance(sample, Sample):
        raise ValueError(f"{name}: read() gave a {_type(sample)}; return panfpn.Sample(image=…, target=…, name=…)")
    image = check_image(sample.image, name, channels)
    if sample.segments is not None:
        _check_segments(sample.segments, image.shape[:2], table, name)
    target = _check_target(sample.target, image.shape[:2], table, name)
    if sample.segments is not None:
        wrong = target != sample.segments.labels
        if wrong.any():
            raise ValueError(f"{name}: target and segments disagree in {first_pixel(wrong)}; give segments.labels as "
                             "target")  # fmt: skip
    return replace(sample, image=image, target=target, name=name)


def check_image(image: object, name: str, channels: int = 3) -> npt.NDArray[np.uint8]:
    """The image, contiguous; ValueError if it is not uint8 [H, W, channels]."""
    rgb = f"an image is {'RGB ' * (channels == 3)}uint8 [H, W, {channels}]"
    if not isinstance(image, np.ndarray):
        raise ValueError(f"{name}: the image is a {_type(image)}; {rgb}: a NumPy array")
    if image.dtype != np.uint8:
        raise ValueError(f"{name}: the image has {image.dtype} pixels; {rgb} of 0..255, which panfpn normalises itself")
    if image.ndim != 3 or image.shape[2] != channels or 0 in image.shape:
        fix = ""
        if channels != 3:
            fix = ", as model.in_channels says"
        elif image.ndim == 2:
            fix = "; repeat a grey one: np.stack([image] * 3, -1)"
        elif image.ndim == 3 and image.shape[0] == 3:
            fix = "; transpose this one: image.transpose(1, 2, 0)"
        elif image.ndim == 3 and image.shape[2] == 4:
            fix = "; leave out the fourth channel: image[:, :, :3]"
        raise ValueError(f"{name}: the image has shape {image.shape}; {rgb}{fix}")
    return np.ascontiguousarray(image)


def _check_target(target: object, size: tuple[int, ...], table: LabelTable, name: str) -> npt.NDArray[np.int16]:
    """Train ids as int16, contiguous."""
    ids = "a target holds train ids [H, W]"
    if not isinstance(target, np.ndarray):
        raise ValueError(f"{name}: the target is a {_type(target)}; {ids}: a NumPy array of integers")
    if not np.issubdtype(target.dtype, np.integer):
        raise ValueError(f"{name}: the target has {target.dtype} pixels; {ids} as integers: target.astype(np.int16)")
    if target.shape != size:
        raise ValueError(f"{name}: the target has shape {target.shape}, but the image {size[0]} rows of {size[1]} "
                         f"pixels; {ids}, one for each pixel")  # fmt: skip
    if int(target.min()) < IGNORE or int(target.max()) >= table.num_classes:
        value = int(target[(target < IGNORE) | (target >= table.num_classes)][0])
        raise ValueError(f"{name}: the target has {value} ({int((target == value).sum())} pixels, the first in "
                         f"{first_pixel(target == value)}); train ids are 0 to {table.num_classes - 1}, and -1 where "
                         f"nothing is to be learnt: np.where(target == {value}, -1, target), or table.encode(mask) of "
                         "raw values")  # fmt: skip
    return np.ascontiguousarray(target, np.int16)


def _check_segments(segments: Segments, size: tuple[int, ...], table: LabelTable, name: str) -> None:
    if not isinstance(segments, Segments):
        raise ValueError(f"{name}: segments is a {_type(segments)}; give panfpn.types.Segments, or None")
    count = len(segments.classes)
    meaning = "segments.index says of each pixel which of the N segments it is, -1 for void"
    for field, dtype in (("index", np.int16), ("classes", np.int16), ("crowd", np.bool_), ("ids", np.int64)):
        array = getattr(segments, field)
        if not isinstance(array, np.ndarray) or array.dtype != dtype:
            form = array.dtype if isinstance(array, np.ndarray) else _type(array)
            raise ValueError(f"{name}: segments.{field} is {form}; give a NumPy array of {np.dtype(dtype)}")
        if field != "index" and array.shape != (count,):
            raise ValueError(f"{name}: segments.{field} has shape {array.shape}, but there are {count} segments")
    if segments.index.shape != size:
        raise ValueError(f"{name}: segments.index has shape {segments.index.shape}, but the image {size[0]} rows of "
                         f"{size[1]} pixels; {meaning}")  # fmt: skip
    low, high = int(segments.index.min(initial=0)), int(segments.index.max(initial=-1))
    if low < IGNORE or high >= count:
        raise ValueError(f"{name}: segments.index reaches from {low} to {high} with {count} segments; {meaning}")
    if count and not 0 <= int(segments.classes.min()) <= int(segments.classes.max()) < table.num_classes:
        raise ValueError(f"{name}: segments.classes reach from {segments.classes.min()} to {segments.classes.max()}; "
                         f"train ids are 0 to {table.num_classes - 1}")  # fmt: skip


def _type(value: object) -> str:
    return type(value).__name__
