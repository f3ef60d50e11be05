from pathlib import Path

import cv2
import numpy as np
import pytest

from panfpn.data import open_dataset
from panfpn.labels import IGNORE


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels)


def test_folder(folder_data: Path) -> None:
    data = open_dataset("folder", folder_data, "train")
    assert len(data) == 6 and data.name(2) == "photo_2" and data.table.names == ("sky", "ground", "box")
    sample = data.read(0)
    assert sample.image.shape == (48, 64, 3) and sample.target.dtype == np.int16
    assert set(np.unique(sample.target)) == {IGNORE, 0, 1, 2}


def test_camvid(shared: Path) -> None:
    train, val = (open_dataset("camvid", shared / "data" / "camvid", split) for split in ("train", "val"))
    assert (len(train), len(val)) == (367, 101)
    sample = val.read(0)
    assert sample.image.shape == (360, 480, 3) and sample.target.max() <= 10
    assert sample.image[0].mean() > 100  # a bright sky is at the top


@pytest.mark.parametrize("kind", ["labelIds", "labelTrainIds", "both"])
def test_cityscapes_reads_what_is_on_disk(kind: str, tmp_path: Path) -> None:
    raw = np.full((8, 8), 26, np.uint8)
    raw[:2] = 4  # static: ignored
    train_ids = np.full((8, 8), 13, np.uint8)
    train_ids[:2] = 255
    for name in ("ulm_000000_000019", "ulm_000001_000019"):
        write(tmp_path / f"leftImg8bit/val/ulm/{name}_leftImg8bit.png", np.zeros((8, 8, 3), np.uint8))
        write(tmp_path / f"gtFine/val/ulm/{name}_gtFine_instanceIds.png", raw)
        if kind in ("labelIds", "both"):
            write(tmp_path / f"gtFine/val/ulm/{name}_gtFine_labelIds.png", raw)
        if kind in ("labelTrainIds", "both"):
            write(tmp_path / f"gtFine/val/ulm/{name}_gtFine_labelTrainIds.png", train_ids)
    data = open_dataset("cityscapes", tmp_path, "val")
    assert len(data) == 2 and data.name(0) == "ulm/ulm_000000_000019"
    target = data.read(0).target
    assert (target[:2] == IGNORE).all() and (target[2:] == 13).all()
    assert (data.table.decode(target[2:]) == 26).all()  # what is written for the server is the regular id


def test_ade20k(tmp_path: Path) -> None:
    mask = np.arange(16, dtype=np.uint8).reshape(4, 4)
    write(tmp_path / "images/validation/ADE_val_00000001.jpg", np.zeros((4, 4, 3), np.uint8))
    write(tmp_path / "annotations/validation/ADE_val_00000001.png", mask)
    data = open_dataset("ade20k", tmp_path, "val")
    assert np.array_equal(data.read(0).target, mask.astype(np.int16) - 1)  # 0 is ignored, c becomes c - 1


def test_scenes_are_a_function_of_split_and_number() -> None:
    train, val = (open_dataset("scenes", None, s, scene_count=4, scene_size=(64, 96)) for s in ("train", "val"))
    assert len(train) == 4 and train.table.num_classes == 9
    assert np.array_equal(train.read(1).image, train.read(1).image)
    assert not np.array_equal(train.read(1).image, val.read(1).image)


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
