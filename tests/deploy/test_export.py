"""Files that run without panfpn: equal to torch at every size, self-describing, and never there unless they are."""

import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from panfpn import Predictor, build, evaluate
from panfpn.choices import FORMATS
from panfpn.cli import main
from panfpn.config import Data, Inference, Model, TrainConfig
from panfpn.data import open_dataset
from panfpn.data.images import read_mask
from panfpn.data.transforms import fit_size
from panfpn.deploy import export as exporting
from panfpn.deploy.export import export
from panfpn.deploy.gate import SHAPES
from panfpn.deploy.int8 import not_between_convolutions, quantized
from panfpn.files import rgb_to_ids, write_image
from panfpn.models import PanopticFPN, SemanticFPN
from panfpn.tasks.graph import fitted_size, resized
from panfpn.tasks.panoptic_graph import PanopticGraph
from panfpn.tasks.semantic_graph import SemanticGraph
from panfpn.weights import load, peek, write_release
from panfpn.weights.exported.onnx import to_onnx
from panfpn.weights.exported.openvino import OpenVINOFormat
from panfpn.weights.exported.program import Traced, format_named
from small_backbone import OneConvolutionALevel

SCENES = open_dataset("scenes", None, "train", panoptic=True, scene_count=4, scene_size=(64, 96))
OWN = f"{build._MODULE}small_backbone.OneConvolutionALevel"
NEEDS = {"onnx": ("onnxruntime", "onnxscript"), "openvino": ("openvino", "onnxscript"), "torch": ()}


def lively(network: nn.Module) -> nn.Module:
    """With norms that are not the identity, and classes that differ."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    nn.init.normal_(network.head.classifier.weight)
    return network.eval()


def semantic() -> SemanticFPN:
    torch.manual_seed(0)
    return lively(SemanticFPN(OneConvolutionALevel(), SCENES.table.num_classes, fpn_channels=8, head_channels=8))


def panoptic() -> PanopticFPN:
    torch.manual_seed(0)
    network = PanopticFPN(OneConvolutionALevel(), SCENES.table, fpn_channels=8, head_channels=8, box_channels=8,
                          mask_channels=8, anchor_scale=4.0)  # fmt: skip
    nn.init.normal_(network.box_head.classifier.weight, std=3)
    nn.init.normal_(network.mask_head.classifier.weight, std=3)
    return lively(network)


def released(
    path: Path, network: nn.Module, *, backbone: str = OWN, inference: Mapping[str, Any] = MappingProxyType({}),
    **data: Any,
) -> Path:  # fmt: skip
    panoptic = isinstance(network, PanopticFPN)
    wide = {"box_channels": 8, "mask_channels": 8, "anchor_scale": 4.0} if panoptic else {}
    usual = {"stuff_area": 64, "confidence": 0.3, "detections": 20} if panoptic else {}
    config = TrainConfig(
        model=Model(architecture="PanopticFPN" if panoptic else "SemanticFPN", backbone=backbone, fpn_channels=8,
                    head_channels=8, num_classes=SCENES.table.num_classes, mean=(120.0,) * 3, std=(60.0,) * 3, **wide),
        data=Data(**{"size_divisor": 32} | data), inference=Inference(**(usual | inference)),
    )  # fmt: skip
    write_release(path, network.state_dict(), config, SCENES.table, scores={"miou": 0.5}, source={"license": "MIT"})
    return path


_FOLLOWED: dict[Any, Any] = {}


@pytest.fixture(autouse=True)
def followed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.export follows each network once in this file: that takes most of the time."""
    follow = exporting._followed

    def followed(graph: Any, example: torch.Tensor, *, dynamic: bool) -> Any:
        weights = tuple(float(tensor.sum()) for tensor in graph.state_dict().values())
        settings = repr((graph.names, graph.scale, getattr(graph, "inference", None)))
        key = (type(graph), settings, example.shape, dynamic, weights)
        if key not in _FOLLOWED:
            _FOLLOWED[key] = follow(graph, example, dynamic=dynamic)
        return _FOLLOWED[key]

    monkeypatch.setattr(exporting, "_followed", followed)


def have(form: str) -> None:
    for package in NEEDS[form]:
        pytest.importorskip(package, reason="extra `export` is not installed")


def pictures(*sizes: tuple[int, int]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [np.kron(rng.integers(0, 256, (h // 8 + 1, w // 8 + 1, 3)), np.ones((8, 8, 1)))[:h, :w].astype(np.uint8)
            for h, w in sizes]  # fmt: skip


@pytest.mark.parametrize("form", FORMATS)
def test_a_semantic_file_gives_torchs_labels_and_says_what_it_is(form: str, tmp_path: Path) -> None:
    have(form)
    model = released(tmp_path / "model.safetensors", semantic())
    out = tmp_path / f"m{format_named(form).suffix}"
    exported = export(model, out, confidence=True, probabilities=True, network=semantic())
    assert [a.shape for a in exported.gate] == list(SHAPES) and exported.route == "torch.export"
    assert all(a.agreeing == a.clear > 0.9 * a.of for a in exported.gate)
    assert sorted(tmp_path.iterdir()) == sorted([model, *exported.files])  # and nothing else
    header = peek(out)
    assert header.table == SCENES.table and header.source["license"] == "MIT" and header.scores == {"miou": 0.5}
    ours, theirs = (Predictor.from_file(f, precision="float32", model=n) for f, n in ((out, None), (model, semantic())))
    images = pictures((41, 67), (64, 64), (3, 90))
    for found, wanted in zip(ours(images, confidence=True), theirs(images, confidence=True), strict=True):
        assert (found.labels == wanted.labels).mean() > 0.999
        np.testing.assert_allclose(found.confidence, wanted.confidence, atol=1e-4)
    image = pictures((41, 67))[0][None]
    arrays = ours.task.program(image)
    assert list(arrays) == ["labels", "confidence", "probabilities"] and arrays["probabilities"].shape == (1, 9, 41, 67)
    np.testing.assert_allclose(arrays["probabilities"].sum(1), 1, atol=1e-5)
    np.testing.assert_array_equal(arrays["probabilities"].max(1), arrays["confidence"])
    np.testing.assert_array_equal(arrays["probabilities"].argmax(1), arrays["labels"])
    assert not ours.model.head.classifier.weight.numel() or ours.model.head.classifier.weight.is_meta


@pytest.mark.parametrize("form", ["onnx", "torch"])
def test_a_panoptic_file_gives_torchs_segments_of_every_image(form: str, tmp_path: Path) -> None:
    have(form)
    model = released(tmp_path / "model.safetensors", panoptic())
    out = tmp_path / f"m{format_named(form).suffix}"
    exported = export(model, out, every_mask=True, network=panoptic())
    assert sum(a.clear for a in exported.gate) > 20
    ours, theirs = (Predictor.from_file(f, precision="float32", model=n) for f, n in ((out, None), (model, panoptic())))
    images = pictures((64, 96), (64, 96), (45, 70))
    things = 0
    for found, wanted in zip(ours(images, batch_size=2), theirs(images, batch_size=2), strict=True):
        assert (found.semantic == wanted.semantic).mean() > 0.999
        np.testing.assert_allclose(found.detections.scores, wanted.detections.scores, atol=1e-4)
        np.testing.assert_allclose(found.detections.boxes, wanted.detections.boxes, atol=1e-2)
        assert found.detections.classes.tolist() == wanted.detections.classes.tolist()
        assert [(s.train_id, s.thing) for s in found.info] == [(s.train_id, s.thing) for s in wanted.info]
        assert (found.segments == wanted.segments).mean() > 0.99
        things += sum(s.thing for s in wanted.info)
    assert things > 0
    if form == "torch":  # takes for granted what kernels say of their results: that NMS leaves two boxes, say
        weights = dict(ours.task.program.module.named_parameters())
        (bias,) = (tensor for name, tensor in weights.items() if name.endswith("box_head.classifier.bias"))
        bias.data[-1] = 1e4  # sure that nothing is there
        for found in ours(pictures((40, 60), (33, 90), (3, 50))):
            assert not found.detections.scores.size and found.info
    if form == "onnx":  # which needs no panfpn, and is what OpenVINO reads
        assert [f.name for f in exported.files] == ["m.onnx", "m_merge.py"]
        cv2.imwrite(str(tmp_path / "a.png"), images[0][:, :, ::-1])
        ids = rgb_to_ids(run_example(tmp_path / "x.png", tmp_path / "a.png", out))
        np.testing.assert_array_equal(ids, ours(images[0]).segments)
        compiled = (
            pytest.importorskip("openvino", reason="extra `export` is not installed")
            .Core()
            .compile_model(out, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        )
        arrays = ours.task.program(np.stack(images[:2]))
        for name, array in compiled([np.stack(images[:2])]).items():
            wanted_array = arrays[name.get_any_name()]
            assert array.shape == wanted_array.shape
            np.testing.assert_allclose(array, wanted_array, atol=2e-2)


def test_graphs_are_the_prediction(tmp_path: Path) -> None:
    """Before any exporter: as modules, also where images are fitted into a scale."""
    for network, kind in ((semantic(), SemanticGraph), (panoptic(), PanopticGraph)):
        model = released(tmp_path / f"{kind.__name__}.safetensors", network, scale=(80, 48))
        task = Predictor.from_file(model, model=network, precision="float32", engine=None).task
        graph = task.graph(task.pixels)
        assert isinstance(graph, kind)
        for image in pictures((64, 96), (33, 50)):
            wanted = task.predict([image])[0]
            with torch.no_grad():
                found = dict(zip(graph.names, graph(torch.from_numpy(image[None])), strict=True))
            if kind is SemanticGraph:
                assert (found["labels"][0].numpy() == wanted.labels).mean() > 0.999
            else:
                assert abs(len(found["scores"]) - len(wanted.detections.scores)) <= 1


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_graph_resizes_as_opencv_does(channels: int) -> None:
    rng, differ, total = np.random.default_rng(channels), 0, 0
    for _ in range(60):
        (height, width), size = rng.integers(1, 160, 2), tuple(map(int, rng.integers(1, 250, 2)))
        image = rng.integers(0, 256, (height, width, channels)).astype(np.uint8)
        wanted = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR).reshape(*size, channels)
        found = resized(torch.from_numpy(image)[None], size)[0].numpy()
        assert np.abs(found - wanted).max() <= 1
        differ, total = differ + int((found != wanted).sum()), total + wanted.size
    assert differ <= 1e-4 * total


@pytest.mark.parametrize("size", [(1, 1), (3, 1000), (480, 640), (97, 131), (1080, 1920), (2000, 17)])
@pytest.mark.parametrize("scale", [(2048, 512), (1333, 800), (64, 48)])
def test_sizes_are_rounded_as_images_are(size: tuple[int, int], scale: tuple[int, int]) -> None:
    assert fitted_size(*size, scale) == fit_size(*size, scale)
    assert tuple(map(int, fitted_size(*map(torch.tensor, size), scale))) == fit_size(*size, scale)


def test_a_fixed_size_and_tracing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    have("onnx")
    model = released(tmp_path / "model.safetensors", semantic(), scale=(80, 48))
    fixed = export(model, tmp_path / "fixed.onnx", size=(40, 56), network=semantic())
    assert {a.shape[1:] for a in fixed.gate} == {(40, 56)} and len(fixed.gate) >= 5
    with pytest.raises(ValueError, match=r"fixed\.onnx: cannot take images \(41, 56, 3\)"):
        Predictor.from_file(tmp_path / "fixed.onnx")(pictures((41, 56))[0])

    def never(*_: object, **__: object) -> None:
        raise TimeoutError("more than 240 s")

    monkeypatch.setattr(exporting, "_followed", never)
    said: list[str] = []
    traced = export(model, tmp_path / "traced.onnx", network=semantic(), say=said.append)
    assert traced.route == "tracing" and len(traced.gate) == len(SHAPES)
    assert any("torch.export cannot follow it (more than 240 s)" in line for line in said)
    with pytest.raises(ValueError, match=r"cannot follow this network at every size .* \(--size H W\)"):
        export(model, tmp_path / "traced.pt2", network=semantic())
    assert not (tmp_path / "traced.pt2").exists()


def test_a_file_of_which_one_layer_differs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = released(tmp_path / "model.safetensors", semantic())

    def tampered(pixels: Any) -> tuple[Any, bool]:
        twin, free = exporting_exportable(pixels)
        layer = twin.network.fpn.output[1]  # its weight is shared with the network that is exported
        layer.weight = nn.Parameter(layer.weight * 1.5)
        return twin, free

    exporting_exportable = exporting.exportable
    monkeypatch.setattr(exporting, "exportable", tampered)
    with pytest.raises(ValueError, match=r"bad\.pt2: not written: the exported graph does not predict what torch does: "
                                         r"\d+ of \d+ clear pixels differ in 1 image\(s\) of 97×131 pixels of image 1, "
                                         r"the first in row \d+, column \d+ \('\w+' instead of '\w+'\)"):  # fmt: skip
        export(model, tmp_path / "bad.pt2", network=semantic())
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_what_cannot_be_exported_is_said_before_work(tmp_path: Path) -> None:
    model = released(tmp_path / "model.safetensors", semantic())
    for out, options, message in (
        ("m.tflite", {}, r"m\.tflite: its suffix names no format; take one of \.onnx \(onnx\), \.xml"),
        ("m.onnx", {"format": "torch"}, r"m\.onnx: a file of format torch ends in \.pt2"),
        ("m.pt2", {"format": "coreml"}, "coreml"),
        ("m.pt2", {"every_mask": True}, "every_mask is for Panoptic FPN"),
    ):
        with pytest.raises(ValueError, match=message):
            export(model, tmp_path / out, network=semantic(), **options)  # type: ignore[arg-type]
    slides = TrainConfig(model=load(model).config.model, data=Data(), inference=Inference(mode="slide"))
    write_release(tmp_path / "s.safetensors", semantic().state_dict(), slides, SCENES.table, scores={}, source={})
    with pytest.raises(ValueError, match=r"inference\.mode is slide, which takes more than one pass"):
        export(tmp_path / "s.safetensors", tmp_path / "m.pt2", network=semantic())


def test_a_file_is_a_model_and_no_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = released(tmp_path / "model.safetensors", semantic())
    out = tmp_path / "m.pt2"
    export(model, out, network=semantic())
    data = open_dataset("scenes", None, "val", scene_count=2, scene_size=(64, 96))
    ours, theirs = (evaluate(Predictor.from_file(m, model=n, precision="float32"), data, progress=False)
                    for m, n in ((out, None), (model, semantic())))  # fmt: skip
    assert abs(ours.miou - theirs.miou) < 1e-3
    image = tmp_path / "a.png"
    write_image(image, pictures((40, 50))[0])
    assert main(["predict", str(image), "-o", str(tmp_path / "o"), "--model", str(out)]) == 0
    assert "labelled by m.pt2 on cpu" in capsys.readouterr().out
    predict = ["predict", image, "-o", tmp_path / "p"]
    for words, message in (
        ([*predict, "--model", out, "--save", "confidence"], "export the model with --confidence"),
        ([*predict, "--model", out, "--inference.flip"], "is a part of its graph"),
        ([*predict, "--model", out, "--precision", "bfloat16"], "is run in float32 here"),
        (["convert", out, "-o", tmp_path / "x.safetensors"], "is an exported graph, which predicts and no more"),
        (["export", out, "-o", tmp_path / "x.onnx"], "is an exported graph, which predicts and no more"),
        ([*predict, "--model", tmp_path / "none.onnx"], "no such file"),
    ):  # fmt: skip
        assert main([str(w) for w in words]) == 2
        assert message in capsys.readouterr().err


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch exploded",)


def test_archives_that_would_run_code_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.export.load unpickles, evaluates expressions and calls whatever an archive names."""
    monkeypatch.chdir(tmp_path)
    model = released(tmp_path / "model.safetensors", semantic())
    good = tmp_path / "m.pt2"
    export(model, good, network=semantic())

    def changed(name: str, change: Any) -> Path:
        bad = tmp_path / "bad.pt2"
        with zipfile.ZipFile(good) as old, zipfile.ZipFile(bad, "w", zipfile.ZIP_STORED) as new:
            for member in old.infolist():
                data = old.read(member)
                new.writestr(member.filename, change(data) if member.filename.endswith(name) else data)
        return bad

    def evil_symbol(data: bytes) -> bytes:
        assert b"Symbol('" in data
        return data.replace(b"Symbol('", b"__import__('os').system('touch exploded') + Symbol('", 1)

    for name, change in (
        ("sample_inputs/model.pt", lambda _: pickle.dumps(Bomb())),
        ("models/model.json", evil_symbol),
        ("models/model.json", lambda d: d.replace(b"torch.ops.aten.argmax.default", b"torch.load", 1)),
        ("models/model.json", lambda d: json.dumps(json.loads(d) | {"guards_code": ["print(1)"]}).encode()),
        ("model_weights_config.json", lambda d: d.replace(b'"use_pickle": false', b'"use_pickle": true')),
        ("model_weights_config.json", lambda d: d.replace(b'"use_pickle":false', b'"use_pickle":true')),
    ):
        bad = changed(name, change)
        if bad.read_bytes() == changed(name, lambda d: d).read_bytes():
            continue  # spelt otherwise by this torch
        with pytest.raises(ValueError, match=r"bad\.pt2: not a program of torch\.export"):
            Predictor.from_file(changed(name, change))
        assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("form", FORMATS)
def test_damaged_files_are_named(form: str, tmp_path: Path) -> None:
    have(form)
    bad = tmp_path / f"bad{format_named(form).suffix}"
    for content in (b"", b"hello", b"PK\x03\x04" + bytes(100)):
        bad.write_bytes(content)
        bad.with_suffix(".bin").write_bytes(content)
        with pytest.raises(ValueError, match=rf"^{bad}: (not a whole|has no header)[^\n]*$"):
            Predictor.from_file(bad)


def run_example(out: Path, photo: Path, model: Path) -> np.ndarray:
    """examples/run_exported.py where torch, OpenCV and panfpn cannot be imported."""
    blocked = "import sys, runpy; [sys.modules.__setitem__(m, None) for m in ('torch', 'panfpn', 'cv2', 'PIL')]"
    example = Path(__file__).parents[2] / "examples/run_exported.py"
    words = f"sys.argv = ['x', {str(model)!r}, {str(photo)!r}, {str(out)!r}]; runpy.run_path({str(example)!r}, "
    subprocess.run([sys.executable, "-c", f"{blocked}; {words}run_name='__main__')"], check=True)
    return read_mask(out)


def test_a_file_needs_no_panfpn(tmp_path: Path) -> None:
    have("onnx")
    model, out, photo = released(tmp_path / "model.safetensors", semantic()), tmp_path / "m.onnx", tmp_path / "a.png"
    assert export(model, out, network=semantic(), size=(50, 70)).files == (out,)
    for filtering in range(5):  # of PNG
        picture = pictures((50, 70))[0] + np.uint8(filtering)
        cv2.imwrite(str(photo), picture[:, :, ::-1], [cv2.IMWRITE_PNG_FILTER, 8 << filtering])
        found, wanted = run_example(tmp_path / "x.png", photo, out), Predictor.from_file(out)(photo)
        np.testing.assert_array_equal(found, wanted.table.decode(wanted.labels))


def test_only_sums_between_convolutions_stand_8_bits(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino", reason="extra `export` is not installed")
    model = released(tmp_path / "model.safetensors", panoptic(), scale=(80, 48))
    task = Predictor.from_file(model, model=panoptic(), precision="float32", engine=None).task
    module, example = task.graph(task.pixels).eval(), torch.from_numpy(np.stack(pictures((64, 96), (64, 96))))
    traced = Traced(module=module, names=module.names, example=example, program=None, dynamic=True)
    graph = openvino.Core().read_model(to_onnx(traced))
    kinds = {op.get_friendly_name(): op.get_type_name() for op in graph.get_ordered_ops()}
    outside = set(not_between_convolutions(graph))
    inside = {name for name in kinds if name not in outside and kinds[name] in ("Add", "Multiply", "Interpolate")}
    assert outside <= set(kinds) and not {kinds[name] for name in outside} & {"Convolution", "MatMul", "Constant"}
    assert {"Floor", "NonMaxSuppression", "TopK", "Gather"} <= {kinds[name] for name in outside}
    widths = [graph_op.output(0).get_partial_shape() for graph_op in graph.get_ordered_ops()
              if graph_op.get_friendly_name() in inside]  # fmt: skip
    assert inside and all(len(shape) == 4 for shape in widths)  # the pyramid's sums, and the heads'
    last = [op for op in graph.get_ordered_ops() if op.get_type_name() == "Interpolate"][-1]
    assert last.get_friendly_name() in outside  # logits at the size of the image


def test_int8_is_scored_before_and_after_and_refused_where_it_costs_too_much(tmp_path: Path) -> None:
    pytest.importorskip("nncf", reason="extra `int8` is not installed")
    have("openvino")
    model, out = released(tmp_path / "model.safetensors", semantic()), tmp_path / "m.xml"
    data = open_dataset("scenes", None, "train", scene_count=3, scene_size=(64, 96))
    exported = export(model, out, network=semantic(), calibrate=(data, data), max_drop=20)
    cost = exported.int8
    assert cost and cost.headline == "mIoU" and cost.method == "quantised after training" and abs(cost.drop) < 20
    assert b"FakeQuantize" in out.read_bytes() and OpenVINOFormat.header(out)["int8"]["after"] == cost.after
    scores = evaluate(Predictor.from_file(out, precision="float32"), data, progress=False)
    assert 100 * scores.miou == pytest.approx(cost.after, abs=1e-6)
    with pytest.raises(ValueError, match=r"m\.onnx: INT8 is for OpenVINO here"):
        export(model, tmp_path / "m.onnx", network=semantic(), calibrate=(data, data))
    assert main(["export", str(model), "-o", str(out), "--int8"]) == 2


@pytest.mark.parametrize(("points", "method"), [([80, 60, *[79.9] * 50], "accuracy control"), ([80, *[60] * 50], None)])
def test_layers_that_cost_too_much_go_back(points: list[float], method: str | None) -> None:
    pytest.importorskip("nncf", reason="extra `int8` is not installed")
    have("openvino")
    openvino = pytest.importorskip("openvino", reason="extra `export` is not installed")
    ops = openvino.opset13
    pixels = ops.parameter([1, 16, 16, 3], np.uint8, name="pixels")
    x = ops.transpose(ops.convert(pixels, np.float32), np.array([0, 3, 1, 2]))
    weights = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    model = openvino.Model([ops.convolution(x, weights, [1, 1], [1, 1], [1, 1], [1, 1])], [pixels])
    left = iter(points)
    images = pictures((16, 16), (16, 16))
    say: list[str] = []
    options = {"headline": "mIoU", "max_drop": 0.3, "say": say.append}
    if method is None:
        with pytest.raises(ValueError, match=r"INT8 costs 20\.00 points of mIoU .* and 0\.3 are allowed"):
            quantized(model, images, lambda _: next(left), **options)
    else:
        cost = quantized(model, images, lambda _: next(left), **options)[1]
        assert (cost.before, cost.after) == (80, 79.9) and method in cost.method
    assert "looking for the layers that cost it" in say[-1]
