"""Other libraries' checkpoints into release files and back, through the library and the command line."""

import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import safetensors.torch
import torch

import panfpn
from panfpn import Predictor
from panfpn.build import build_task, resolve
from panfpn.choices import WRITERS
from panfpn.cli import main
from panfpn.config import Data, Inference, Model, Train, TrainConfig
from panfpn.data.layouts.scenes import scenes_table
from panfpn.files import sha256
from panfpn.labels import LabelTable
from panfpn.weights import convert_model, load, write_release, zoo
from panfpn.weights.files import read_checkpoint, read_header, write_checkpoint
from panfpn.weights.zoo import shipped_model

State = dict[str, torch.Tensor]
# Colours and sizes unlike every default, so that none can be lost unseen.
CONFIG = TrainConfig(
    model=Model(
        backbone="resnet18d", num_classes=9, fpn_channels=8, head_channels=16, norm="group", dropout=0.25,
        mean=(1.5, 120.0, 130.0), std=(60.0, 61.0, 62.5),
    ),
    data=Data(scale=(96, 64), size_divisor=16),
    inference=Inference(mode="slide", window=(48, 64), stride=(32, 48)),
    train=Train(precision="float32"),
)  # fmt: skip


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    task = build_task(CONFIG, scenes_table())
    torch.nn.init.normal_(task.model.head.classifier.weight)
    file = tmp_path_factory.mktemp("own") / "own.safetensors"
    write_release(file, task.model.state_dict(), CONFIG, scenes_table(), scores={"miou": 0.5}, source={})
    return file


@pytest.fixture
def theirs(small_mmseg: State, tmp_path: Path) -> Path:
    meta = {"CLASSES": ("road", "sky", "tree"), "PALETTE": [[9, 8, 7], [1, 2, 3], [4, 5, 6]]}
    torch.save({"meta": meta, "state_dict": small_mmseg, "optimizer": {}}, tmp_path / "theirs.pth")
    return tmp_path / "theirs.pth"


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (50, 71, 3)).astype(np.uint8)


def labels(model: Path | str, image: np.ndarray) -> np.ndarray:
    return Predictor.from_file(model, "cpu", "float32")(image, confidence=True).labels


def test_own_model_to_mmsegmentation_and_back(own: Path, image: np.ndarray, tmp_path: Path) -> None:
    peers, notes = convert_model(own, tmp_path / "peers.pth")
    assert notes == ()
    again, _ = convert_model(peers, tmp_path / "again.safetensors")
    for name in ("model", "scale", "size_divisor", "inference"):
        assert read_header(again)[name] == read_header(own)[name], name
    before, after = (read_checkpoint(f, role="release")[0] for f in (own, again))
    assert before.keys() == after.keys()
    assert all(torch.equal(after[n], t) and after[n].dtype == t.dtype for n, t in before.items())
    expected = labels(own, image)
    assert len(np.unique(expected)) > 1
    assert np.array_equal(labels(again, image), expected)
    assert np.array_equal(labels(peers, image), expected)
    table = LabelTable.from_dict(read_header(again)["table"])
    assert table.names == scenes_table().names and np.array_equal(table.palette, scenes_table().palette)


def test_half_a_release_becomes_a_whole_checkpoint(own: Path, image: np.ndarray, tmp_path: Path) -> None:
    weights, _ = read_checkpoint(own, role="release")
    half = tmp_path / "half.safetensors"
    write_release(half, weights, CONFIG, scenes_table(), scores={}, source={}, half=True)
    convert_model(half, tmp_path / "half.pth")
    state = torch.load(tmp_path / "half.pth", weights_only=True)["state_dict"]
    assert {t.dtype for t in state.values()} == {torch.float32, torch.int64}
    assert torch.equal(state["backbone.stem.0.weight"], weights["backbone.body.conv1.0.weight"].half().float())
    assert np.array_equal(labels(half, image), labels(tmp_path / "half.pth", image))


def test_what_a_checkpoint_cannot_keep_is_said(own: Path, tmp_path: Path) -> None:
    weights, _ = read_checkpoint(own, role="release")
    config = CONFIG.changed(inference=Inference(ratios=(0.5, 1.0), flip=True))
    write_release(tmp_path / "views.safetensors", weights, config, scenes_table(), scores={}, source={})
    _, notes = convert_model(tmp_path / "views.safetensors", tmp_path / "views.pth")
    assert len(notes) == 1 and "inference.ratios" in notes[0]


def test_a_foreign_checkpoint_becomes_a_whole_release(theirs: Path, tmp_path: Path) -> None:
    file, notes = convert_model(theirs, tmp_path / "out.safetensors")
    assert any("fitted into their own size" in note for note in notes)
    header = read_header(file)
    assert header["source"] == {"file": "theirs.pth", "sha256": sha256(theirs), "format": "mmsegmentation 0.x"}
    assert header["architecture"] == "SemanticFPN" and header["model"]["backbone"] == "resnet18"
    assert header["scores"] == {} and header["size_divisor"] == 1
    assert [c["color"] for c in header["table"]["classes"]] == ["#090807", "#010203", "#040506"]


def test_a_file_that_names_another_number_of_classes(small_mmseg: State, tmp_path: Path) -> None:
    torch.save({"meta": {"CLASSES": ["a", "b"]}, "state_dict": small_mmseg}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"x\.pth: has 3 classes, but label table 'x' names 2"):
        Predictor.from_file(tmp_path / "x.pth", "cpu", "float32")


def test_the_names_of_published_models_bring_their_classes(
    small_mmseg: State, theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(small_mmseg, tmp_path / "toy.pth")

    def publish() -> None:
        name = f"toy-{sha256(tmp_path / 'toy.pth')[:8]}.pth"
        monkeypatch.setitem(
            zoo.PUBLISHED, "toy", zoo.Published(file=name, table="camvid", miou=1, miou_flip=1, fps=1, train_gb=1)
        )

    publish()
    monkeypatch.setenv("PANFPN_WEIGHTS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="has 3 classes, but label table 'camvid' names 11"):
        convert_model("toy")
    state = small_mmseg | {
        f"decode_head.conv_seg.{n}": small_mmseg[f"decode_head.conv_seg.{n}"].repeat_interleave(4, 0)[:11].clone()
        for n in ("weight", "bias")
    }
    torch.save(state, tmp_path / "toy.pth")
    publish()
    assert load("toy").table == LabelTable.named("camvid")
    with pytest.raises(ValueError, match="names no classes"):
        convert_model(tmp_path / "toy.pth")
    assert load(theirs).table.name == "theirs"


def test_fine_tuning_begins_with_an_mmsegmentation_checkpoint(theirs: Path, small_mmseg: State) -> None:
    model = Model(backbone="resnet18", fpn_channels=8, head_channels=8, start_from=str(theirs))
    config = resolve(TrainConfig(model=model).changed(**{"run.device": "cpu"}), scenes_table())
    state = build_task(config, scenes_table()).model.state_dict()
    assert torch.equal(state["backbone.body.layer3.0.conv1.weight"], small_mmseg["backbone.layer3.0.conv1.weight"])
    assert torch.equal(state["fpn.output.3.bias"], small_mmseg["neck.fpn_convs.3.conv.bias"])
    assert state["head.classifier.weight"].shape[0] == 9
    with pytest.raises(ValueError, match=r"theirs\.pth: has backbone 'resnet18', but model\.backbone is 'resnet34'"):
        build_task(config.changed(model__backbone="resnet34"), scenes_table())


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_convert_and_predict_on_the_command_line(
    theirs: Path, image: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    code, out, err = run(capsys, "convert", theirs, "--scale", "64", "48")
    assert (code, err) == (0, "note: the optimiser's state was left out\n")
    assert out == "theirs.safetensors\n"
    assert read_header(here / "theirs.safetensors")["scale"] == [64, 48]
    code, _, err = run(capsys, "convert", theirs)
    assert code == 2 and err == "panfpn: theirs.safetensors: exists already; name another file with --out\n"
    assert [p.name for p in here.iterdir()] == ["theirs.safetensors"]

    cv2.imwrite("photo.png", image[:, :, ::-1])
    common = ("--save", "labels", "--device", "cpu", "--precision", "float32")
    code, _, err = run(capsys, "predict", "photo.png", "--model", "theirs.safetensors", "--out", "a", *common)
    assert code == 0 and "note" not in err
    code, _, _ = run(capsys, "predict", "photo.png", "--model", theirs, "--scale", "64", "48", "--out", "b", *common)
    assert code == 0
    code, _, err = run(capsys, "predict", "photo.png", "--model", theirs, "--out", "c", *common)
    assert code == 0 and "note: the file does not say at which size images are tested" in err
    first, second, third = (cv2.imread(f"{folder}/photo.png", cv2.IMREAD_UNCHANGED) for folder in "abc")
    assert np.array_equal(first, second) and not np.array_equal(first, third)


def test_labels_on_the_command_line(
    small_mmseg: State, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(small_mmseg, "bare.pth")
    wanted = "classes:\n- {name: a, value: 3}\n- {name: b, value: 4}\n- {name: c, value: 5}\n"
    Path("labels.yaml").write_text(wanted)
    for arguments, message in (
        ((), "bare.pth: names no classes; say what its 3 classes are: panfpn convert FILE --labels"),
        (("--labels", "cityscapes"), "bare.pth: has 3 classes, but label table 'cityscapes' names 19"),
        (("--labels", "cityscape"), "no label table 'cityscape' ships with panfpn; there are ade20k, camvid"),
        (("--labels", "gone.yaml"), "gone.yaml: cannot be read (No such file"),
        (("--labels", "labels.yaml", "--ema", "True"), "bare.pth: holds one copy of the weights only"),
        (("--labels", "labels.yaml", "--out", "x.pth"), "x.pth: is to be written as .safetensors"),
    ):
        code, out, err = run(capsys, "convert", "bare.pth", *arguments)
        assert code == 2 and out == "" and err.startswith(f"panfpn: {message}") and err.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bare.pth", "labels.yaml"]
    code, out, _ = run(capsys, "convert", "bare.pth", "--labels", "labels.yaml", "--out", "sub/x.safetensors")
    assert code == 0 and out.splitlines()[-1] == "sub/x.safetensors"
    table = LabelTable.from_dict(read_header(tmp_path / "sub/x.safetensors")["table"])
    assert table.names == ("a", "b", "c") and [c.values for c in table.classes] == [(3,), (4,), (5,)]


def test_a_run_folder_becomes_a_checkpoint(
    image: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = panfpn.recipes.scenes(
        data=Data(dataset="scenes", scenes=(2, 1), scene_size=(64, 64), crop=(64, 64), num_workers=0),
        model=Model(backbone="resnet18", fpn_channels=8, head_channels=8), train__steps=1, train__batch_size=2,
        optim__warmup_steps=0, run__dir=tmp_path / "run",
    )  # fmt: skip
    panfpn.train(config)
    monkeypatch.chdir(tmp_path)
    code, out, _ = run(capsys, "convert", "run")
    assert code == 0 and out == "model.pth\n"
    assert np.array_equal(labels("model.pth", image), labels("run", image))
    code, _, err = run(capsys, "convert", "run", "--labels", "camvid", "--out", "y.pth")
    assert code == 2 and "is a release file, which says all of this itself; leave --labels, --ema, --scale" in err
    code, _, err = run(capsys, "convert", "run", "--out", "y.safetensors")
    assert code == 2 and "y.safetensors: is to be written as .pth" in err
    (tmp_path / "folder").mkdir()
    code, _, err = run(capsys, "convert", "folder")
    assert code == 2 and "folder/model.safetensors: no such file" in err
    assert not list(tmp_path.glob("y.*"))


def test_only_resnets_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"x\.pth: mmsegmentation has no backbone 'tf_efficientnet_lite0'.*ResNets"):
        convert_model(shipped_model(), tmp_path / "x.pth")
    assert not list(tmp_path.iterdir())


def test_the_writer_is_the_one_that_choices_name(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WRITERS, "SemanticFPN", WRITERS["PanopticFPN"])
    with pytest.raises(ValueError, match=r"x\.pth: detectron2 has no SemanticFPN on 'resnet18d'"):
        convert_model(own, tmp_path / "x.pth")
    monkeypatch.delitem(WRITERS, "SemanticFPN")
    with pytest.raises(ValueError, match=r"model\.architecture is 'SemanticFPN'; "):
        convert_model(own, tmp_path / "x.pth")
    assert not list(tmp_path.iterdir())


def test_a_tag_of_timm_is_left_out_of_the_names(own: Path, tmp_path: Path) -> None:
    weights, _ = read_checkpoint(own, role="release")
    config = CONFIG.changed(**{"model.backbone": "resnet18d.ra2_in1k"})
    write_release(tmp_path / "tag.safetensors", weights, config, scenes_table(), scores={}, source={})
    convert_model(tmp_path / "tag.safetensors", tmp_path / "tag.pth")
    state = torch.load(tmp_path / "tag.pth", weights_only=True)["state_dict"]
    assert next(iter(state)) == "backbone.stem.0.weight"


def test_other_peoples_safetensors_are_read(small_mmseg: State, own: Path, image: np.ndarray, tmp_path: Path) -> None:
    plain = {name: t.contiguous() for name, t in small_mmseg.items()}
    safetensors.torch.save_file(plain, tmp_path / "theirs.safetensors")
    with pytest.raises(ValueError, match=r"theirs\.safetensors: names no classes"):
        load(tmp_path / "theirs.safetensors")
    Path(tmp_path / "l.yaml").write_text("classes: [{name: a, value: 0}, {name: b, value: 1}, {name: c, value: 2}]\n")
    file, _ = convert_model(
        tmp_path / "theirs.safetensors", tmp_path / "out.safetensors", labels=str(tmp_path / "l.yaml")
    )
    assert read_header(file)["source"]["format"] == "mmsegmentation 0.x"
    shutil.copy(own, tmp_path / "renamed.pth")  # a release under another suffix is none of torch's files
    with pytest.raises(ValueError, match=re.escape("renamed.pth: cannot be read as a checkpoint")):
        load(tmp_path / "renamed.pth")
    write_checkpoint(tmp_path / "last.safetensors", {"x": torch.ones(1)}, {}, role="run")
    with pytest.raises(ValueError, match=r"last\.safetensors: is a run file, but a release file is wanted"):
        load(tmp_path / "last.safetensors")
