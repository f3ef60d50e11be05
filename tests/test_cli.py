import json
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import tyro

import panfpn
from panfpn import engine
from panfpn.cli import main
from panfpn.config import Data, Inference, Model
from panfpn.verbs.options import Out, parse_options

TINY = [
    *("--data.scenes", "4", "2", "--data.scene-size", "64", "96", "--data.crop", "64", "64", "--data.num-workers", "0"),
    *("--train.steps", "2", "--train.batch-size", "2", "--optim.warmup-steps", "0", "--model.fpn-channels", "16"),
    *("--model.backbone", "test_resnet", "--model.start-from", "None"),
]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    try:
        code = main(arguments)
    except SystemExit as leaving:  # --help
        code = int(leaving.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def test_train_eval_predict(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    code, out, err = run(capsys, "train", "scenes", *TINY, "--run.dir", str(folder))
    assert code == 0 and "traffic sign" in out and "best mIoU" in out and "steps: 2" in err
    code, out, _ = run(capsys, "eval", str(folder), "--json", str(tmp_path / "scores.json"))
    assert code == 0 and "mIoU" in out
    scores = json.loads((tmp_path / "scores.json").read_text())
    released = panfpn.evaluate(folder, panfpn.TrainConfig.from_yaml(folder / "config.yaml").data)
    assert scores["miou"] == released.miou and set(scores["classes"]) == set(released.names)
    assert scores["protocol"]["summary"]["mIoU"] == 100 * released.miou and len(scores["images"]) == 2
    assert scores["interval"]["low"] <= released.miou <= scores["interval"]["high"] and "boundary" not in scores
    options = ("--protocol", "detectron2", "--boundary", "--trimap-width", "3")
    code, out, _ = run(capsys, "eval", str(folder), *options, "--json", str(tmp_path / "other.json"))
    assert code == 0 and "detectron2, %" in out and "pACC" in out and "mean: Boundary IoU" in out
    assert json.loads((tmp_path / "other.json").read_text())["boundary"]["trimap_width"] == 3
    files = str(tmp_path / "scores.json"), str(tmp_path / "other.json")
    assert run(capsys, "compare", "--a", *files, "--b", files[1])[0] == 0  # two seeds of A
    assert run(capsys, "compare", *files, "--b", files[1])[0] == 2
    code, out, _ = run(capsys, "compare", *files)
    assert code == 0 and "+0.0000" in out and "B is better in 0.0 %" in out
    photo = tmp_path / "photo.jpg"
    cv2.imwrite(str(photo), np.full((40, 60, 3), 90, np.uint8))
    code, out, _ = run(
        capsys, "predict", str(photo), "--model", str(folder), "--out", str(tmp_path / "out"), "--save", "labels"
    )
    assert code == 0 and "1 of 1 images labelled" in out
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"photo.png", "predictions.json"}
    code, out, _ = run(capsys, "train", "--resume", str(folder))
    assert code == 0 and "best mIoU" in out  # a finished run says how it ended


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "train needs a recipe"),
        (["trian"], "the verb is 'trian'; did you mean train?"),
        (["train", "scnes"], "no recipe 'scnes'; did you mean scenes?"),
        (["train", "scenes", "--optim.lrr", "1"], "Unrecognized options: --optim.lrr"),
        (["train", "scenes", "--optim.lr", "fast"], "could not convert string to float: 'fast'"),
        (["train", "scenes", "--optim.lr", "-1"], "optim.lr is -1.0; it must be positive"),
        (["train", "camvid_lite0", "--data.root", "/nowhere"], "/nowhere: no such folder"),
        (["train", "nothing.yaml"], "nothing.yaml: cannot be read"),
        (["train", "--resume", "/nowhere"], "/nowhere: holds no run to resume"),
        (["train", "scenes", "--resume", "x"], "--resume DIR goes on with the run in folder DIR"),
        (["eval"], "eval needs a model: a release file"),
        (["eval", "/nowhere/model.safetensors"], "/nowhere/model.safetensors: no such file"),
        (["eval", "x", "--protocol", "coco"], "invalid choice 'coco'"),
        (["eval", "x", "--trimap-width", "7"], "--trimap-width goes with --boundary"),
        (["compare"], "panfpn compare --help"),
        (["compare", "/nowhere.json", "/nowhere.json"], "/nowhere.json: cannot be read"),
        (["compare", __file__, __file__], f"{__file__}: not JSON"),
        (["predict", "/nowhere.jpg", "--out", "x"], "/nowhere.jpg: no such file or folder"),
        (["predict", "x.jpg"], "--out"),
        (["predict", "--out", "x"], "nothing to label; name images"),
        (["recipes", "scene"], "no recipe 'scene'"),
    ],
)
def test_errors_are_one_sentence_and_code_2(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, *arguments)
    assert code == 2 and message in err
    assert err.startswith("panfpn: ") and err.count("\n") == 1 and "Traceback" not in err
    assert not list(tmp_path.iterdir())


FLAGS = {"inference.flip": False, "train.channels_last": True, "train.sync_bn": True, "optim.mmcv_0x": False}


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize(
    ("value", "expected"),
    [([], True), (["True"], True), (["False"], False), (["true"], True), (["false"], False), (None, None)],
)
def test_flags_of_a_training(
    flag: str, value: list[str] | None, expected: bool | None, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    trained: list[panfpn.TrainConfig] = []
    ended = SimpleNamespace(scores=None, interrupted=False)
    monkeypatch.setattr(engine, "train", lambda config, *, begun: trained.append(config) or ended)
    for option in (f"--{flag}", f"--{flag.replace('_', '-')}"):
        for after in ([], ["--train.steps", "300"]):  # the last word, and not
            words = [] if value is None else [option, *value]
            assert run(capsys, "train", "scenes", *words, *after)[0] == 0
            section, name = flag.split(".")
            assert getattr(getattr(trained[-1], section), name) is (FLAGS[flag] if expected is None else expected)
    if value:
        assert run(capsys, "train", "scenes", f"--{flag}={value[0]}")[0] == 0
        assert getattr(getattr(trained[-1], section), name) is expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--boundary"], "no model 'x'"),  # --trimap-width is welcome, and there is no model
        (["--boundary", "True"], "no model 'x'"),
        (["--boundary", "false"], "--trimap-width goes with --boundary"),
        (["--boundary=False"], "--trimap-width goes with --boundary"),
        (["--boundary", "perhaps"], "Unrecognized options: perhaps"),
        (["--boundary=perhaps"], "invalid choice 'perhaps' for argument '--boundary'"),
    ],
)
def test_flags_of_an_evaluation(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "eval", "x", "--trimap-width", "7", *words)
    assert code == 2 and message in err and err.count("\n") == 1


@dataclass(frozen=True)
class Options:
    inputs: tyro.conf.Positional[tuple[str, ...]]
    out: Out[Path]
    check: bool = False
    inference: Inference = field(default_factory=Inference)


@pytest.mark.parametrize("out", ["-o", "--out"])
@pytest.mark.parametrize("words", [["--check", "a", "b"], ["a", "b", "--check"], ["--check", "True", "a", "b"]])
def test_a_flag_takes_no_input_and_out_has_a_short_name(words: list[str], out: str) -> None:
    for whole in ([*words, out, "x"], [out, "x", *words], [*words, "--inference.nms-over-classes", out, "x"]):
        options = parse_options(Options, "verb", whole, "Help.")
        assert options.inputs == ("a", "b") and options.out == Path("x") and options.check
        assert options.inference.nms_over_classes is ("--inference.nms-over-classes" in whole)


@pytest.mark.parametrize("verb", ["predict", "convert", "demo", "data pack"])
def test_out_has_a_short_name_in_every_verb(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, *verb.split(), "--help")
    assert code == 0 and re.search(r"-o \S+, --out \S+", out)


@pytest.mark.parametrize(
    ("words", "choices"),
    [
        ("train scenes", ["{SemanticFPN,PanopticFPN}", "{cityscapes,ade20k,", "{sgd,adamw}",
                          "{poly,cosine,step,constant}", "{tensorboard,wandb,mlflow}"]),
        ("eval x", ["{mmseg,detectron2,cityscapes,hf,smp}", "torch,openvino,onnxruntime}", "[True|False]"]),
        ("predict", ["{torch,openvino,onnxruntime}", "cityscapes,ade20k,coco-panoptic,"]),
    ],
)  # fmt: skip
def test_help_says_the_choices(words: str, choices: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, *words.split(), "--help")
    for choice in choices:
        assert choice in out


def test_comparison_of_what_cannot_be_compared(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    scores = {"classes": {"a": {}, "b": {}}, "confusion": [[1, 0, 0], [0, 0, 0], [0, 0, 0]]}
    image = {"name": "x", "pixels": 1, "classes": [[0, 1, 1, 1]]}
    files = {
        "good": scores | {"images": [image]}, "rowless": scores, "list": [], "empty": {},
        "panoptic": {"pq": 0.5, "classes": {}},
        "older": scores | {"confusion": [[1, 0], [0, 0]], "images": [image]}, "wrong": scores | {"images": [{}]},
        "others": scores | {"images": [image | {"name": "y"}]},
        "classes": {"classes": {"a": {}}, "confusion": [[1]], "images": [image]},
    }  # fmt: skip
    for name, data in files.items():
        (tmp_path / name).write_text(json.dumps(data))
    good = str(tmp_path / "good")
    for name, message in {
        "rowless": "has no key 'images'", "list": "expected a JSON object, found list", "empty": "no key 'classes'",
        "panoptic": "compare models of one kind",
        "wrong": "images[0] is not an image's counts", "others": "the images differ", "classes": "the classes differ",
    }.items():  # fmt: skip
        code, _, err = run(capsys, "compare", good, str(tmp_path / name))
        assert code == 2 and message in err and str(tmp_path / name) in err and err.count("\n") == 1, name
    code, out, _ = run(capsys, "compare", good, str(tmp_path / "older"))
    assert code == 0 and "1.0000" in out


def test_debug_shows_the_traceback() -> None:
    with pytest.raises(ValueError, match="no recipe"):
        main(["train", "scnes", "--debug"])


def test_unknown_key_in_yaml(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("optim:\n  learning_rate: 0.1\n")
    code, _, err = run(capsys, "train", str(tmp_path / "run.yaml"))
    assert code == 2 and "run.yaml: unknown key optim.learning_rate" in err
    (tmp_path / "run.yaml").write_text("optim:\n  lr: quick\n")
    _, _, err = run(capsys, "train", str(tmp_path / "run.yaml"))
    assert "optim.lr is 'quick'" in err


def test_partly_failed_prediction(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    config = panfpn.recipes.scenes(
        data=Data(dataset="scenes", scenes=(2, 1), scene_size=(64, 64), crop=(64, 64), num_workers=0),
        model=Model(backbone="test_resnet", fpn_channels=16, head_channels=16), train__steps=1, train__batch_size=2,
        optim__warmup_steps=0, run__dir=folder,
    )  # fmt: skip
    panfpn.train(config)
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in/good.png"), np.zeros((32, 32, 3), np.uint8))
    (tmp_path / "in/bad.png").write_bytes(b"bad")
    code, out, err = run(
        capsys, "predict", str(tmp_path / "in"), "--model", str(folder), "--out", str(tmp_path / "out")
    )
    assert code == 2 and "1 of 2 images labelled" in out and "bad.png: not a readable image" in err
    assert (tmp_path / "out/good.png").is_file()


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "--help",
        "recipes",
        "recipes camvid_lite0",
        *(f"{v} --help" for v in ("train", "eval", "compare", "predict", "demo")),
    ],
)
def test_help_never_imports_torch(arguments: str) -> None:
    code = (
        "import sys\nfrom panfpn.cli import main\n"
        f"try: main({arguments.split()})\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "panfpn" in done.stdout


def test_console_script_and_module() -> None:
    script = Path(sys.executable).with_name("panfpn")
    for command in ([str(script), "--version"], [sys.executable, "-m", "panfpn", "--version"]):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.stdout.strip() == panfpn.__version__


def test_public_names() -> None:
    for name in panfpn.__all__:
        assert getattr(panfpn, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = panfpn.Nothing  # type: ignore[attr-defined]
