"""Push to a local server that speaks the Hub's interface, and pull from it."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import constants

from hub_server import local_hub
from panfpn import Predictor
from panfpn.cli import main
from panfpn.data.images import decode_image
from panfpn.deploy.hub import MARK, card, push
from panfpn.files import sha256
from panfpn.weights import load
from panfpn.weights.zoo import find_model, shipped_model


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with local_hub(monkeypatch, tmp_path / "cache") as server:
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        monkeypatch.delenv("PANFPN_WEIGHTS", raising=False)
        yield server


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    file = tmp_path / "photo.png"
    cv2.imwrite(str(file), np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8))
    return file


def front(card: bytes) -> dict[str, Any]:
    return dict(yaml.safe_load(card.decode().split("---")[1]))


def test_what_is_pushed_is_pulled(
    hub: Any, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--example", str(photo), "--license", "apache-2.0", "--private"]
    assert main(["push", str(shipped_model()), "me/streets", *options]) == 0
    assert capsys.readouterr().out.startswith(f"{hub.address}/me/streets/commit/")
    files = hub.repositories["me/streets"]["main"]
    assert set(files) == {"model.safetensors", "config.json", "README.md", "example.jpg"}
    assert files["model.safetensors"] == shipped_model().read_bytes() and hub.private == {"me/streets"}
    config = json.loads(files["config.json"])
    assert config["sha256"] == sha256(shipped_model()) and config["architecture"] == "SemanticFPN"
    assert decode_image(files["example.jpg"]).shape == (48, 64 * 2 + 4, 3)

    card = front(files["README.md"])
    facts = [card[key] for key in ("library_name", "license", "pipeline_tag")]
    assert facts == ["panfpn", "apache-2.0", "image-segmentation"]
    (result,) = card["model-index"][0]["results"]
    scores = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert result["dataset"]["type"] == "camvid" and 76 < scores["miou"] < 78
    text = files["README.md"].decode()
    assert (
        'Predictor.from_file("me/streets")' in text
        and "| bicyclist | thing, value 10 |" in text
        and config["sha256"] in text
    )

    expected = Predictor.from_file(device="cpu")(photo).labels
    for name in ("me/streets", "hf:me/streets@main"):
        np.testing.assert_array_equal(Predictor.from_file(name, "cpu")(photo).labels, expected)
    commit = hub.commits["me/streets", "main"]
    assert find_model(f"me/streets@{commit}").read_bytes() == files["model.safetensors"]

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # the cache, without a word to the server
    asked = len(hub.requests)
    assert find_model("me/streets").is_file() and len(hub.requests) == asked


def test_a_file_that_is_not_what_the_hub_said_is_thrown_away(hub: Any) -> None:
    push(shipped_model(), "me/streets")
    content = bytearray(shipped_model().read_bytes())
    content[-1000] ^= 1
    hub.lie["model.safetensors"] = bytes(content)
    with pytest.raises(ValueError, match=r"me/streets.* has SHA-256 \w+…, and the Hub says \w+…; it was thrown away"):
        find_model("me/streets")
    hub.lie.clear()
    assert find_model("me/streets").read_bytes() == shipped_model().read_bytes()


def test_scores_of_images_that_were_learnt_from_are_no_result() -> None:
    release = load(shipped_model()).with_weights()
    seen = replace(release, data={"dataset": "folder", "train_split": "train", "val_split": "train", "split": None})
    text = card(seen, "me/streets", "0" * 64)
    assert "model-index" not in front(text.encode())
    assert "## Scores of the images that it learnt from" in text
    parted = {"train_split": "train", "val_split": "train", "split": 0.2}
    text = card(replace(seen, data=parted), "me/streets", "0" * 64)
    assert "model-index" in front(text.encode())
    assert "## Scores\n" in text


def test_a_card_of_somebodys_own_stays(hub: Any) -> None:
    push(shipped_model(), "me/streets")
    main_branch = hub.repositories["me/streets"]["main"]
    assert MARK.encode() in main_branch["README.md"]
    main_branch |= {"README.md": b"# my own words", "notes.txt": b"mine"}
    push(shipped_model(), "me/streets", revision="main", message="again")
    files = hub.repositories["me/streets"]["main"]
    assert files["README.md"] == b"# my own words" and files["notes.txt"] == b"mine"


def test_another_librarys_checkpoint_becomes_a_release(
    hub: Any, tmp_path: Path, small_mmseg: dict[str, torch.Tensor]
) -> None:
    file = tmp_path / "theirs.pth"
    torch.save({"state_dict": small_mmseg, "meta": {"CLASSES": ["a", "b", "c"], "PALETTE": [[1, 2, 3]] * 3}}, file)
    push(file, "me/converted")
    pulled = find_model("me/converted")
    assert pulled.name == "model.safetensors" and Predictor.from_file(pulled, "cpu").table.names == ("a", "b", "c")
    assert "theirs.pth" in hub.repositories["me/converted"]["main"]["README.md"].decode()


@pytest.mark.parametrize(
    ("model", "repository", "words"),
    [
        (shipped_model(), "no-owner", "no-owner' is no repository; name it OWNER/REPO"),
        ("no.safetensors", "me/x", "no such file"),
    ],
)
def test_wrong_pushes(hub: Any, model: Any, repository: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        push(model, repository)
    assert not hub.repositories


def test_without_a_token(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(ValueError, match=r"me/streets: could not be written to the Hub \(.*401"):
        push(shipped_model(), "me/streets")


def test_a_repository_or_revision_that_is_not_there(hub: Any) -> None:
    push(shipped_model(), "me/streets")
    for name in ("me/nothing", "me/streets@nowhere"):
        with pytest.raises(ValueError, match=f"no model '{name}'; looked in .*the Hugging Face Hub, repository me/"):
            find_model(name)
