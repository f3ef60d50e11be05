"""What is known of a model before torch is there; damaged headers are refused in a sentence."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from panfpn.config import Data, Inference, Model, TrainConfig
from panfpn.data.layouts.scenes import scenes_table
from panfpn.labels import LabelTable
from panfpn.weights import load, peek, write_release, zoo
from panfpn.weights.files import write_checkpoint
from panfpn.weights.header import is_release, read_header

CONFIG = TrainConfig(
    model=Model(backbone="resnet18", num_classes=9, mean=(1.5, 120.0, 130.0), std=(60.0, 61.0, 62.5)),
    data=Data(
        dataset="scenes", root=Path("/secret/place"), scale=(96, 64), size_divisor=16, scenes=(7, 5),
        scene_size=(64, 96), val_split="test",
    ),
    inference=Inference(flip=True),
)  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "m.safetensors"
    scores, source = {"miou": 0.5}, {"run": "toy", "step": 3}
    write_release(path, {"w": torch.ones(2, 3)}, CONFIG, scenes_table(), scores=scores, source=source)
    return path


def test_a_release_is_known_before_its_tensors_are_read(file: Path) -> None:
    header, release = peek(file), load(file)
    assert header.architecture == "SemanticFPN" and header.file == release.file == file
    for name in ("config", "table", "data", "scores", "source"):
        assert getattr(header, name) == getattr(release, name), name
    assert header.config is not None and header.config.data.scale == (96, 64)
    assert header.config.data.size_divisor == 16 and header.config.inference == Inference(flip=True)
    assert header.table == scenes_table() and header.scores == {"miou": 0.5} and header.source["step"] == 3
    assert release.notes == () and release.tensors["w"].shape == (2, 3)


def test_a_release_knows_its_data_and_nothing_of_the_machine(file: Path) -> None:
    data = peek(file).data
    assert data is not None and b"/secret" not in file.read_bytes()
    again = Data(**{key: tuple(v) if isinstance(v, list) else v for key, v in data.items()})
    assert (again.dataset, again.val_split, again.train_split) == ("scenes", "test", "train")
    assert (again.scenes, again.scene_size, again.root) == ((7, 5), (64, 96), None)
    assert not {"root", "pack", "num_workers", "crop", "scale", "flip"} & set(data)


def test_a_release_of_unnamed_data_names_none(file: Path) -> None:
    def data_of(table: LabelTable) -> Any:
        write_release(
            file,
            {},
            CONFIG.changed(model__num_classes=table.num_classes),
            table,
            scores={},
            source={},
            named_data=False,
        )
        return peek(file).data

    camvid = LabelTable.named("camvid")
    entries = camvid.to_dict()
    assert data_of(camvid) == {"dataset": "camvid"} == load(file).data
    assert data_of(LabelTable.from_dict(entries | {"name": "mine"})) is None
    assert data_of(LabelTable.from_dict(entries | {"classes": entries["classes"][:5]})) is None  # not CamVid's classes
    assert load(file).data is None


def test_the_shipped_model_and_run_folders(file: Path) -> None:
    header = peek("camvid_lite0")
    assert header.data == {"dataset": "camvid"} and header.table == LabelTable.named("camvid")
    assert header.config is not None and header.config.data.scale is None and header.config.data.size_divisor == 32
    assert round(header.scores["miou"], 4) == 0.7667
    file.rename(file.with_name("model.safetensors"))
    assert peek(file.parent).file == file.with_name("model.safetensors")
    with pytest.raises(ValueError, match=r"nothing/model\.safetensors: no such file"):
        (file.parent / "nothing").mkdir()
        peek(file.parent / "nothing")


def test_published_models_are_known_by_name_and_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "_download", lambda *_: pytest.fail("downloads"))
    monkeypatch.delenv("PANFPN_WEIGHTS", raising=False)
    monkeypatch.chdir(tmp_path)
    for name, architecture, dataset in (
        ("fpn_r101_ade20k", "SemanticFPN", "ade20k"),
        ("panoptic_fpn_r50_coco_3x", "PanopticFPN", "coco_panoptic"),
    ):
        header = peek(name)
        assert header.file is None and header.config is None and header.architecture == architecture
        assert header.table == LabelTable.named(dataset) and header.data == {"dataset": dataset}
    Path("some.pth").write_bytes(b"anything")
    header = peek("some.pth")
    assert header.file == Path("some.pth") and header.table is header.data is header.architecture is None
    for name, hint in (("fpn_r50_cityscape", "did you mean fpn_r50_cityscapes"), ("gone.pth", "no such file")):
        with pytest.raises(ValueError, match=hint):
            peek(name)


def test_nothing_imports_torch(file: Path, tmp_path: Path) -> None:
    code = f"""
import sys
import panfpn.weights
from panfpn.weights import peek
from panfpn.weights.zoo import find_model
assert peek("camvid_lite0").table.name == "camvid"
assert peek("fpn_r50_cityscapes").data == {{"dataset": "cityscapes"}}
assert peek({str(file)!r}).data["dataset"] == "scenes" and find_model({str(file)!r})
heavy = [name for name in ("torch", "timm", "safetensors.torch") if name in sys.modules]
assert not heavy, heavy
"""
    environment = os.environ | {"PANFPN_WEIGHTS": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_run_checkpoint_is_not_a_release(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "last.safetensors", {}, {}, role="run")
    with pytest.raises(ValueError, match=r"last\.safetensors: is a run file, but a release file is wanted"):
        peek(tmp_path / "last.safetensors")
    assert read_header(tmp_path / "last.safetensors")["kind"] == "run"


def test_other_peoples_tensors_are_no_release(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    save_file({}, tmp_path / "none.safetensors")
    assert not is_release(tmp_path / "a.safetensors") and not is_release(tmp_path / "none.safetensors")
    assert peek(tmp_path / "a.safetensors").config is None


def raw(text: str | bytes, tensors: bytes = b"") -> bytes:
    content = text.encode() if isinstance(text, str) else text
    return len(content).to_bytes(8, "little") + content + tensors


def release_like(**changes: Any) -> bytes:
    table = {"name": "t", "classes": [{"name": "a", "value": 0}]}
    header = {"kind": "release", "format": 1, "architecture": "SemanticFPN", "model": {}, "scale": None,
              "size_divisor": 1, "table": table}  # fmt: skip
    return raw(json.dumps({"__metadata__": {"panfpn": json.dumps(header | changes), "sha256": "0"}}))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a whole safetensors file"),
        (b"\xff" * 8 + b"{}", "a header of 18446744073709551615 bytes in a file of 10"),
        ((1 << 40).to_bytes(8, "little") + b"{}", "not a whole safetensors file"),
        (raw("[" * 200_000), "not a whole safetensors file"),
        (raw("[]"), "not a whole safetensors file"),
        (raw('{"a": 3}'), "not a whole safetensors file"),
        (raw('{"a": {"data_offsets": [0, "8"]}}'), "not a whole safetensors file"),
        (raw('{"a": {"data_offsets": [0, 8]}}', b"1234567"), "tensors of 8 bytes"),
        (raw('{"__metadata__": [1]}'), "not a whole safetensors file"),
        (raw(b'{"\xff": 1}'), "not a whole safetensors file"),
        (raw('{"__metadata__": {"panfpn": 3, "sha256": "0"}}'), "not one that panfpn wrote"),
        (raw(json.dumps({"__metadata__": {"panfpn": "[" * 200_000, "sha256": "0"}})), "its header is damaged"),
        (release_like(architecture="MaskFormer"), "holds a MaskFormer, but this panfpn reads SemanticFPN and Panoptic"),
        (release_like(architecture=["SemanticFPN"]), "but this panfpn reads"),
        (release_like(model=3), "does not describe a network"),
        (release_like(model={"backbones": "x"}), "does not describe a network"),
        (release_like(size_divisor="many"), "size_divisor is 'many'"),
        (release_like(table={"classes": []}), "does not describe a network"),
        (release_like(table=None), "does not describe a network"),
        (release_like(scores=[1]), r"its header is damaged \(scores is a list\)"),
        (release_like(data="camvid"), r"its header is damaged \(data is a str\)"),
    ],
)  # fmt: skip
def test_damaged_headers_are_refused_in_a_sentence(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"m\.safetensors: .*{said}") as caught:
        peek(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    assert peek(_good(tmp_path)).table is not None


def _good(folder: Path) -> Path:
    (folder / "good.safetensors").write_bytes(release_like())
    return folder / "good.safetensors"


def test_a_changed_byte_is_a_sentence_or_another_header(file: Path) -> None:
    content = file.read_bytes()
    rng = np.random.default_rng(0)
    length = 8 + int.from_bytes(content[:8], "little")
    for place in [*range(8), *rng.integers(8, length, 120)]:
        broken = bytearray(content)
        broken[place] ^= int(rng.integers(1, 256))
        file.write_bytes(broken)
        try:
            peek(file)
        except ValueError as error:
            assert str(file) in str(error)
