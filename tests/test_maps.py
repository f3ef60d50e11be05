"""Maps: what is written reads back as the data set's own mask, or as the same segments, and pictures show them."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panfpn.data.images import decode_ids, read_image, read_mask
from panfpn.draw import overlay, segment_colors
from panfpn.files import read_bytes
from panfpn.labels import IGNORE, LabelClass, LabelTable
from panfpn.maps import PanopticMap, Segment, SemanticMap

Maker = Callable[..., PanopticMap]
TABLE = LabelTable(
    name="toy",
    classes=(
        LabelClass(name="sky", color=(10, 20, 200), values=(7,)),
        LabelClass(name="car", color=(200, 30, 40), thing=True, values=(300, 9)),
        LabelClass(name="grass", color=(30, 160, 40), values=(2,)),
    ),
    ignore=(255,),
)


def image_of(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def by_hand(**changes: object) -> PanopticMap:
    """Sky above, two cars, a void row below."""
    segments = np.array([[3, 3, 3, 3], [1, 1, 2, 3], [1, 1, 2, 2], [0, 0, 0, 0]], np.int32)
    info = (
        Segment(id=1, train_id=1, name="car", thing=True, area=4, box=(0, 1, 2, 2), score=0.75),
        Segment(id=2, train_id=1, name="car", thing=True, area=3, box=(2, 1, 2, 2), score=0.5),
        Segment(id=3, train_id=0, name="sky", thing=False, area=5, box=(0, 0, 4, 2)),
    )
    plain = {"segments": segments, "info": info, "table": TABLE, "semantic": segments.astype(np.int16),
             "detections": None, "image": np.full((4, 4, 3), 100, np.uint8), "name": "sub/a.b"}  # fmt: skip
    return PanopticMap(**(plain | changes))  # type: ignore[arg-type]


def test_labels_and_shares_by_hand() -> None:
    found = by_hand()
    assert found.labels.tolist() == [[0] * 4, [1, 1, 1, 0], [1] * 4, [IGNORE] * 4]
    assert list(found.shares().items()) == [("car", 7 / 16), ("sky", 5 / 16)]


def test_panoptic_files_by_hand(tmp_path: Path) -> None:
    png, text = by_hand().save(tmp_path, what=("panoptic",))
    assert (png, text) == (tmp_path / "sub" / "a.b.png", tmp_path / "sub" / "a.b.json")
    assert read_image(png)[1].tolist() == [[1, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0]]
    assert json.loads(text.read_text()) == {
        "file_name": "a.b.png", "height": 4, "width": 4,
        "segments_info": [
            {"id": 1, "category_id": 300, "category": "car", "isthing": 1, "score": 0.75, "area": 4,
             "bbox": [0, 1, 2, 2]},
            {"id": 2, "category_id": 300, "category": "car", "isthing": 1, "score": 0.5, "area": 3,
             "bbox": [2, 1, 2, 2]},
            {"id": 3, "category_id": 7, "category": "sky", "isthing": 0, "score": None, "area": 5,
             "bbox": [0, 0, 4, 2]},
        ],
    }  # fmt: skip


def test_labels_and_instances_by_hand(tmp_path: Path) -> None:
    labels, instances = by_hand().save(tmp_path, what=("labels", "instances"))
    assert (labels.name, instances.name) == ("a.b_labels.png", "a.b_instances.png")
    mask = read_mask(labels)
    assert mask.tolist() == [[7] * 4, [300, 300, 300, 7], [300] * 4, [255] * 4]
    np.testing.assert_array_equal(TABLE.encode(mask), by_hand().labels)
    things = read_mask(instances)
    assert things.dtype == np.uint16
    assert things.tolist() == [[0] * 4, [1, 1, 2, 0], [1, 1, 2, 2], [0] * 4]


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), height=st.integers(1, 40), width=st.integers(1, 40))
def test_what_is_written_reads_back(
    tmp_path_factory: pytest.TempPathFactory, panoptic_map: Maker, seed: int, height: int, width: int
) -> None:
    found = panoptic_map(TABLE, image_of(height, width), seed=seed)
    png, text = found.save(tmp_path_factory.mktemp("maps"), what=("panoptic",))
    ids = decode_ids(read_bytes(png), png, rgb=True)
    np.testing.assert_array_equal(ids, found.segments)
    records = json.loads(text.read_text())["segments_info"]
    assert [r["id"] for r in records] == [i for i in np.unique(ids).tolist() if i]
    for record in records:
        rows, columns = np.nonzero(ids == record["id"])
        assert record["area"] == len(rows)
        left, top, wide, high = record["bbox"]
        assert (left, top) == (columns.min(), rows.min())
        assert (left + wide - 1, top + high - 1) == (columns.max(), rows.max())


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), height=st.integers(1, 20), width=st.integers(1, 20))
def test_segments_for_the_metric(panoptic_map: Maker, seed: int, height: int, width: int) -> None:
    found = panoptic_map(TABLE, image_of(height, width), seed=seed)
    segments = found.as_segments()
    assert (segments.index.dtype, segments.classes.dtype) == (np.int16, np.int16)
    np.testing.assert_array_equal(segments.labels, found.labels)
    np.testing.assert_array_equal(np.append(segments.ids, 0)[segments.index], found.segments)
    assert not segments.crowd.any() and len(segments.crowd) == len(found.info)
    assert sum(found.shares().values()) == pytest.approx((found.segments > 0).mean())


def test_a_map_of_nothing(tmp_path: Path) -> None:
    image = image_of(3, 5)
    found = by_hand(segments=np.zeros((3, 5), np.int32), info=(), image=image)
    np.testing.assert_array_equal(found.overlay(), image)
    assert found.shares() == {} and len(found.as_segments().classes) == 0
    assert len(found.save(tmp_path, what=found.outputs)) == 5
    assert (found.labels == IGNORE).all()


def test_overlay_tints_segments_and_leaves_void() -> None:
    found = by_hand()
    drawn = found.overlay(0.5, names=False)
    colors = segment_colors(np.array([1, 1, 0], np.int16), TABLE.palette, np.array([False, True, False]))
    np.testing.assert_array_equal(drawn, overlay(found.image, found.segments - 1, colors, 0.5))
    np.testing.assert_array_equal(drawn[3], found.image[3])
    assert np.abs(drawn[0, 0].astype(float) - (100 + np.array([10, 20, 200])) / 2).max() <= 1  # stuff by class
    assert (drawn[2, 0] != drawn[2, 3]).any()  # things of one class apart
    np.testing.assert_array_equal(drawn[1, 2], [224] * 3)  # the line between them


def test_names_are_written_only_where_they_fit() -> None:
    segments = np.zeros((120, 200), np.int32)
    segments[10:70, 10:150], segments[90:95, 10:20] = 1, 2
    boxes = ((10, 10, 140, 60), (10, 90, 10, 5))
    info = tuple(
        Segment(id=i + 1, train_id=1, name="car", thing=True, area=1, box=box, score=0.5) for i, box in enumerate(boxes)
    )
    found = by_hand(segments=segments, info=info, image=image_of(120, 200))
    changed = (found.overlay() != found.overlay(names=False)).any(2)
    assert changed[10:70, 10:150].any()
    changed[10:70, 10:150] = False
    assert not changed.any()


def test_what_a_panoptic_map_cannot_save_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot save 'confidence'; choose from panoptic, overlay, labels, instances"):
        by_hand().save(tmp_path, what=("confidence",))
    with pytest.raises(ValueError, match=r"sub/a\.b: this map carries no image to draw on"):
        by_hand(image=None).overlay()
    no_ignore = replace(TABLE, ignore=())
    with pytest.raises(ValueError, match=r"sub/a\.b: 4 pixels are void, .* 'toy' has no ignored value"):
        by_hand(table=no_ignore).save(tmp_path, what=("labels",))
    assert list(tmp_path.iterdir()) == []


def make_table(*values: int, masks: str = "values") -> LabelTable:
    classes = tuple(
        LabelClass(name=f"class {k}", color=(50 * k, 200 - 50 * k, 40), values=(v,)) for k, v in enumerate(values)
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
