"""The configuration text of an mmsegmentation checkpoint: both generations, the settings that differ, and nonsense."""

import pytest

from panfpn.config import Data, Inference, Model, TrainConfig
from panfpn.weights.interop.mmseg_config import MMSegSettings, read_settings, write_settings

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
NORMALIZE = f"dict(type='Normalize', mean={list(MEAN)}, std={list(STD)}, to_rgb=True)"
PREPROCESSOR = f"dict(type='SegDataPreProcessor', mean={list(MEAN)}, std={list(STD)}, bgr_to_rgb=True)"
RESIZE = "dict(type='Resize', scale=(2048, 512), keep_ratio=True)"


def of_0x(*steps: str, views: str = "img_scale=(2048, 512), flip=False") -> str:
    return (
        f"data = dict(test=dict(pipeline=[dict(type='LoadImageFromFile'), dict(type='MultiScaleFlipAug', {views}, "
        f"transforms=[dict(type='Resize', keep_ratio=True), {', '.join(steps)}])]))"
    )


def of_1x(*steps: str, preprocessor: str = PREPROCESSOR) -> str:
    return f"model = dict(data_preprocessor={preprocessor})\ntest_pipeline = [{', '.join(steps)}]"


def test_both_generations() -> None:
    expected = MMSegSettings(mean=MEAN, std=STD, scale=(2048, 512))
    assert read_settings(of_0x(NORMALIZE)) == expected
    assert read_settings(of_1x(RESIZE)) == expected
    assert read_settings("") == MMSegSettings()


def test_what_is_tested_wins_over_what_is_defined() -> None:
    used = "test_dataloader = dict(dataset=dict(pipeline=[dict(type='Resize', scale=(640, 320), keep_ratio=True)]))"
    assert read_settings(f"{of_1x(RESIZE)}\n{used}").scale == (640, 320)


@pytest.mark.parametrize(
    ("text", "divisor", "stretch"),
    [
        (of_0x(NORMALIZE, "dict(type='Pad', size_divisor=32)"), 32, False),
        (of_0x("dict(type='AlignResize', keep_ratio=True, size_divisor=32)", NORMALIZE), 32, True),
        (of_1x(RESIZE, "dict(type='ResizeToMultiple', size_divisor=16)"), 16, True),
        (of_1x(RESIZE, preprocessor=PREPROCESSOR[:-1] + ", test_cfg=dict(size_divisor=32))"), 32, False),
        (of_1x(RESIZE, preprocessor=PREPROCESSOR[:-1] + ", size_divisor=32)"), 1, False),  # of training batches
    ],
)
def test_divisors(text: str, divisor: int, stretch: bool) -> None:
    settings = read_settings(text)
    assert (settings.size_divisor, settings.inference.stretch) == (divisor, stretch)


@pytest.mark.parametrize("place", ["model = dict(test_cfg={})", "test_cfg = {}"])  # 1.x and late 0.x; July 2020
def test_windows(place: str) -> None:
    slide = "dict(mode='slide', crop_size=(512, 1024), stride=(341, 683))"
    expected = Inference(mode="slide", window=(512, 1024), stride=(341, 683))
    assert read_settings(place.format(slide)).inference == expected
    square = "dict(mode='slide', crop_size=512, stride=341)"
    assert read_settings(place.format(square)).inference == Inference(
        mode="slide", window=(512, 512), stride=(341, 341)
    )
    with pytest.raises(ValueError, match=r"mode='slide', but crop_size and stride are \[\(512, 512\), None\]"):
        read_settings(place.format("dict(mode='slide', crop_size=512)"))
    assert read_settings(place.format("dict(mode='whole')")).inference == Inference()


def test_several_scales_and_mirror() -> None:
    settings = read_settings(of_0x(NORMALIZE, views="img_scale=(2048, 512), img_ratios=[0.5, 1.0], flip=True"))
    assert settings.inference == Inference(ratios=(0.5, 1.0), flip=True)
    assert read_settings(of_0x(NORMALIZE, views="img_scale=(8, 4), img_ratios=1.5")).inference.ratios == (1.5,)


@pytest.mark.parametrize(
    "text",
    [
        of_1x("dict(type='Resize', scale=(512, 512), keep_ratio=False)"),
        of_1x("dict(type='Resize', scale=(512, 512))"),  # 1.x stretches unless told otherwise
        of_0x(NORMALIZE).replace("keep_ratio=True", "keep_ratio=False"),
    ],
)
def test_stretching_to_the_test_size_is_said(text: str) -> None:
    assert "keep_ratio=False" in read_settings(text).notes[0]
    assert not read_settings(of_0x(NORMALIZE).replace("keep_ratio=True", "")).notes  # 0.x keeps the ratio by itself


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("model = dict(backbone=dict(style='caffe'))", "backbone.style is 'caffe' there and 'pytorch' here"),
        ("model = dict(backbone=dict(dilations=(1, 1, 2, 4)))", "backbone.dilations is (1, 1, 2, 4)"),
        ("model = dict(backbone=dict(strides=[1, 2, 1, 1]))", "backbone.strides is (1, 2, 1, 1)"),
        ("model = dict(backbone=dict(dcn=dict(type='DCN')))", "backbone.dcn is"),
        ("model = dict(backbone=dict(norm_cfg=dict(type='BN', eps=0.001)))", "backbone.norm_cfg.eps is 0.001"),
        ("model = dict(decode_head=dict(align_corners=True))", "decode_head.align_corners is True"),
        ("model = dict(decode_head=dict(type='UPerHead'))", "decode_head.type is 'UPerHead'"),
        ("model = dict(decode_head=dict(channels=64, norm_cfg=dict(type='GN', num_groups=8)))", "num_groups is 8"),
        ("model = dict(decode_head=dict(act_cfg=dict(type='GELU')))", "decode_head.act_cfg.type is 'GELU'"),
        ("model = dict(neck=dict(num_outs=5))", "neck.num_outs is 5 there and 4 here"),
        ("model = dict(neck=dict(norm_cfg=dict(type='BN')))", "neck.norm_cfg is {'type': 'BN'} there and None here"),
        ("model = dict(neck=dict(upsample_cfg=dict(mode='bilinear')))", "neck.upsample_cfg.mode is 'bilinear'"),
        (of_0x(NORMALIZE.replace("True", "False")), "it takes BGR images"),
        (of_1x(RESIZE, preprocessor=PREPROCESSOR.replace("True", "False")), "it takes BGR images"),
        (of_1x(RESIZE, preprocessor=PREPROCESSOR.replace(", bgr_to_rgb=True", "")), "it takes BGR images"),
    ],
)
def test_other_networks_are_refused(text: str, what: str) -> None:
    with pytest.raises(ValueError, match="its network differs from panfpn's") as caught:
        read_settings(text)
    assert what in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "model = dict(neck=dict(type='FPN', num_outs=4, norm_cfg=None, end_level=-1))",
        "model = dict(neck=dict(upsample_cfg=dict(mode='nearest')), decode_head=dict(act_cfg=dict(type='ReLU')))",
        "model = dict(decode_head=dict(channels=128, norm_cfg=dict(type='GN', num_groups=32)))",
        "model = dict(decode_head=dict(channels=48, norm_cfg=dict(type='GN', num_groups=16)))",
        "model = dict(decode_head=dict(num_classes=150, out_channels=150))",
        of_0x(NORMALIZE.replace(", to_rgb=True", "")),  # 0.x turns BGR into RGB by itself
    ],
)
def test_the_same_network_said_in_other_words(text: str) -> None:
    assert read_settings(text).notes == ()


@pytest.mark.parametrize(
    "text",
    [
        "model = 5\ndata = dict(test=[1])\ntest_pipeline = 'x'",
        "model = dict(backbone=ResNet(), neck=None, decode_head=[dict(type='FPNHead')], test_cfg=None)",
        "test_pipeline = [3, f(), dict(type='Normalize', mean='a', std=3), dict(transforms=7), dict(scale=('a', 2))]",
        "model = dict(decode_head=dict(dropout_ratio=half))",
        "a.b = 3\nc = d = 4\nimport os\nos.system('x')\nmodel = dict(**other)",
        "model = " + "dict(a=" * 60 + "1" + ")" * 60,
        "x = " + "1 + " * 5000 + "1",
    ],
)
def test_nonsense_says_nothing(text: str) -> None:
    settings = read_settings(text)
    assert (settings.mean, settings.scale, settings.dropout) == (None, None, 0.1)
    assert settings.inference == Inference()


@pytest.mark.parametrize(
    ("data", "inference"),
    [
        (Data(scale=(2048, 1024), size_divisor=1), Inference()),
        (Data(scale=None, size_divisor=32), Inference(mode="slide", window=(256, 512), stride=(171, 341))),
        (Data(scale=(960, 720), size_divisor=16), Inference(stretch=True)),
    ],
)
def test_what_is_written_is_read(data: Data, inference: Inference) -> None:
    model = Model(mean=(1.0, 2.5, 3.0), std=(60.0, 61.0, 62.0), dropout=0.25)
    settings = read_settings(write_settings(TrainConfig(model=model, data=data, inference=inference)))
    assert settings == MMSegSettings(
        mean=model.mean, std=model.std, scale=data.scale, size_divisor=data.size_divisor, dropout=0.25,
        inference=inference,
    )  # fmt: skip
