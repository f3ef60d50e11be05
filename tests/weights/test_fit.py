"""What of a release a network takes over, and that the rest is told with its reason."""

from pathlib import Path

import pytest
import torch

from panfpn.config import Model, TrainConfig
from panfpn.labels import LabelTable
from panfpn.weights import Release, fitting

CAMVID = LabelTable.named("camvid")
OF_CLASSES = ("head.classifier.",)


def release(**shapes: tuple[int, ...]) -> Release:
    tensors = {name.replace("__", "."): torch.full(shape, 2.0) for name, shape in shapes.items()}
    return Release(
        file=Path("m.safetensors"), config=TrainConfig(model=Model(backbone="resnet18")), table=CAMVID, tensors=tensors
    )


MODEL = release(backbone__w=(3, 3), fpn__lateral=(8, 3), fpn__output=(8, 8), head__classifier__weight=(11, 8))


def network(**shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    return {name.replace("__", "."): torch.zeros(shape) for name, shape in shapes.items()}


def test_everything_fits_the_same_network() -> None:
    wanted = {name: torch.zeros_like(tensor) for name, tensor in MODEL.tensors.items()}
    fit = fitting(MODEL, wanted, CAMVID, of_classes=OF_CLASSES, backbone="resnet18")
    assert fit.tensors.keys() == wanted.keys() and not fit.left_out and not fit.missing
    assert fit.tensors["backbone.w"] is MODEL.tensors["backbone.w"]
    assert fit.summary() == "4 of its 4 tensors are taken over"


def test_what_does_not_fit_is_told_with_its_reason() -> None:
    wanted = network(
        backbone__w=(3, 3), fpn__lateral=(4, 3), head__classifier__weight=(11, 8), rpn__conv=(8, 8), rpn__bias=(8,)
    )
    others = LabelTable.from_dict({"classes": [{"name": f"c{k}", "value": k} for k in range(11)]})
    fit = fitting(MODEL, wanted, others, of_classes=OF_CLASSES)
    assert list(fit.tensors) == ["backbone.w"]
    assert fit.left_out == {
        "fpn.lateral": "of another shape", "fpn.output": "which this network does not have",
        "head.classifier.weight": "as they are of other classes",
    }  # fmt: skip
    assert fit.missing == ("fpn.lateral", "head.classifier.weight", "rpn.conv", "rpn.bias")
    text = fit.summary()
    assert text.startswith("1 of its 4 tensors are taken over; ")
    for part in ("1 left out, of another shape: fpn.lateral", "4 of the network start anew: fpn.lateral, head.classif"):
        assert part in text
    assert "\n" not in text and text.endswith("rpn.conv, …")


def test_classes_in_another_order_are_other_classes() -> None:
    wanted = {name: torch.zeros_like(tensor) for name, tensor in MODEL.tensors.items()}
    entries = CAMVID.to_dict()
    turned = LabelTable.from_dict(entries | {"classes": entries["classes"][::-1]})
    assert list(fitting(MODEL, wanted, turned, of_classes=OF_CLASSES).left_out) == ["head.classifier.weight"]
    assert not fitting(MODEL, wanted, turned).left_out  # nothing of it means classes


def test_another_backbone_is_refused() -> None:
    with pytest.raises(ValueError, match=r"m\.safetensors: has backbone 'resnet18', but model\.backbone is 'resnet50'"):
        fitting(MODEL, {}, CAMVID, backbone="resnet50")
    assert not fitting(MODEL, {}, CAMVID, backbone=None).tensors  # a module of one's own has no name
