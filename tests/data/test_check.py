"""The check through the command line; its sentences are tested beside the layouts (test_coco, test_folder, …)."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from panfpn.cli import main


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["data", "check", *arguments])
    return code, *capsys.readouterr()


@pytest.fixture
def sound_data(folder_data: Path) -> Path:
    """The same with pictures and masks that differ from each other."""
    for number, path in enumerate(sorted(folder_data.glob("images/*/*.png"))):
        mask_path = folder_data / "masks" / path.parent.name / path.name
        mask = cv2.imread(str(mask_path), cv2.IMREAD_UNCHANGED)
        mask[5 + number, 40:50] = 20
        cv2.imwrite(str(mask_path), mask)
        coarse = np.random.default_rng(number).integers(0, 255, (5, 6, 3)).astype(np.uint8)
        cv2.imwrite(str(path), cv2.resize(coarse, mask.shape[::-1], interpolation=cv2.INTER_CUBIC))
    return folder_data


def test_a_sound_data_set(capsys: pytest.CaptureFixture[str], sound_data: Path) -> None:
    folder_data = sound_data
    code, out, _ = run(capsys, "--data.dataset", "folder", "--data.root", str(folder_data))
    assert code == 0
    assert out.splitlines() == [f"{folder_data}, split {split}: no problems" for split in ("train", "val")]


def test_everything_that_is_wrong(capsys: pytest.CaptureFixture[str], sound_data: Path) -> None:
    folder_data = sound_data
    for i in (1, 4):
        cv2.imwrite(str(folder_data / f"masks/train/photo_{i}.png"), np.full((40 + 8 * (i == 4), 64), 99, np.uint8))
    (folder_data / "masks/train/photo_2.png").unlink()
    (folder_data / "images/train/photo_5.png").write_bytes(b"")
    code, out, _ = run(
        capsys, "--data.dataset", "folder", "--data.root", str(folder_data), "--split", "train", "nowhere"
    )
    lines = out.splitlines()
    assert code == 2 and len(lines) == 7
    assert "photo_2.png: image of split 'train' that has no mask" in lines[0]
    assert "photo_1.png is 56×40 pixels but its mask" in lines[1]
    assert "photo_4.png: value 99 (3072 pixels) not in label table" in lines[2]
    assert "photo_5.png: not a readable image" in lines[3] and lines[4].endswith("split train: 4 problems")
    assert "nowhere: no such folder" in lines[5]


def test_at_most_fifty_lines(capsys: pytest.CaptureFixture[str], sound_data: Path) -> None:
    folder_data = sound_data
    for i in range(60):
        (folder_data / f"images/val/more_{i}.png").write_bytes(b"")
    code, out, _ = run(capsys, "--data.dataset", "folder", "--data.root", str(folder_data), "--split", "val")
    assert code == 2 and len(out.splitlines()) == 51
    assert out.endswith("split val: 60 problems, 10 of them not shown\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "name a folder: panfpn data check ROOT"),
        (["nowhere"], "nowhere: no such file or folder"),
        (["nowhere", "--data.dataset", "camvid"], "nowhere: no such folder"),
        (["--data.dataset", "folder"], "--data.dataset needs the folder of its files"),
        (["--data.dataset", "folder", "--data.root", "/", "--root", "."], "--root belongs to a pack"),
        (["pack", "--data.root", "."], "--data.root stands for the first argument"),
        (["--data.dataset", "folder", "--data.root", "/"], "neither labels.yaml nor masks of train, val"),
    ],
)
def test_what_cannot_be_checked(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, *arguments)
    assert code == 2 and sentence in err


def test_scenes_have_no_files(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--data.dataset", "scenes", "--data.root", ".", "--split", "val")
    assert code == 2 and out.startswith("data set 'scenes' is drawn, not read: there are no files to check\n")
