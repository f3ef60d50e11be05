"""What can be labelled: names that say which input a result belongs to, and nothing lost in silence."""

import functools
import http.server
import io
import json
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from panfpn.cli import main
from panfpn.deploy.inputs import Inputs, as_image
from panfpn.deploy.manifest import FILE, Manifest
from panfpn.deploy.streams import Video

PICTURE = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)


def photo(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(PICTURE).save(path)
    return path


def video(path: Path, frames: int = 5) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 5, (56, 40))
    for _ in range(frames):
        writer.write(PICTURE)
    writer.release()
    return path


def names(*arguments: str | Path, **options: Any) -> list[str]:
    return [one.name for one in Inputs(arguments, **options).inputs]


def test_equal_names_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for camera in ("left", "right", "rear"):
        photo(tmp_path / camera / "frame.png")
    wanted = ["left/frame", "rear/frame", "right/frame"]
    assert names(f"{tmp_path}/*/frame.png") == wanted
    assert sorted(names(*(tmp_path / camera for camera in ("left", "right", "rear")))) == wanted
    photo(tmp_path / "left/frame.jpg")
    assert sorted(names(tmp_path / "left")) == ["frame_jpg", "frame_png"]
    assert sorted(names(f"{tmp_path}/*/frame.*")) == ["left/frame_jpg", "left/frame_png", "rear/frame", "right/frame"]
    photo(tmp_path / "x/left/frame.png")
    assert sorted(names(f"{tmp_path}/left/frame.png", f"{tmp_path}/x/left/frame.png")) == [
        f"{tmp_path.name}/left/frame", "x/left/frame",
    ]  # fmt: skip


def test_names_stay_inside_and_frames_beside(tmp_path: Path) -> None:
    for name in ("...avi", "clip.avi"):
        video(tmp_path / name)
    photo(tmp_path / "clip/000000.png")
    photo(tmp_path / "a.png")
    photo(tmp_path / "a_overlay.png")
    found = names(tmp_path, tmp_path / "...avi")
    assert len(set(found)) == 5 and all(".." not in Path(name).parts for name in found)
    assert "clip_avi" in found and "clip/000000" in found  # the video's frames get another folder
    assert {"a", "a_overlay_png"} <= set(found)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["x", "y", "x_overlay", "."]), st.sampled_from(
    [".png", ".jpg", ".avi"])), min_size=1, max_size=6, unique=True))  # fmt: skip
def test_no_two_results_share_a_file(parts: list[tuple[str, str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / a / f"{b}{c}" for a, b, c in parts]
        for path in paths:
            path.parent.mkdir(exist_ok=True)
            path.touch()
        inputs = Inputs(paths).inputs
        assert sorted(one.address for one in inputs) == sorted(map(str, paths))
        written: list[str] = []
        for one in inputs:
            stems = [f"{one.name}/000000"] if one.video else [one.name, f"{one.name}_overlay"]
            written += stems
            assert not Path(one.name).is_absolute() and ".." not in Path(one.name).parts
        assert len(set(written)) == len(written)


def test_what_is_left_out_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo(tmp_path / "in/a.png")
    photo(tmp_path / "in/.hidden.png")
    for name in ("b.raw", "c.docx", "Thumbs.db"):
        (tmp_path / "in" / name).touch()
    words = ["predict", str(tmp_path / "in"), str(tmp_path / "in/a.png"), "-o", str(tmp_path / "out")]
    assert main([*words, "--precision", "float32"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("1 of 1 images labelled by")
    for part in (
        "1 hidden (",
        "1 neither image nor video (.raw) (",
        "1 neither image nor video (.docx)",
        "1 named twice",
    ):
        assert part in said


def test_results_are_no_inputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two calls into subfolders of the photos, one among them, and one beside."""
    photo(tmp_path / "a.png")
    video(tmp_path / "clip.avi", 2)
    for out in ("one", "two/deep", "."):
        assert main(["predict", str(tmp_path), "-o", str(tmp_path / out), "--precision", "float32"]) in (0, 2)
        said = capsys.readouterr()
        if out == ".":  # a.png would be overwritten
            assert "would overwrite" in said.err
        else:
            assert said.out.startswith("3 of 3 images labelled")
    assert "results of earlier calls" in str(Inputs([tmp_path]).left_out)
    assert main(["predict", str(tmp_path), "-o", str(tmp_path / "three"), "--save", "overlay"]) == 0
    assert capsys.readouterr().out.startswith("3 of 3 images labelled")


def test_the_manifest_grows_and_a_strange_one_is_ignored(tmp_path: Path) -> None:
    first = Manifest({"a": "/x/a.png"}, {"a.png", "a_overlay.jpg"})
    first.write(tmp_path)
    again = Manifest.of(tmp_path)
    assert again == first
    again.inputs["b"] = "/x/b.avi"
    again.videos.add("b")
    again.write(tmp_path)
    assert json.loads((tmp_path / FILE).read_text())["inputs"] == {"a": "/x/a.png", "b": "/x/b.avi"}
    found = Manifest.of(tmp_path)
    held = ["a.png", "a_overlay.jpg", "b/000000.png", "b/deep/1.png", FILE]
    assert found is not None and [path for path in [*held, "a.jpg", "b.png", "c/a.png"] if found.holds(path)] == held
    for text in ("[]", "{}", '{"format": 1}', "{" * 100_000, '{"format": "panfpn predictions 1", "inputs": 3}'):
        (tmp_path / FILE).write_text(text)
        assert Manifest.of(tmp_path) is None


def test_nothing_of_somebody_elses_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo(tmp_path / "x.tif")
    before = photo(tmp_path / "x.png").read_bytes()
    words = ["--precision", "float32", "--save", "labels"]
    assert main(["predict", str(tmp_path / "x.tif"), "-o", str(tmp_path), *words]) == 2
    assert "x.png is there, and no result of an earlier call" in capsys.readouterr().err
    assert (tmp_path / "x.png").read_bytes() == before
    for name in ("A/y.png", "B/y.jpg"):
        photo(tmp_path / name)
    out = ["-o", str(tmp_path / "out"), *words]
    assert main(["predict", str(tmp_path / "A"), *out]) == 0
    assert main(["predict", str(tmp_path / "A"), *out]) == 0  # again is no other's
    assert main(["predict", str(tmp_path / "B"), *out]) == 2
    assert f"holds the results of {tmp_path}/A/y.png under the name" in capsys.readouterr().err
    photo(tmp_path / "photos/z.jpeg")
    assert main(["predict", str(tmp_path / "photos"), "-o", str(tmp_path / "photos"), "--save", "overlay"]) == 0
    photo(tmp_path / "photos/z.jpg")  # new, and none of the results
    assert sorted(names(tmp_path / "photos")) == ["z_jpeg", "z_jpg"]


def test_a_video_that_ends_early_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = video(tmp_path / "whole.avi", 8).read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) * 2 // 3])
    out = tmp_path / "out"
    assert main(["predict", str(tmp_path / "cut.avi"), "-o", str(out), "--precision", "float32"]) == 2
    said = capsys.readouterr()
    assert "of 8 frames could be decoded; the video is cut short or damaged" in said.err or "not a readable" in said.err
    assert list(Video(str(tmp_path / "whole.avi")).frames())[7].shape == (40, 56, 3)
    assert main(["predict", str(tmp_path / "whole.avi"), "-o", str(out), "--frames", "3"]) == 0
    assert capsys.readouterr().out.startswith("3 of 3 images labelled")


@pytest.mark.parametrize("suffix", [".mp4", ".ts", ".mov", ".mkv", ".m4v"])
def test_containers_are_videos(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"clip{suffix}"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 5, (56, 40))
    for _ in range(3):
        writer.write(PICTURE)
    writer.release()
    assert [source.name for source in Inputs([path])][:3] == [f"clip/{k:06d}" for k in range(3)]


def test_addresses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo(tmp_path / "www/deep/a b.png")
    (tmp_path / "www/text.png").write_text("no image")
    handler = functools.partial(_Quiet, directory=str(tmp_path / "www"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    at = f"http://127.0.0.1:{server.server_port}"
    try:
        words = ["-o", str(tmp_path / "out"), "--precision", "float32"]
        assert main(["predict", f"{at}/deep/a%20b.png", *words]) == 0
        assert (tmp_path / "out/a b.png").is_file()
        np.testing.assert_array_equal(as_image(f"{at}/deep/a%20b.png"), PICTURE)
        assert main(["predict", f"{at}/none.png", f"{at}/text.png", *words]) == 2
        said = capsys.readouterr().err
        assert f"{at}/none.png: cannot be fetched (HTTP Error 404" in said and f"{at}/text.png: not a readable" in said
    finally:
        server.shutdown()
    assert main(["predict", "ftp://host/a.png", *words]) == 2
    assert "ftp://host/a.png: cannot be read; http, https and rtsp addresses can" in capsys.readouterr().err


def test_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = io.BytesIO()
    Image.fromarray(PICTURE).save(box, "PNG")

    class Stdin:
        buffer = io.BytesIO(box.getvalue())

    monkeypatch.setattr(sys, "stdin", Stdin)
    assert main(["predict", "-", "-o", str(tmp_path), "--precision", "float32"]) == 0
    assert (tmp_path / "stdin.png").is_file()


def test_a_camera_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["predict", "97", "-o", "out", "--frames", "2"]) == 2
    assert "97: not a readable camera or stream" in capsys.readouterr().err
    assert Inputs(["0"]).count() is None and Inputs(["0"], max_frames=4).inputs[0].name == "camera0"
    (tmp_path / "97").touch()  # a file of that name is a file
    assert Inputs(["97"]).inputs[0].video is None


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass
