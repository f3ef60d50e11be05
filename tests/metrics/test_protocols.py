"""Other evaluators' scores: what the peers themselves say, and what sets them apart.

The numbers are what the peers printed for the same arrays:
    python benchmarks/protocols.py --folder DIR --golden
(mmsegmentation 1.2.2; detectron2 0.5 with the mIoU rule of main; cityscapesScripts 2.3.0; mean_iou.py of Hugging Face
evaluate; segmentation_models_pytorch 0.6.0). The same script compares 40 more cases of up to 150 classes.
"""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from panfpn.choices import PROTOCOLS
from panfpn.labels import IGNORE
from panfpn.metrics import ConfusionMatrix, ImageRows, SemanticScores

NAN = float("nan")

# Of six classes: 0 and 1 as usual, 2 never hit, 3 never predicted, 4 never true, 5 absent; 6 and 9 are no class.
IMAGES = [
    (np.array([[0, 0, 1, 1], [0, 1, 1, 4], [0, 6, 2, 9]]), np.array([[0, 0, 1, 0], [0, 1, 1, 1], [-1, 0, 3, 2]])),
    (np.array([[1, 1, 0], [0, 0, 1]]), np.array([[1, 6, 9], [0, 2, 1]])),
    (np.array([[0, 1]]), np.array([[-1, -1]])),
]
GOLDEN: dict[str, dict[str, Any]] = {
    "mmseg": {
        "aAcc": 60.0, "mIoU": 22.5, "mAcc": 37.5, "mDice": 28.72, "mFscore": 71.79, "mPrecision": 34.52,
        "mRecall": 37.5,
        "IoU": [50, 62.5, 0, 0, 0, NAN], "Acc": [66.666672, 83.333328, 0, 0, NAN, NAN],
        "Dice": [66.666672, 76.923080, 0, 0, 0, NAN], "Fscore": [66.666672, 76.923073, NAN, NAN, NAN, NAN],
        "Precision": [66.666672, 71.428574, 0, NAN, 0, NAN], "Recall": [66.666672, 83.333328, 0, 0, NAN, NAN],
    },
    "detectron2": {
        "mIoU": 34.523809523809526, "fwIoU": 58.60805860805861, "mACC": 40.833333333333336, "pACC": 69.23076923076923,
        "IoU": [66.66666666666666, 71.42857142857143, 0, 0, NAN, NAN], "ACC": [80, 83.33333333333334, 0, 0, NAN, NAN],
    },
    "cityscapes": {
        "averageScoreClasses": 0.2571428571428571,
        "classScores": [0.5714285714285714, 0.7142857142857143, 0, 0, 0, NAN],
    },
    "hf": {
        "mean_iou": 0.225, "mean_accuracy": 0.375, "overall_accuracy": 0.6,
        "per_category_iou": [0.5, 0.625, 0, 0, 0, NAN],
        "per_category_accuracy": [0.6666666666666666, 0.8333333333333334, 0, 0, NAN, NAN],
    },
    "smp": {
        "iou_score/micro": 0.4285714328, "iou_score/macro": 0.3541666567, "iou_score/micro-imagewise": 0.6190476418,
        "iou_score/macro-imagewise": 0.6777777672, "f1_score/micro": 0.6000000238, "f1_score/macro": 0.4059829414,
        "f1_score/micro-imagewise": 0.7333333492, "f1_score/macro-imagewise": 0.7111110687,
        "accuracy/micro": 0.8823529482, "accuracy/macro": 0.8823528886, "accuracy/micro-imagewise": 0.9225589633,
        "accuracy/macro-imagewise": 0.9225589633, "precision/micro": 0.6000000238, "precision/macro": 0.5634920597,
        "precision/micro-imagewise": 0.7222222686, "precision/macro-imagewise": 0.8194444776,
        "recall/micro": 0.6000000238, "recall/macro": 0.5833333135, "recall/micro-imagewise": 0.7651515007,
        "recall/macro-imagewise": 0.7972221971,
        "iou_score": [0.5, 0.625, 0, 0, 0, 1], "f1_score": [0.6666666865, 0.7692307830, 0, 0, 0, 1],
        "accuracy": [0.7647058964, 0.8235294223, 0.8235294223, 0.9411764741, 0.9411764741, 1],
        "precision": [0.6666666865, 0.7142857313, 0, 1, 0, 1], "recall": [0.6666666865, 0.8333333135, 0, 0, 1, 1],
    },
}  # fmt: skip
TOLERANCE = {"mmseg": 2e-5, "detectron2": 1e-12, "cityscapes": 1e-14, "hf": 1e-14, "smp": 1e-7}  # float32 in two


def scores_of(images: list[tuple[np.ndarray, np.ndarray]], num_classes: int) -> SemanticScores:
    matrix = ConfusionMatrix(num_classes, len(images))
    for i, (found, true) in enumerate(images):
        matrix.update(found, true, i)
    rows = ImageRows(tuple(map(str, range(len(images)))), matrix.rows)
    return SemanticScores(tuple(map(str, range(num_classes))), matrix.counts, rows)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_peers_scores(name: str) -> None:
    found = scores_of(IMAGES, 6).by_protocol(name)
    assert found.name == name
    assert set(found.summary) | set(found.classes) == set(GOLDEN[name])
    for key, value in found.summary.items():
        # mmsegmentation rounds its means to two digits
        assert (round(value, 2) if name == "mmseg" else value) == pytest.approx(GOLDEN[name][key], abs=TOLERANCE[name])
    for key, values in found.classes.items():
        np.testing.assert_allclose(values, GOLDEN[name][key], rtol=0, atol=TOLERANCE[name], err_msg=key)


@pytest.mark.parametrize("seed", range(3))
def test_mmsegmentations_printed_digits(seed: int, fill: ModuleType, golden_files: Path) -> None:
    """The maps of tests/golden/make_mmseg.py, to every digit that mmsegmentation 1.2.2 printed of them."""
    true, found = fill.labels(90, 120, 19, seed), fill.labels(90, 120, 19, seed + 100, ignore=0)
    right = np.random.RandomState(seed).uniform(size=true.shape) < 0.6
    found = np.where(right, np.where(true == 255, 3, true), found)
    true[true == 5] = 6
    scores = scores_of([(found, np.where(true == 255, IGNORE, true.astype(np.int16)))], 19)
    wanted = json.loads((golden_files / "mmseg_metrics.json").read_text())[str(seed)]
    summary = scores.by_protocol("mmseg").summary
    assert {key: round(summary[key], 2) for key in wanted} == {key: round(value, 2) for key, value in wanted.items()}


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("num_classes", [1, 2, 19])
def test_perfect_prediction_scores_the_most(name: str, num_classes: int) -> None:
    true = np.random.default_rng(0).integers(IGNORE, num_classes, (9, 11))
    found = scores_of([(true.clip(0), true)], num_classes).by_protocol(name)
    assert set(found.summary.values()) == {100.0 if found.percent else 1.0}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_order_of_images_does_not_matter(name: str) -> None:
    forward, backward = (scores_of(images, 6).by_protocol(name) for images in (IMAGES, IMAGES[::-1]))
    assert forward.summary == pytest.approx(backward.summary, nan_ok=True, rel=1e-15)


def test_nothing_labelled() -> None:
    nothing = scores_of([(np.zeros((2, 3), int), np.full((2, 3), IGNORE))], 2)
    assert all(
        np.isnan(list(nothing.by_protocol(name).summary.values())).all() for name in ("mmseg", "cityscapes", "hf")
    )
    detectron2 = nothing.by_protocol("detectron2").summary
    assert detectron2.pop("fwIoU") == 0 and np.isnan(list(detectron2.values())).all()  # a sum over no classes
    smp = nothing.by_protocol("smp").summary
    assert {key for key, value in smp.items() if np.isnan(value)} == {key for key in smp if key.endswith("/micro")}
    assert {value for value in smp.values() if not np.isnan(value)} == {1}


def test_image_wise_scores_need_images() -> None:
    counts = ConfusionMatrix(2).counts
    with pytest.raises(ValueError, match="protocol 'smp' needs the counts of each image"):
        SemanticScores(("a", "b"), counts).by_protocol("smp")


def test_unknown_protocol() -> None:
    with pytest.raises(ValueError, match="protocol is 'coco'; choose from mmseg, detectron2, cityscapes, hf, smp"):
        scores_of(IMAGES, 6).by_protocol("coco")
