"""mmdetection's Panoptic FPN: names, the order of its channels, and what its configuration says.

The names are those of mmdet 3.3.0's own network (383 tensors for ResNet-50), written down from its state dict.
"""

import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from panfpn.config import Inference, Model
from panfpn.labels import LabelClass, LabelTable
from panfpn.models import PanopticFPN
from panfpn.weights.interop import read_foreign_model
from panfpn.weights.interop.imported import panoptic_shapes
from panfpn.weights.interop.mmdet import mmdet_name, read_mmdet

State = dict[str, torch.Tensor]
TABLE = LabelTable(
    name="toy",
    classes=tuple(
        LabelClass(name=name, color=(k, 0, 0), thing=name in "ab", values=(k + 1,)) for k, name in enumerate("axbyz")
    ),
)
NARROW = Model(
    architecture="PanopticFPN", backbone="resnet50", num_classes=5, fpn_channels=8, head_channels=32, norm="group",
    box_channels=6, mask_channels=4,
)  # fmt: skip

# What mmdet 3.3.0 stores, cut to what matters; test_cfg as in configs/panoptic_fpn.
CONFIG = """
model = dict(
    backbone=dict(depth=50, frozen_stages=1, norm_cfg=dict(requires_grad=True, type='BN'), norm_eval=True,
        num_stages=4, out_indices=(0, 1, 2, 3,), style='pytorch', type='ResNet'),
    data_preprocessor=dict(bgr_to_rgb=True, mean=[123.675, 116.28, 103.53,], pad_size_divisor=32,
        std=[58.395, 57.12, 57.375,], type='DetDataPreprocessor'),
    neck=dict(in_channels=[256, 512, 1024, 2048,], num_outs=5, out_channels=256, type='FPN'),
    panoptic_fusion_head=dict(num_stuff_classes=53, num_things_classes=80, type='HeuristicFusionHead'),
    roi_head=dict(
        bbox_head=dict(bbox_coder=dict(target_means=[0.0, 0.0, 0.0, 0.0,], target_stds=[0.1, 0.1, 0.2, 0.2,],
            type='DeltaXYWHBBoxCoder'), num_classes=80, reg_class_agnostic=False, type='Shared2FCBBoxHead'),
        bbox_roi_extractor=dict(featmap_strides=[4, 8, 16, 32,], out_channels=256,
            roi_layer=dict(output_size=7, sampling_ratio=0, type='RoIAlign'), type='SingleRoIExtractor'),
        mask_roi_extractor=dict(roi_layer=dict(output_size=14, sampling_ratio=0, type='RoIAlign'))),
    rpn_head=dict(anchor_generator=dict(ratios=[0.5, 1.0, 2.0,], scales=[8,], strides=[4, 8, 16, 32, 64,],
        type='AnchorGenerator'), type='RPNHead'),
    semantic_head=dict(end_level=4, norm_cfg=dict(num_groups=32, requires_grad=True, type='GN'), start_level=0,
        type='PanopticFPNHead'),
    test_cfg=dict(panoptic=dict(mask_overlap=0.5, stuff_area_limit=4096),
        rcnn=dict(mask_thr_binary=0.5, max_per_img=100, nms=dict(class_agnostic=True, iou_threshold=0.5, type='nms'),
            score_thr=0.6), rpn=dict(nms_pre=1000)),
    type='PanopticFPN')
test_pipeline = [
    dict(backend_args=None, type='LoadImageFromFile'),
    dict(keep_ratio=True, scale=(1333, 800,), type='Resize'),
]
"""


@pytest.fixture(scope="module")
def narrow() -> State:
    torch.manual_seed(0)
    network = PanopticFPN(
        "resnet50", TABLE, fpn_channels=8, head_channels=32, norm="group", box_channels=6, mask_channels=4
    )
    return {
        name: torch.rand_like(t) + 0.5 if t.is_floating_point() else t + 7 for name, t in network.state_dict().items()
    }


@pytest.fixture
def theirs(narrow: State) -> State:
    state = {mmdet_name(name): t for name, t in narrow.items()}
    for leaf in ("weight", "bias"):
        ours = narrow[f"head.classifier.{leaf}"]
        state[f"semantic_head.conv_logits.{leaf}"] = torch.cat([ours[1:], ours[:1]])  # stuff, then things
    return state


def read(state: State, path: Path, config: str | None = CONFIG, **options: Any) -> Any:
    meta = {"mmdet_version": "3.3.0", "dataset_meta": {}} | ({} if config is None else {"cfg": config})
    torch.save({"meta": meta, "state_dict": state, "message_hub": {}}, path)
    return read_foreign_model(path, **options)


def test_every_tensor_lands(theirs: State, narrow: State, tmp_path: Path) -> None:
    found = read(theirs, tmp_path / "x.pth", labels=TABLE)
    assert (found.format, found.notes) == ("mmdetection", ())
    assert found.weights.keys() == narrow.keys()
    assert all(torch.equal(found.weights[name], tensor) for name, tensor in narrow.items())
    assert found.config.model.backbone == "resnet50" and found.config.model.architecture == "PanopticFPN"
    assert found.config.data.scale == (1333, 800) and found.config.data.size_divisor == 32
    assert found.config.inference == Inference(confidence=0.6, nms_over_classes=True)
    bare = read(theirs, tmp_path / "x.pth", None, labels=TABLE)
    assert bare.config == found.config


def test_the_names_of_the_peers_own_network() -> None:
    names = {mmdet_name(name) for name in panoptic_shapes(NARROW, TABLE)}
    assert len(names) == 383
    assert {n for n in names if not n.startswith(("backbone.", "neck.", "semantic_head.conv_up"))} == {
        f"{module}.{leaf}"
        for module in (
            "rpn_head.rpn_conv", "rpn_head.rpn_cls", "rpn_head.rpn_reg", "roi_head.bbox_head.fc_cls",
            "roi_head.bbox_head.fc_reg", "roi_head.bbox_head.shared_fcs.0", "roi_head.bbox_head.shared_fcs.1",
            *(f"roi_head.mask_head.convs.{k}.conv" for k in range(4)), "roi_head.mask_head.upsample",
            "roi_head.mask_head.conv_logits", "semantic_head.conv_logits",
        )
        for leaf in ("weight", "bias")
    }  # fmt: skip
    assert names >= {
        "backbone.conv1.weight", "backbone.bn1.num_batches_tracked", "backbone.layer4.2.bn3.running_var",
        "backbone.layer2.0.downsample.0.weight", "backbone.layer2.0.downsample.1.bias",
        "neck.lateral_convs.3.conv.bias", "neck.fpn_convs.0.conv.weight",
        "semantic_head.conv_upsample_layers.0.conv.0.conv.weight",
        "semantic_head.conv_upsample_layers.3.conv.2.gn.bias",
    }  # fmt: skip


def test_coco_is_known_by_its_numbers(fill: ModuleType) -> None:
    shapes = panoptic_shapes(replace(NARROW, num_classes=133), LabelTable.named("coco_panoptic"))
    state = {mmdet_name(n): torch.zeros(()).expand(shape) for n, shape in shapes.items()}
    logits = torch.from_numpy(fill.values("semantic_head.conv_logits.bias", (54,)))
    found = read_mmdet(state | {"semantic_head.conv_logits.bias": logits}, Path("x.pth"))
    assert found.table == LabelTable.named("coco_panoptic")
    assert np.array_equal(found.weights["head.classifier.bias"], np.concatenate([logits[53:], logits[:53]]))


def test_its_settings(theirs: State, tmp_path: Path) -> None:
    caffe = CONFIG.replace("'pytorch'", "'caffe'").replace("bgr_to_rgb=True", "bgr_to_rgb=False")
    caffe = caffe.replace("[58.395, 57.12, 57.375,]", "[1.0, 1.0, 1.0]").replace(
        "[123.675, 116.28, 103.53,]", "[3, 2, 1]"
    )
    found = read(theirs, tmp_path / "x.pth", caffe, labels=TABLE).config.model
    assert found.backbone == "resnet50_msra" and found.mean == (1, 2, 3)
    first = read(theirs, tmp_path / "x.pth", caffe, labels=TABLE).weights["backbone.body.conv1.weight"]
    factors = torch.tensor(found.std).view(3, 1, 1)
    torch.testing.assert_close(first, theirs["backbone.conv1.weight"].flip(1) * factors)
    other = CONFIG.replace("scales=[8,]", "scales=[4]").replace("(1333, 800,)", "(640, 480)").replace("0.6", "0.25")
    other = other.replace("class_agnostic=True", "class_agnostic=False").replace("4096", "100")
    config = read(theirs, tmp_path / "x.pth", other, labels=TABLE).config
    assert config.model.anchor_scale == 4 and config.data.scale == (640, 480)
    assert config.inference == Inference(confidence=0.25, stuff_area=100)
    unread = read(theirs, tmp_path / "x.pth", "model = {", labels=TABLE)
    assert unread.notes == ("its configuration text is not Python, so nothing in it was looked at",)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("type='ResNet'", "type='ResNeXt'", "backbone.type is 'ResNeXt' there and 'ResNet' here"),
        ("strides=[4, 8, 16, 32, 64,]", "strides=[8, 16, 32, 64, 128]", "rpn_head.anchor_generator.strides is (8, 16,"),
        ("scales=[8,]", "scales=[4, 8]", "rpn_head.anchor_generator.scales is [4, 8]"),
        ("[0.1, 0.1, 0.2, 0.2,]", "[1, 1, 1, 1]", "roi_head.bbox_head.bbox_coder.target_stds"),
        ("score_thr=0.6", "score_thr='high'", "inference.confidence is 'high'"),
        ("score_thr=0.6", "score_thr=6", "inference.confidence is 6"),
    ],
)
def test_another_network_is_refused_with_the_difference(
    old: str, new: str, message: str, theirs: State, tmp_path: Path
) -> None:
    assert old in CONFIG
    with pytest.raises(ValueError, match=rf"x\.pth: .*{re.escape(message)}"):
        read(theirs, tmp_path / "x.pth", CONFIG.replace(old, new), labels=TABLE)


def test_what_does_not_fit_is_listed(theirs: State) -> None:
    path = Path("x.pth")
    for state, message in (
        (
            {n: t for n, t in theirs.items() if "semantic" not in n},
            "a network of mmdetection, but not its Panoptic FPN",
        ),
        ({n: t for n, t in theirs.items() if "upsample.bias" not in n}, "1 missing: roi_head.mask_head.upsample.bias"),
        (theirs | {"roi_head.mask_iou_head.fcs.0.weight": torch.ones(1)}, "1 unexpected: roi_head.mask_iou_head.fcs.0"),
        ({n: t for n, t in theirs.items() if not n.startswith("roi")}, "without the heads of its Panoptic FPN"),
    ):
        with pytest.raises(ValueError, match=rf"^x\.pth: .*{re.escape(message)}"):
            read_mmdet(state, path, TABLE)
    with pytest.raises(ValueError, match="has 2 classes of things and 4 semantic channels; say what they are"):
        read_mmdet(theirs, path)
