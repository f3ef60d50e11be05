"""Submission files: names and values as the servers want them, and the check that reads them again."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from panfpn import build
from panfpn.cli import main
from panfpn.config import Model, TrainConfig
from panfpn.files import read_mask
from panfpn.labels import LabelTable
from panfpn.predict import Predictor, predict_to_folder
from panfpn.release import write_release
from panfpn.submission import FORMATS, Submission, submission_for

CITIES = ("bonn_000001_000019", "berlin_000000_000020")


@pytest.fixture(scope="module")
def model_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    files = {}
    for name in FORMATS:
        torch.manual_seed(0)
        table = LabelTable.named(name)
        config = build.resolve(
            TrainConfig(model=Model(backbone="resnet18", fpn_channels=8, head_channels=8)).changed(run__device="cpu"),
            table,
        )
        task = build.build_task(config.model, table)
        files[name] = tmp_path_factory.mktemp(name) / "m.safetensors"
        write_release(files[name], task.model.state_dict(), config, table, scores={}, source={})
    return files


def cityscapes(root: Path) -> Path:
    """Two images in the benchmark's layout; returns the folder of images."""
    rng = np.random.default_rng(0)
    for name in CITIES:
        city = name.split("_")[0]
        for kind, values in (
            ("leftImg8bit", rng.integers(0, 256, (40, 70, 3))),
            ("gtFine", rng.integers(0, 34, (40, 70))),
        ):
            suffix = {"leftImg8bit": "leftImg8bit", "gtFine": "gtFine_labelIds"}[kind]
            path = root / kind / "val" / city / f"{name}_{suffix}.png"
            path.parent.mkdir(parents=True)
            cv2.imwrite(str(path), values.astype(np.uint8))
    return root / "leftImg8bit" / "val"


def test_cityscapes_files(model_files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, out = cityscapes(tmp_path / "cityscapes"), tmp_path / "out"
    options = ["--model", str(model_files["cityscapes"]), "--format", "cityscapes", "--check", "True"]
    assert main(["predict", str(images), "--out", str(out), *options]) == 0
    assert sorted(p.name for p in out.iterdir()) == sorted(f"{name}_pred.png" for name in CITIES)
    for file in out.iterdir():  # what cityscapesScripts looks for: CITY_SEQ_FRAME*.png, regular ids, the image's size
        assert re.fullmatch(r"[a-z]+_\d{6}_\d{6}.*\.png", file.name)
        mask = read_mask(file)
        assert mask.shape == (40, 70) and mask.dtype == np.uint8
        assert set(np.unique(mask)) <= {c.values[0] for c in LabelTable.named("cityscapes").classes}
        assert mask.min() >= 7  # road is 7 there, not 0
    printed = capsys.readouterr().out
    assert "2 files are as cityscapes wants them" in printed and "averageScoreClasses" in printed


def test_ade20k_files_without_ground_truth(
    model_files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "testing").mkdir()
    cv2.imwrite(str(tmp_path / "testing/ADE_test_00000001.jpg"), np.full((30, 50, 3), 90, np.uint8))
    options = ["--model", str(model_files["ade20k"]), "--format", "ade20k", "--check", "True"]
    assert main(["predict", str(tmp_path / "testing"), "--out", str(tmp_path / "out"), *options]) == 0
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["ADE_test_00000001.png"]
    mask = read_mask(tmp_path / "out/ADE_test_00000001.png")
    assert mask.min() >= 1 and mask.max() <= 150
    assert "no ground truth beside the images, so they were not scored" in capsys.readouterr().out


def check_of(tmp_path: Path, values: np.ndarray) -> tuple[int, float]:
    """Check `values` as the prediction of the first image, whose ground truth stays as it is."""
    images = cityscapes(tmp_path / "cityscapes")
    submission = submission_for("cityscapes", LabelTable.named("cityscapes"))
    image = next(images.rglob(f"{CITIES[0]}*.png"))
    cv2.imwrite(str(tmp_path / f"{CITIES[0]}_pred.png"), values)
    count, scores = submission.check([image], tmp_path)
    assert scores is not None
    return count, scores.miou


def test_the_ground_truth_itself_is_perfect(tmp_path: Path) -> None:
    images = cityscapes(tmp_path / "cityscapes")
    truth = read_mask(
        submission_for("cityscapes", LabelTable.named("cityscapes")).ground_truth(next(images.rglob("bonn_*.png")))
    )
    scored = [c.values[0] for c in LabelTable.named("cityscapes").classes]
    written = np.where(np.isin(truth, scored), truth, 7).astype(np.uint8)  # unscored pixels must say something
    (tmp_path / "b").mkdir()
    assert check_of(tmp_path / "b", written) == (1, 1.0)
    (tmp_path / "c").mkdir()
    assert check_of(tmp_path / "c", np.full_like(written, 7))[1] < 0.1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((40, 70), 3, np.uint8), "holds the value 3, which is not scored"),
        (np.full((40, 70), 99, np.uint8), "value 99 (2800 pixels) not in label table 'cityscapes'"),
        (np.full((40, 71), 7, np.uint8), "is uint8 of shape (40, 71), but the image"),
        (np.full((40, 70), 7, np.uint16), "is uint16 of shape (40, 70)"),
    ],
)
def test_what_the_server_would_refuse_is_named(values: np.ndarray, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        check_of(tmp_path, values)
    assert f"{CITIES[0]}_pred.png" in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    images = cityscapes(tmp_path)
    submission = submission_for("cityscapes", LabelTable.named("cityscapes"))
    with pytest.raises(ValueError, match=r"berlin_000000_000020_pred\.png: missing; it is the prediction of"):
        submission.check(sorted(images.rglob("*.png")), tmp_path)


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no submission format 'voc'; there are cityscapes, ade20k"):
        submission_for("voc", LabelTable.named("cityscapes"))
    with pytest.raises(ValueError, match=r"label table 'camvid' \(11 classes\) is not that of cityscapes"):
        submission_for("cityscapes", LabelTable.named("camvid"))
    submission = Submission(format="cityscapes", table=LabelTable.named("cityscapes"))
    with pytest.raises(ValueError, match=r"photo\.jpg: its name is not CITY_SEQ_FRAME_leftImg8bit"):
        submission.names([Path("photo.jpg")])
    with pytest.raises(ValueError, match=r"would be written as a\.png, and a submission is one flat folder"):
        Submission(format="ade20k", table=LabelTable.named("ade20k")).names([Path("x/a.jpg"), Path("y/a.jpg")])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--check", "True"], "--check goes with --format"),
        (["--format", "cityscapes", "--save", "overlay"], "--format cityscapes writes labels only"),
        (["--format", "cityscapes"], "label table 'camvid' (11 classes) is not that of cityscapes"),
    ],
)
def test_options_that_do_not_go_together(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((32, 32, 3), np.uint8))
    assert main(["predict", str(tmp_path / "a.png"), "--out", str(tmp_path / "out"), *options]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_neither_an_image_nor_a_prediction_is_taken_for_ground_truth(tmp_path: Path) -> None:
    submission = submission_for("ade20k", LabelTable.named("ade20k"))
    cv2.imwrite(str(tmp_path / "a.jpg"), np.zeros((20, 20, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "a.png"), np.ones((20, 20), np.uint8))  # the prediction, beside the image
    assert submission.check([tmp_path / "a.jpg"], tmp_path) == (1, None)


def test_ground_truth_is_never_overwritten(model_files: dict[str, Path], tmp_path: Path) -> None:
    truth = tmp_path / "annotations" / "validation" / "a.png"
    for path in (tmp_path / "images" / "validation" / "a.jpg", truth):
        path.parent.mkdir(parents=True)
        cv2.imwrite(str(path), np.zeros((32, 32, 3), np.uint8))
    before = truth.read_bytes()
    predictor = Predictor.from_file(model_files["ade20k"], device="cpu")
    submission = submission_for("ade20k", predictor.table)
    with pytest.raises(ValueError, match=r"would overwrite .*annotations/validation/a\.png; choose another folder"):
        predict_to_folder(
            [tmp_path / "images"], truth.parent, predictor=predictor, what=("labels",), submission=submission
        )  # names below the folder given are flat in a submission
    assert truth.read_bytes() == before


def test_results_beside_the_images_are_checked(model_files: dict[str, Path], tmp_path: Path) -> None:
    images = next(cityscapes(tmp_path).iterdir())
    options = ["--model", str(model_files["cityscapes"]), "--format", "cityscapes", "--check", "True"]
    assert main(["predict", str(images), "--out", str(images), *options]) == 0
