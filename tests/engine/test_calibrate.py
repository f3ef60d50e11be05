"""A temperature that is known is found; labels stay; what exported files and `predict --reject` say follows."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import panfpn
from panfpn import Predictor
from panfpn.cli import main
from panfpn.data import open_dataset
from panfpn.deploy.export import export
from panfpn.engine.calibrate import calibrate, fitted, write_calibrated
from panfpn.labels import IGNORE
from panfpn.metrics.calibration import Calibration, calibration_error, classwise_error, reliability, thresholds
from panfpn.weights.files import read_checkpoint
from panfpn.weights.zoo import SHIPPED
from toy_run import toy


def drawn(temperature: float, shift: torch.Tensor | None = None, count: int = 200_000) -> Any:
    """Logits that are as sure as `temperature` says, and labels drawn from the probabilities that they should give."""
    generator = torch.Generator().manual_seed(0)
    true = 2 * torch.randn(count, 5, generator=generator)
    labels = torch.multinomial(true.softmax(1), 1, generator=generator)[:, 0]
    return temperature * (true if shift is None else true - shift), labels


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.7])
def test_a_known_temperature_is_found(temperature: float) -> None:
    logits, labels = drawn(temperature)
    found, bias = fitted(logits, labels)
    assert found == pytest.approx(temperature, rel=0.01) and bias == (0, 0, 0, 0, 0)
    before, after = (
        calibration_error(p.max(1).values.numpy(), (p.argmax(1) == labels).numpy())
        for p in (logits.softmax(1), (logits / found).softmax(1))
    )
    assert after < 0.005 and (temperature == 1 or before > 10 * after)


def test_a_known_bias_is_found() -> None:
    shift = torch.tensor([0.5, -0.5, 0.0, 1.0, -1.0])
    found, bias = fitted(*drawn(2.0, shift), bias=True)
    assert found == pytest.approx(2.0, rel=0.01) and bias == pytest.approx(shift.tolist(), abs=0.03)


def test_a_class_without_labels_has_no_bias() -> None:
    shift = torch.tensor([0.5, -0.5, 0.0, 1.0, -1.0])
    logits, labels = drawn(2.0, shift)
    kept = labels != 3
    temperature, bias = fitted(logits[kept], labels[kept], bias=True)
    assert bias[3] == 0 and max(map(abs, bias)) < 2

    def likelihood(temperature: float, shift: tuple[float, ...]) -> float:
        return -float(torch.nn.functional.cross_entropy(logits[kept] / temperature + torch.tensor(shift), labels[kept]))

    assert likelihood(temperature, bias) >= likelihood(*fitted(logits[kept], labels[kept]))  # as it is written
    assert bias[1] - bias[4] == pytest.approx(0.5, abs=0.1)


def test_labels_that_no_temperature_fits() -> None:
    logits = torch.eye(3).repeat(100, 1)
    with pytest.raises(ValueError, match="no temperature fits these labels"):
        fitted(logits, logits.argmax(1))


def test_errors_are_those_of_their_definition() -> None:
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.55, 0.55])
    correct = np.array([True, True, True, False, True, False])
    assert calibration_error(confidence, correct) == pytest.approx((4 * 0.2 + 2 * 0.05) / 6)
    bins = {round(b.low, 3): (b.count, b.accuracy) for b in reliability(confidence, correct) if b.count}
    assert bins == {0.933: (4, 0.75), 0.533: (2, 0.5)}
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7]])
    wanted = np.mean([(2 * 0.4 + 1 * 0.3) / 3] * 2)  # two classes: one mirrors the other
    assert classwise_error(probabilities, np.array([0, 1, 1])) == pytest.approx(wanted)


def test_thresholds_keep_the_risk_and_as_much_as_they_can() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.3, 1, 20_000)
    correct = rng.uniform(size=20_000) < confidence
    found = thresholds(confidence, correct)
    assert len(found) > 5
    for t in found:
        kept = confidence >= t.confidence
        assert (~correct[kept]).mean() <= t.risk and kept.mean() == pytest.approx(t.coverage)
    assert [t.coverage for t in found] == sorted(t.coverage for t in found)
    assert (
        thresholds(np.full(4, 0.5), np.array([True, True, False, False]))[-1].coverage == 1
    )  # equal ones stay together


@pytest.fixture
def run(folder_data: Path, tmp_path: Path) -> Path:
    longer = {"train.steps": 60, "optim.lr": 3e-3, "run.val_every": 60, "run.checkpoint_every": 60}
    return panfpn.train(toy(folder_data, tmp_path / "run", **longer)).dir


def test_the_verb_writes_a_copy_whose_confidence_is_calibrated(
    run: Path, folder_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, scores, page = tmp_path / "sure.safetensors", tmp_path / "found.json", tmp_path / "page.html"
    assert main(["calibrate", str(run), "-o", str(out), "--json", str(scores), "--page", str(page)]) == 0
    said = capsys.readouterr().out
    assert "temperature" in said and "--reject" in said
    found = json.loads(scores.read_text())
    assert found["error"][1] < found["error"][0] and found["images"] == 3
    assert read_checkpoint(out, role="release")[1]["calibration"]["temperature"] == found["temperature"]
    shown = page.read_text()
    assert f"{100 * found['error'][1]:.2f}" in shown and "as sure as right" in shown and "{{" not in shown

    plain, sure = (Predictor.from_file(f, "cpu", "float32") for f in (run, out))
    data = open_dataset("folder", folder_data, "val")
    right = []
    for i in range(len(data)):
        sample = data.read(i)
        a, b = (p(sample.image, confidence=True) for p in (plain, sure))
        assert np.array_equal(a.labels, b.labels)  # one temperature moves none
        known = sample.target != IGNORE
        right.append((b.confidence[known], (b.labels == sample.target)[known]))
    confidence, correct = (np.concatenate(parts) for parts in zip(*right, strict=True))
    assert calibration_error(confidence, correct) == pytest.approx(found["error"][1], abs=0.01)

    row = found["thresholds"][-1]
    assert sure.reject(row["risk"]) == row["confidence"]
    first = data.read(0).image
    kept, whole = sure(first), plain(first)
    unsure = kept.labels == IGNORE
    assert np.array_equal(kept.labels[~unsure], whole.labels[~unsure])
    assert np.array_equal(
        unsure, Predictor.from_file(out, "cpu", "float32")(first, confidence=True).confidence < row["confidence"]
    )
    assert sure.digest != Predictor.from_file(out, "cpu", "float32").digest

    assert (
        main(["calibrate", str(out), "-o", str(tmp_path / "twice.safetensors"), "--data.root", str(folder_data)]) == 2
    )
    assert "is calibrated already" in capsys.readouterr().err
    seen = ["-o", str(tmp_path / "seen.safetensors"), "--data.val-split", "train"]
    for words in ([], ["--data.root", str(folder_data / "images" / "..")]):
        assert main(["calibrate", str(run), *seen, *words]) == 2
        assert "the model learnt from split 'train'" in capsys.readouterr().err
    assert main(["calibrate", str(run / "model.safetensors"), *seen, "--data.root", str(folder_data)]) == 0
    assert "learnt from split 'train', and scores there say" in capsys.readouterr().err

    ignoring = Predictor.from_file(out, "cpu", "float32")
    ignoring.task.table = replace(ignoring.table, ignore=())
    ignoring.reject(row["risk"])
    assert np.array_equal(ignoring(first).labels, kept.labels) and ignoring.table.ignore == (255,)
    photo = str(next((folder_data / "images/val").iterdir()))
    words = ["predict", photo, "-o", str(tmp_path / "out"), "--precision", "float32"]
    assert main([*words, "--model", str(out), "--reject", str(row["risk"])]) == 0
    assert main([*words, "--model", str(run), "--reject", "0.05"]) == 2
    assert "is not calibrated" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_an_exported_file_is_as_sure(folder_data: Path, tmp_path: Path, suffix: str) -> None:
    run, out, graph = (tmp_path / name for name in ("run", "sure.safetensors", f"graph{suffix}"))
    panfpn.train(toy(folder_data, run, **{"train.steps": 2}))
    found = Calibration(temperature=0.2, bias=(0.0, 0.0, 0.0), pixels=1, images=1, error=(0.0, 0.0),
                        class_error=(0.0, 0.0), diagram=((), ()), thresholds=())  # fmt: skip
    write_calibrated(out, run / "model.safetensors", found, {})
    image = open_dataset("folder", folder_data, "val").read(0).image
    export(out, graph, confidence=True, size=image.shape[:2])
    sure, plain, exported = (Predictor.from_file(f, "cpu", "float32") for f in (out, run, graph))
    ours, theirs = (p(image, confidence=True).confidence for p in (sure, exported))
    assert ours is not None and theirs is not None
    assert np.abs(ours - theirs).max() < 1e-5
    assert np.abs(ours - plain(image, confidence=True).confidence).max() > 1e-3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-o", "x.pth"], "calibrate writes a release file"),
        (["-o", "x.safetensors", "--pixels", "0"], "--pixels is 0"),
        (["-o", "x.safetensors", "--json", "x.txt"], "ends in .json"),
    ],
)
def test_wrong_options(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", str(SHIPPED), *words]) == 2
    assert said in capsys.readouterr().err


@pytest.fixture(scope="module")
def shipped() -> Predictor:
    return Predictor.from_file(device="cpu")


@pytest.mark.parametrize(("risk", "said"), [(0.0, "is none"), (1.5, "is none"), (0.05, "is not calibrated")])
def test_risks_that_cannot_be_kept(risk: float, said: str, shipped: Predictor) -> None:
    with pytest.raises(ValueError, match=said):
        shipped.reject(risk)


def test_a_panoptic_network_and_other_classes_are_refused(shipped: Predictor, folder_data: Path) -> None:
    with pytest.raises(ValueError, match="train id 1 is 'building' in the model and 'ground' in the data"):
        calibrate(shipped.task, open_dataset("folder", folder_data, "val"), progress=False)
