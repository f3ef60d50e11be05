"""What there is to learn is looked at before a training begins."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import panfpn
from panfpn import recipes
from panfpn.cli import main
from panfpn.config import Data, Model, TrainConfig
from panfpn.data import from_pairs, open_dataset
from panfpn.data.census import census, same_images
from panfpn.engine.advice import about_data
from panfpn.files import write_image
from panfpn.labels import LabelTable

TWO = {"classes": [{"name": "background", "value": 0}, {"name": "crack", "value": 1}], "ignore": [255]}


def pairs(value: int, count: int = 4) -> list[tuple[np.ndarray, np.ndarray]]:
    mask = np.zeros((40, 48), np.uint8)
    mask[10:20] = value
    return [(np.full((40, 48, 3), 90, np.uint8), mask) for _ in range(count)]


def test_classes_are_counted_over_masks_spread_over_the_set() -> None:
    table = LabelTable.from_dict(TWO)
    found = census(from_pairs(pairs(1, 50), table), most=8)
    assert (found.looked_at, found.total, found.largest) == (8, 50, (40, 48))
    assert found.counts.tolist() == [8 * 30 * 48, 8 * 10 * 48, 0] and not found.notes()
    absent = census(from_pairs(pairs(255, 50), table), most=8).notes()
    assert absent == [
        "note: 1 of 2 classes have no pixel in the 8 of 50 masks that were looked at: 'crack' (25% of all pixels are "
        "ignored)",
        "note: only 'background' has pixels in the 8 of 50 masks that were looked at, so there is nothing to tell "
        "apart",
    ]
    nothing = LabelTable.from_dict(TWO | {"ignore": [0, 255], "classes": [{"name": "crack", "value": 1}]})
    with pytest.raises(ValueError, match=r"all pixels of 4 masks are ignored, so there is nothing to learn"):
        census(from_pairs(pairs(255), nothing)).notes()
    with pytest.raises(ValueError, match=r"all pixels of 50 masks are ignored"):
        census(from_pairs(pairs(255, 50), nothing)).notes()
    late = census(from_pairs([*pairs(255, 20), *pairs(1, 1), *pairs(255, 29)], nothing), most=8)
    assert late.looked_at < 50 and late.counts[0] == 10 * 48  # others may have some, and are asked


def folder(root: Path, value: int) -> Path:
    classes = "  - {name: background, value: 0}\n  - {name: crack, value: 1}\n"
    (root / "labels.yaml").write_text(f"classes:\n{classes}ignore: [255]\n")
    for split in ("train", "val"):
        for i, (image, mask) in enumerate(pairs(value, 2)):
            write_image(root / f"images/{split}/{i}.png", image)
            write_image(root / f"masks/{split}/{i}.png", mask)
        (root / f"images/{split}/notes.txt").touch()
    return root


def config(root: Path, **changes: Any) -> TrainConfig:
    return TrainConfig(
        data=Data(root=root, crop=(64, 64), num_workers=0),
        model=Model(backbone="test_resnet", fpn_channels=8, head_channels=8),
    ).changed(**{
        "train.steps": 1, "train.batch_size": 2, "train.precision": "float32", "run.device": "cpu",
        "run.log_every": 1, "run.loggers": (), "run.dir": root / "run", "optim.warmup_steps": 0, **changes,
    })  # fmt: skip


def test_a_training_says_it_before_the_first_step(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = folder(tmp_path, 255)
    panfpn.train(config(root, **{"data.crop": (256, 256), "optim.min_lr": 0.5, "optim.lr": 0.01, "train.steps": 2}))
    said = capfd.readouterr().err
    before = said[: said.index("step 1")]
    for line in (
        "left out of the training data: 1 no image (.txt)", "note: 1 of 2 classes have no pixel in 2 masks: 'crack'",
        "note: no image that was looked at reaches data.crop 256×256: with data.ratio they have up to 80×96 pixels",
        "note: optim.min_lr 0.5 is not below optim.lr 0.01, so the learning rate does not fall",
        "2 training and 2 validation images",
    ):  # fmt: skip
        assert line in before
    with pytest.raises(ValueError, match=r"data.crop 32×32 and 1 sample a step and rank leave batch norm one value"):
        panfpn.train(config(root, **{"data.crop": (32, 32), "train.batch_size": 1, "run.dir": tmp_path / "run2"}))


def test_a_training_says_which_validation_images_it_trains_on(folder_data: Path) -> None:
    (folder_data / "images/val/photo_1.png").write_bytes((folder_data / "images/train/photo_4.png").read_bytes())
    train, val = (open_dataset("folder", folder_data, split) for split in ("train", "val"))
    assert same_images(train, val) == [("photo_4", "photo_1")]
    notes = about_data(train, val, recipes.folder(data__root=folder_data))
    assert any("1 of 3 validation images are training images too (photo_1 is photo_4)" in note for note in notes)


def test_a_check_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = folder(tmp_path, 255)
    assert main(["data", "check", "--data.dataset", "folder", "--data.root", str(root), "--split", "train"]) == 2
    said = capsys.readouterr().out
    assert "nothing is to be seen (all pixels are alike)" in said and "left out: 1 no image (.txt)" in said
    assert "1 of 2 classes have no pixel anywhere: crack" in said and "only 'background' has pixels" in said
    assert len(open_dataset("folder", root, "train")) == 2
