from pathlib import Path

import pytest
import torch

from panfpn import build
from panfpn.config import Model, TrainConfig
from panfpn.data.layouts.scenes import scenes_table
from panfpn.labels import LabelTable
from panfpn.weights.release import write_release

MODEL = Model(backbone="resnet18", fpn_channels=16, head_channels=16)


def resolved(model: Model, table: LabelTable) -> TrainConfig:
    return build.resolve(TrainConfig(model=model).changed(**{"run.device": "cpu", "train.precision": "float32"}), table)


def test_resolve_makes_every_open_choice_once() -> None:
    config = resolved(MODEL, scenes_table())
    assert config.model.num_classes == 9 and config.run.device == "cpu"
    assert config.model.mean == pytest.approx((123.675, 116.28, 103.53))
    assert config.model.std == pytest.approx((58.395, 57.12, 57.375))
    assert build.resolve(config, scenes_table()) == config  # nothing is open any more


@pytest.mark.parametrize("same_classes", [True, False])
def test_fine_tuning_takes_over_what_fits(same_classes: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = resolved(MODEL, scenes_table())
    source = build.build_task(config, scenes_table())
    write_release(tmp_path / "m.safetensors", source.model.state_dict(), config, scenes_table(), scores={}, source={})
    table = scenes_table() if same_classes else LabelTable.named("camvid")
    torch.manual_seed(1)
    start = resolved(Model(**{**vars(MODEL), "start_from": str(tmp_path / "m.safetensors")}), table)
    notes: list[str] = []
    tuned = build.build_task(start, table, say=notes.append).model.state_dict()
    total = len(source.model.state_dict())
    assert f"{total if same_classes else total - 2} of its {total} tensors are taken over" in notes[0]
    for name, tensor in source.model.state_dict().items():
        if not name.startswith("head.classifier"):
            assert torch.equal(tuned[name], tensor), name
        elif same_classes:
            assert torch.equal(tuned[name], tensor)
        else:
            assert tuned[name].shape[0] == 11
    with pytest.raises(ValueError, match=r"m\.safetensors: has backbone 'resnet18', but model\.backbone is 'resnet34'"):
        build.build_task(start.changed(model__backbone="resnet34"), table)


def test_what_cannot_be_built() -> None:
    with pytest.raises(ValueError, match=r"model\.mean has 1 entries for 3 input channels"):
        resolved(Model(backbone="resnet18", mean=(1.0,)), scenes_table())
    with pytest.raises(ValueError, match="no backbone 'resnet5'"):
        resolved(Model(backbone="resnet5"), scenes_table())


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"bad: tensor bias holds values that are not finite"):
        build.load_state(model, model.state_dict() | {"bias": torch.tensor([0.0, float("nan")])}, Path("bad"))
