"""Known data sets whose layout is a YAML file: each is read as its pages describe it."""

import json
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from panfpn.choices import LAYOUTS
from panfpn.cli import main
from panfpn.data import check_dataset, open_dataset
from panfpn.data.recognition import recognise

PRESETS = sorted(name for name, opener in LAYOUTS.items() if ".preset:" in opener)


def put(path: Path, value: int | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((6, 8, 3), np.uint8) if value is None else np.full((6, 8), value, np.uint8)
    Image.fromarray(pixels).save(path)


def test_folders_as_of_mapillary_are_none_without_the_file_of_classes(tmp_path: Path) -> None:
    put(tmp_path / "training/images/x.jpg", None)
    put(tmp_path / "training/labels/x.png", 1)
    assert recognise(tmp_path)[0] == "pairs"
    (tmp_path / "config.json").write_text("{}")
    assert recognise(tmp_path)[0] == "mapillary_vistas_v1"


def test_every_file_is_a_layout() -> None:
    files = {f.name.removesuffix(".yaml") for f in (resources.files("panfpn") / "data" / "presets").iterdir()}
    assert files == set(PRESETS)


@pytest.mark.parametrize(
    ("layout", "image", "mask", "value", "name"),
    [
        ("bdd100k", "images/10k/train/a.jpg", "labels/sem_seg/masks/train/a.png", 13, "car"),
        ("kitti", "training/image_2/000000_10.png", "training/semantic/000000_10.png", 26, "car"),
        ("acdc", "rgb_anon/fog/train/GOPR0475/f1_rgb_anon.png", "gt/fog/train/GOPR0475/f1_gt_labelTrainIds.png", 13,
         "car"),
        ("idd", "leftImg8bit/train/7/1_leftImg8bit.png", "gtFine/train/7/1_gtFine_labellevel3Ids.png", 9, "car"),
        ("mapillary_vistas", "training/images/x.jpg", "training/v2.0/labels/x.png", 1, "car"),
        ("mapillary_vistas_v1", "training/images/x.jpg", "training/labels/x.png", 1, "car"),
    ],
)  # fmt: skip
def test_a_preset_is_read(layout: str, image: str, mask: str, value: int, name: str, tmp_path: Path) -> None:
    put(tmp_path / image, None)
    put(tmp_path / mask, value)
    if layout.startswith("mapillary_vistas"):
        labels = [
            {"name": "void--unlabeled", "color": [0, 0, 0], "instances": False, "evaluate": False},
            {"name": "car", "color": [0, 0, 142], "instances": True, "evaluate": True},
        ]
        file = "config_v2.0.json" if layout == "mapillary_vistas" else "config.json"
        (tmp_path / file).write_text(json.dumps({"labels": labels}))
    if layout == "acdc":  # what else lies there
        put(tmp_path / "gt/fog/train/GOPR0475/f1_gt_labelIds.png", 26)
        put(tmp_path / "rgb_anon/night/train/GOPR0475/f1_rgb_anon.png", None)
        put(tmp_path / "gt/night/train/GOPR0475/f1_gt_labelTrainIds.png", 0)
    assert recognise(tmp_path) == (layout, tmp_path)
    data = open_dataset(layout, tmp_path, "train")
    assert len(data) == (2 if layout == "acdc" else 1)
    assert data.table.names[int(data.read(0).target[0, 0])] == name
    with pytest.raises(ValueError, match=r"no such folder, so the split is empty|has no split 'val'"):
        open_dataset(layout, tmp_path, "val")


def test_a_preset_can_be_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(4):
        put(tmp_path / f"training/image_2/00000{i}_10.png", None)
        put(tmp_path / f"training/semantic/00000{i}_10.png", 26 if i % 2 else 7)
    put(tmp_path / "training/semantic/000003_10.png", 200)
    assert main(["data", "check", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert "000003_10.png" in said.out + said.err
    assert list(check_dataset("kitti", tmp_path, "train", progress=False))


def test_a_file_of_another_ending_is_named(tmp_path: Path) -> None:
    put(tmp_path / "leftImg8bit/train/7/1_leftImg8bit.png", None)
    put(tmp_path / "gtFine/train/7/1_gtFine_labelids.png", 9)
    with pytest.raises(ValueError, match=r"end in _gtFine_labellevel3Ids.* \(there is 7/1_gtFine_labelids\.png\)"):
        open_dataset("idd", tmp_path, "train")
