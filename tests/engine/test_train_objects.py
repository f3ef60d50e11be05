"""Objects of the user's own in the place of names: data, networks, losses, loggers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import panfpn
from panfpn import LabelTable, SemanticFPN, TrainConfig
from panfpn.data import from_pairs
from small_backbone import OneConvolutionALevel

TABLE = LabelTable.from_dict({
    "name": "halves", "classes": [{"name": "top", "value": 3}, {"name": "bottom", "value": 7}], "ignore": [255],
})  # fmt: skip


def pairs(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rng, mask = np.random.default_rng(count), np.full((64, 64), 3, np.uint8)
    mask[32:], mask[:2] = 7, 255
    return [
        (rng.integers(0, 90, (64, 64, 3)).astype(np.uint8) + 15 * mask[..., None] % 120, mask) for _ in range(count)
    ]


def network() -> SemanticFPN:
    torch.manual_seed(0)
    return SemanticFPN(OneConvolutionALevel(), 2, fpn_channels=8, head_channels=8)


def settings(folder: Path, **changes: Any) -> TrainConfig:
    return TrainConfig().changed(**{
        "data.crop": (64, 64), "data.num_workers": 0, "train.steps": 4, "train.batch_size": 2, "run.device": "cpu",
        "train.precision": "float32", "run.log_every": 2, "run.dir": folder, **changes,
    })  # fmt: skip


def data() -> dict[str, Any]:
    return {"train_data": from_pairs(pairs(6), TABLE), "val_data": from_pairs(pairs(3), TABLE)}


def half_loss(logits: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"half": F.cross_entropy(logits, target[:, ::4, ::4].long(), ignore_index=-1) / 2}


class Recorder:
    def __init__(self) -> None:
        self.calls: list[str] = []
        self.first_steps: list[int] = []

    def start(self, run: Any) -> None:
        self.calls.append("start")
        self.first_steps.append(run.first_step)

    def scalars(self, step: int, values: Any) -> None:
        self.calls.append(f"scalars {step}" if "train/loss" in values or "train/loss/half" in values else "val")

    def image(self, step: int, name: str, picture: np.ndarray) -> None:
        assert picture.dtype == np.uint8 and picture.shape[2] == 3

    def end(self) -> None:
        self.calls.append("end")


def test_a_run_of_objects_is_released_and_read_with_its_network(tmp_path: Path) -> None:
    recorder, net = Recorder(), network()
    result = panfpn.train(settings(tmp_path / "run"), model=net, loss=half_loss, loggers=[recorder], **data())
    assert result.step == 4 and result.scores is not None and result.scores.names == ("top", "bottom")
    assert recorder.calls[0] == "start" and recorder.calls[-1] == "end" and recorder.first_steps == [0]
    assert "scalars 2" in recorder.calls
    with pytest.raises(ValueError, match=r"its backbone is small_backbone\.OneConvolutionALevel, which no file holds"):
        panfpn.Predictor.from_file(tmp_path / "run")
    predictor = panfpn.Predictor.from_file(tmp_path / "run", "cpu", "float32", model=network())
    images = [image for image, _ in pairs(3)]
    maps = predictor([*images, images[0][:40]], batch_size=2)
    assert [m.labels.shape for m in maps] == [(64, 64)] * 3 + [(40, 64)]
    assert np.array_equal(maps[0].labels, predictor(images[0]).labels)
    assert panfpn.evaluate(predictor, pairs(3)).miou == pytest.approx(result.value)


def test_it_goes_on_only_with_the_same_objects(tmp_path: Path) -> None:
    class StopAfter(Recorder):
        def scalars(self, step: int, values: Any) -> None:
            raise KeyboardInterrupt  # not an error of the logger's: the run stops

    with pytest.raises(KeyboardInterrupt):
        panfpn.train(settings(tmp_path / "run", run__checkpoint_every=1), model=network(), loss=half_loss,
                     loggers=[StopAfter()], **data())  # fmt: skip
    with pytest.raises(ValueError, match=r"was started with objects .* train_data=.*model=… \(a Semantic"):
        panfpn.train(resume=tmp_path / "run")
    with pytest.raises(ValueError, match=r"loss=… \(a function\)"):
        panfpn.train(resume=tmp_path / "run", model=network(), **data())
    again = Recorder()
    result = panfpn.train(resume=tmp_path / "run", model=network(), loss=half_loss, loggers=[again], **data())
    assert result.step == 4 and not result.interrupted
    plain = panfpn.train(settings(tmp_path / "plain", data__dataset="scenes", data__scenes=(4, 1),
                                  model__backbone="test_resnet", model__fpn_channels=8, train__steps=1))  # fmt: skip
    with pytest.raises(ValueError, match="was started without loss; resume it without"):
        panfpn.train(resume=plain.dir, loss=half_loss)


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ({"train_data": 3, "val_data": 4}, "int"),
        ({"train_data": from_pairs(pairs(2), TABLE)}, "train_data and val_data go together"),
        ({"model": torch.nn.Linear(2, 2)}, "model is a Linear; give a SemanticFPN or a PanopticFPN"),
        ({"loss": lambda logits, target: 3.0}, "float"),
    ],
)
def test_what_is_no_such_object(objects: dict[str, Any], message: str, tmp_path: Path) -> None:
    given = {"model": network(), **data(), **objects}
    if "train_data" in objects and "val_data" not in objects:
        del given["val_data"]
    with pytest.raises(ValueError, match=message):
        panfpn.train(settings(tmp_path / "run"), **given)


def test_the_two_data_sets_must_mean_the_same(tmp_path: Path) -> None:
    classes = [{"name": "top", "value": 3}, {"name": "floor", "value": 7}]
    other = LabelTable.from_dict({"name": "rooms", "classes": classes, "ignore": [255]})
    given = data() | {"val_data": from_pairs(pairs(3), other)}
    with pytest.raises(ValueError, match="train id 1 is 'bottom' in 'halves' and 'floor' in 'rooms'"):
        panfpn.train(settings(tmp_path / "run"), model=network(), **given)
    assert not (tmp_path / "run").exists()


def test_the_label_table_must_fit_the_network(tmp_path: Path) -> None:
    three = SemanticFPN(OneConvolutionALevel(), 3, fpn_channels=8, head_channels=8)
    with pytest.raises(ValueError, match=r"model\.num_classes is 3, but label table 'halves' has 2 classes"):
        panfpn.train(settings(tmp_path / "run"), model=three, **data())
