"""What flows through panfpn: a map that is saved reads back as the data set's own mask."""

from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from panfpn.draw import overlay
from panfpn.files import read_image, read_mask
from panfpn.labels import IGNORE, LabelClass, LabelTable
from panfpn.types import Batch, RawMask, SemanticMap


def make_table(*values: int, masks: str = "values") -> LabelTable:
    classes = tuple(
        LabelClass(name=f"class {k}", color=(80 * k, 200 - 80 * k, 40), values=(v,)) for k, v in enumerate(values)
    )
    return LabelTable(name="toy", classes=classes, ignore=(0,), masks=masks)


def make_map(table: LabelTable, **changes: Any) -> SemanticMap:
    rng = np.random.default_rng(0)
    labels = np.repeat(rng.integers(0, table.num_classes, (6, 1)), 9, 1).astype(np.uint8)
    image = rng.integers(0, 256, (6, 9, 3)).astype(np.uint8)
    return SemanticMap(**({"labels": labels, "table": table, "image": image, "name": "a"} | changes))


@pytest.mark.parametrize(
    "table",
    [make_table(7, 9, 200), make_table(7, 300, 9), make_table(0x010203, 0xFF0000, 0x804020, masks="colors")],
    ids=["8 bits", "16 bits", "colors"],
)
def test_saved_labels_encode_back_to_the_same_train_ids(tmp_path: Path, table: LabelTable) -> None:
    found = make_map(table)
    assert found.save(tmp_path, what=("labels",)) == [tmp_path / "a.png"]
    mask = read_mask(tmp_path / "a.png")
    np.testing.assert_array_equal(mask, table.decode(found.labels))
    np.testing.assert_array_equal(table.encode(mask), found.labels)


def test_labels_that_a_png_cannot_hold_are_refused_or_kept(tmp_path: Path) -> None:
    table = make_table(7, 70_000)
    found = make_map(table, labels=np.array([[0, 1]], np.uint8))
    try:
        (path,) = found.save(tmp_path, what=("labels",))
    except ValueError:
        return
    np.testing.assert_array_equal(table.encode(read_mask(path)), found.labels)


@pytest.mark.parametrize("name", ["cityscapes", "ade20k", "coco_panoptic", "camvid"])
def test_saved_labels_of_shipped_tables_are_the_data_sets(tmp_path: Path, name: str) -> None:
    table = LabelTable.named(name)
    labels = np.arange(table.num_classes, dtype=np.uint8)[None]
    SemanticMap(labels=labels, table=table).save(tmp_path, what=("labels",))
    assert read_mask(tmp_path / "image.png").tolist() == [[c.values[0] for c in table.classes]]


def test_save_writes_what_was_asked_for(tmp_path: Path) -> None:
    found = make_map(make_table(1, 2), confidence=np.linspace(0, 1, 54, dtype=np.float32).reshape(6, 9))
    assert found.save(tmp_path / "new") == [tmp_path / "new" / "a.png", tmp_path / "new" / "a_overlay.jpg"]
    assert found.save(str(tmp_path), what=("confidence",)) == [tmp_path / "a_confidence.png"]
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["a_confidence.png"]
    drawn = read_image(tmp_path / "new" / "a_overlay.jpg")
    assert drawn.shape == (6, 9, 3)


def test_confidence_is_stored_in_eight_bits(tmp_path: Path) -> None:
    confidence = np.array([[0.0, 0.5, 1.0, 0.25]], np.float32)
    found = make_map(make_table(1, 2), labels=np.zeros((1, 4), np.uint8), confidence=confidence)
    (path,) = found.save(tmp_path, what=("confidence",))
    mask = read_mask(path)
    assert mask.dtype == np.uint8
    assert mask.tolist() == [[0, 128, 255, 64]]


def test_names_with_folders_are_kept(tmp_path: Path) -> None:
    make_map(make_table(1, 2), name="frankfurt/frankfurt_000001").save(tmp_path, what=("labels",))
    assert (tmp_path / "frankfurt" / "frankfurt_000001.png").is_file()


@pytest.mark.parametrize(
    ("what", "changes", "message"),
    [
        ("lables", {}, "cannot save 'lables'; choose from labels, overlay, confidence"),
        ("confidence", {}, "a: this map was predicted without confidence"),
        ("overlay", {"image": None}, "a: this map carries no image to draw on"),
    ],
)
def test_what_cannot_be_saved_is_named(tmp_path: Path, what: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_map(make_table(1, 2), **changes).save(tmp_path, what=(what,))
    assert list(tmp_path.iterdir()) == []


def test_overlay_draws_with_the_tables_palette() -> None:
    found = make_map(make_table(1, 2, 3))
    np.testing.assert_array_equal(
        found.overlay(opacity=0.3), overlay(found.image, found.labels, found.table.palette, 0.3)
    )


def test_map_without_image_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match="a: this map carries no image"):
        make_map(make_table(1, 2), image=None).overlay()


def test_shares_by_hand() -> None:
    labels = np.array([[2, 2, 2, 0], [2, 0, 2, 4]], np.uint8)
    shares = make_map(make_table(1, 2, 3, 4, 5), labels=labels).shares()
    assert list(shares.items()) == [("class 2", 5 / 8), ("class 0", 2 / 8), ("class 4", 1 / 8)]


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), height=st.integers(1, 9), width=st.integers(1, 9))
def test_shares_sum_to_one_and_fall(seed: int, height: int, width: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 5, (height, width)).astype(np.uint8)
    shares = make_map(make_table(1, 2, 3, 4, 5), labels=labels).shares()
    assert sum(shares.values()) == pytest.approx(1)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert shares == {f"class {k}": (labels == k).mean() for k in np.unique(labels)}


def test_batch_moves_whole() -> None:
    images, targets = torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.full((1, 4, 4), IGNORE, dtype=torch.int16)
    batch = Batch(images=images, targets=targets, sizes=((3, 4),), names=("a",))
    moved = batch.to(torch.device("meta"))
    assert (moved.images.device.type, moved.targets.device.type) == ("meta", "meta")
    assert (moved.images.shape, moved.targets.dtype) == (images.shape, torch.int16)
    assert (moved.sizes, moved.names) == (batch.sizes, batch.names)
    assert batch.images.device.type == "cpu"


def test_what_flows_is_frozen() -> None:
    found = make_map(make_table(1, 2))
    with pytest.raises(FrozenInstanceError):
        found.name = "b"  # type: ignore[misc]


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
