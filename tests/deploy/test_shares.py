import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from panfpn import Predictor
from panfpn.cli import main
from panfpn.config import Inference
from panfpn.deploy.plan import Plan
from panfpn.deploy.shares import Share
from photo_folder import digests, write_photos


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos", 9, (40, 56))


def test_every_name_belongs_to_one_share() -> None:
    shares = [Share(number, 5) for number in range(1, 6)]
    owners = [[share.number for share in shares if share.holds(f"street/photo_{i}")] for i in range(500)]
    assert all(len(owner) == 1 for owner in owners)
    counts = [sum(owner == [number] for owner in owners) for number in range(1, 6)]
    assert min(counts) > 60  # about a hundred each


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "1/0", "-1/3", "1/3/4", ""])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="give one of several, such as 3/8"):
        Share.parse(text)


def test_shares_together_are_the_whole(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["predict", str(photos), "--precision", "float32", "-o"]
    assert main([*words, str(tmp_path / "whole")]) == 2  # one is broken
    for shard in ("2/3", "1/3", "3/3"):
        main([*words, str(tmp_path / "shares"), "--shard", shard])
    assert digests(tmp_path / "shares") == digests(tmp_path / "whole")
    logs = [tmp_path / "shares" / f"predictions-{number}-of-3.jsonl" for number in (1, 2, 3)]
    rows = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    assert {row["name"]: row["status"] for row in rows} == {
        **{f"photo_{i:02d}": "ok" for i in range(9)},
        "broken": "failed",
    }
    assert all("broken.png" in row["reason"] for row in rows if row["status"] == "failed")
    manifests = [json.loads((tmp_path / name / "predictions.json").read_text()) for name in ("whole", "shares")]
    assert manifests[0] == manifests[1]
    capsys.readouterr()
    assert main([*words, str(tmp_path / "shares"), "--shard", "1/1"]) == 2  # the broken one again, and it alone
    assert "0 of 1 images labelled" in (out := capsys.readouterr().out) and "9 were there already" in out


def test_calls_that_begin_at_once_list_the_results_of_each_other(photos: Path, tmp_path: Path) -> None:
    """Other inputs, one folder: each looked before the other wrote."""
    write_photos(tmp_path / "more", 3, (40, 56))
    for number, path in enumerate(sorted((tmp_path / "more").iterdir())):
        path.rename(path.with_stem(f"more_{number}"))
    out, by = tmp_path / "out", Predictor.from_file(device="cpu", precision="float32")
    plans = [Plan.make([folder], out, predictor=by) for folder in (photos, tmp_path / "more")]
    for plan in plans:
        plan.begin()
    listed = json.loads((out / "predictions.json").read_text())["inputs"]
    assert sorted(listed) == sorted(path.stem for folder in (photos, tmp_path / "more") for path in folder.iterdir())
    assert [path.name for path in out.iterdir()] == ["predictions.json"]
    same = Plan.make([photos], tmp_path / "other", predictor=by)
    (tmp_path / "elsewhere").mkdir()
    (photos / "photo_00.png").rename(tmp_path / "elsewhere" / "photo_00.png")
    Plan.make([tmp_path / "elsewhere"], tmp_path / "other", predictor=by).begin()
    with pytest.raises(ValueError, match=r"other: holds the results of .*elsewhere.photo_00\.png under the name"):
        same.begin()


def test_what_is_there_is_not_labelled_again(photos: Path, tmp_path: Path) -> None:
    (photos / "broken.png").unlink()
    words = ["predict", str(photos), "--precision", "float32", "-o", str(tmp_path / "out")]
    assert main(words) == 0
    want = digests(tmp_path / "out")
    (tmp_path / "out" / "photo_03.png").unlink()
    (tmp_path / "out" / "photo_05_overlay.jpg").unlink()
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("photo_*")}
    assert main([*words, "--skip-existing"]) == 0
    assert digests(tmp_path / "out") == want
    again = {path.name for path, time in times.items() if path.stat().st_mtime_ns != time}
    assert again == {"photo_03_overlay.jpg", "photo_05.png"}  # with the two that were gone: both files of both


def test_results_of_two_models_are_not_mixed(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "broken.png").unlink()
    words = ["predict", str(photos), "-o", str(tmp_path / "out")]
    assert main([*words, "--precision", "float32"]) == 0
    for option in (["--skip-existing"], ["--shard", "1/2"]):
        assert main([*words, "--precision", "bfloat16", *option]) == 2
        assert "holds results of another model" in capsys.readouterr().err
    assert main([*words, "--precision", "bfloat16"]) == 0  # over them
    assert json.loads((tmp_path / "out" / "predictions.json").read_text())["made_by"] == ""


def test_processes_that_begin_at_once_write_one_folder(photos: Path, tmp_path: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "panfpn",
        "predict",
        str(photos),
        "--precision",
        "float32",
        "-o",
        str(tmp_path / "o"),
    ]
    together = [subprocess.Popen([*words, "--shard", f"{i}/2"], stdout=-1, stderr=-1) for i in (1, 2)]
    for process in together:
        process.communicate(timeout=120)
    assert len(digests(tmp_path / "o")) == 18
    assert [p.name for p in (tmp_path / "o").iterdir() if p.name.startswith(".")] == []


def test_other_settings_are_another_model(photos: Path, tmp_path: Path) -> None:
    by = Predictor.from_file(device="cpu", precision="float32")
    first = by.digest
    by.task.set_inference(scale=(48, 32), size_divisor=32, inference=Inference())
    second = by.digest
    by.task.table = replace(by.task.table, ignore=(99,))
    third = by.digest
    with torch.no_grad():
        next(by.task.model.parameters()).add_(1)
    assert len({first, second, third, by.digest}) == 4 and by.digest == by.digest


def test_what_is_newer_than_its_results_is_labelled_again(photos: Path, tmp_path: Path) -> None:
    (photos / "broken.png").unlink()
    words = ["predict", str(photos), "--precision", "float32", "-o", str(tmp_path / "out"), "--skip-existing"]
    assert main(words) == 0
    before = digests(tmp_path / "out")
    cv2.imwrite(str(photos / "photo_04.png"), np.full((40, 56, 3), 200, np.uint8))
    assert main(words) == 0
    changed = {name for name, digest in digests(tmp_path / "out").items() if digest != before[name]}
    assert "photo_04_overlay.jpg" in changed and all(name.startswith("photo_04") for name in changed)


def test_rows_that_a_kill_cost_are_written_by_the_next(photos: Path, tmp_path: Path) -> None:
    (photos / "broken.png").unlink()
    words = ["predict", str(photos), "--precision", "float32", "-o", str(tmp_path / "out"), "--shard", "1/1"]
    assert main(words) == 0
    log = tmp_path / "out" / "predictions-1-of-1.jsonl"
    lines = log.read_text().splitlines()
    log.write_text("\n".join(lines[:-2]) + "\n" + lines[-2][:10])  # one is gone, one is cut
    assert main(words) == 0
    names = {json.loads(line)["name"] for line in log.read_text().splitlines() if line.endswith("}")}
    assert names == {f"photo_{i:02d}" for i in range(9)}


def test_networks_that_keep_something_are_called_by_one_thread() -> None:
    by = Predictor.from_file(device="cpu", precision="float32")
    assert by.task.lanes is None
    handle = by.task.model.backbone.register_forward_pre_hook(lambda module, args: None)
    assert by.task.lanes == 1
    handle.remove()
    assert by.task.lanes is None
