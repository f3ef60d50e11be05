"""Recipes: each builds, says how it is run, takes changes, and is what was published."""

import inspect
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from panfpn import build, recipes
from panfpn.cli import main
from panfpn.config import Data, Loss, Model, Optim, TrainConfig
from panfpn.data.loader import DrawSampler
from panfpn.engine.optim import build_optimizer, lr_at
from panfpn.engine.time_budget import Plan
from panfpn.labels import LabelTable
from panfpn.models import Backbone, SemanticFPN
from panfpn.models.timm_weights import has_weights
from panfpn.tasks.panoptic import PanopticTask


def test_every_public_function_that_returns_a_configuration_is_listed() -> None:
    makers = [n for n, f in vars(recipes).items()
              if inspect.isfunction(f) and inspect.signature(f).return_annotation is TrainConfig]  # fmt: skip
    assert sorted(makers) == sorted(["auto", *recipes.NAMES])  # which takes data


@pytest.mark.parametrize("name", recipes.NAMES)
def test_recipe_builds(name: str) -> None:
    config = recipes.find(name)()
    assert isinstance(config, TrainConfig)
    assert config.run.name == name  # the folder of the run tells the recipe


@pytest.mark.parametrize("name", recipes.NAMES)
def test_recipe_takes_changes_and_keeps_the_rest(name: str) -> None:
    plain = recipes.find(name)()
    changed = recipes.find(name)(optim__lr=0.125, **{"run.name": "mine"})
    assert (changed.optim.lr, changed.run.name) == (0.125, "mine")
    assert changed.changed(optim__lr=plain.optim.lr, run__name=name) == plain


@pytest.mark.parametrize("name", recipes.NAMES)
def test_recipe_names_the_nearest_key(name: str) -> None:
    with pytest.raises(ValueError, match=r"unknown key optim\.lrr; did you mean optim\.lr"):
        recipes.find(name)(optim__lrr=1)


@pytest.mark.parametrize("name", recipes.NAMES)
def test_recipe_converts_and_checks_values(name: str) -> None:
    assert recipes.find(name)(data__root="some/dir").data.root == Path("some/dir")
    with pytest.raises(ValueError, match=r"^train\.steps is 'many'; input should be a valid integer, [^\n]*$"):
        recipes.find(name)(train__steps="many")
    with pytest.raises(ValueError, match=r"^optim\.name is 'adam'; did you mean adamw\? \(choices: sgd, adamw\)$"):
        recipes.find(name)(optim__name="adam")


@pytest.mark.parametrize("name", recipes.NAMES)
def test_docstring_holds_the_command(name: str) -> None:
    lines = (inspect.getdoc(recipes.find(name)) or "").splitlines()
    assert lines[0] == recipes.summary(name)
    assert lines[0].endswith(".")
    assert [line for line in lines if line.startswith(f"Command: panfpn train {name}")]


@pytest.mark.parametrize("name", recipes.NAMES)
def test_description_is_docstring_and_settings(tmp_path: Path, name: str) -> None:
    text = recipes.describe(name)
    doc = inspect.getdoc(recipes.find(name)) or ""
    assert text.startswith(doc)
    path = tmp_path / "r.yaml"
    path.write_text(text.removeprefix(doc))
    assert TrainConfig.from_yaml(path) == recipes.find(name)()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("scene", "did you mean scenes?"),
        ("camvid", "did you mean camvid_lite0?"),
        ("zzz", "there are scenes, camvid_lite0"),
        ("find", "no recipe 'find'"),  # a function of the module, and no recipe
        ("", "there are scenes, camvid_lite0"),
    ],
)
def test_unknown_recipe_names_the_nearest(name: str, hint: str) -> None:
    for function in (recipes.find, recipes.summary, recipes.describe):
        with pytest.raises(ValueError) as error:
            function(name)
        assert hint in str(error.value)
        assert f"no recipe {name!r}" in str(error.value)


def test_all_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    shown = [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]]
    assert shown == [*recipes.NAMES, "auto"]


PUBLISHED = [
    ("fpn_r50_cityscapes", "resnet50c", "cityscapes", 28_497_907),
    ("fpn_r101_cityscapes", "resnet101c", "cityscapes", 47_490_035),
    ("fpn_r50_ade20k", "resnet50c", "ade20k", 28_514_806),
    ("fpn_r101_ade20k", "resnet101c", "ade20k", 47_506_934),
]  # parameters: counted in mmsegmentation 1.2.2, whose R-101 on ADE20K needs its depth restored


@pytest.mark.parametrize(("name", "backbone", "dataset", "parameters"), PUBLISHED)
def test_published_recipe_is_mmsegmentations(name: str, backbone: str, dataset: str, parameters: int) -> None:
    """Every value as it stands in configs/_base_/{models/fpn_r50,datasets/*,schedules/*}.py, none left to a default."""
    wide = dataset == "cityscapes"
    config = recipes.find(name)()
    assert config.data == Data(
        dataset=dataset, crop=(512, 1024) if wide else (512, 512), scale=(2048, 1024) if wide else (2048, 512),
        size_divisor=1, ratio=(0.5, 2.0), aspect=1.0, cat_max_ratio=0.75, flip=0.5, photometric=1.0,
        num_workers=2 if wide else 4,
    )  # fmt: skip
    assert config.model == Model(
        backbone=backbone, pretrained=True, fpn_channels=256, head_channels=128, norm="batch", dropout=0.1,
        drop_path=0.0,
    )  # fmt: skip
    assert config.loss == Loss(cross_entropy=1.0, denominator="all", class_weights=None, label_smoothing=0.0)
    assert sum(config.loss.weights.values()) == 1
    assert config.optim == Optim(
        name="sgd", lr=0.01, momentum=0.9, weight_decay=5e-4, decay_norm_bias=True, backbone_lr_factor=1.0,
        schedule="poly", power=0.9, min_lr=1e-4, mmcv_0x=False, warmup_steps=0, clip_norm=None, ema_decay=None,
    )  # fmt: skip
    train, run = config.train, config.run
    assert (train.steps, train.batch_size) == ((80_000, 8) if wide else (160_000, 16))
    assert (train.accumulate, train.precision, train.sync_bn, train.frozen_bn) == (1, "float32", True, False)
    assert run.val_every == run.checkpoint_every == (8_000 if wide else 16_000)
    assert run.val_batch_size == 1 and run.patience is None
    assert num_parameters(config) == parameters


def num_parameters(config: TrainConfig) -> int:
    table = LabelTable.named(config.data.dataset)
    resolved = build.resolve(config.changed(**{"run.device": "cpu"}), table)
    assert resolved.model.mean == pytest.approx((123.675, 116.28, 103.53))  # as all these repositories normalise
    assert resolved.model.std == pytest.approx((58.395, 57.12, 57.375))
    with torch.device("meta"):
        network = build.build_task(resolved, table, load_weights=False).model
    assert network.head.classifier.out_channels == {"cityscapes": 19, "ade20k": 150}[config.data.dataset]
    return sum(p.numel() for p in network.parameters())


def test_paper_recipe_is_the_papers() -> None:
    config = recipes.paper_r50_cityscapes()
    assert config.data == Data(
        dataset="cityscapes", crop=(512, 1024), scale=None, ratio=(0.5, 2.0), cat_max_ratio=1.0, photometric=0.0
    )
    assert (config.model.norm, config.model.dropout, config.model.head_channels) == ("group", 0.0, 128)
    assert (config.train.steps, config.train.batch_size, config.train.frozen_bn) == (65_000, 32, True)
    assert config.loss == Loss(cross_entropy=1.0, denominator="labelled")
    larger = recipes.paper_r101_cityscapes(model__backbone=config.model.backbone, run__name=config.run.name)
    assert larger == config


REST = [n for n in recipes.NAMES if n.startswith(("paper", "probe_", "vit", "dinov3"))]


@pytest.mark.parametrize("name", REST)
def test_backbone_of_the_recipe_runs_and_has_weights(name: str) -> None:
    config = recipes.find(name)()
    assert config.model.pretrained and has_weights(config.model.backbone)
    assert 10e6 < num_parameters(config) < 60e6


@pytest.mark.parametrize(
    ("name", "lr", "steps", "batch", "drop_path", "divisor"),
    [
        ("probe_ade20k", 1e-4, 80_000, 16, 0.1, 32),
        ("probe_ade20k_poolformer", 2e-4, 40_000, 32, 0.0, 32),
        ("probe_ade20k_twins", 1e-4, 80_000, 32, 0.2, 1),
        ("probe_ade20k_repvit", 2e-4, 40_000, 32, 0.0, 32),
        ("probe_ade20k_nextvit", 1e-4, 40_000, 32, 0.1, 1),
        ("probe_ade20k_moganet", 2e-4, 80_000, 32, 0.1, 32),
        ("probe_ade20k_uniformer", 2e-4, 80_000, 32, 0.1, 32),
    ],
)
def test_probe_differs_from_the_ade20k_recipe_only_where_published(
    name: str, lr: float, steps: int, batch: int, drop_path: float, divisor: int
) -> None:
    config = recipes.find(name)()
    assert (config.optim.name, config.optim.lr, config.optim.weight_decay) == ("adamw", lr, 1e-4)
    assert (config.train.steps, config.train.batch_size) == (steps, batch)
    plain = recipes.fpn_r50_ade20k(
        optim=config.optim, train__steps=steps, train__batch_size=batch, model__drop_path=drop_path,
        model__backbone=config.model.backbone, data__size_divisor=divisor, run=config.run,
        inference__stretch=divisor == 32,
    )  # fmt: skip
    assert config == plain
    assert config.optim.decay_norm_bias and config.optim.clip_norm is None and config.optim.betas == (0.9, 0.999)


def test_xcits_recipe_is_the_published_one() -> None:
    config = recipes.probe_ade20k_xcit()
    optim, model = config.optim, config.model
    assert (optim.name, optim.lr, optim.weight_decay, optim.betas) == ("adamw", 6e-5, 0.01, (0.9, 0.999))
    assert (model.blocks, model.fpn_channels, model.head_channels, model.drop_path) == ((3, 5, 7, 11), 384, 128, 0.05)
    assert (config.train.steps, config.train.batch_size) == (80_000, 16)
    network = SemanticFPN(Backbone("xcit_nano_12_p16_224", blocks=model.blocks), 3, fpn_channels=16)
    names = {id(p): name for name, p in network.named_parameters()}
    for group in build_optimizer(network, optim).param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            # mmcv's custom_keys: no decay where `norm` is a part of the published name, which the head's "bn" is not.
            undecayed = name.startswith("backbone.") and "norm" in name
            assert group["weight_decay"] == (0.0 if undecayed else 0.01), name


def test_a_frozen_recipe_trains_nothing_of_the_backbone() -> None:
    config = recipes.dinov3_frozen()
    assert (config.train.freeze_at, config.model.final_norm, config.data.photometric) == ("all", True, 0.0)
    assert (config.optim.lr, config.optim.weight_decay, config.train.batch_size) == (1e-3, 1e-3, 16)


def poly(lr: float, floor: float, length: int, power: float = 0.9) -> Callable[[int], float]:
    """mmsegmentation 1.x: `length` is one less than the steps; mmcv 0.x: all of them."""
    return lambda t: (lr - floor) * (1 - t / length) ** power + floor


def warmed(steps: int, ratio: float, rate: Callable[[int], float]) -> Callable[[int], float]:
    return lambda t: rate(t) * (ratio + (1 - ratio) * t / steps if t < steps else 1)


def dropped(t: int) -> float:
    return 0.01 if t < 40_000 else 0.001 if t < 55_000 else 0.0001


RATES: dict[str, Callable[[int], float]] = {
    "scenes": warmed(20, 0.001, poly(2.5e-3, 0.0, 299)),
    "camvid_lite0": warmed(200, 0.001, poly(1.5e-3, 0.0, 2399)),
    "folder": warmed(100, 0.001, poly(1e-3, 0.0, 2999)),
    "fpn_r50_cityscapes": poly(0.01, 1e-4, 79_999),
    "fpn_r101_cityscapes": poly(0.01, 1e-4, 79_999),
    "fpn_r50_ade20k": poly(0.01, 1e-4, 159_999),
    "fpn_r101_ade20k": poly(0.01, 1e-4, 159_999),
    "paper_r50_cityscapes": dropped,
    "paper_r101_cityscapes": dropped,
    "panoptic_scenes": warmed(50, 0.001, poly(1.5e-3, 0.0, 1199)),
    "panoptic_folder": warmed(50, 0.001, poly(1.5e-3, 0.0, 799)),
    "panoptic_r50_coco_1x": warmed(1000, 0.001, lambda t: 0.02 * 0.1 ** ((t >= 60_000) + (t >= 80_000))),
    "panoptic_r50_coco_3x": warmed(1000, 0.001, lambda t: 0.02 * 0.1 ** ((t >= 210_000) + (t >= 250_000))),
    "panoptic_r101_coco_3x": warmed(1000, 0.001, lambda t: 0.02 * 0.1 ** ((t >= 210_000) + (t >= 250_000))),
    "panoptic_r50_cityscapes": dropped,
    "panoptic_r101_cityscapes": dropped,
    "probe": poly(1e-3, 0.0, 999, 1.0),
    "probe_ade20k": poly(1e-4, 0.0, 80_000),
    "probe_ade20k_repvit": poly(2e-4, 1e-6, 40_000),
    "probe_ade20k_nextvit": poly(1e-4, 1e-6, 40_000),
    "probe_ade20k_moganet": poly(2e-4, 0.0, 80_000),
    "probe_ade20k_xcit": warmed(1500, 1e-6, poly(6e-5, 0.0, 80_000, 1.0)),
    "vit_ade20k": warmed(1500, 1e-6, poly(6e-5, 0.0, 80_000, 1.0)),
    "dinov3_frozen": warmed(1500, 1e-6, lambda t: 1e-3 * (1 + math.cos(math.pi * t / 39_999)) / 2),
    "probe_ade20k_poolformer": poly(2e-4, 0.0, 40_000),
    "probe_ade20k_twins": lambda t: 1e-4,
    "probe_ade20k_uniformer": warmed(
        1000, 0.1, lambda t: 2e-12 + (2e-4 - 2e-12) * (1 + math.cos(math.pi * t / 80_000)) / 2
    ),
}


@pytest.mark.parametrize("name", recipes.NAMES)
def test_learning_rate_is_the_closed_form(name: str) -> None:
    config = recipes.find(name)()
    last = config.train.steps - 1
    spread = np.linspace(0, last, 20).round().astype(int).tolist()
    turns = [t for turn in (config.optim.warmup_steps, *config.optim.milestones) if turn for t in (turn - 1, turn)]
    assert spread[0] == 0 and spread[-1] == last and len(set(spread)) == 20
    for step in spread + turns:
        expected = RATES[name](step)
        assert lr_at(step, Plan(steps=config.train.steps), config.optim) == pytest.approx(
            expected, rel=1e-9, abs=1e-18
        ), step


@pytest.mark.parametrize("name", [n for n in recipes.NAMES if "ade20k" in n or "cityscapes" in n])
def test_four_ranks_share_one_process_batch(name: str) -> None:
    batch = recipes.find(name)().train.batch_size
    steps = range(1000, 1003)
    whole = list(DrawSampler(steps=steps, batch_size=batch))
    ranks = [list(DrawSampler(steps=steps, batch_size=batch, rank=rank, world=4)) for rank in range(4)]
    assert [len(draws) for draws in whole] == [batch] * 3
    for step, draws in enumerate(whole):
        parts = [rank[step] for rank in ranks]
        assert {len(part) for part in parts} == {batch // 4}
        assert [draw for part in parts for draw in part] == draws


@pytest.mark.parametrize(
    ("name", "depth", "steps", "milestones"),
    [
        ("panoptic_r50_coco_1x", 50, 90_000, (60_000, 80_000)),
        ("panoptic_r50_coco_3x", 50, 270_000, (210_000, 250_000)),
        ("panoptic_r101_coco_3x", 101, 270_000, (210_000, 250_000)),
    ],
)
def test_detectron2s_recipes(name: str, depth: int, steps: int, milestones: tuple[int, ...]) -> None:
    """docs/facts.md, C2: Base-RCNN-FPN.yaml, Base-Panoptic-FPN.yaml and the three of them."""
    config = recipes.find(name)()
    assert config.model.backbone == f"resnet{depth}.tv_in1k" and config.model.architecture == "PanopticFPN"
    assert (config.train.steps, config.train.batch_size, config.optim.milestones) == (steps, 16, milestones)
    assert (config.optim.momentum, config.optim.weight_decay, config.optim.decay_norm_bias) == (0.9, 1e-4, False)
    assert (config.train.frozen_bn, config.train.freeze_at, config.train.rois) == (True, 2, 512)
    assert (config.loss.cross_entropy, config.loss.instance, config.loss.denominator) == (0.5, 1.0, "labelled")
    assert config.data.short_sides == (640, 672, 704, 736, 768, 800) and config.data.scale == (1333, 800)
    assert config.data.crop is None and config.data.photometric == 0 and config.data.instances == "json"
    assert (config.model.norm, config.model.dropout, config.model.semantic_things) == ("group", 0, "other")
    inference = config.inference
    assert (inference.box_score, inference.nms, inference.detections) == (0.05, 0.5, 100)
    assert (inference.confidence, inference.overlap, inference.stuff_area) == (0.5, 0.5, 4096)


@pytest.mark.parametrize("name", ["panoptic_r50_cityscapes", "panoptic_r101_cityscapes"])
def test_the_papers_panoptic_recipes(name: str) -> None:
    config = recipes.find(name)()
    assert (config.train.steps, config.train.batch_size, config.data.crop) == (65_000, 32, (512, 1024))
    assert config.data.ratio == (0.5, 2.0) and config.optim.milestones == (40_000, 55_000)
    assert (config.loss.instance, config.loss.cross_entropy) == (0.5, 1.0)  # λi, λs
    assert config.model.semantic_things == "all" and config.train.frozen_bn


def test_the_r50_of_coco_has_detectron2s_parameters(golden_files: Path) -> None:
    lines = (golden_files / "detectron2_keys_r50.tsv").read_text().splitlines()
    kept = [line for line in lines if "pixel_" not in line and "anchor_generator" not in line]
    shapes = [[int(n) for n in line.split("\t")[1].strip("()").split(",") if n.strip()] for line in kept]
    theirs = sum(map(math.prod, shapes))  # statistics of norms too, as they are fixed
    config = recipes.panoptic_r50_coco_1x(model__pretrained=False)
    table = LabelTable.named("coco_panoptic")
    with torch.device("meta"):
        network = PanopticTask.build_network(config.model, build.Backbone(config.model.backbone), table)
    ours = sum(t.numel() for n, t in network.state_dict().items() if not n.endswith("num_batches_tracked"))
    assert ours == theirs
