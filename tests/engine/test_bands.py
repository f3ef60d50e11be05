"""Images that are not RGB of 8 bits: trained, packed, scored and predicted, and files mean what arrays mean."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from safetensors.torch import save_file

import panfpn
from panfpn.cli import main
from panfpn.config import Data, Model, TrainConfig
from panfpn.data import from_pairs, open_dataset
from panfpn.labels import LabelTable
from panfpn.models import Backbone
from panfpn.tasks import reading_of
from panfpn.types import Reading

LABELS = "classes:\n  - {name: ground, value: 0}\n  - {name: wall, value: 1}\n"
KINDS: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {  # samples of grey [H, W], data.*, model.*
    "12 bits": (lambda grey: grey.astype(np.uint16) * 16, {"range": (0, 4080)}, {}),
    "16 bits, one band": (lambda grey: grey.astype(np.uint16) * 257, {"range": (0, 65535)}, {"in_channels": 1}),
    "float": (lambda grey: np.stack([grey, grey / 2, grey / 3], 2).astype(np.float32), {"range": "percentile"}, {}),
    "four bands": (lambda grey: np.stack([grey, 255 - grey, grey // 2, grey], 2), {}, {"in_channels": 4}),
    "two of five": (lambda grey: np.stack([grey] * 5, 2), {"bands": (5, 2)}, {"in_channels": 2}),
    "one band": (lambda grey: grey, {}, {"in_channels": 1}),
}


def make(root: Path, samples_of: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    pairs = []
    (root / "labels.yaml").write_text(LABELS)
    for split in ("train", "val"):
        for part in ("images", "masks"):
            (root / part / split).mkdir(parents=True)
        for i in range(3):
            mask = np.zeros((64, 80), np.uint8)
            mask[10 * i + 5 : 40, 20:60] = 1
            grey = np.random.default_rng(i).integers(0, 100, mask.shape, dtype=np.uint8) + 150 * mask
            samples = samples_of(grey.astype(np.uint8))
            photometric = "rgb" if samples.ndim == 3 and samples.shape[2] == 3 else "minisblack"
            tifffile.imwrite(root / f"images/{split}/{i}.tif", samples, photometric=photometric, planarconfig="contig")
            cv2.imwrite(str(root / f"masks/{split}/{i}.png"), mask)
            pairs.append((samples, mask))
    return pairs


def config(root: Path, kind: str, **changes: Any) -> TrainConfig:
    _, data, model = KINDS[kind]
    return TrainConfig(
        data=Data(root=root, crop=(64, 64), num_workers=0, **data),
        model=Model(backbone="resnet18", fpn_channels=8, head_channels=8, **model),
    ).changed(**{
        "train.steps": 2, "train.batch_size": 2, "train.precision": "float32", "run.device": "cpu", "run.loggers": (),
        "run.dir": root / "run", "optim.warmup_steps": 0, **changes,
    })  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_trained_scored_and_predicted(kind: str, tmp_path: Path) -> None:
    pairs = make(tmp_path, KINDS[kind][0])
    result = panfpn.train(config(tmp_path, kind))
    channels = KINDS[kind][2].get("in_channels", 3)
    predictor = panfpn.Predictor.from_file(result.dir, precision="float32")
    reading = predictor.task.preprocess.reading
    assert (reading.channels, len(predictor.task.preprocess.mean)) == (channels, channels)

    files = sorted((tmp_path / "images/val").iterdir())
    maps = [predictor(file) for file in files]
    for found, (samples, _) in zip(maps, pairs[3:], strict=True):
        np.testing.assert_array_equal(found.labels, predictor(samples).labels)
        np.testing.assert_array_equal(found.image, predictor(samples).image)
    assert predictor(files[0].read_bytes()).labels.shape == (64, 80)
    assert maps[0].overlay().shape == (64, 80, 3)

    table = LabelTable.from_yaml(tmp_path / "labels.yaml")
    of_arrays = panfpn.evaluate(predictor, from_pairs(pairs[3:], table, reading=reading), progress=False)
    of_files = panfpn.evaluate(predictor, config(tmp_path, kind).data, progress=False)
    assert of_files.value == of_arrays.value == pytest.approx(result.value, nan_ok=True)


def test_a_pack_keeps_the_bands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "set"
    root.mkdir()
    make(root, KINDS["two of five"][0])
    pack = tmp_path / "pack"
    words = ["data", "pack", str(root), "-o", str(pack), "--data.bands", "5", "2", "--channels", "2"]
    assert main(words) == 0 and main(words) == 0
    packed = config(root, "two of five", data__pack=pack)
    reading = reading_of(packed.data, 2)
    files = open_dataset("folder", root, "train", reading=reading)
    for i in range(3):
        opened = panfpn.build.build_dataset(packed.data, "train", channels=2)
        np.testing.assert_array_equal(opened.read(i).image, files.read(i).image)
    assert panfpn.train(packed).step == 2
    with pytest.raises(ValueError, match=r"was packed with data.bands \(5, 2\), but it is \(2, 5\) here"):
        panfpn.build.build_dataset(packed.changed(data__bands=(2, 5)).data, "train", channels=2)
    with pytest.raises(ValueError, match=r"was packed with model.in_channels 2, but it is 3 here"):
        panfpn.build.build_dataset(packed.data, "train")
    assert main(["data", "pack", str(root), "-o", str(pack)]) == 2
    assert "was packed with model.in_channels 2" in capsys.readouterr().err


def test_mean_and_deviation_are_measured_where_no_backbone_says_them(tmp_path: Path) -> None:
    pairs = make(tmp_path, KINDS["four bands"][0])
    result = panfpn.train(config(tmp_path, "four bands"))
    pixels = np.concatenate([samples.reshape(-1, 4) for samples, _ in pairs[:3]]).astype(float)
    preprocess = panfpn.Predictor.from_file(result.dir).task.preprocess
    np.testing.assert_allclose(preprocess.mean, pixels.mean(0), atol=0.01)
    np.testing.assert_allclose(preprocess.std, pixels.std(0), atol=0.01)


def test_channels_that_do_not_fit_are_named(tmp_path: Path) -> None:
    make(tmp_path, KINDS["four bands"][0])
    with pytest.raises(ValueError, match=r"0.tif: has 4 bands, and the network sees 2; name those"):
        panfpn.train(config(tmp_path, "four bands", model__in_channels=2))
    with pytest.raises(ValueError, match=r"data.bands is \(1, 2\); it must be of as many bands as the network sees: 4"):
        config(tmp_path, "four bands", data__bands=(1, 2))
    with pytest.raises(ValueError, match=r"'scenes' is drawn in RGB, but model.in_channels is 4"):
        panfpn.train(config(tmp_path, "four bands", data__dataset="scenes", data__root=None))
    for limits in ((5, 5), (9, 1), (0, float("inf")), (float("nan"), 1)):
        with pytest.raises(ValueError, match=r"data.range is .* the smaller first, or percentile"):
            Data(range=limits)


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("square", [False, True])
def test_masks_of_turned_photos(tmp_path: Path, orientation: int, square: bool) -> None:
    """Photos that EXIF turns, with masks drawn on what is stored or on what is shown."""
    height, width = (64, 64) if square else (48, 64)
    stored = np.zeros((height, width), np.uint8)
    stored[:20, :30] = 1
    shown = np.rot90(stored, -1 if orientation == 6 else 2)
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "labels.yaml").write_text(LABELS)
    for part in ("images", "masks"):
        (tmp_path / part / "train").mkdir(parents=True)
    picture = np.repeat(100 + 100 * stored[:, :, None], 3, 2).astype(np.uint8)
    for name, mask in (("shown", shown), ("stored", stored)):
        Image.fromarray(picture).save(tmp_path / f"images/train/{name}.jpg", exif=exif, quality=95)
        cv2.imwrite(str(tmp_path / f"masks/train/{name}.png"), mask)

    def read(index: int, drawn: str = "auto") -> Any:
        return open_dataset("folder", tmp_path, "train", reading=Reading(mask_orientation=drawn)).read(index)  # type: ignore[arg-type]

    if square or orientation == 3:
        for i in range(2):
            with pytest.raises(ValueError, match=r"\.jpg: EXIF turns this photo .* data.mask_orientation turned"):
                read(i)
        samples = [read(0, "turned"), read(1, "stored")]
    else:
        samples = [read(0), read(1)]
    for sample in samples:
        np.testing.assert_array_equal(sample.image[:, :, 0] > 150, shown)
        np.testing.assert_array_equal(sample.target, shown)


def test_settings_of_reading_travel_with_the_weights(tmp_path: Path) -> None:
    make(tmp_path, KINDS["12 bits"][0])
    result = panfpn.train(config(tmp_path, "12 bits"))
    assert main(["eval", str(result.dir / "model.safetensors"), "--data.root", str(tmp_path), "--data.num-workers", "0",
                 "--json", str(tmp_path / "s.json")]) == 0  # fmt: skip
    assert json.loads((tmp_path / "s.json").read_text())["miou"] == pytest.approx(result.value)
    assert main(["predict", str(tmp_path / "images/val"), "-o", str(tmp_path / "o"), "--model", str(result.dir)]) == 0
    assert len(list((tmp_path / "o").glob("*.png"))) == 3


@pytest.mark.parametrize("channels", [1, 4])
def test_weights_of_rgb_become_those_of_other_bands(channels: int, tmp_path: Path) -> None:
    rgb = Backbone("resnet18").body.state_dict()
    save_file(rgb, tmp_path / "rgb.safetensors")
    backbone = Backbone("resnet18", in_channels=channels)
    backbone.load(rgb, "rgb.safetensors")
    weight, first = backbone.body.state_dict()["conv1.weight"], rgb["conv1.weight"]
    wanted = first.sum(1, keepdim=True) if channels == 1 else first[:, [0, 1, 2, 0]] * 3 / 4
    torch.testing.assert_close(weight, wanted)

    make(tmp_path, KINDS["one band" if channels == 1 else "four bands"][0])
    kind = "one band" if channels == 1 else "four bands"
    panfpn.train(config(tmp_path, kind, model__backbone_weights=tmp_path / "rgb.safetensors", data__root=tmp_path))


def test_fine_tuning_takes_an_rgb_release_over_to_other_bands(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, kind in (("rgb", "12 bits"), ("four", "four bands")):
        (tmp_path / name).mkdir()
        make(tmp_path / name, KINDS[kind][0])
    rgb = panfpn.train(config(tmp_path / "rgb", "12 bits"))
    capfd.readouterr()
    panfpn.train(config(tmp_path / "four", "four bands", model__start_from=str(rgb.dir)))
    assert "of another shape" not in capfd.readouterr().err
