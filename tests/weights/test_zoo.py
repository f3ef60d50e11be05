"""From a name to a file: every place in its turn, nothing that its hash does not vouch for, nothing half written."""

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from panfpn.weights import zoo
from panfpn.weights.zoo import PUBLISHED, PUBLISHED_PANOPTIC, Published, PublishedPanoptic, find_model, published_model

CONTENT = b"the published weights" * 100_000
FILE = f"toy_20200717_000000-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A published model `toy`, an empty cache, no folders, no mirrors, and an address at which nobody listens."""
    monkeypatch.setitem(
        zoo.PUBLISHED, "toy", Published(file=FILE, table="camvid", miou=1, miou_flip=2, fps=1, train_gb=1)
    )
    monkeypatch.setattr(zoo, "_ADDRESS", "http://127.0.0.1:9/weights")
    monkeypatch.setenv("PANFPN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PANFPN_WEIGHTS", raising=False)
    monkeypatch.delenv("PANFPN_MIRRORS", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


class _Server(BaseHTTPRequestHandler):
    """Serves the file well under /good/, and badly under other names."""

    def do_GET(self) -> None:
        kind = self.path.split("/")[1]
        if kind == "garbage":
            self.wfile.write(b"not HTTP at all\r\n\r\n")
            return
        body = {"good": CONTENT, "wrong": CONTENT[::-1], "short": CONTENT[:1000], "unsaid": CONTENT}.get(kind)
        self.send_response(404 if body is None else 200)
        if kind == "short":
            self.send_header("Content-Length", str(len(CONTENT)))
        elif kind != "unsaid":
            self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Server) as listening:
        threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()


def folder(path: Path, **files: bytes) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (path / name.replace("__", ".")).write_bytes(content)
    return path


def test_the_published_models() -> None:
    del zoo.PUBLISHED["toy"]
    assert list(PUBLISHED) == ["fpn_r50_cityscapes", "fpn_r101_cityscapes", "fpn_r50_ade20k", "fpn_r101_ade20k"]
    r50 = PUBLISHED["fpn_r50_cityscapes"]
    assert r50.digest == "94018a0d"
    assert r50.url.endswith("/fpn_r50_512x1024_80k_cityscapes/" + r50.file)
    assert len({p.digest for p in PUBLISHED.values()}) == 4 and all(len(p.digest) == 8 for p in PUBLISHED.values())
    theirs = ["panoptic_fpn_r50_coco_1x", "panoptic_fpn_r50_coco_3x", "panoptic_fpn_r101_coco_3x"]
    kinds = [f"mmdet_panoptic_fpn_{kind}" for kind in ("r50_coco_1x", "r50_coco_3x", "r101_coco_1x", "r101_coco_3x")]
    assert list(PUBLISHED_PANOPTIC) == [*theirs, *kinds]
    assert PUBLISHED_PANOPTIC[theirs[1]].url == (
        "https://dl.fbaipublicfiles.com/detectron2/COCO-PanopticSegmentation/panoptic_fpn_R_50_3x/139514569/"
        "model_final_c10459.pkl"
    )
    assert PUBLISHED_PANOPTIC[kinds[3]].url == (
        "https://download.openmmlab.com/mmdetection/v2.0/panoptic_fpn/panoptic_fpn_r101_fpn_mstrain_3x_coco/"
        "panoptic_fpn_r101_fpn_mstrain_3x_coco_20210823_114712-9c99acc4.pth"
    )
    assert len({p.file for p in PUBLISHED_PANOPTIC.values()}) == len({p.url for p in PUBLISHED_PANOPTIC.values()}) == 7
    assert {len(p.digest) for n, p in PUBLISHED_PANOPTIC.items()} == {6, 8}
    assert published_model(theirs[0]) is PUBLISHED_PANOPTIC[theirs[0]] and published_model("none") is None


def test_detectron2s_files_are_vouched_for_by_md5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = f"model_final_{hashlib.md5(CONTENT).hexdigest()[:6]}.pkl"
    url = f"file://{tmp_path}/mirror/{file}"
    monkeypatch.setitem(zoo.PUBLISHED_PANOPTIC, "toy_panoptic", PublishedPanoptic(url=url, pq=1))
    with pytest.raises(ValueError, match=rf"published file {file} could not be had"):
        find_model("toy_panoptic")
    folder(tmp_path / "mirror", **{file.replace(".", "__"): CONTENT[1:]})
    with pytest.raises(ValueError, match=r"MD5 [0-9a-f]{6}… instead of"):
        find_model("toy_panoptic")
    folder(tmp_path / "mirror", **{file.replace(".", "__"): CONTENT})
    assert find_model("toy_panoptic") == tmp_path / "cache" / file
    where = folder(tmp_path / "w", **{file.replace(".", "__"): CONTENT, "model_final_000000__pkl": b"x"})
    assert find_model(where / file) == where / file
    with pytest.raises(ValueError, match=r"model_final_000000\.pkl: its MD5 begins with .{6}, not with 000000 as its"):
        find_model(where / "model_final_000000.pkl")
    folder(where, toy_panoptic__pkl=b"another", mine__pkl=b"mine")
    monkeypatch.setenv("PANFPN_WEIGHTS", str(where))
    assert find_model("mine") == where / "mine.pkl"
    with pytest.raises(ValueError, match=r"toy_panoptic\.pkl: its MD5 begins with"):
        find_model("toy_panoptic")
    with pytest.raises(ValueError, match=r"^gone\.pkl: no such file"):
        find_model("gone.pkl")


def test_a_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PANFPN_WEIGHTS", str(folder(tmp_path / "w", toy__pth=b"other")))
    here = tmp_path / "here" / "toy"
    here.write_bytes(b"mine")
    assert find_model("toy") == Path("toy")
    assert find_model(here) == here
    assert find_model(tmp_path / "w") == tmp_path / "w"  # a run folder


def test_folders_are_asked_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = folder(tmp_path / "a", mine__safetensors=b"1", both__pth=b"2")
    second = folder(tmp_path / "b", mine__pth=b"3", both__safetensors=b"4", exact=b"5")
    monkeypatch.setenv("PANFPN_WEIGHTS", os.pathsep.join(["", str(tmp_path / "gone"), str(first), str(second)]))
    assert find_model("mine") == first / "mine.safetensors"
    assert find_model("both") == first / "both.pth"
    assert find_model("exact") == second / "exact"
    assert find_model("both.safetensors") == second / "both.safetensors"


def test_folders_hold_published_files_under_either_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = folder(tmp_path / "w", **{FILE.replace(".", "__"): CONTENT})
    monkeypatch.setenv("PANFPN_WEIGHTS", str(where))
    assert find_model("toy") == where / FILE
    folder(where, toy__safetensors=b"converted")
    assert find_model("toy") == where / "toy.safetensors"


@pytest.mark.parametrize("name", ["../secret.pth", "../secret", "/secret", "sub/../../secret.pth"])
def test_nothing_outside_of_a_folder_is_taken(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "secret.pth"
    secret.write_bytes(b"x")
    where = folder(tmp_path / "w")
    (where / "sub").mkdir()
    monkeypatch.setenv("PANFPN_WEIGHTS", str(where))
    monkeypatch.setattr(zoo, "from_hub", lambda name, revision: pytest.fail("asked the hub for a path"))
    monkeypatch.chdir(tmp_path / "w" / "sub")
    with pytest.raises(ValueError, match=r"no model|no such file"):
        find_model(name if name != "/secret" else str(tmp_path / "secret"))


def test_a_damaged_published_file_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = FILE[-12:-4]
    monkeypatch.setenv("PANFPN_WEIGHTS", str(folder(tmp_path / "w", **{FILE.replace(".", "__"): CONTENT[:-1]})))
    with pytest.raises(ValueError, match=rf"{FILE}: its SHA-256 begins with .*, not with {wanted} as its name says"):
        find_model("toy")
    monkeypatch.delenv("PANFPN_WEIGHTS")
    folder(tmp_path / "cache", **{FILE.replace(".", "__"): b"damaged"})
    with pytest.raises(ValueError, match=rf"cache/{FILE}: its SHA-256 begins"):
        find_model("toy")


def test_the_cache_is_asked_before_the_network(tmp_path: Path) -> None:
    cache = folder(tmp_path / "cache", **{FILE.replace(".", "__"): CONTENT})
    assert find_model("toy") == cache / FILE


def test_mirrors_as_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = folder(tmp_path / "mirror", **{FILE.replace(".", "__"): CONTENT})
    monkeypatch.setenv("PANFPN_MIRRORS", f"file://{tmp_path}/empty file://{mirror}/")
    found = find_model("toy")
    assert found == tmp_path / "cache" / FILE and found.read_bytes() == CONTENT
    monkeypatch.delenv("PANFPN_MIRRORS")
    assert find_model("toy") == found  # from now on without a network


@pytest.mark.parametrize("kind", ["good", "unsaid"])  # with and without Content-Length
def test_mirrors_over_http(kind: str, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PANFPN_MIRRORS", f"{server}/gone {server}/wrong/ {server}/{kind}")
    found = find_model("toy")
    assert found.read_bytes() == CONTENT
    assert list((tmp_path / "cache").iterdir()) == [found]


def test_the_published_address_is_asked_last(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "_ADDRESS", f"{server}/good")
    monkeypatch.setenv("PANFPN_MIRRORS", f"{server}/gone")
    assert find_model("toy").read_bytes() == CONTENT


def test_everything_that_went_wrong_is_told_and_nothing_stays(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = ["gone", "wrong", "short", "garbage"]
    mirrors = [f"{server}/{kind}" for kind in bad] + ["no-address", f"file://{tmp_path}/none"]
    monkeypatch.setenv("PANFPN_MIRRORS", " ".join(mirrors))
    monkeypatch.setenv("PANFPN_WEIGHTS", str(tmp_path / "w"))
    with pytest.raises(ValueError) as caught:
        find_model("toy")
    text = str(caught.value)
    assert "\n" not in text
    places = ["the path toy", f"PANFPN_WEIGHTS ({tmp_path / 'w'})", str(tmp_path / "cache"), "http://127.0.0.1:9/"]
    for place in [*places, *mirrors, "404", "SHA-256", "of an unknown kind", "name a mirror in PANFPN_MIRRORS"]:
        assert place in text, place
    assert text.count("instead of") == 1 and "ended after" in text  # wrong and short
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_a_file_larger_than_allowed_is_given_up(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "_LARGEST", 1 << 20)
    monkeypatch.setenv("PANFPN_MIRRORS", f"{server}/good")
    with pytest.raises(ValueError, match="larger than"):
        find_model("toy")
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("fpn_r50_cityscape", r"did you mean fpn_r50_cityscapes\?"),
        ("fpn_r101_ade", r"did you mean fpn_r101_ade20k\?"),
        ("panoptic_fpn_r50_3x", r"did you mean panoptic_fpn_r50_coco_3x\?"),
        ("zzz", "known names: fpn_r50_cityscapes, fpn_r101_cityscapes"),
    ],
)
def test_unknown_names_get_the_nearest(name: str, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PANFPN_WEIGHTS", "/nowhere")
    with pytest.raises(ValueError, match=rf"no model '{name}'; looked in the path {name}; PANFPN_WEIGHTS \(/nowhere\)"):
        find_model(name)
    with pytest.raises(ValueError, match=hint):
        find_model(name)


@pytest.mark.parametrize("name", ["/nowhere/x", "x.pth", "runs/x.safetensors"])
def test_a_path_that_is_not_there(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: no such file \(nor in a folder of PANFPN_WEIGHTS \(not set\)\)$"):
        find_model(name)


def test_a_typing_error_in_a_path_does_not_ask_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "from_hub", lambda name, revision: Path(f"hub of {name}"))
    assert find_model("runs/yadr") == Path("hub of runs/yadr")
    Path("runs").mkdir()
    with pytest.raises(ValueError, match=r"^runs/yadr: no such file or folder \(.*: hf:runs/yadr\)$"):
        find_model("runs/yadr")
    assert find_model("hf:runs/yadr") == Path("hub of runs/yadr")


def ask_the_hub(name: str, home: Path) -> subprocess.CompletedProcess[str]:
    """In a process of its own: huggingface_hub reads its environment when it is imported."""
    code = f"from panfpn.weights.zoo import find_model\nprint(find_model({name!r}))"
    environment = os.environ | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(home / "hub")}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_the_hubs_cache_without_network(tmp_path: Path) -> None:
    repository = tmp_path / "hf" / "hub" / "models--someone--toy-model"
    commit = "0123456789abcdef0123456789abcdef01234567"
    file = folder(repository / "snapshots" / commit, model__safetensors=b"weights") / "model.safetensors"
    folder(repository / "refs", main=commit.encode(), v1=commit.encode())
    for name in ("someone/toy-model", "hf:someone/toy-model", "someone/toy-model@v1"):
        assert ask_the_hub(name, tmp_path / "hf").stdout.strip() == str(file)
    for name in ("someone/other", "someone/toy-model@v2"):
        failed = ask_the_hub(name, tmp_path / "hf")
        message = failed.stderr.strip().splitlines()[-1]
        repo = name.partition("@")[0]
        assert f"ValueError: no model '{name}'; looked in the path {name}; PANFPN_WEIGHTS (not set)" in message
        assert f"the Hugging Face Hub, repository {repo} (" in message


def test_links_are_followed_and_short_names_are_vouched_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "mine.pth").write_bytes(b"mine")
    (tmp_path / "w" / "link.pth").symlink_to(tmp_path / "mine.pth")
    (tmp_path / "w" / "toy.pth").write_bytes(b"not the published content")
    (tmp_path / "model-20240517.pth").write_bytes(b"a date is no hash")
    monkeypatch.setenv("PANFPN_WEIGHTS", str(tmp_path / "w"))
    assert find_model("link") == tmp_path / "w" / "link.pth"
    assert find_model(tmp_path / "model-20240517.pth") == tmp_path / "model-20240517.pth"
    with pytest.raises(ValueError, match=r"toy\.pth: its SHA-256 begins with"):
        find_model("toy")
