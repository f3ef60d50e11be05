"""Images and masks that lie as other people's archives have them: found, paired, told apart."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from panfpn.cli import main
from panfpn.data import Dataset, open_dataset
from panfpn.data.dataset import FileDataset
from panfpn.data.recognition import recognise, splits_of
from panfpn.data.segments import PanopticDataset

LABELS = "classes: [{name: ground, value: 0}, {name: thing, value: 1}, {name: other, value: 2}]\n"
NUMBERED = "classes: [{name: ground, value: 0}, {name: nucleus, value: [1, 2, 3, 4, 5, 6], thing: true}]\n"
SHAPE = (24, 32)


def photo(number: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(number).integers(0, 256, (*SHAPE, 3), np.uint8)


def mask(number: int) -> npt.NDArray[np.uint8]:
    values = np.zeros(SHAPE, np.uint8)
    values[4:12, 3 : 9 + number] = 1
    values[14:20, 5 : 20 + number] = 2
    return values


def put(path: Path, pixels: npt.NDArray[np.generic]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write(root: Path, files: Sequence[tuple[str, str]], labels: str | None = LABELS) -> None:
    """Images and masks of these names; a mask's number is where it stands in the list."""
    for number, (image, target) in enumerate(files):
        put(root / image, photo(number))
        put(root / target, mask(number))
    if labels is not None:
        (root / "labels.yaml").write_text(labels)


def in_no_pair(data: Dataset) -> int:
    """How many images were left out for it, and for nothing else."""
    assert isinstance(data, FileDataset) and set(data.left_out.counts) == {"images that belong to no pair"}
    return data.left_out.counts.total()


FORMS = {  # as archives of these are unpacked
    "Penn-Fudan": [("PNGImages/Ped1.png", "PedMasks/Ped1_mask.png"), ("PNGImages/Ped2.png", "PedMasks/Ped2_mask.png")],
    "eTRIMS": [(f"images/08_ds/b{n}.jpg", f"annotations/08_ds/b{n}.png") for n in (1, 2)],
    "CMP": [(f"base/cmp_b{n}.jpg", f"base/cmp_b{n}.png") for n in (1, 2)],
    "numbers after words": [(f"img/Img_{n}.png", f"gt/Label_{n}.png") for n in (1, 2, 10)],
    "CMP, both parts": [
        (f"{part}/cmp_{sign}{n}.jpg", f"{part}/cmp_{sign}{n}.png")
        for part, sign in (("base", "b"), ("extended", "x"))
        for n in (1, 2)
    ],
    "an ending, together": [(f"all/{n}.png", f"all/{n}_seg.png") for n in ("a", "b")],
    "an ending of each": [(f"A/{n}/1_image.png", f"B/{n}/1_label.png") for n in ("x", "y")],
    "in a folder of its own": [(f"set/data/rgb/{n}.png", f"set/data/truth/{n}.png") for n in ("a", "b")],
    "another name for each": [("x/cat.png", "y/cat.png")],
}


@pytest.mark.parametrize("form", FORMS)
def test_pairs_are_found(form: str, tmp_path: Path) -> None:
    write(tmp_path, FORMS[form])
    assert recognise(tmp_path) == ("pairs", tmp_path)
    assert splits_of("pairs", tmp_path) == ["train"]
    data = open_dataset("pairs", tmp_path, "train")
    there = {Path(image).with_suffix("").as_posix(): number for number, (image, _) in enumerate(FORMS[form])}
    assert sorted(map(data.name, range(len(data)))) == sorted(there)
    for i in range(len(data)):
        np.testing.assert_array_equal(data.read(i).target, mask(there[data.name(i)]))
        assert (data.read(i).image.std() > 40) and data.read(i).image.shape == (*SHAPE, 3)


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("training/images/a.jpg training/labels/a.png", "validation/images/a.jpg validation/labels/a.png"),
        ("leftImg8bit/train/7/a_image.jpg gtFine/train/7/a_label.png",
         "leftImg8bit/val/9/a_image.jpg gtFine/val/9/a_label.png"),
        ("train/a.png train_masks/a.png", "val/b.png val_masks/b.png"),
        ("set/Train/a.jpg set/Train/a.png", "set/Val/b.jpg set/Val/b.png"),
    ],
)  # fmt: skip
def test_folders_of_splits(train: str, val: str, tmp_path: Path) -> None:
    write(tmp_path, [(train.split()[0], train.split()[1]), (val.split()[0], val.split()[1])])
    assert splits_of("pairs", tmp_path) == ["train", "val"]
    for number, split in enumerate(("train", "val")):
        data = open_dataset("pairs", tmp_path, split)
        assert len(data) == 1
        np.testing.assert_array_equal(data.read(0).target, mask(number))
    with pytest.raises(ValueError, match="no images and masks of split 'test' that are called alike, only of train, v"):
        open_dataset("pairs", tmp_path, "test")


def test_of_several_kinds_the_one_of_fewest_values_is_taken_and_the_others_are_said(tmp_path: Path) -> None:
    names = [f"{n}/a" for n in ("x", "y")]
    write(tmp_path, [(f"images/{n}.jpg", f"gt/{n}_classIds.png") for n in names])
    for number, name in enumerate(names):
        put(tmp_path / f"gt/{name}_color.png", np.repeat(mask(number)[:, :, None] * 80, 3, 2))
        instances = mask(number).astype(np.uint16) * 1000
        instances[6:8, 3:6] += 7
        put(tmp_path / f"gt/{name}_instanceIds.png", instances)
    data = open_dataset("pairs", tmp_path, "train")
    assert len(data) == 2
    np.testing.assert_array_equal(data.read(0).target, mask(0))
    assert in_no_pair(data) == 4


def test_two_folders_that_could_be_the_images_are_refused(tmp_path: Path) -> None:
    write(tmp_path, [(f"left/{n}.jpg", f"gt/{n}.png") for n in (1, 2)])
    for number in (1, 2):
        put(tmp_path / f"right/{number}.jpg", photo(9))
    with pytest.raises(
        ValueError, match=r"gt.1\.png: is called like images of 'left' and of 'right'; move one of these"
    ):
        recognise(tmp_path)


@pytest.mark.parametrize(("others", "split"), [("test_images", "test"), ("TEST/images", "test"), ("Set_Val/x", "val")])
def test_images_without_masks_go_with_no_masks_of_another_split(others: str, split: str, tmp_path: Path) -> None:
    """They are counted, where the split is asked for that they are of."""
    write(tmp_path, [(f"train_images/{n}.jpg", f"train_masks/{n}.png") for n in (1, 2)])
    for number in (1, 2):
        put(tmp_path / f"{others}/{number}.jpg", photo(9))
    assert splits_of("pairs", tmp_path) == ["train"]
    data = open_dataset("pairs", tmp_path, "train")
    assert [data.name(i) for i in range(len(data))] == ["train_images/1", "train_images/2"]
    assert in_no_pair(data) == 2
    with pytest.raises(
        ValueError, match=f"no images and masks of split '{split}' that are called alike, only of train"
    ):
        open_dataset("pairs", tmp_path, split)


def test_masks_of_one_kind_are_no_images_of_another(tmp_path: Path) -> None:
    """Vessels and fields of view, as in DRIVE: both are masks, though only one is called so."""
    write(tmp_path, [(f"training/images/{n}_training.tif", f"training/1st_manual/{n}_manual1.png") for n in (21, 22)])
    for number in (21, 22):
        field = np.zeros(SHAPE, np.uint8)
        field[2:-2, 2:-2] = np.arange(28)[None] // 4 + 1
        put(tmp_path / f"training/mask/{number}_training_mask.png", field)
    data = open_dataset("pairs", tmp_path, "train")
    assert [data.name(i) for i in range(len(data))] == [f"training/images/{n}_training" for n in (21, 22)]
    np.testing.assert_array_equal(data.read(1).target, mask(1))
    assert in_no_pair(data) == 2


def test_names_of_strangers_are_not_alike(tmp_path: Path) -> None:
    """A beginning that all have is left out only if it is a word for images or masks; in our own layout too."""
    write(tmp_path, [(f"a/tokyo_{n}.jpg", f"b/paris_{n}.png") for n in (1, 2)])
    with pytest.raises(ValueError, match="none of the layouts that are known"):
        recognise(tmp_path)
    write(tmp_path / "own", [(f"images/train/tokyo_{n}.jpg", f"masks/train/paris_{n}.png") for n in (1, 2)])
    with pytest.raises(ValueError, match="2 images of split 'train' have no mask"):
        open_dataset("folder", tmp_path / "own", "train")


def test_masks_as_jpegs_are_refused_as_such(tmp_path: Path) -> None:
    write(tmp_path, [(f"set/images/{n}.jpg", f"set/masks/{n}.jpg") for n in (1, 2)])
    assert recognise(tmp_path)[0] == "pairs"
    with pytest.raises(ValueError, match=r"masks.1\.jpg: a mask as JPEG, which changes values"):
        open_dataset("pairs", tmp_path, "train").read(0)


@pytest.mark.parametrize("labels", [
    "classes: [{name: ground, value: 0}, {name: sky, value: 1}, {name: vehicle, value: [2, 3], thing: true}]",
    "classes: [{name: ground, value: 0}, {name: vehicle, value: [2, 3], thing: true}]",
    "classes: [{name: ground, value: 0}, {name: vehicle, value: 1, thing: true}]",
    "classes: [{name: ground, value: 0}, {name: vehicle, value: [1, 2000000000], thing: true}]",
])  # fmt: skip
def test_values_of_a_class_number_no_things(labels: str, tmp_path: Path) -> None:
    write(tmp_path, [("images/1.jpg", "masks/1.png")], labels)
    with pytest.raises(ValueError, match="so things cannot be told apart"):
        open_dataset("folder", tmp_path, "train", panoptic=True)


def test_what_lies_beside_a_folder_of_ours_does_not_make_it_another(tmp_path: Path) -> None:
    """Results of a model are even, and called as the photos."""
    write(tmp_path, [(f"images/{n}.jpg", f"labels/{n}.png") for n in (1, 2)])
    for number in (1, 2):
        put(tmp_path / f"labelled/{number}.png", np.zeros(SHAPE, np.uint8))
    assert recognise(tmp_path)[0] == "folder"
    np.testing.assert_array_equal(open_dataset("folder", tmp_path, "train").read(0).target, mask(0))


def test_dark_photos_are_no_masks(tmp_path: Path) -> None:
    """Photos of microscopes are mostly black, and so as even as masks; the masks are more so."""
    write(tmp_path, [(f"cells/{n}.png", f"cells_truth/{n}.png") for n in range(3)])
    for number in range(3):
        dark = np.where(mask(number) > 0, photo(number)[:, :, 0], 0).astype(np.uint8)
        put(tmp_path / f"cells/{number}.png", dark)
    data = open_dataset("pairs", tmp_path, "train")
    np.testing.assert_array_equal(data.read(1).target, mask(1))


def test_what_is_alone_is_said(tmp_path: Path) -> None:
    write(tmp_path, [(f"rgb/{n}.jpg", f"truth/{n}.png") for n in "abcd"])
    (tmp_path / "truth/b.png").unlink()
    with pytest.raises(ValueError, match=r"1 image of split 'train' has no mask: rgb/b; for b\.jpg a mask named b"):
        open_dataset("pairs", tmp_path, "train")
    unpaired: list[str] = []
    assert len(open_dataset("pairs", tmp_path, "train", unpaired=unpaired)) == 3
    assert [Path(sentence.split(":")[0]).name for sentence in unpaired] == ["b.jpg"]


@pytest.mark.parametrize("of_masks", [False, True])
def test_photos_of_one_name_are_no_pairs(of_masks: bool, tmp_path: Path) -> None:
    """Two splits, or two films, with files of the same names; nor do masks alone make pairs."""
    for number, name in enumerate(("train/0.png", "val/0.png", "film/0.png", "train/1.png", "val/1.png")):
        put(tmp_path / name, mask(number) if of_masks else photo(number))
    with pytest.raises(ValueError, match="none of the layouts that are known"):
        recognise(tmp_path)


@pytest.mark.parametrize("layout", ["pairs", "folder"])
def test_values_that_number_things_tell_them_apart(layout: str, tmp_path: Path) -> None:
    folders = ("PNGImages", "PedMasks") if layout == "pairs" else ("images", "masks")
    write(tmp_path, [(f"{folders[0]}/{n}.png", f"{folders[1]}/{n}.png") for n in (1, 2)], NUMBERED)
    assert recognise(tmp_path)[0] == layout
    data = open_dataset(layout, tmp_path, "train", panoptic=True)
    assert isinstance(data, PanopticDataset)
    segments = data.read(0).segments
    assert segments is not None
    assert segments.classes.tolist() == [1, 1, 0]  # two nuclei and the ground
    np.testing.assert_array_equal(segments.index == 1, mask(0) == 2)
    np.testing.assert_array_equal(open_dataset(layout, tmp_path, "train").read(0).target, mask(0) > 0)


def test_void_between_numbered_things(tmp_path: Path) -> None:
    """What the table ignores is no thing; what it does not name is refused, as for classes."""
    write(tmp_path, [("rgb/1.png", "truth/1.png")], NUMBERED + "ignore: [255]\n")
    drawn = mask(0)
    drawn[12] = 255
    put(tmp_path / "truth/1.png", drawn)
    segments = open_dataset("pairs", tmp_path, "train", panoptic=True).read(0).segments
    assert segments is not None and segments.classes.tolist() == [1, 1, 0]
    np.testing.assert_array_equal(segments.index == -1, drawn == 255)
    drawn[13] = 9
    put(tmp_path / "truth/1.png", drawn)
    with pytest.raises(ValueError, match=r"truth/1\.png: value 9 .32 pixels"):
        open_dataset("pairs", tmp_path, "train", panoptic=True).read(0)


def test_values_of_classes_tell_no_things_apart(tmp_path: Path) -> None:
    labels = LABELS.replace("value: 1", "value: 1, thing: true")
    write(tmp_path, [(f"rgb/{n}.png", f"truth/{n}.png") for n in (1, 2)], labels)
    with pytest.raises(ValueError, match="a value of these masks is a class, and no number of a thing, so things cann"):
        open_dataset("pairs", tmp_path, "train", panoptic=True)


def test_masks_that_nothing_names_get_a_table_proposed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, [(f"rgb/{n}.jpg", f"truth/{n}.png") for n in (1, 2, 3)], labels=None)
    with pytest.raises(ValueError, match=r"labels\.yaml: no such file; .*data check .* proposes one"):
        open_dataset("pairs", tmp_path, "train")
    assert main(["data", "check", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "{name: class_2, value: 2}" in said and "split train: no problems" in said
