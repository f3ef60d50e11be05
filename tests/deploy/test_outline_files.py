"""Polygons for annotation tools: read again they are the map, but for a pixel along the edges."""

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from panfpn import Predictor
from panfpn.cli import main
from panfpn.data.layouts.coco_outlines import rasterised
from panfpn.data.layouts.scenes import scenes_table
from panfpn.deploy.folder import predict_to_folder
from panfpn.deploy.submission import outline_files, submission_for
from panfpn.labels import LabelTable
from panfpn.shapes import outlines
from panfpn.types import PanopticMap, SemanticMap

Fills = dict[str, list[np.ndarray]]  # masks by class name


def filled(points: Any, size: tuple[int, int]) -> np.ndarray:
    return rasterised([np.array(points, np.float64).reshape(-1, 2)], size)


def of_coco(folder: Path, stem: str, size: tuple[int, int]) -> Fills:
    data = json.loads((folder / "annotations.json").read_text())
    (image,) = [one for one in data["images"] if one["file_name"] == f"{stem}.png"]
    assert (image["height"], image["width"]) == size
    names = {c["id"]: c["name"] for c in data["categories"]}
    fills: Fills = {}
    for one in data["annotations"]:
        if one["image_id"] == image["id"]:
            mask = np.logical_or.reduce([filled(ring, size) for ring in one["segmentation"]])
            fills.setdefault(names[one["category_id"]], []).append(mask)
    return fills


def of_yolo(folder: Path, stem: str, size: tuple[int, int]) -> Fills:
    names = yaml.safe_load((folder / "data.yaml").read_text())["names"]
    fills: Fills = {}
    for line in (folder / "labels" / f"{stem}.txt").read_text().splitlines():
        number, *shares = line.split()
        points = np.array(shares, float).reshape(-1, 2)
        assert points.min() >= 0 and points.max() <= 1
        fills.setdefault(names[int(number)], []).append(filled(np.rint(points * size[::-1]), size))
    return fills


def of_cvat(folder: Path, stem: str, size: tuple[int, int]) -> Fills:
    root = ET.parse(folder / "annotations.xml").getroot()
    (image,) = [one for one in root.iter("image") if one.get("name") == f"{stem}.png"]
    assert (image.get("height"), image.get("width")) == tuple(map(str, size))
    known = [label.findtext("name") for label in root.iter("label")]
    fills: Fills = {}
    for one in image.iter("polygon"):
        assert one.get("label") in known
        points = [pair.split(",") for pair in str(one.get("points")).split(";")]
        fills.setdefault(str(one.get("label")), []).append(filled(points, size))
    return fills


def of_labelme(folder: Path, stem: str, size: tuple[int, int]) -> Fills:
    data = json.loads((folder / f"{stem}.json").read_text())
    assert (data["imageHeight"], data["imageWidth"]) == size and (folder / data["imagePath"]).is_file()
    fills: Fills = {}
    for shape in data["shapes"]:
        fills.setdefault(shape["label"], []).append(filled(shape["points"], size))
    return fills


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    files = []
    for name, size in (("one", (90, 130)), ("two", (64, 48))):
        files.append(tmp_path / "photos" / f"{name}.png")
        files[-1].parent.mkdir(exist_ok=True)
        cv2.imwrite(str(files[-1]), np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8))
    return files


@pytest.mark.parametrize("format_", [of_coco, of_yolo, of_cvat, of_labelme])
def test_the_map_comes_back(
    format_: Callable[[Path, str, tuple[int, int]], Fills],
    photos: list[Path],
    tmp_path: Path,
    fake_panoptic_task: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outline_files, "_TOLERANCE", 0)
    predictor = Predictor(fake_panoptic_task(scenes_table()))
    name = format_.__name__.removeprefix("of_")
    submission = submission_for(name, predictor.table, maps=PanopticMap)
    outcome = predict_to_folder(photos, tmp_path / "out", predictor=predictor, submission=submission, progress=False)
    assert (outcome.done, outcome.failures) == (2, ())
    for photo in photos:
        found = predictor(photo)
        fills = format_(tmp_path / "out", photo.stem, found.segments.shape)
        assert set(fills) == {segment.name for segment in found.info}
        for k, name in enumerate(found.table.names):
            if name in fills:
                np.testing.assert_array_equal(np.logical_or.reduce(fills[name]), found.labels == k)
        things = [s for s in found.info if s.thing]
        if format_ in (of_coco, of_yolo):
            masks = [mask for s in {t.name for t in things} for mask in fills[s]]
            assert sorted(mask.sum() for mask in masks) == sorted(s.area for s in things)


def test_few_points_and_nearly_the_same_pixels(tmp_path: Path, discs: SemanticMap) -> None:
    submission = submission_for("coco", discs.table, maps=SemanticMap)
    with submission.into(tmp_path, [Path(f"{discs.name}.png")]) as write:
        write(discs)
    fills = of_coco(tmp_path, discs.name, discs.labels.shape)
    around = np.ones((5, 5))
    for k in np.unique(discs.labels):
        mask = discs.labels == k
        again = np.logical_or.reduce(fills[discs.table.names[k]])
        edge = cv2.dilate(mask.astype(np.uint8), around) - cv2.erode(mask.astype(np.uint8), around)
        assert not (again != mask)[edge == 0].any()
    annotations = json.loads((tmp_path / "annotations.json").read_text())["annotations"]
    points = sum(len(ring) // 2 for one in annotations for ring in one["segmentation"])
    exact = sum(len(piece.joined()) for k in range(11) for piece in outlines(discs.labels == k))
    assert points < exact / 2


@pytest.fixture
def discs() -> SemanticMap:
    """A disc with another in it, and sloping ground, as CamVid's classes."""
    rows, columns = np.mgrid[:120, :160]
    labels = np.zeros((120, 160), np.uint8)
    labels[rows > 60 + columns // 4] = 3
    labels[(rows - 50) ** 2 + (columns - 60) ** 2 < 900] = 5
    labels[(rows - 50) ** 2 + (columns - 60) ** 2 < 100] = 1
    return SemanticMap(labels=labels, table=LabelTable.named("camvid"), name="photo")


FILES = {"coco": ["annotations.json"], "yolo": ["data.yaml", "labels/one.txt"], "cvat": ["annotations.xml"],
         "labelme": ["one.json"]}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_what_people_drew_is_never_written_over(
    name: str, photos: list[Path], tmp_path: Path, fake_panoptic_task: Any
) -> None:
    predictor, out = Predictor(fake_panoptic_task(scenes_table())), tmp_path / "photos"
    submission = submission_for(name, predictor.table, maps=PanopticMap)
    for file in FILES[name]:
        (out / file).parent.mkdir(exist_ok=True)
        (out / file).write_text("by hand")
        with pytest.raises(ValueError, match=f"{file} is there, and somebody may have worked on it"):
            predict_to_folder(photos, out, predictor=predictor, submission=submission, progress=False)
        assert (out / file).read_text() == "by hand"
        (out / file).unlink()
    outcome = predict_to_folder(photos, out, predictor=predictor, submission=submission, progress=False)
    assert outcome.done == 2 and all((out / file).is_file() for file in FILES[name])  # beside the photos
    with pytest.raises(ValueError, match="is there, and somebody may have worked on it"):
        predict_to_folder(photos, out, predictor=predictor, submission=submission, progress=False)


def test_on_the_command_line(photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = str(photos[0].parent), tmp_path / "out"
    assert main(["predict", folder, "-o", str(out), "--format", "coco", "--device", "cpu"]) == 0
    assert "2 of 2 images labelled" in capsys.readouterr().out
    data = json.loads((out / "annotations.json").read_text())
    assert len(data["images"]) == 2 and sum(one["area"] for one in data["annotations"]) == 90 * 130 + 64 * 48
    checked = str(tmp_path / "checked")
    assert main(["predict", folder, "-o", checked, "--format", "coco", "--check", "--device", "cpu"]) == 2
    assert "--check is for the formats of benchmarks" in capsys.readouterr().err
    other = tmp_path / "other" / "one.png"
    other.parent.mkdir()
    other.write_bytes(photos[0].read_bytes())
    assert main(["predict", folder, str(other), "-o", str(out), "--format", "yolo", "--device", "cpu"]) == 2
    assert "two images are called one" in capsys.readouterr().err
