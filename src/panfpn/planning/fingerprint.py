"""What a training must know of its data. In: the `data` part of a configuration. Out: a Fingerprint."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from panfpn.build import build_dataset
from panfpn.choices import DRAWN
from panfpn.config import Data
from panfpn.data import Dataset
from panfpn.data.checked import open_sample
from panfpn.data.layouts.listing import names_of_split
from panfpn.data.layouts.request import NoInstancesError
from panfpn.data.recognition import recognise, splits_of
from panfpn.labels import IGNORE
from panfpn.planning.orientation import Orientation
from panfpn.progress import progress_bar
from panfpn.recipes.observed import Fingerprint
from panfpn.types import Segments

_NARROW = 10.0  # pixels
_LOOKED_AT = 200  # images, spread over a split


def located(data: Data, *, named: bool, val_named: bool = False) -> tuple[Data, bool]:
    """The data set with its layout (recognised unless it is `named`) and splits; and whether one of them validates.

    A pack has the splits that it was made with, and a split that is named (`val_named`) is the one, whether it is there
    or not. ValueError for a folder in which nothing is recognised.
    """
    if data.dataset in DRAWN:
        return data, True
    if data.pack is not None or data.pack_url is not None:
        return data, data.split is None
    if data.root is None:
        raise ValueError("data.root is not set; train auto needs the folder of a data set")
    if not named:
        layout, root = recognise(data.root)
        data = replace(data, dataset=layout, root=root)
    assert data.root is not None
    there = splits_of(data.dataset, data.root)
    if not there or data.val_split in there or val_named:  # which a layout may know by another name too
        return data, data.split is None
    val = next((split for split in names_of_split("val") if split in there), None)  # a test split is not for choosing
    return (data, False) if val is None else (replace(data, val_split=val), data.split is None)


def look_at(data: Data, *, validates: bool, semantic: bool = False, channels: int = 3) -> Fingerprint:
    """Look at a data set; with `semantic`, things are not told apart.

    ValueError for data that cannot be used, as training gives it.
    """
    train, segments = _opened(data, segments=not semantic, channels=channels)
    val = build_dataset(data, data.val_split, segments=segments, channels=channels) if validates else None
    if not len(train):
        raise ValueError(f"{data.root}: split {data.train_split!r} holds no images to learn from")
    if len(train) < 2 and val is None and data.split is None:
        raise ValueError(f"{data.root}: 1 image is not enough to train on and to validate; add another, or a split "
                         "called val")  # fmt: skip
    k = train.table.num_classes
    counts, edges = np.zeros(k + 1, np.int64), np.zeros(k + 1, np.int64)
    sizes: list[tuple[int, int]] = []
    sides: list[npt.NDArray[np.float64]] = []
    chosen, checked = _spread(len(train)), [] if val is None else _spread(len(val))
    most_alike, orientation = 0, Orientation(k, len(chosen))
    with progress_bar("looking at the data", len(chosen) + len(checked)) as advance:
        for done, index in enumerate(checked, 1):  # a bad one would end the training at its validation
            assert val is not None
            open_sample(val, index, channels=channels)
            advance(done)
        for done, index in enumerate(chosen, 1):
            image, target = open_sample(train, index, channels=channels)
            labels = target.labels if isinstance(target, Segments) else target[:, :]
            sizes.append((target.shape[0], target.shape[1]))
            counts += np.roll(np.bincount((labels.astype(np.int32) - IGNORE).ravel(), minlength=k + 1), -1)
            edges += _edges(labels, k)
            orientation.add(image, labels)
            if isinstance(target, Segments):
                sides.append(_thing_sides(target, train))
                alike = [k for k in target.classes if train.table.classes[k].thing]
                most_alike = max([most_alike, *(alike.count(k) for k in set(alike))])
            advance(len(checked) + done)
    things = np.concatenate(sides) if sides else np.empty(0)
    labelled = max(1, int(counts[:-1].sum()))
    tenth, median, most = np.percentile(things, (10, 50, 90)).round(1).tolist() if len(things) else (0.0, 0.0, 0.0)
    there = counts[:-1] > 0
    widths = 2 * counts[:-1][there] / np.maximum(1, edges[:-1][there])  # of a long strip: area over half its outline
    return Fingerprint(
        dataset=data.dataset,
        root=data.root,
        train_split=data.train_split,
        val_split=data.val_split if validates else None,
        num_train=len(train),
        num_val=0 if val is None else len(val),
        looked_at=len(chosen),
        size=(int(np.median([h for h, _ in sizes])), int(np.median([w for _, w in sizes]))),
        smallest=min(max(size) for size in sizes),
        largest=max(max(size) for size in sizes),
        channels=channels,
        shares={name: round(int(n) / labelled, 6) for name, n in zip(train.table.names, counts, strict=False)},
        segments=segments and len(things) > 0,
        thing_sides=(tenth, median, most),
        most_things=max(map(len, sides), default=0),
        most_alike=most_alike,
        thin=round(float((widths < _NARROW).mean()), 3) if len(widths) else 0.0,
        turned=orientation.turned(),
    )


def _spread(count: int) -> list[int]:
    """Which of so many images are looked at."""
    return np.unique(np.linspace(0, count - 1, min(_LOOKED_AT, count)).astype(int)).tolist() if count else []


def _edges(labels: npt.NDArray[np.int16], k: int) -> npt.NDArray[np.int64]:
    """How often a pixel of each class (and of none) has another one to its right, left, above or below [k + 1]."""
    found = np.zeros(k + 1, np.int64)
    for one, other in ((labels[:, 1:], labels[:, :-1]), (labels[1:], labels[:-1])):
        apart = one != other
        for side in (one[apart], other[apart]):
            found += np.roll(np.bincount(side.astype(np.int32) - IGNORE, minlength=k + 1), -1)
    return found


def _opened(data: Data, *, segments: bool, channels: int) -> tuple[Dataset, bool]:
    """The training images, with segments where the data have them."""
    data = replace(data, split=None, fold=0)  # a division is of all of them
    if segments and data.pack is None and data.pack_url is None:
        try:
            return build_dataset(data, data.train_split, segments=True, channels=channels), True
        except NoInstancesError:
            pass
    return build_dataset(data, data.train_split, channels=channels), False


def _thing_sides(segments: Segments, dataset: Any) -> npt.NDArray[np.float64]:
    """Square roots of the areas of an image's things."""
    single = np.array([dataset.table.classes[k].thing for k in segments.classes], np.bool_) & ~segments.crowd
    areas = np.bincount(segments.index.ravel().astype(np.int32) + 1, minlength=len(single) + 1)[1:][single]
    return np.sqrt(areas[areas > 0])
