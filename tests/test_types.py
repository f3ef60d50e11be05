"""What flows through panfpn: batches move whole, masks are translated where they are looked at."""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch

from panfpn.labels import IGNORE, LabelClass, LabelTable
from panfpn.types import Batch, RawMask


def test_batch_moves_whole() -> None:
    images, targets = torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.full((1, 4, 4), IGNORE, dtype=torch.int16)
    batch = Batch(images=images, targets=targets, sizes=((3, 4),), names=("a",))
    moved = batch.to(torch.device("meta"))
    assert (moved.images.device.type, moved.targets.device.type) == ("meta", "meta")
    assert (moved.images.shape, moved.targets.dtype) == (images.shape, torch.int16)
    assert (moved.sizes, moved.names) == (batch.sizes, batch.names)
    assert batch.images.device.type == "cpu"


def test_what_flows_is_frozen() -> None:
    batch = Batch(images=torch.zeros(1), targets=torch.zeros(1), sizes=(), names=("a",))
    with pytest.raises(FrozenInstanceError):
        batch.names = ("b",)  # type: ignore[misc]


@pytest.mark.parametrize(("values", "dtype"), [((3, 9), np.uint8), ((3, 900), np.uint16), ((3, 90_000), np.int32)])
def test_a_raw_mask_is_translated_where_it_is_looked_at(values: tuple[int, int], dtype: type) -> None:
    classes = tuple(LabelClass(name=f"c{v}", color=(0, 0, 0), values=(v,)) for v in values)
    table = LabelTable(name="two", classes=classes, ignore=(255,))
    mask = np.random.default_rng(0).choice(np.array([*values, 255], dtype), (7, 9))
    raw, window = RawMask(mask, table, "m.png"), (slice(2, 6), slice(1, 8))
    assert raw.shape == (7, 9) and raw[window].dtype == np.int16
    assert np.array_equal(raw[window], table.encode(mask)[window])
    mask[1, 3] = mask[5, 2] = 77
    assert raw[:1, :].shape == (1, 9)  # nobody looked at a wrong one yet
    with pytest.raises(
        ValueError, match=r"^m\.png: value 77 \(2 pixels\) not in .* first such pixel is in row 1, column 3"
    ):
        raw[window]
