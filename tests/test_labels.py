"""The label contract: every raw value means one thing, there and back, and a value that means nothing is named."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panfpn.labels import IGNORE, LabelClass, LabelTable

SHIPPED = ("ade20k", "camvid", "cityscapes", "coco_panoptic")
LARGEST = {"uint8": 2**8 - 1, "uint16": 2**16 - 1, "int32": 2**31 - 1}

# cityscapesscripts/helpers/labels.py: the classes that are evaluated; "+" marks those with instances
CITYSCAPES = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
    20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person+", 25: "rider+", 26: "car+",
    27: "truck+", 28: "bus+", 31: "train+", 32: "motorcycle+", 33: "bicycle+",
}  # fmt: skip


def make_table(*values: tuple[int, ...], ignore: tuple[int, ...] = (), masks: str = "values") -> LabelTable:
    classes = tuple(
        LabelClass(name=f"class {k}", color=(k % 256, 7 * k % 256, 3), thing=k % 2 == 1, values=v)
        for k, v in enumerate(values)
    )
    return LabelTable(name="toy", classes=classes, ignore=ignore, masks=masks)


@st.composite
def tables(draw: st.DrawFn, largest: int, masks: str = "values") -> LabelTable:
    """Tables with 1 to 8 classes of 1 to 3 values each, and up to 3 ignored values."""
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=8))
    num_ignored = draw(st.integers(0, 3))
    total = sum(sizes) + num_ignored
    values = draw(st.lists(st.integers(0, largest), min_size=total, max_size=total, unique=True))
    split = np.split(np.array(values), np.cumsum(sizes))
    classes = [tuple(map(int, part)) for part in split[:-1]]
    return make_table(*classes, ignore=tuple(map(int, split[-1])), masks=masks)


def draw_ids(data: st.DataObject, table: LabelTable) -> np.ndarray:
    lowest = IGNORE if table.ignore else 0
    seed = data.draw(st.integers(0, 2**16))
    shape = data.draw(st.tuples(st.integers(0, 5), st.integers(1, 5)))
    return np.random.default_rng(seed).integers(lowest, table.num_classes, shape).astype(np.int16)


def write_yaml(folder: Path, text: str) -> Path:
    path = folder / "labels.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("dtype", sorted(LARGEST))
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_encode_undoes_decode(dtype: str, data: st.DataObject) -> None:
    table = data.draw(tables(LARGEST[dtype]))
    ids = draw_ids(data, table)
    mask = table.decode(ids)
    assert mask.shape == ids.shape
    found = table.encode(mask)
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found, ids)
    np.testing.assert_array_equal(table.encode(mask.astype(dtype)), ids)  # also stored wider than needed


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_encode_undoes_decode_for_color_masks(data: st.DataObject) -> None:
    table = data.draw(tables(2**24 - 1, masks="colors"))
    ids = draw_ids(data, table)
    mask = table.decode(ids)
    assert mask.dtype == np.uint8
    assert mask.shape == (*ids.shape, 3)
    np.testing.assert_array_equal(table.encode(mask), ids)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"])
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_every_value_of_a_class_gives_its_train_id(dtype: str, data: st.DataObject) -> None:
    table = data.draw(tables(min(int(np.iinfo(dtype).max), 2**31 - 1)))
    for k, c in enumerate(table.classes):
        np.testing.assert_array_equal(table.encode(np.array([c.values], dtype)), np.full((1, len(c.values)), k))
    if table.ignore:
        assert (table.encode(np.array([table.ignore], dtype)) == IGNORE).all()


@pytest.mark.parametrize("dtype", sorted(LARGEST))
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_unknown_value_is_refused(dtype: str, data: st.DataObject) -> None:
    table = data.draw(tables(LARGEST[dtype]))
    known = {v for c in table.classes for v in c.values} | set(table.ignore)
    unknown = data.draw(st.integers(0, LARGEST[dtype]).filter(lambda v: v not in known))
    mask = np.array([[table.classes[0].values[0], unknown, unknown]], dtype)
    with pytest.raises(ValueError, match=rf"^a/b\.png: value {unknown} \(2 pixels\) not in label table 'toy'"):
        table.encode(mask, "a/b.png")


def test_decode_writes_first_values_in_the_smallest_type() -> None:
    ids = np.array([[0, 1, IGNORE]], np.int16)
    for values, dtype in (((5, 200), np.uint8), ((5, 300), np.uint16), ((5, 70_000), np.int32)):
        mask = make_table((values[0], 9), (values[1],), ignore=(255, 7)).decode(ids)
        assert mask.dtype == dtype
        assert mask.tolist() == [[values[0], values[1], 255]]


def test_decode_takes_predictions_of_eight_bits() -> None:
    assert make_table((7,), (8,), ignore=(255,)).decode(np.array([[1, 0]], np.uint8)).tolist() == [[8, 7]]


def test_decode_without_ignored_value_refuses_ignored_pixels() -> None:
    with pytest.raises(ValueError, match="'toy' declares no ignored value"):
        make_table((1,)).decode(np.array([[0, IGNORE]]))


@pytest.mark.parametrize("train_id", [2, -2])
def test_decode_refuses_train_ids_that_do_not_exist(train_id: int) -> None:
    with pytest.raises((ValueError, IndexError)):
        make_table((1,), (2,), ignore=(9,)).decode(np.array([[0, train_id]]))


def test_unknown_values_are_counted_and_the_table_is_shown() -> None:
    table = make_table((1, 2), (3,), ignore=(255,))
    with pytest.raises(ValueError) as error:
        table.encode(np.array([[1, 7, 7], [8, 9, 10]], np.uint8), "m.png")
    assert str(error.value) == (
        "m.png: value 7 (2 pixels), 8 (1 pixels), 9 (1 pixels) and 1 more values not in label table 'toy' "
        "(it knows 1/2 class 0, 3 class 1; ignored: 255); the first such pixel is in row 0, column 1"
    )


def test_unknown_color_is_shown_as_a_person_writes_it() -> None:
    table = make_table((0x804020,), masks="colors")  # packed B G R
    with pytest.raises(ValueError, match=r"m\.png: value #010203 \(1 pixels\).*knows #204080 class 0; ignored: none"):
        table.encode(np.array([[[1, 2, 3]]], np.uint8), "m.png")


def test_grey_stored_as_rgb_is_read() -> None:
    table = make_table((1,), (300,), ignore=(0,))
    grey = np.array([[0, 1], [300, 1]], np.uint16)
    np.testing.assert_array_equal(table.encode(np.stack([grey] * 3, -1)), [[IGNORE, 0], [1, 0]])


@pytest.mark.parametrize(
    "mask",
    [np.ones((2, 2)), np.ones((2, 2), np.float32), np.arange(12, dtype=np.uint8).reshape(2, 2, 3), np.ones(4, int)],
    ids=["float64", "float32", "rgb", "one axis"],
)
def test_mask_of_another_form_is_refused(mask: np.ndarray) -> None:
    with pytest.raises(ValueError, match=rf"^m\.png: {mask.dtype} mask of shape .*'toy' reads one integer per pixel"):
        make_table((1,)).encode(mask, "m.png")


@pytest.mark.parametrize(
    "mask",
    [np.ones((2, 2), np.uint8), np.ones((2, 2, 4), np.uint8), np.ones((2, 2, 3), np.uint16)],
    ids=["grey", "four channels", "sixteen bits"],
)
def test_color_table_reads_rgb_only(mask: np.ndarray) -> None:
    with pytest.raises(ValueError, match=rf"^m\.png: {mask.dtype} mask of shape .*'toy' reads RGB colours"):
        make_table((1,), masks="colors").encode(mask, "m.png")


@pytest.mark.parametrize(("name", "classes", "things"), [("ade20k", 150, 0), ("cityscapes", 19, 8),
                                                         ("coco_panoptic", 133, 80)])  # fmt: skip
def test_shipped_table_sizes(name: str, classes: int, things: int) -> None:
    table = LabelTable.named(name)
    assert (table.num_classes, sum(c.thing for c in table.classes)) == (classes, things)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_tables_are_consistent(name: str) -> None:
    table = LabelTable.named(name)
    assert table.name == name
    assert len(set(table.names)) == table.num_classes
    assert table.palette.shape == (table.num_classes, 3)
    ids = np.arange(IGNORE, table.num_classes, dtype=np.int16)[None]
    np.testing.assert_array_equal(table.encode(table.decode(ids)), ids)


def test_cityscapes_reads_raw_label_ids() -> None:
    table = LabelTable.named("cityscapes")
    assert [f"{c.name}{'+' * c.thing}" for c in table.classes] == list(CITYSCAPES.values())
    evaluated = np.array([list(CITYSCAPES)], np.uint8)
    np.testing.assert_array_equal(table.encode(evaluated), [range(19)])
    np.testing.assert_array_equal(table.decode(np.arange(19)[None]), evaluated)
    void = np.array([[v for v in range(34) if v not in CITYSCAPES]], np.uint8)
    assert (table.encode(void) == IGNORE).all()
    assert table.palette[[0, 13, 18]].tolist() == [[128, 64, 128], [0, 0, 142], [119, 11, 32]]


def test_ade20k_is_one_to_150_without_zero() -> None:
    table = LabelTable.named("ade20k")
    np.testing.assert_array_equal(table.encode(np.arange(151, dtype=np.uint8)[None]), [range(-1, 150)])
    assert (table.names[0], table.names[7], table.names[149]) == ("wall", "bed", "flag")  # mmseg has "bed "
    assert table.palette[[0, 4, 149]].tolist() == [[0x78, 0x78, 0x78], [0x04, 0xC8, 0x03], [0x5C, 0x00, 0xFF]]
    with pytest.raises(ValueError, match="value 151 "):
        table.encode(np.array([[151]], np.uint8))


def test_coco_panoptic_has_things_before_stuff() -> None:
    table = LabelTable.named("coco_panoptic")
    assert [c.thing for c in table.classes] == [True] * 80 + [False] * 53
    known = {c.values[0]: c.name for c in table.classes}
    assert {k: known[k] for k in (1, 13, 90, 92, 149, 200)} == {
        1: "person", 13: "stop sign", 90: "toothbrush", 92: "banner", 149: "road", 200: "rug-merged",
    }  # fmt: skip
    assert not {12, 26, 45, 66, 83, 91} & set(known)  # the gaps of the published ids
    assert list(known) == sorted(known)


def test_camvid_is_eleven_classes_and_void() -> None:
    table = LabelTable.named("camvid")
    np.testing.assert_array_equal(table.encode(np.arange(12, dtype=np.uint8)[None]), [[*range(11), IGNORE]])


def test_unknown_shipped_table_is_named() -> None:
    with pytest.raises(ValueError, match="cityscapes"):
        LabelTable.named("cityscape")


@pytest.mark.parametrize("name", SHIPPED)
def test_as_train_ids(name: str) -> None:
    table = LabelTable.named(name)
    trained = table.as_train_ids()
    mask = np.array([[*range(table.num_classes), 255]], np.uint8)
    np.testing.assert_array_equal(trained.encode(mask), [[*range(table.num_classes), IGNORE]])
    np.testing.assert_array_equal(trained.decode(trained.encode(mask)), mask)
    assert trained.names == table.names
    np.testing.assert_array_equal(trained.palette, table.palette)


def test_as_train_ids_of_a_color_table_reads_numbers() -> None:
    trained = make_table((0x010203,), (0x040506,), masks="colors").as_train_ids(ignore=99)
    assert trained.encode(np.array([[1, 99, 0]], np.uint8)).tolist() == [[1, IGNORE, 0]]


def test_as_train_ids_cannot_ignore_a_class() -> None:
    with pytest.raises(ValueError, match="value 1 means both"):
        make_table((5,), (6,)).as_train_ids(ignore=1)


@pytest.mark.parametrize("masks", ["values", "colors"])
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_plain_data_round_trip(masks: str, data: st.DataObject) -> None:
    table = data.draw(tables(2**24 - 1, masks=masks))
    assert LabelTable.from_dict(table.to_dict()) == table  # names, colours, thing flags, values, ignore, masks


@pytest.mark.parametrize("name", SHIPPED)
def test_plain_data_round_trip_of_shipped_tables(name: str) -> None:
    assert LabelTable.from_dict(LabelTable.named(name).to_dict()) == LabelTable.named(name)


def test_yaml_with_everything(tmp_path: Path) -> None:
    table = LabelTable.from_yaml(write_yaml(tmp_path, """
name: yard
ignore: [0, 255]
classes:
  - {name: grass, value: 3, color: "#10ff20"}
  - {name: dog, value: [4, 70000], thing: true}
"""))  # fmt: skip
    assert table.name == "yard"
    assert table.classes[0] == LabelClass(name="grass", color=(16, 255, 32), values=(3,))
    assert table.classes[1].thing
    assert table.encode(np.array([[3, 4, 70000, 0, 255]], np.int32)).tolist() == [[0, 1, 1, IGNORE, IGNORE]]


def test_yaml_of_colors_takes_the_color_as_value(tmp_path: Path) -> None:
    table = LabelTable.from_yaml(write_yaml(tmp_path, """
masks: colors
ignore: "#000000"
classes:
  - {name: road, color: "#804020"}
  - {name: sky, value: "#4682b4"}
"""))  # fmt: skip
    assert table.name == tmp_path.name
    assert table.palette.tolist() == [[0x80, 0x40, 0x20], [0x46, 0x82, 0xB4]]
    mask = np.array([[[0x80, 0x40, 0x20], [0x46, 0x82, 0xB4], [0, 0, 0]]], np.uint8)
    assert table.encode(mask).tolist() == [[0, 1, IGNORE]]


def test_classes_without_color_get_distinct_ones(tmp_path: Path) -> None:
    entries = "".join(f"- {{name: c{k}, value: {k}}}\n" for k in range(200))
    table = LabelTable.from_yaml(write_yaml(tmp_path, "classes:\n" + entries))
    assert len({c.color for c in table.classes}) == 200
    assert (0, 0, 0) not in {c.color for c in table.classes}
    assert table.classes[0].color == (128, 0, 0)  # Pascal VOC's first


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes: [{name: a, value: 1}]\nclases: 3", "unknown key 'clases'; a label table has name, masks"),
        ("classes: [{name: a, valeu: 1}]", r"classes\[0\]: unknown key 'valeu'; a class has name, value, color"),
        ("classes: [{name: a, value: 1}, {name: b}]", r"classes\[1\] \(b\): `value` is missing"),
        ("classes: [{name: a, value: 1}, {name: b, value: 1}]", "value 1 means both 'a' and 'b'"),
        ("classes: [{name: a, value: 1}, {name: a, value: 1}]", "'a'"),
        ("classes: [{name: a, value: 1}, {name: a, value: 2}]", "'a'"),
        ("classes: [{name: a, value: 1}]\nignore: 1", "value 1 means both 'a' and 'ignore'"),
        ("classes: [{name: ignore, value: 1}]\nignore: 1", "value 1 means both"),
        ("- a\n- b", "expected a mapping with the key `classes`, found list"),
        ("", "expected a mapping with the key `classes`, found NoneType"),
        ("classes: [{name: a, value: 1}", "cannot be read as YAML"),
        ("name: 2020-13-45\nclasses: [{name: a, value: 1}]", "cannot be read as YAML"),
        ("classes: 3", "`classes` must be a list with at least one class"),
        ("classes: []", "`classes` must be a list with at least one class"),
        ("classes: [a]", r"classes\[0\] must be a mapping with `name` and `value`, found 'a'"),
        ("classes: [{value: 1}]", r"classes\[0\] must be a mapping with `name`"),
        ("classes: [{name: a, value: 1.5}]", r"classes\[0\] value: 1.5 is neither an integer, a run like 1-255"),
        ("classes: [{name: a, value: true}]", r"classes\[0\] value: True is neither an integer, a run like 1-255"),
        ("classes: [{name: a, value: []}]", r"classes\[0\]"),
        ("classes: [{name: a, value: 1, color: red}]", r"classes\[0\] color: 'red' is neither an integer, a run"),
        ('classes: [{name: a, value: 1, color: "#80408"}]', r"classes\[0\] color: '#80408' is neither"),
        ('classes: [{name: a, value: 1, color: "#gg4080"}]', r"classes\[0\] color: '#gg4080' is neither"),
        ('classes: [{name: a, value: 1, color: "#12_345"}]', r"classes\[0\] color: '#12_345' is neither"),
        ("classes: [{name: a, value: 1, color: []}]", r"classes\[0\] color"),
        ("classes: [{name: a, value: 1, color: [128, 64]}]", r"classes\[0\] color"),
        ("classes: [{name: a, value: 1, color: [128, 64, 300]}]", r"classes\[0\] color"),
        ("classes:\n- name: a\n  value: 1\n  color: #804080\n", "color"),  # unquoted: a comment for YAML
        ("classes: [{name: a, value: 1}]\nmasks: greys", "masks is 'greys'; use 'values' or 'colors'"),
        ("classes: [{name: a, value: 1}]\nignore: none", "ignore: 'none' is neither an integer, a run like 1-255"),
        ("classes: [{name: a, value: -3000000000000}]", "-3000000000000"),
        ("classes: [{name: null, value: 1}]", r"classes\[0\] name: None is no text"),
        ("classes: [{name: no, value: 1}]", r"classes\[0\] name: False is no text; write the name in quotes"),
        ("classes: [{name: [a], value: 1}]", r"classes\[0\] name: \['a'\] is no text"),
        ('classes: [{name: " ", value: 1}]', r"classes\[0\] name: ' ' is no text"),
        ("classes: [{name: a, value: 1, color: 16777216}]", "16777216 is no colour"),
        ("classes: [{name: a, value: 1, color: -1}]", "-1 is no colour"),
        ("classes: [{name: a, value: 16777216}]\nmasks: colors", "16777216 is no colour"),
        ("name: [x]\nclasses: [{name: a, value: 1}]", r"name: \['x'\] is no text"),
        ("classes: [{name: a, value: 1}]\nclasses: []", "the key 'classes' stands there twice in line 2"),
        ("classes: [{name: a, value: 1, name: b}]", "the key 'name' stands there twice in line 1"),
        ("classes: [{name: a, value: 3000000000000}]", "3000000000000"),
        ('classes: [{name: a, value: 1, thing: "no"}]', "thing"),
    ],
)  # fmt: skip
def test_bad_yaml_names_file_and_fault(tmp_path: Path, text: str, message: str) -> None:
    path = write_yaml(tmp_path, text)
    with pytest.raises(ValueError, match=message) as error:
        LabelTable.from_yaml(path)
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize("entry", ["masks: values\nclasses: [{name: a, value: 1, color: [128, 64, 32]}]",
                                   "masks: colors\nclasses: [{name: a, color: [128, 64, 32]}]",
                                   "masks: colors\nclasses: [{name: a, value: [128, 64, 32]}]"])  # fmt: skip
def test_color_may_be_three_numbers(tmp_path: Path, entry: str) -> None:
    table = LabelTable.from_yaml(write_yaml(tmp_path, entry))
    assert table.classes[0].color == (128, 64, 32)
    if table.masks == "colors":
        assert table.classes[0].values == (128 + 256 * 64 + 65536 * 32,)


def test_missing_yaml_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.yaml: cannot be read"):
        LabelTable.from_yaml(tmp_path / "none.yaml")


@pytest.mark.parametrize("count", [0, 32_001])
def test_number_of_classes_is_bounded(count: int) -> None:
    with pytest.raises(ValueError, match=f"'toy' has {count} classes; 1 to 32000"):
        make_table(*((k,) for k in range(count)))


def test_values_below_zero_mean_what_the_table_says() -> None:
    table = LabelTable.from_dict(
        {"classes": [{"name": "a", "value": [0, -3]}, {"name": "b", "value": 1}], "ignore": [-9999]}
    )
    mask = np.array([[0, -3, 1], [-9999, 1, 0]], np.int16)
    assert table.encode(mask).tolist() == [[0, 0, 1], [-1, 1, 0]]
    assert table.decode(np.array([[0, 1, -1]])).tolist() == [[0, 1, -9999]]
    with pytest.raises(ValueError, match=r"m\.tif: value -7 \(1 pixels\) not in label table"):
        table.encode(np.array([[0, -7]], np.int16), "m.tif")


def test_runs_of_values() -> None:
    table = LabelTable.from_dict({"classes": [{"name": "a", "value": 0}, {"name": "b", "value": [3, "5-7"]}],
                                  "ignore": "250-255"})  # fmt: skip
    assert table.classes[1].values == (3, 5, 6, 7) and table.ignore == tuple(range(250, 256))
    for wrong in ("7-5", "0-99999999", "5-", "-5-7"):
        with pytest.raises(ValueError, match=f"'{wrong}' is neither an integer, a run like 1-255 nor a colour"):
            LabelTable.from_dict({"classes": [{"name": "a", "value": wrong}]})
