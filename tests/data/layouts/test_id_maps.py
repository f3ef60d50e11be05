import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from panfpn.data import check_dataset, open_dataset, write_pack
from panfpn.labels import IGNORE
from panfpn.types import Segments

LABELS = (
    "name: farm\nclasses:\n- {name: field, value: 0}\n- {name: cow, value: 5, thing: true}\n"
    "- {name: hen, value: 6, thing: true}\nignore: [255]\n"
)
NUCLEI = "classes:\n- {name: background, value: 0}\n- {name: nucleus, value: 1, thing: true}\n"


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if pixels.dtype == np.int32:  # which OpenCV does not write
        Image.fromarray(pixels).save(path)
        return
    cv2.imwrite(str(path), pixels[..., ::-1] if pixels.ndim == 3 else pixels)


def segments_of(root: Path, kind: str = "folder", i: int = 0) -> Segments:
    segments = open_dataset(kind, root, "val", panoptic=True).read(i).segments
    assert segments is not None
    return segments


@pytest.fixture
def farm(tmp_path: Path) -> Path:
    """An image with cows 3 and 40, a herd of cows without ids, field and a void corner."""
    mask, ids = np.zeros((6, 8), np.uint8), np.zeros((6, 8), np.uint16)
    mask[1:3, :2], ids[1:3, :2] = 5, 3
    mask[1:3, 4:6], ids[1:3, 4:6] = 5, 40
    mask[5] = 5
    mask[0, 0] = 255
    write(tmp_path / "images/val/a/one.jpg", np.zeros((6, 8, 3), np.uint8))
    write(tmp_path / "masks/val/a/one.png", mask)
    write(tmp_path / "instances/val/a/one.png", ids)
    (tmp_path / "labels.yaml").write_text(LABELS)
    return tmp_path


def cityscapes(root: Path, ids: np.ndarray) -> Path:
    write(root / "leftImg8bit/val/ulm/ulm_000000_000019_leftImg8bit.png", np.zeros((*ids.shape, 3), np.uint8))
    write(root / "gtFine/val/ulm/ulm_000000_000019_gtFine_instanceIds.png", ids.astype(np.uint16))
    return root


def test_cityscapes(tmp_path: Path) -> None:
    ids = np.array([[7, 7, 26000, 26001], [24, 26, 29000, 3], [7, 24003, 26001, 26001]])
    root = cityscapes(tmp_path, ids)
    segments = segments_of(root, "cityscapes")
    known = ids.copy()
    known[1, 2:] = -1  # a caravan and what is out of the region are ignored
    assert np.array_equal(np.append(segments.ids, -1)[segments.index], known)
    found = dict(
        zip(segments.ids.tolist(), zip(segments.classes.tolist(), segments.crowd.tolist(), strict=True), strict=True)
    )
    assert found == {
        7: (0, False), 24: (11, True), 26: (13, True), 24003: (11, False), 26000: (13, False), 26001: (13, False),
    }  # fmt: skip
    assert list(check_dataset("cityscapes", root, "val", progress=False)) == []


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (40, "id 40 in row 1, column 2 is of class 40, which label table 'cityscapes' does not know"),
        (7002, "id 7002 in row 1, column 2 counts an instance of 'road', which is stuff; its pixels are 7"),
    ],
)
def test_cityscapes_refuses(value: int, sentence: str, tmp_path: Path) -> None:
    ids = np.full((3, 4), 7)
    ids[1, 2:] = value
    root = cityscapes(tmp_path, ids)
    with pytest.raises(ValueError, match=f"instanceIds.png: {sentence}"):
        segments_of(root, "cityscapes")
    assert len(list(check_dataset("cityscapes", root, "val", progress=False))) == 1


def test_folder_of_masks_and_instances(farm: Path) -> None:
    data = open_dataset("folder", farm, "val", panoptic=True)
    assert data.name(0) == "a/one"
    segments = segments_of(farm)
    assert segments.ids.tolist() == [3, 40, 41, 42] and segments.classes.tolist() == [1, 1, 0, 1]
    assert segments.crowd.tolist() == [False, False, False, True]
    assert segments.index[:, 0].tolist() == [IGNORE, 0, 0, 2, 2, 3] and (segments.index[1:3, 4:6] == 1).all()
    plain = open_dataset("folder", farm, "val").read(0)
    assert np.array_equal(plain.target, segments.labels) and plain.segments is None
    assert list(check_dataset("folder", farm, "val", progress=False)) == []


@pytest.mark.parametrize("form", ["uint8", "int32", "rgb", "large"])
def test_forms_of_ids(form: str, farm: Path) -> None:
    path = farm / "instances/val/a/one.png"
    ids = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(np.int64)
    expected = segments_of(farm)
    path.unlink()
    factor = {"uint8": 1, "int32": 1000, "rgb": 70_001, "large": 40_000_000}[form]
    ids *= factor
    if form == "rgb":
        write(path, np.stack([ids & 255, ids >> 8 & 255, ids >> 16], -1).astype(np.uint8))
    elif form == "uint8":
        write(path, ids.astype(np.uint8))
    else:
        write(path.with_suffix(".tif"), ids.astype(np.int32))
    segments = segments_of(farm)
    assert segments.ids[:2].tolist() == [3 * factor, 40 * factor]
    assert np.array_equal(segments.index, expected.index) and np.array_equal(segments.classes, expected.classes)


def test_where_the_mask_is_void_no_instance_is(farm: Path) -> None:
    mask = cv2.imread(str(farm / "masks/val/a/one.png"), cv2.IMREAD_UNCHANGED)
    mask[1, 0] = 255
    write(farm / "masks/val/a/one.png", mask)
    segments = segments_of(farm)
    assert segments.index[1, :2].tolist() == [IGNORE, 0]


def change(kind: str, row: int, column: int, value: int) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        path = root / kind / "val/a/one.png"
        pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        pixels[row, column] = value
        write(path, pixels)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (change("masks", 1, 5, 6), "instances/val/a/one.png: instance 40 has pixels of"),
        (change("masks", 1, 5, 0), "instance 40 has pixels of 'field' .row 1, column 5. and of 'cow' in its mask"),
        (change("instances", 4, 7, 9), "instance 9 .row 4, column 7. is 'field' in its mask, which is stuff"),
        (change("masks", 2, 2, 77), "masks/val/a/one.png: value 77"),
        (lambda root: (root / "images/val/a/one.jpg").write_bytes(b""), "one.jpg: not a readable image"),
        (lambda root: write(root / "masks/val/a/one.png", np.zeros((6, 9), np.uint8)), "they must agree"),
        (lambda root: write(root / "images/val/a/one.jpg", np.zeros((6, 9, 3), np.uint8)), "they must agree"),
        (
            lambda root: write(root / "instances/val/a/one.png", np.zeros((6, 8, 3), np.uint16)),
            "one.png: uint16 pixels of 3 channels; an id map has one integer a pixel",
        ),
    ],
)
def test_folder_refuses(spoil: Callable[[Path], None], sentence: str, farm: Path) -> None:
    spoil(farm)
    with pytest.raises(ValueError, match=sentence):
        segments_of(farm)
    assert len(list(check_dataset("folder", farm, "val", progress=False))) == 1


def test_more_segments_than_16_bits_count(farm: Path) -> None:
    """Stuff and what no instance claims count along."""
    ids = np.zeros((200, 200), np.uint16)
    for count in (32_765, 32_766):
        ids.ravel()[:count] = np.arange(1, count + 1)
        mask = np.where(ids, 5, 0).astype(np.uint8)
        mask[-1, -9:] = 6
        for kind, pixels in (("images", np.zeros((200, 200, 3), np.uint8)), ("masks", mask), ("instances", ids)):
            write(farm / kind / ("val/a/one.jpg" if kind == "images" else "val/a/one.png"), pixels)
        if count == 32_765:
            assert segments_of(farm).labels[-1, -1] == 2
    with pytest.raises(ValueError, match=r"one.png: 32768 segments; 32767 are possible in one image"):
        segments_of(farm)


def test_negative_id(farm: Path) -> None:
    (farm / "instances/val/a/one.png").unlink()
    ids = np.zeros((6, 8), np.int32)
    ids[2, 3] = -4
    write(farm / "instances/val/a/one.tif", ids)
    with pytest.raises(ValueError, match=r"one.tif: id -4 in row 2, column 3"):
        segments_of(farm)


def test_files_without_partner(farm: Path) -> None:
    for kind, name in (("images", "b.png"), ("instances", "c.png"), ("masks", "d.png")):
        write(farm / kind / "val" / name, np.zeros((6, 8), np.uint8))
    with pytest.raises(ValueError, match="1 image of split 'val' has no map of instance ids: b"):
        segments_of(farm)
    problems = list(check_dataset("folder", farm, "val", progress=False))
    assert [problem.partition(": ")[0].removeprefix(f"{farm}/") for problem in problems] == [
        "images/val/b.png", "instances/val/c.png", "images/val/b.png", "masks/val/d.png",
    ]  # fmt: skip


def test_instances_alone(farm: Path) -> None:
    shutil.rmtree(farm / "masks")
    with pytest.raises(ValueError, match=r"labels.yaml: declares 2 things; without masks/"):
        segments_of(farm)
    (farm / "labels.yaml").write_text(NUCLEI)
    segments = segments_of(farm)
    assert segments.classes.tolist() == [1, 1, 0] and not segments.crowd.any()
    assert (segments.index[5] == 2).all() and segments.index[1, 0] == 0
    plain = open_dataset("folder", farm, "val")  # what Semantic FPN learns from
    assert np.array_equal(plain.read(0).target, segments.labels) and isinstance(plain.open(0)[1], np.ndarray)
    (farm / "labels.yaml").write_text(NUCLEI.replace("- {name: background, value: 0}\n", "") + "ignore: [0]\n")
    segments = segments_of(farm)
    assert segments.classes.tolist() == [0, 0] and segments.index[5, 0] == IGNORE
    (farm / "labels.yaml").write_text(NUCLEI.replace("value: 0", "value: 2"))
    with pytest.raises(ValueError, match="value 0 must be a class of stuff, or ignored"):
        segments_of(farm)


def test_nothing_to_tell_things_apart(farm: Path) -> None:
    shutil.rmtree(farm / "instances")
    with pytest.raises(ValueError, match=r"no folder .*/instances, so things cannot be told apart"):
        segments_of(farm)
    (farm / "labels.yaml").write_text(LABELS.replace(", thing: true", ""))
    with pytest.raises(ValueError, match="label table 'farm' has no things; use Semantic FPN"):
        segments_of(farm)
    (farm / "train").mkdir()
    with pytest.raises(ValueError, match="data set 'camvid' has no maps of instances"):
        open_dataset("camvid", farm, "train", panoptic=True)


def test_scenes() -> None:
    data = open_dataset("scenes", None, "val", panoptic=True, scene_count=2)
    sample, plain = data.read(1), open_dataset("scenes", None, "val", scene_count=2).read(1)
    assert sample.segments is not None and plain.segments is None
    assert np.array_equal(sample.target, plain.target) and np.array_equal(sample.segments.labels, plain.target)
    stuff = [k for k in sample.segments.classes if not data.table.classes[k].thing]
    assert len(set(stuff)) == len(stuff) < len(sample.segments.ids)  # one segment of each class of stuff, and things


def test_a_data_set_of_instances_alone_is_not_packed(farm: Path, tmp_path: Path) -> None:
    shutil.rmtree(farm / "masks")
    (farm / "labels.yaml").write_text(NUCLEI)
    with pytest.raises(ValueError, match="cannot be packed: only images with masks of classes are"):
        write_pack("folder", farm, tmp_path / "pack", ("val",), progress=False)


def test_nuclei(shared: Path, tmp_path: Path) -> None:
    """DSB2018: 16-bit maps of instances alone."""
    for kind in ("images", "instances"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "val").symlink_to(shared / "data/dsb2018" / kind)
    (tmp_path / "labels.yaml").write_text(NUCLEI)
    data = open_dataset("folder", tmp_path, "val", panoptic=True)
    assert len(data) == 200
    total = 0
    for i in range(0, 200, 10):
        segments = data.read(i).segments
        assert segments is not None
        raw = cv2.imread(str(shared / "data/dsb2018/instances" / f"{data.name(i)}.png"), cv2.IMREAD_UNCHANGED)
        things = segments.classes == 1
        assert segments.ids[things].tolist() == np.unique(raw[raw > 0]).tolist()
        assert np.array_equal(np.append(np.where(things, segments.ids, 0), 0)[segments.index], raw)
        total += int(things.sum())
    assert total > 200
