"""A folder of one's own: masks of classes, maps of instance ids, or both."""

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from panfpn.data import check_dataset, open_dataset, write_pack
from panfpn.data.recognition import recognise
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


def segments_of(root: Path) -> Segments:
    segments = open_dataset("folder", root, "val", panoptic=True).read(0).segments
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


def test_folder(folder_data: Path) -> None:
    data = open_dataset("folder", folder_data, "train")
    assert len(data) == 6 and data.name(2) == "photo_2" and data.table.names == ("sky", "ground", "box")
    sample = data.read(0)
    assert sample.image.shape == (48, 64, 3) and sample.target.dtype == np.int16
    assert set(np.unique(sample.target)) == {IGNORE, 0, 1, 2}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_mask_value_outside_the_table(dtype: type, folder_data: Path) -> None:
    path = folder_data / "masks/train/photo_1.png"
    mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(dtype)
    mask[0, :3] = 77
    cv2.imwrite(str(path), mask)
    with pytest.raises(
        ValueError, match=r"photo_1\.png: value 77 \(3 pixels\) not in label table 'toy' \(it knows 0 sky"
    ):
        open_dataset("folder", folder_data, "train").read(1)


def test_color_masks(folder_data: Path) -> None:
    (folder_data / "labels.yaml").write_text(
        "masks: colors\nignore: ['#000000']\n"
        "classes:\n- {name: red, color: '#ff0000'}\n- {name: blue, color: '#0000ff'}\n"
    )
    for split, count in (("train", 6), ("val", 3)):
        for i in range(count):
            path = folder_data / f"masks/{split}/photo_{i}.png"
            mask = np.zeros((*cv2.imread(str(path)).shape[:2], 3), np.uint8)  # BGR
            mask[:10, :, 2] = 255
            mask[20:, :, 0] = 255
            cv2.imwrite(str(path), mask)
    target = open_dataset("folder", folder_data, "val").read(0).target
    assert (target[:10] == 0).all() and (target[20:] == 1).all() and (target[10:20] == IGNORE).all()


def test_refusals_name_what_is_wrong(folder_data: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.root is not set"):
        open_dataset("folder", None, "train")
    with pytest.raises(ValueError, match=r"nowhere: no such folder"):
        open_dataset("folder", folder_data / "nowhere", "train")
    with pytest.raises(ValueError, match=r"images/test: no such folder, so the split is empty"):
        open_dataset("folder", folder_data, "test")
    (folder_data / "images/train/extra.png").write_bytes((folder_data / "images/train/photo_0.png").read_bytes())
    with pytest.raises(ValueError, match=r"1 image of split 'train' has no mask: extra"):
        open_dataset("folder", folder_data, "train")
    (folder_data / "images/train/extra.png").unlink()
    (folder_data / "images/train/photo_4.png").unlink()
    with pytest.raises(ValueError, match=r"1 mask of split 'train' has no image: photo_4"):
        open_dataset("folder", folder_data, "train")


def test_sizes_that_differ_and_damaged_images(folder_data: Path) -> None:
    write(folder_data / "masks/train/photo_0.png", np.zeros((48, 60), np.uint8))
    data = open_dataset("folder", folder_data, "train")
    with pytest.raises(ValueError, match=r"photo_0\.png is 64×48 pixels but its mask .*photo_0\.png is 60×48 pixels"):
        data.read(0)
    (folder_data / "images/train/photo_1.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"photo_1\.png: not a readable image"):
        data.read(1)


def test_missing_labels_yaml_and_twin_names(folder_data: Path) -> None:
    (folder_data / "images/val/photo_0.jpg").write_bytes((folder_data / "images/val/photo_0.png").read_bytes())
    with pytest.raises(ValueError, match=r"two files of one name"):
        open_dataset("folder", folder_data, "val")
    (folder_data / "labels.yaml").unlink()
    with pytest.raises(ValueError, match=r"labels\.yaml: no such file"):
        open_dataset("folder", folder_data, "train")


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/train/a{}.jpg", "masks/train/a{}_mask.png"), ("images/train/{}_sat.jpg", "masks/train/{}_mask.png"),
        ("images/train/sub/a{}.jpg", "images/train/sub/a{}_seg.png"), ("images/a{}.jpg", "masks/a{}.png"),
        ("train/a_{}.jpg", "train/a_{}_labels.png"), ("images/training/a{}.jpg", "masks/training/a{}-gt.png"),
    ],
)  # fmt: skip
def test_masks_with_an_ending_or_beside_the_images(image: str, mask: str, tmp_path: Path) -> None:
    for i in range(3):
        for name, pixels in ((image, np.zeros((8, 8, 3), np.uint8)), (mask, np.full((8, 8), i, np.uint8))):
            path = tmp_path / name.format(i)
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, pixels)
    (tmp_path / "labels.yaml").write_text("classes: [{name: a, value: 0}, {name: b, value: 1}, {name: c, value: 2}]\n")
    data = open_dataset("folder", tmp_path, "train")
    assert [int(data.read(i).target[0, 0]) for i in range(len(data))] == [0, 1, 2]


def test_no_masks_anywhere_says_where_they_were_looked_for(tmp_path: Path) -> None:
    (tmp_path / "images" / "train").mkdir(parents=True)
    write(tmp_path / "images" / "train" / "a.png", np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "labels.yaml").write_text("classes: [{name: a, value: 0}]\n")
    with pytest.raises(ValueError, match=r"masks/train: no such folder, and no masks lie beside .*a_mask\.png"):
        open_dataset("folder", tmp_path, "train")


def test_masks_may_lie_in_labels_and_photos_are_no_raster(folder_data: Path) -> None:
    wanted = open_dataset("folder", folder_data, "val").read(0)
    (folder_data / "masks").rename(folder_data / "labels")
    assert recognise(folder_data) == ("folder", folder_data)
    np.testing.assert_array_equal(open_dataset("folder", folder_data, "val").read(0).target, wanted.target)


def test_jpegs_and_pngs_of_one_name_lie_together(folder_data: Path, tmp_path: Path) -> None:
    wanted = open_dataset("folder", folder_data, "train")
    root = tmp_path / "facades"
    (root / "images").mkdir(parents=True)
    for mask in (folder_data / "masks/train").iterdir():
        shutil.copy(mask, root / "images" / mask.name)
        size = cv2.imread(str(mask)).shape
        write((root / "images" / mask.name).with_suffix(".jpg"), np.zeros(size, np.uint8))
        (root / "images" / mask.name).with_suffix(".xml").write_text("<objects/>")
    shutil.copy(folder_data / "labels.yaml", root)
    assert recognise(root) == ("folder", root)
    found = open_dataset("folder", root, "train")
    assert len(found) == len(wanted)
    np.testing.assert_array_equal(found.read(2).target, wanted.read(2).target)
    (root / "images" / mask.name).with_suffix(".jpg").unlink()  # then a mask would be taken for a photo
    with pytest.raises(ValueError, match="two files of one name"):
        open_dataset("folder", root, "train")


def test_images_may_lie_in_folders_of_splits_beside_masks(folder_data: Path) -> None:
    for split in ("train", "val"):
        (folder_data / "images" / split).rename(folder_data / split)
    (folder_data / "images").rmdir()
    assert recognise(folder_data) == ("folder", folder_data)
    assert len(open_dataset("folder", folder_data, "train")) == 6
