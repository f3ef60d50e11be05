import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from panfpn.build import build_datasets
from panfpn.config import Data, TrainConfig
from panfpn.data import train_loader
from panfpn.data.layouts.coco_outlines import CocoOutlines, rasterised, read_outlines, unpacked
from panfpn.data.loader import DrawSampler
from panfpn.data.targets import instances_of
from panfpn.data.transforms import Geometry, cut
from panfpn.labels import LabelTable
from panfpn.types import Instances, Segments
from transforming import train_transform

TABLE = LabelTable.named("coco_panoptic")


def whole(size: tuple[int, int]) -> Geometry:
    return Geometry(size=size, window=(0, 0, *size))


def painted(instances: Instances, size: tuple[int, int]) -> list[np.ndarray]:
    """Each thing's mask in the whole crop."""
    found, place = [], 0
    for left, top, right, bottom in instances.boxes.long().tolist():
        mask, count = np.zeros(size, np.bool_), (bottom - top) * (right - left)
        mask[top:bottom, left:right] = instances.bits[place : place + count].reshape(bottom - top, right - left).numpy()
        found.append(mask)
        place += count
    return found


def written(folder: Path, annotations: list[dict[str, Any]], size: tuple[int, int] = (20, 30)) -> CocoOutlines:
    images = [{"id": n, "file_name": f"{n}.jpg", "height": size[0], "width": size[1]} for n in (3, 4)]
    numbered = [{"id": i, "image_id": 4, "iscrowd": 0, "category_id": 1} | a for i, a in enumerate(annotations)]
    (folder / "instances.json").write_text(json.dumps({"images": images, "annotations": numbered}))
    return read_outlines(folder / "instances.json", ["3.jpg", "4.jpg", "9.jpg"], TABLE)


def test_rectangles_are_exact() -> None:
    """A pixel belongs to a polygon if its centre does; two polygons that share an edge share no pixel."""
    left = np.array([[2.0, 1.0], [5.0, 1.0], [5.0, 4.0], [2.0, 4.0]])
    right = left + np.array([3.0, 0.0])
    one, two = (rasterised([points], (6, 10)) for points in (left, right))
    assert one.sum() == two.sum() == 9 and one[1:4, 2:5].all() and two[1:4, 5:8].all()
    assert np.array_equal(rasterised([left, right], (6, 10)), one | two)
    assert np.array_equal(rasterised([left[::-1]], (6, 10)), one)
    assert not rasterised([left + 100.0, left - 100.0, left[:2]], (6, 10)).any()
    assert rasterised([np.array([[-9.0, -9.0], [99, -9], [99, 99], [-9, 99]])], (6, 10)).all()


@given(st.lists(st.tuples(st.floats(-10, 50), st.floats(-10, 40)), min_size=3, max_size=8))
@settings(deadline=None, max_examples=100)
def test_pixels_whose_centre_is_inside(points: list[tuple[float, float]]) -> None:
    polygon = np.array(points)
    found = rasterised([polygon], (30, 40))
    for row, column in np.ndindex(30, 40):
        x, y, inside = column + 0.5, row + 0.5, False
        for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, 0), strict=True):
            if min(y0, y1) <= y < max(y0, y1):
                cross = x0 + (y - y0) / (y1 - y0) * (x1 - x0)
                if abs(cross - x) < 1e-6:
                    break  # on the edge, as far as rounding goes
                inside ^= cross < x
        else:
            assert found[row, column] == inside


def test_close_to_coco_s_own_masks() -> None:
    """On smooth outlines the difference to COCO's API is a few pixels of the border."""
    coco = pytest.importorskip(
        "faster_coco_eval", reason="extra `coco` is not installed: COCO's own packing is compared"
    ).mask
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    for radius, centre in ((30.0, 50.3), (12.5, 20.0), (55.2, 60.7)):
        wave = radius * (1 + 0.2 * np.sin(5 * angle))
        points = np.stack([centre + wave * np.cos(angle), centre + wave * np.sin(angle)], 1)
        theirs = coco.decode(coco.merge(coco.frPyObjects([points.ravel().tolist()], 128, 128))) > 0
        ours = rasterised([points], (128, 128))
        assert (ours & theirs).sum() / (ours | theirs).sum() > 0.97
        filled = cv2.fillPoly(np.zeros((128, 128), np.uint8), [np.rint(points).astype(np.int32)], (1,)) > 0
        assert abs(int(ours.sum()) - int(theirs.sum())) < abs(int(filled.sum()) - int(theirs.sum()))


def test_outlines_overlap(tmp_path: Path) -> None:
    found = written(tmp_path, [
        {"segmentation": [[0, 0, 10, 0, 10, 10, 0, 10]], "category_id": 3},
        {"segmentation": [[5, 5, 15, 5, 15, 15, 5, 15], [20, 0, 22, 0, 22, 2, 20, 2]]},
        {"segmentation": {"size": [20, 30], "counts": [41, 3, 556]}, "iscrowd": 1},
        {"segmentation": [[90, 90, 99, 90, 99, 99]]},
    ])  # fmt: skip
    instances = found.instances(1, (20, 30), whole((20, 30)), (20, 30))
    assert instances.classes.tolist() == [0, 2, 0] and instances.num_crowds == 1  # the crowd comes last
    assert instances.boxes.tolist() == [[5, 0, 22, 15], [0, 0, 10, 10], [2, 1, 3, 4]]
    masks = painted(instances, (20, 30))
    assert [int(mask.sum()) for mask in masks] == [104, 100, 3] and int((masks[0] & masks[1]).sum()) == 25
    for nothing in (0, 2):
        assert len(found.instances(nothing, (20, 30), whole((20, 30)), (20, 30)).classes) == 0


@pytest.mark.parametrize(("flip", "turns"), [(False, 0), (True, 0), (False, 1), (True, 2), (True, 3)])
@pytest.mark.parametrize("size", [(40, 60), (30, 45), (80, 97)])
def test_the_same_geometry_as_the_pixels(size: tuple[int, int], flip: bool, turns: int, tmp_path: Path) -> None:
    """Rectangles on whole pixels, as polygons, as run lengths and as segments, in one crop."""
    index = np.full((40, 60), -1, np.int16)
    index[5:25, 10:40], index[28:36, 30:59] = 0, 1
    crowd = (index == 1).T.ravel()
    changes = np.flatnonzero(np.diff(crowd, prepend=False, append=False))
    counts = np.diff([0, *changes.tolist(), crowd.size]).tolist()
    found = written(tmp_path, [
        {"segmentation": [[10, 5, 40, 5, 40, 25, 10, 25]]},
        {"segmentation": {"size": [40, 60], "counts": counts}, "iscrowd": 1},
    ], (40, 60))  # fmt: skip
    segments = Segments(index=index, classes=np.zeros(2, np.int16), crowd=np.array([False, True]), ids=np.array([1, 2]))
    window = size[0] // 8, size[1] // 7, size[0] * 3 // 4, size[1] * 3 // 4
    geometry = Geometry(size=size, window=window, flip=flip, turns=turns)
    shown = cut(np.zeros((40, 60, 3), np.uint8), segments, geometry)[1]
    instances, wanted = found.instances(1, (40, 60), geometry, shown.shape), instances_of(shown, TABLE)
    assert instances.num_crowds == wanted.num_crowds == 1 and len(instances.classes) == 2
    one, other = painted(instances, shown.shape), painted(wanted, shown.shape)
    assert np.array_equal(one[1], other[1])
    assert (one[0] & other[0]).sum() / (one[0] | other[0]).sum() > (0.999 if size == (40, 60) else 0.93)
    assert (instances.boxes - wanted.boxes).abs().max() <= 1


@pytest.mark.parametrize(
    ("annotation", "sentence"),
    [
        ({"segmentation": [[0, 0, 1]]}, "instance 0 has a polygon that is no list of x, y"),
        ({"segmentation": {"size": [20, 30], "counts": "abc"}}, "instance 0 has compressed run lengths"),
        ({"segmentation": [], "category_id": 187}, "instance 0 has category 187, which is no thing of label table"),
        ({}, "not in COCO's format .KeyError: 'segmentation'"),
    ],
)
def test_refused(annotation: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"instances.json: {sentence}"):
        written(tmp_path, [annotation])


def test_run_lengths_that_do_not_fill_the_image(tmp_path: Path) -> None:
    found = written(tmp_path, [{"segmentation": {"size": [20, 30], "counts": [7, 7]}}])
    with pytest.raises(ValueError, match="run lengths fill 14 pixels of an image of 30×20"):
        found.instances(1, (20, 30), whole((20, 30)), (20, 30))


def test_training_on_outlines(shared: Path, tmp_path: Path) -> None:
    """Each person becomes a triangle: what is learnt comes from the JSON, and only in training."""
    root = shared / "data" / "coco_panoptic"
    for path in root.iterdir():
        if path.name != "annotations":
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / "annotations").mkdir()
    for path in (root / "annotations").iterdir():
        (tmp_path / "annotations" / path.name).symlink_to(path)
    data = Data(dataset="coco_panoptic", root=tmp_path, instances="json", crop=None, num_workers=0)
    with pytest.raises(ValueError, match=r"instances_train2017.json: cannot be read"):
        build_datasets(data, segments=True)
    images = json.loads((root / "annotations/panoptic_train2017.json").read_text())["images"]
    annotations = [
        {"id": n, "image_id": image["id"], "category_id": 1, "segmentation": [[10, 10, 100.5, 10, 10, 100.5]]}
        for n, image in enumerate(images)
    ]
    text = json.dumps({"images": images, "annotations": annotations})
    (tmp_path / "annotations/instances_train2017.json").write_text(text)
    train, val = build_datasets(data, segments=True)
    assert len(val) == 27 and val.read(0).segments is not None
    transform = train_transform(crop=None, ratio=(1.0, 1.0), flip=0.0, photometric=0.0)
    batch = next(train_loader(train, transform, DrawSampler(steps=range(1), batch_size=2), seed=0, num_workers=0))
    for instances in batch.instances or ():
        assert instances.classes.tolist() == [0] and instances.boxes.tolist() == [[10, 10, 100, 100]]
        assert int(instances.bits.sum()) == 90 * 91 // 2
    assert batch.instances is not None and torch.is_tensor(batch.images)


def test_only_coco_has_outlines() -> None:
    with pytest.raises(ValueError, match=r"data.instances is 'json'; it must be panoptic but for coco_panoptic"):
        TrainConfig(data=Data(dataset="scenes", instances="json"))


SHAPE = np.zeros((20, 30), np.uint8)
SHAPE[4:12, 5:25] = 1


def runs_of(mask: np.ndarray) -> list[int]:
    flat = mask.T.ravel()
    return np.diff([0, *(np.flatnonzero(np.diff(flat)) + 1), flat.size]).tolist()


@pytest.mark.parametrize("crowd", [0, 1])
@pytest.mark.parametrize("form", ["polygons", "one polygon", "runs", "packed"])
def test_every_form_is_a_thing_or_a_crowd_as_iscrowd_says(form: str, crowd: int, tmp_path: Path) -> None:
    """SAM, CVAT and Label Studio write run lengths of things, and CVAT polygons of crowds."""
    evaluator = pytest.importorskip(
        "faster_coco_eval", reason="extra `coco` is not installed: COCO's own packing is compared"
    )
    runs = {"size": [20, 30], "counts": runs_of(SHAPE)}
    packed = evaluator.mask.frPyObjects(runs, 20, 30)["counts"]
    segmentation: Any = {
        "polygons": [[5, 4, 25, 4, 25, 12, 5, 12]], "one polygon": [5, 4, 25, 4, 25, 12, 5, 12], "runs": runs,
        "packed": {"size": [20, 30], "counts": packed if isinstance(packed, str) else packed.decode()},
    }[form]  # fmt: skip
    outlines = written(tmp_path, [{"segmentation": segmentation, "iscrowd": crowd}])
    found = outlines.instances(1, (20, 30), whole((20, 30)), (20, 30))
    np.testing.assert_array_equal(painted(found, (20, 30)), [SHAPE.astype(bool)])
    assert found.num_crowds == crowd
    assert outlines.summary().endswith(f"{1 - crowd} things and {crowd} crowds; 2 of 3 images have none")


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 40), min_size=4, max_size=60))
def test_packed_run_lengths_are_cocos(lengths: list[int]) -> None:
    evaluator = pytest.importorskip(
        "faster_coco_eval", reason="extra `coco` is not installed: COCO's own packing is compared"
    )
    total = sum(lengths)
    packed = evaluator.mask.frPyObjects({"size": [total or 1, 1], "counts": lengths}, total or 1, 1)["counts"]
    text = packed if isinstance(packed, str) else packed.decode()
    assert unpacked(text).tolist() == lengths


@pytest.mark.parametrize("text", ["", "é", "z~", "o" * 30, "0P"])
def test_damaged_packed_run_lengths_are_named(text: str) -> None:
    if text == "0P":
        text = "P" * 20  # continued for ever
    with pytest.raises(ValueError, match=r"^here has compressed run lengths that are damaged"):
        unpacked(text, "here")


def test_long_runs_stay_exact(tmp_path: Path) -> None:
    size = (5000, 4000)  # 20 million pixels, more than float32 counts
    (tmp_path / "instances.json").write_text(json.dumps({
        "images": [{"id": 1, "file_name": "1.jpg"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": {"counts": [19_999_999, 1]}}],
    }))  # fmt: skip
    found = read_outlines(tmp_path / "instances.json", ["1.jpg"], TABLE)
    instances = found.instances(0, size, whole(size), size)
    assert instances.boxes.tolist() == [[3999, 4999, 4000, 5000]] and instances.num_crowds == 1


def test_images_are_matched_by_name_and_id_or_refused(tmp_path: Path) -> None:
    file = tmp_path / "instances.json"
    box = [{"id": 1, "image_id": 7, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9]]}]

    def read(images: list[dict[str, Any]], names: list[str], ids: list[int]) -> CocoOutlines:
        file.write_text(json.dumps({"images": images, "annotations": box}))
        return read_outlines(file, names, TABLE, ids)

    assert len(read([{"id": 7, "file_name": "a.jpg"}], ["b.jpg", "a.jpg"], [1, 2]).classes) == 1  # other numbers
    assert len(read([{"id": 7, "file_name": "old/a.jpg"}], ["a.jpg"], [7]).classes) == 1  # other names
    with pytest.raises(ValueError, match=r"image 7 is a.jpg there, and b.jpg in the panoptic JSON; number the images"):
        read([{"id": 7, "file_name": "a.jpg"}], ["b.jpg", "a.jpg"], [7, 8])
    with pytest.raises(ValueError, match=r"none of its images \(x.jpg, …\) is one of the panoptic JSON's \(a.jpg, …\)"):
        read([{"id": 7, "file_name": "x.jpg"}], ["a.jpg"], [1])
    with pytest.raises(ValueError, match="lists two images with id 7"):
        read([{"id": 7, "file_name": "a.jpg"}, {"id": 7, "file_name": "b.jpg"}], ["a.jpg", "b.jpg"], [1, 2])


def test_categories_are_known_by_id_and_name(tmp_path: Path) -> None:
    file = tmp_path / "instances.json"
    for name, message in (("Person", ""), ("crack", r"category 1 is 'crack' there, and 'person' in label table")):
        file.write_text(json.dumps({
            "images": [{"id": 7, "file_name": "a.jpg"}], "annotations": [], "categories": [{"id": 1, "name": name}],
        }))  # fmt: skip
        if message:
            with pytest.raises(ValueError, match=message):
                read_outlines(file, ["a.jpg"], TABLE)
        else:
            assert not len(read_outlines(file, ["a.jpg"], TABLE).classes)
