"""What other tools write comes in pixel by pixel, or not at all and with a sentence."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from foreign_sets import (
    IDS,
    NAMES,
    Photo,
    Thing,
    both_splits,
    photos,
    split_parts,
    write_coco,
    write_labelme,
    write_labelstudio,
    write_list,
    write_roboflow,
    write_voc,
    write_yolo,
    write_yolo_masks,
)
from panfpn.data import open_dataset
from panfpn.data.importing import import_dataset
from panfpn.data.layouts.coco_outlines import CocoOutlines
from panfpn.data.recognition import recognise
from panfpn.data.segments import PanopticDataset
from panfpn.labels import LabelTable

WRITERS: dict[str, tuple[Any, str, bool]] = {  # writer, layout, whether things are told apart
    "coco": (write_coco, "coco", True),
    "coco, run lengths": (partial(write_coco, runs=True), "coco", True),
    "roboflow coco": (partial(write_coco, roboflow=True), "coco", True),
    "yolo": (write_yolo, "yolo", True),
    "yolo masks": (write_yolo_masks, "yolo", False),
    "cvat": (write_voc, "voc", True),
    "cvat, palette": (partial(write_voc, palette=True), "voc", True),
    "roboflow masks": (write_roboflow, "roboflow", False),
    "labelme": (write_labelme, "labelme", True),
    "labelstudio": (write_labelstudio, "labelstudio", True),
    "list": (write_list, "list", False),
}


@pytest.mark.parametrize("form", WRITERS)
def test_a_data_set_comes_back_pixel_by_pixel(form: str, tmp_path: Path) -> None:
    write, layout, things = WRITERS[form]
    pictures = photos(20)
    pictures = split_parts(pictures) if form == "yolo" else pictures
    root, out = tmp_path / "theirs", tmp_path / "ours"
    root.mkdir()
    for split in both_splits(write, root, pictures[:14], pictures[14:]):
        assert (root / split).parent == root
    before = sorted(root.rglob("*"))
    assert recognise(root) == (layout, root)
    result = import_dataset(root, out, progress=False)
    assert sorted(root.rglob("*")) == before and sorted(tmp_path.iterdir()) == [out, root]
    assert result.counts == {"train": 14, "val": 6}

    table = LabelTable.from_yaml(out / "labels.yaml")
    assert table.names == ("background", *NAMES) and table == result.table
    assert [c.thing for c in table.classes] == [False, things, things, things]
    for split, part in (("train", pictures[:14]), ("val", pictures[14:])):
        ours = open_dataset("folder", out, split, panoptic=things)
        theirs = open_dataset(layout, root, split, panoptic=things)
        assert len(ours) == len(theirs) == len(part)
        named = {ours.name(i).rpartition("/")[2].removeprefix("1a2b3c4d-"): i for i in range(len(ours))}
        for photo in part:
            sample = ours.read(named[photo.name])
            classes, numbers = photo.truth()
            assert np.array_equal(sample.target, classes), (form, photo.name)
            assert np.array_equal(theirs.read(named[photo.name]).target, classes)  # without a copy, too
            if form != "roboflow masks":  # JPEG
                assert np.array_equal(sample.image, photo.pixels)
            if things:
                assert sample.segments is not None
                index, is_thing = sample.segments.index, sample.segments.classes > 0
                assert np.array_equal(is_thing[index], numbers > 0)
                assert same_parts(np.where(is_thing[index], index + 1, 0), numbers)


def same_parts(one: Any, other: Any) -> bool:
    """Whether two maps tell the same pixels apart, whatever their numbers are."""
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1)
    return len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]


def test_crowds_gaps_and_names_of_a_coco_json(tmp_path: Path) -> None:
    write_coco(tmp_path / "a", "train", photos(3))
    file = tmp_path / "a" / "annotations" / "instances_train.json"
    data = json.loads(file.read_text())
    data["annotations"].append({
        "id": 9999, "image_id": 10, "category_id": 8, "iscrowd": 1,
        "segmentation": {"size": [data["images"][0]["height"], data["images"][0]["width"]], "counts": ""},
    })  # fmt: skip
    height, width = data["images"][0]["height"], data["images"][0]["width"]
    data["annotations"][-1]["segmentation"]["counts"] = [5, 20, height * width - 25]
    file.write_text(json.dumps(data))
    result = import_dataset(tmp_path / "a", tmp_path / "b", stuff=("nut",), progress=False)
    assert [c.values[0] for c in result.table.classes] == [0, 3, 7, 8]
    assert [c.thing for c in result.table.classes] == [False, True, False, True]
    segments = open_dataset("folder", tmp_path / "b", "train", panoptic=True).read(0).segments
    assert segments is not None
    crowd = segments.crowd[segments.index]
    assert crowd.T.ravel().nonzero()[0].tolist() == list(range(5, 25))
    assert (segments.classes[segments.index][crowd] == 3).all()


def test_voc_itself(tmp_path: Path) -> None:
    root = tmp_path / "VOCdevkit" / "VOC2012"
    mask, objects = np.zeros((8, 10), np.uint8), np.zeros((8, 10), np.uint8)
    mask[:4], mask[4], objects[:2], objects[2:4], objects[4] = 15, 255, 1, 2, 255
    for folder, pixels in (("SegmentationClass", mask), ("SegmentationObject", objects)):
        (root / folder).mkdir(parents=True)
        picture = Image.fromarray(pixels, "P")
        picture.putpalette([v for k in range(256) for v in (k, 255 - k, k // 2)])
        picture.save(root / folder / "a.png")
    (root / "JPEGImages").mkdir()
    Image.new("RGB", (10, 8)).save(root / "JPEGImages" / "a.jpg")
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text("a\n")
    data = open_dataset("voc", tmp_path, "train", panoptic=True)
    assert data.table.num_classes == 21 and data.table.names[15] == "person"
    sample = data.read(0)
    assert np.array_equal(sample.target, np.where(mask == 255, -1, mask.astype(int)))
    assert sample.segments is not None and sorted(sample.segments.classes.tolist()) == [0, 15, 15]


def broken(form: str, change: Callable[[Path], object], tmp_path: Path) -> str:
    """The sentence that an import of a changed data set ends with; nothing is left of it."""
    root = tmp_path / "theirs"
    root.mkdir()
    list(both_splits(WRITERS[form][0], root, photos(4, 1), photos(3, 2, first=4)))
    change(root)
    with pytest.raises(ValueError) as caught:
        import_dataset(root, tmp_path / "ours", layout=WRITERS[form][1], progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]
    text = str(caught.value)
    assert "\n" not in text and str(tmp_path) in text
    return text


def in_json(path: str, change: Callable[[Any], object]) -> Callable[[Path], None]:
    def changed(root: Path) -> None:
        data = json.loads((root / path).read_text())
        change(data)
        (root / path).write_text(json.dumps(data))

    return changed


def in_text(path: str, old: str, new: str) -> Callable[[Path], None]:
    def changed(root: Path) -> None:
        text = (root / path).read_text()
        assert old in text
        (root / path).write_text(text.replace(old, new, 1))

    return changed


def cut(path: str) -> Callable[[Path], None]:
    def changed(root: Path) -> None:
        data = (root / path).read_bytes()
        (root / path).write_bytes(data[: len(data) // 2])

    return changed


def without(path: str) -> Callable[[Path], None]:
    return lambda root: (root / path).unlink()


COCO, LS, LM = "annotations/instances_train.json", "train.json", "train/part 01.json"
POINT = {"label": "bolt", "points": [[1, 1], [2, 2]], "shape_type": "polygon"}
FAULTS: list[tuple[str, Callable[[Path], object], str]] = [
    ("coco", in_json(COCO, lambda d: d["annotations"][0].update(category_id=5)), "of category 5; there are 3, 7, 8"),
    ("coco", in_json(COCO, lambda d: d["annotations"][0].update(image_id=77)), "is of image 77"),
    ("coco", in_json(COCO, lambda d: d["annotations"][0].update(segmentation=[])), "has no segmentation"),
    ("coco", in_json(COCO, lambda d: d["annotations"][0].update(segmentation=[[1, 2, 3, 4]])), "of 2 points"),
    ("coco", in_json(COCO, lambda d: d["images"][0].update(file_name="../../x.png")), "no path below"),
    ("coco", in_json(COCO, lambda d: d["images"][0].update(file_name="gone.png")), "names image gone.png"),
    ("coco", in_json(COCO, lambda d: d["images"][0].update(height=7)), "pixels but its mask"),
    ("coco", in_json(COCO, lambda d: d["images"].append(d["images"][0])), "two images with id 10"),
    ("coco", in_json(COCO, lambda d: d.pop("categories")), "not in COCO's format"),
    ("coco", cut(COCO), "not JSON"),
    ("coco", in_json(COCO, lambda d: d["images"][1].update(file_name="x/part 00.png")), "are both"),
    ("coco", in_json(COCO, lambda d: d["images"][0].update(height=90_000, width=90_000)), "256 megapixels at most"),
    ("coco, run lengths", in_json(COCO, lambda d: d["annotations"][0]["segmentation"]["size"].reverse()),
     "has run lengths of size"),
    ("coco, run lengths", in_json(COCO, lambda d: d["annotations"][1]["segmentation"].update(counts=[3])), "fill 3"),
    ("roboflow coco", cut("valid/_annotations.coco.json"), "not JSON"),
    ("yolo", in_text("labels/train/part 01.txt", " 0.", " x."), "line 1 has a polygon that is no list"),
    ("yolo", lambda root: (root / "labels/train/part 01.txt").write_text("7 0 0 1 1 0 1\n"), "class '7'"),
    ("yolo", lambda root: (root / "labels/train/part 01.txt").write_text("0 .5 .5 .1 .1\n"), "is a box"),
    ("yolo", lambda root: (root / "labels/train/part 01.txt").write_text("0\n"), "of 0 points"),
    ("yolo", in_text("data.yaml", "train: images/train", "train: ../../elsewhere"), "elsewhere leads outside"),
    ("yolo", in_text("data.yaml", "names:", "labels:"), "names is None"),
    ("yolo", in_text("data.yaml", "path: ../theirs", "path: .."), r"path \.\. leads outside"),
    ("yolo", lambda root: (root / "labels").rename(root / "elsewhere"), "and none for any image of split 'train'"),
    ("yolo", lambda root: (root / "data.yaml").write_text("[1, 2"), "cannot be read as YAML"),
    ("yolo masks", in_text("data.yaml", "masks_dir: masks", "masks_dir: ../../masks"), "leads outside"),
    ("yolo masks", without("masks/train/part 01.png"), "has no mask"),
    ("yolo masks", in_text("data.yaml", "  20: 2", "  20: 9"), "class 9"),
    ("yolo masks", in_text("data.yaml", "  30: 3\n", ""), "no value for class 'washer'"),
    ("yolo masks", cut("masks/train/part 01.png"), "not a readable image"),
    ("cvat", in_text("labelmap.txt", "bolt:250,50,83", "bolt:250,50"), "line 3 is 'bolt:250,50::'"),
    ("cvat", in_text("labelmap.txt", "nut:51,221,255", "nut:51,221,254"), "#33ddff .* not in label table"),
    ("cvat", without("SegmentationObject/part 01.png"), "no map of objects of part 01"),
    ("cvat", in_text("ImageSets/Segmentation/train.txt", "part 01", "../../x"), "leads outside"),
    ("cvat", without("JPEGImages/part 01.png"), "names part 01"),
    ("cvat", cut("SegmentationClass/part 01.png"), "not a readable image"),
    ("roboflow masks", in_text("train/_classes.csv", "1, bolt", "bolt, 1"), "line 3"),
    ("roboflow masks", lambda root: [in_text(f"{s}/_classes.csv", "1, bolt\n", "")(root) for s in ("train", "valid")],
     "value 1 .* not in label table"),
    ("roboflow masks", without("train/part 01_mask.png"), "has no mask"),
    ("roboflow masks", without("train/part 01.jpg"), "has no image"),
    ("roboflow masks", cut("train/part 01_mask.png"), "not a readable image"),
    ("labelme", in_json(LM, lambda d: d["shapes"].append(POINT)), "of 2 points"),
    ("labelme", in_json(LM, lambda d: d.update(imageHeight=None)), "has height None and width"),
    ("labelme", in_json(LM, lambda d: d.update(imagePath="../../../secret.png")), "secret.png leads outside"),
    ("labelme", without("train/part 01.png"), "no image 'part 01.png'"),
    ("labelme", in_json(LM, lambda d: d["shapes"][0].pop("label")), "shape 0 has no label"),
    ("labelme", cut(LM), "not JSON"),
    ("labelstudio", in_json(LS, lambda d: d[1]["data"].update(image="/x/gone.png")), "gone.png, which lies nowhere"),
    ("labelstudio", in_json(LS, lambda d: d[1]["annotations"][1]["result"][0].update(original_width=3)), "at 3×"),
    ("labelstudio", in_json(LS, lambda d: d[1].pop("data")), "task 1 has no data"),
    ("labelstudio", in_json(LS, lambda d: d.append(d[1])), "two tasks have the image"),
    ("labelstudio", in_json(LS, lambda d: d[1]["annotations"][1].update(
        result=[{"type": "brushlabels", "value": {"rle": [0, 0, 1], "brushlabels": ["nut"]}}])), "ends too early"),
    ("labelstudio", cut(LS), "not JSON"),
    ("labelstudio", in_json(LS, lambda d: d[1].update(annotations=5)), "annotations that are no list"),
    ("labelstudio", in_json(LS, lambda d: d[1]["annotations"][1].update(result=[None])), "no list of shapes"),
    ("labelstudio", in_json(LS, lambda d: d[1]["data"].update(image="/x/ab-part 01.png")), "lies nowhere"),
    ("labelme", in_json(LM, lambda d: d["shapes"][1].update(group_id=[1])), "group_id"),
    ("list", in_text("train.txt", "\tann/part 01.png", ""), "no such file, but line 2 of train.txt"),
    ("list", in_text("train.txt", "ann/part 01.png", "../ann/part 01.png"), "line 2 leads outside"),
    ("list", without("ann/part 01.png"), "no such file, but line 2"),
    ("list", without("labels.yaml"), "labels.yaml: no such file"),
    ("list", cut("jpg/part 01.png"), "not a readable image"),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(FAULTS)))
def test_what_is_wrong_is_one_sentence_and_nothing_is_written(number: int, tmp_path: Path) -> None:
    form, change, sentence = FAULTS[number]
    secret = tmp_path.parent / "secret.png"
    if not secret.exists():
        Image.new("RGB", (4, 4)).save(secret)
    text = broken(form, change, tmp_path)
    assert re.search(sentence, text), text


def test_a_folder_that_holds_anything_is_left_alone(tmp_path: Path) -> None:
    write_coco(tmp_path / "a", "train", photos(2))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine.txt").write_text("x")
    with pytest.raises(ValueError, match="not empty"):
        import_dataset(tmp_path / "a", tmp_path / "b", progress=False)
    assert [p.name for p in (tmp_path / "b").iterdir()] == ["mine.txt"]


def test_what_is_nothing_says_what_is_known(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none of the layouts that are known"):
        recognise(tmp_path)
    with pytest.raises(ValueError, match="nowhere: no such file or folder"):
        recognise(tmp_path / "nowhere")
    (tmp_path / "x.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match="is an archive; unpack it"):
        recognise(tmp_path / "x.zip")


def test_pictures_of_one_name_are_refused(tmp_path: Path) -> None:
    picture = photos(2)
    twice = [picture[1], Photo(picture[1].name, picture[1].pixels, picture[1].things)]
    write_coco(tmp_path / "a", "train", twice)
    with pytest.raises(ValueError, match="images called part 01"):
        import_dataset(tmp_path / "a", tmp_path / "b", progress=False)


def test_a_folder_of_ours_is_recognised(folder_data: Path) -> None:
    assert recognise(folder_data) == ("folder", folder_data)


def test_splits_with_other_labels_have_one_table(tmp_path: Path) -> None:
    for write, layout in ((write_labelme, "labelme"), (write_labelstudio, "labelstudio")):
        root = tmp_path / layout
        root.mkdir()
        for split, name in (("train", "washer"), ("val", "bolt")):
            photo = photos(2, first=len(split))[1]
            photo.things = [Thing(name, t.polygons) for t in photo.things]
            write(root, split, [photo])
        assert {open_dataset(layout, root, split).table.names for split in ("train", "val")} == {
            ("background", "bolt", "washer")
        }
        result = import_dataset(root, tmp_path / f"{layout} ours", progress=False)
        assert result.table.names == ("background", "bolt", "washer")


@pytest.mark.parametrize("shift", [20, -3])
def test_splits_that_number_their_classes_otherwise(shift: int, tmp_path: Path) -> None:
    for split, ids in (("train", IDS[:2]), ("val", IDS)):
        write_coco(tmp_path / "a", split, pictures := photos(6))
        moved = shift if split == "val" or shift < 0 else 0
        in_json(f"annotations/instances_{split}.json", lambda d, ids=ids, moved=moved: [
            d.update(categories=[c for c in d["categories"] if c["id"] in ids],
                     annotations=[a for a in d["annotations"] if a["category_id"] in ids]),
            *(c.update(id=c["id"] + moved) for c in d["categories"]),
            *(a.update(category_id=a["category_id"] + moved) for a in d["annotations"]),
        ])(tmp_path / "a")  # fmt: skip
    result = import_dataset(tmp_path / "a", tmp_path / "b", progress=False)
    assert result.table.names == ("background", *NAMES)
    for split, names in (("train", NAMES[:2]), ("val", NAMES)):
        data = open_dataset("folder", tmp_path / "b", split)
        for i, photo in enumerate(pictures):
            expected = Photo(photo.name, photo.pixels, [t for t in photo.things if t.name in names]).truth()[0]
            assert np.array_equal(data.read(i).target, expected), (split, photo.name)


def test_a_table_of_ones_own_for_coco_and_yolo(tmp_path: Path) -> None:
    pictures = split_parts(photos(6))
    write_coco(tmp_path / "coco", "train", pictures)
    (tmp_path / "yolo").mkdir()
    write_yolo(tmp_path / "yolo", "train", pictures)
    for layout, values in (("coco", IDS), ("yolo", (0, 1, 2))):
        (tmp_path / layout / "labels.yaml").write_text(
            f"classes:\n  - {{name: metal, value: [{values[0]}, {values[1]}], thing: true}}\n"
            f"  - {{name: background, value: 900}}\nignore: [{values[2]}]\n"
        )
        data = open_dataset(layout, tmp_path / layout, "train")
        for i, photo in enumerate(pictures):
            classes = photo.truth()[0]
            expected = np.select([classes == 0, classes == 3], [1, -1], 0)
            assert np.array_equal(data.read(i).target, expected), (layout, photo.name)
    (tmp_path / "coco" / "labels.yaml").write_text(f"classes: [{{name: a, value: {list(IDS)}}}]\n")
    target = open_dataset("coco", tmp_path / "coco", "train").read(1).target
    assert np.array_equal(target, np.where(pictures[1].truth()[0] > 0, 0, -1))  # what no shape claims is not known


def test_things_alone_are_learnt_from_outlines(tmp_path: Path) -> None:
    write_coco(tmp_path / "a", "train", photos(4))
    (tmp_path / "a" / "labels.yaml").write_text(
        "classes:\n  - {name: background, value: 0}\n  - {name: bolt, value: 3, thing: true}\n"
        "  - {name: other, value: 7}\n  - {name: rest, value: 99, thing: true}\nignore: [8]\n"
    )
    data = open_dataset("coco", tmp_path / "a", "train", panoptic=True, instances="json")
    assert isinstance(data, PanopticDataset) and isinstance(data.outlines, CocoOutlines)
    assert set(data.outlines.classes.tolist()) == {1}


def test_supercategories_that_are_classes_stay(tmp_path: Path) -> None:
    write_coco(tmp_path / "a", "train", photos(2))
    in_json(COCO, lambda d: [c.update(supercategory=c["name"]) for c in d["categories"]])(tmp_path / "a")
    in_json(COCO, lambda d: d.update(annotations=d["annotations"][:1]))(tmp_path / "a")
    assert open_dataset("coco", tmp_path / "a", "train").table.names == ("background", *NAMES)


def test_frames_of_cvat_without_an_object_are_counted(tmp_path: Path) -> None:
    write_voc(tmp_path / "a", "train", photos(4))
    for folder in ("SegmentationClass", "SegmentationObject"):
        (tmp_path / "a" / folder / "part 00.png").unlink()
    result = import_dataset(tmp_path / "a", tmp_path / "b", progress=False)
    assert result.counts == {"train": 3} and any("1 listed images without a mask" in note for note in result.notes)


def test_tasks_that_nobody_annotated_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    write_labelstudio(tmp_path / "a", "train", photos(4))
    in_json("train.json", lambda d: d[1].update(annotations=[{"was_cancelled": True, "result": []}]))(tmp_path / "a")
    result = import_dataset(tmp_path / "a", tmp_path / "b", progress=False)
    assert result.counts == {"train": 3} and any("1 tasks without an annotation" in note for note in result.notes)


def test_the_file_that_is_named_is_the_one_that_is_read(tmp_path: Path) -> None:
    write_coco(tmp_path, "train", photos(2))
    (tmp_path / "annotations" / "corrected.json").write_text((tmp_path / COCO).read_text())
    assert recognise(tmp_path / COCO) == ("coco", tmp_path)
    with pytest.raises(ValueError, match=r"corrected\.json: of layout 'coco', .*instances_train\.json is read there"):
        recognise(tmp_path / "annotations" / "corrected.json")


@pytest.mark.parametrize("extra", ["stats.json", "train.txt", "train.json"])
def test_a_folder_of_ours_with_more_in_it(extra: str, folder_data: Path) -> None:
    (folder_data / extra).write_text({"stats.json": "[1, 2]", "train.txt": "a\nb\n", "train.json": "{}"}[extra])
    assert recognise(folder_data) == ("folder", folder_data)


def test_a_failed_import_leaves_no_folders(tmp_path: Path) -> None:
    write_coco(tmp_path / "a", "train", photos(2))
    cut("train/part 01.png")(tmp_path / "a")
    with pytest.raises(ValueError, match="not a readable image"):
        import_dataset(tmp_path / "a", tmp_path / "x" / "y" / "b", progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    with pytest.raises(ValueError, match="--stuff names 'nonsense', which is none of the classes"):
        write_voc(tmp_path / "v", "train", photos(2))
        import_dataset(tmp_path / "v", tmp_path / "b", stuff=("nonsense",), progress=False)


@pytest.mark.parametrize("pattern", ["images/{}", "{}/images"])
def test_a_data_yaml_that_names_no_folders(pattern: str, tmp_path: Path) -> None:
    pictures = split_parts(photos(3))
    for split in ("train", "valid"):
        write_yolo(tmp_path / "a", split, pictures)
    for split in ("train", "valid"):
        for part in ("images", "labels"):
            place = tmp_path / "b" / pattern.format(split).replace("images", part)
            place.parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "a" / part / split).rename(place)
    (tmp_path / "b" / "data.yaml").write_text(f"nc: 3\nnames: [{', '.join(NAMES)}]\n")
    result = import_dataset(tmp_path / "b", tmp_path / "c", progress=False)
    assert result.counts == {"train": 3, "val": 3}
    sample = open_dataset("folder", tmp_path / "c", "val").read(1)
    assert np.array_equal(sample.target, pictures[1].truth()[0])


def test_crowds_are_counted(tmp_path: Path) -> None:
    write_coco(tmp_path / "a", "train", photos(3), runs=True)
    in_json(COCO, lambda d: [a.update(iscrowd=1) for a in d["annotations"][:2]])(tmp_path / "a")
    result = import_dataset(tmp_path / "a", tmp_path / "b", progress=False)
    assert any("2 crowds" in note for note in result.notes)


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    write_coco(tmp_path / "theirs", "train", photos(600))
    command = [sys.executable, "-m", "panfpn", "data", "import", str(tmp_path / "theirs"), "-o", str(tmp_path / "ours")]
    listen = "import signal, sys, runpy; signal.signal(signal.SIGINT, signal.default_int_handler); "
    listen += "sys.argv = sys.argv[2:]; runpy.run_module('panfpn', run_name='__main__')"
    process = subprocess.Popen(
        [sys.executable, "-c", listen, *command[1:]], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    while not list(tmp_path.glob(".ours.panfpn-*/masks/train/*")) and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err == "panfpn: interrupted\n"
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]
