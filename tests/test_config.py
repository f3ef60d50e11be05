"""The configuration: YAML there and back, and every mistake named with its key, its value and what was wanted."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panfpn import recipes
from panfpn.config import Data, Loss, Model, Optim, Run, Train, TrainConfig

EVERYTHING = TrainConfig(
    data=Data(dataset="camvid", root=Path("/data/cam vid"), crop=(64, 96), scale=(480, 360), ratio=(0.75, 1.75)),
    model=Model(backbone="resnet18", num_classes=7, backbone_weights=Path("w.pth"), norm="group", mean=(1.5, 2.0, 3.0)),
    loss=Loss(ohem=0.5, denominator="all", class_weights=(0.25, 1.0)),
    optim=Optim(
        name="adamw",
        lr=3e-5,
        betas=(0.9, 0.95),
        clip_norm=0.1,
        ema_decay=0.999,
        warmup_steps=10,
        schedule="step",
        milestones=(20, 90),
    ),
    train=Train(steps=100, seed=2**32 - 1, precision="bfloat16", compile=True),
    run=Run(name="yes", dir=Path("runs/null"), patience=3),  # YAML would make a truth value of a bare yes
)


def read(folder: Path, text: str) -> TrainConfig:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return TrainConfig.from_yaml(path)


def refusal(folder: Path, text: str) -> str:
    """What the user reads after the name of the file."""
    with pytest.raises(ValueError) as error:
        read(folder, text)
    prefix = f"{folder / 'run.yaml'}: "
    assert str(error.value).startswith(prefix)
    return str(error.value).removeprefix(prefix)


@pytest.mark.parametrize("name", recipes.NAMES)
def test_yaml_round_trip_of_every_recipe(tmp_path: Path, name: str) -> None:
    config = recipes.find(name)()
    assert read(tmp_path, config.to_yaml()) == config


def test_yaml_round_trip_of_every_kind_of_value(tmp_path: Path) -> None:
    found = read(tmp_path, EVERYTHING.to_yaml())
    assert found == EVERYTHING
    for section in fields(found):  # equality alone would let 1 pass for 1.0 and True
        mine, theirs = getattr(found, section.name), getattr(EVERYTHING, section.name)
        for f in fields(mine):
            assert type(getattr(mine, f.name)) is type(getattr(theirs, f.name)), f.name


@settings(deadline=None, max_examples=40)
@given(
    lr=st.floats(0, 1e6, exclude_min=True),
    momentum=st.floats(0, 1, exclude_max=True),
    name=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    crop=st.tuples(st.integers(1, 2**40), st.integers(1, 2**40)),
)
def test_yaml_round_trip_of_any_value(
    tmp_path_factory: pytest.TempPathFactory, lr: float, momentum: float, name: str, crop: tuple[int, int]
) -> None:
    config = TrainConfig().changed(optim__lr=lr, optim__momentum=momentum, run__name=name, data__crop=crop)
    assert read(tmp_path_factory.mktemp("c"), config.to_yaml()) == config


def test_plain_data_hold_no_paths_and_no_tuples() -> None:
    def check(value: Any) -> None:
        if isinstance(value, dict):
            assert all(isinstance(key, str) for key in value)
        if isinstance(value, dict | list):
            for entry in value.values() if isinstance(value, dict) else value:
                check(entry)
        else:
            assert value is None or type(value) in (str, int, float, bool)

    check(EVERYTHING.to_dict())
    assert EVERYTHING.to_dict()["data"]["root"] == "/data/cam vid"


def test_empty_file_is_the_defaults_and_a_part_changes_only_itself(tmp_path: Path) -> None:
    assert read(tmp_path, "") == TrainConfig()
    assert read(tmp_path, "optim: {lr: 1e-4}") == TrainConfig(optim=Optim(lr=1e-4))  # YAML reads 1e-4 as text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optim: {lrr: 1}", "unknown key optim.lrr; did you mean optim.lr?"),
        ("train: {batchsize: 1}", "unknown key train.batchsize; did you mean train.batch_size?"),
        ("optin: {lr: 1}", "unknown key optin; did you mean optim?"),
        ("zzz: 1", "unknown key zzz; known here: data, model, loss, optim, train, run"),
        ("3: 4", "unknown key 3; known here: data, model, loss, optim, train, run"),
        ("optim: {lr: fast}", "optim.lr is 'fast'; input should be a valid number"),
        ("train: {steps: 1.5}", "train.steps is 1.5; input should be a valid integer"),
        ("train: {compile: perhaps}", "train.compile is 'perhaps'; input should be a valid boolean"),
        ("data: {crop: 512}", "data.crop is 512; input should be a valid tuple"),
        ("data: {crop: [1, 2, 3]}", "data.crop is [1, 2, 3]; tuple should have at most 2 items"),
        (
            "data: {dataset: coco}",
            "data.dataset is 'coco'; did you mean coco_panoptic? (choices: cityscapes, ade20k, camvid, coco_panoptic",
        ),
        ("run: {name: 5}", "run.name is 5; input should be a valid string"),
        ("run: {name: null}", "run.name is None; input should be a valid string"),
        ("optim: {lr: 0}", "optim.lr is 0.0; it must be positive"),
        ("optim: {lr: .nan}", "optim.lr is nan; it must be positive"),
        ("- 1", "the file holds [1]; a mapping of settings was wanted"),
        ("hello", "the file holds 'hello'; a mapping of settings was wanted"),
        ("optim: [", "cannot be read as YAML"),
        ("run: {name: 2020-13-45}", "cannot be read as YAML"),  # a date for YAML, and not a possible one
        ("run: !!python/object:os.system {}", "cannot be read as YAML"),
    ],
)
def test_mistake_is_named(tmp_path: Path, text: str, message: str) -> None:
    assert refusal(tmp_path, text).startswith(message)


@pytest.mark.parametrize("value", ["3", "[1, 2]", "", "lr"])
@pytest.mark.parametrize("section", [f.name for f in fields(TrainConfig)])
def test_section_that_is_no_mapping_is_named(tmp_path: Path, section: str, value: str) -> None:
    message = refusal(tmp_path, f"{section}: {value}")
    assert message.startswith(section)
    assert message.endswith("a mapping of settings was wanted")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.yaml: cannot be read as YAML"):
        TrainConfig.from_yaml(tmp_path / "none.yaml")


RULES = [
    ("train.rois", 3, 4),
    ("inference.detections", 10_001, 10_000),
    ("data.crop", (0, 512), (1, 1)),
    ("data.crop", (512, -1), (512, 1)),
    ("data.scale", (0, 5), None),
    ("data.ratio", (0.0, 1.0), (0.1, 1.0)),
    ("data.ratio", (2.0, 1.0), (2.0, 2.0)),
    ("data.aspect", 0.99, 1.0),
    ("data.cat_max_ratio", 0.0, 1.0),
    ("data.cat_max_ratio", 1.1, 0.01),
    ("data.flip", -0.1, 0.0),
    ("data.flip", 1.1, 1.0),
    ("data.photometric", -0.1, 0.0),
    ("data.num_workers", -1, 0),
    ("data.scenes", (0, 1), (1, 1)),
    ("data.scenes", (1, 0), (1, 1)),
    ("data.scene_size", (63, 64), (64, 64)),
    ("model.in_channels", 0, 1),
    ("model.fpn_channels", 0, 1),
    ("model.head_channels", 0, 1),
    ("model.dropout", 1.0, 0.0),
    ("model.dropout", -0.1, 0.9),
    ("model.drop_path", 1.0, 0.0),
    ("loss.label_smoothing", 1.0, 0.0),
    ("loss.label_smoothing", -0.1, 0.9),
    ("optim.lr", 0.0, 1e-9),
    ("optim.warmup_steps", 80_000, 79_999),
    ("optim.warmup_steps", -1, 0),
    ("optim.gamma", 0.0, 0.1),
    ("optim.gamma", 1.1, 1.0),
    ("optim.clip_norm", 0.0, 0.1),
    ("optim.ema_decay", 0.0, 0.5),
    ("optim.ema_decay", 1.0, None),
    ("train.steps", 0, 1),
    ("train.batch_size", 0, 1),
    ("train.accumulate", 0, 1),
    ("train.seed", -1, 0),
    ("train.seed", 2**32, 2**32 - 1),
    ("run.log_every", 0, 1),
    ("run.val_every", 0, 1),
    ("run.checkpoint_every", 0, 1),
    ("run.val_batch_size", 0, 1),
    ("run.patience", 0, 1),
]


@pytest.mark.parametrize(("key", "bad", "good"), RULES)
def test_every_rule_refuses_and_allows(key: str, bad: object, good: object) -> None:
    with pytest.raises(ValueError) as error:
        ruled(key).changed(**{key: bad})
    assert str(error.value).startswith(f"{key} is {bad!r}; it must be ")
    section, name = key.split(".")
    assert getattr(getattr(ruled(key).changed(**{key: good}), section), name) == good


def ruled(key: str) -> TrainConfig:
    """The defaults, of Panoptic FPN where the setting is its own."""
    instances = key in ("train.rois", "inference.detections")
    return TrainConfig().changed(**{"model.architecture": "PanopticFPN" if instances else "SemanticFPN"})


@pytest.mark.parametrize(
    ("key", "value"), [("inference.confidence", 0.7), ("loss.instance", 0.5), ("model.anchor_scale", 4.0)]
)
def test_semantic_fpn_ignores_no_setting_of_instances(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{key} is {value}; it must be left at .* it is Panoptic FPN's"):
        TrainConfig().changed(**{key: value})
    TrainConfig().changed(**{"model.architecture": "PanopticFPN"}).changed(**{key: value})


def test_panoptic_fpn_has_no_windows() -> None:
    config = TrainConfig().changed(**{"model.architecture": "PanopticFPN"})
    with pytest.raises(
        ValueError, match=r"inference.mode is 'slide'; it must be left at 'whole': it is Semantic FPN's"
    ):
        config.changed(**{"inference.mode": "slide"})


@pytest.mark.parametrize(
    ("key", "bad"),
    [
        ("model.num_classes", 0),
        ("loss.cross_entropy", -1.0),
        ("optim.weight_decay", -1.0),
        ("optim.momentum", -1.0),
        ("optim.betas", (2.0, 3.0)),
        ("optim.lr", float("inf")),
    ],
)
def test_impossible_value_is_refused_here_and_not_by_torch_later(key: str, bad: object) -> None:
    with pytest.raises(ValueError, match=f"^{key} is"):
        TrainConfig().changed(**{key: bad})


@pytest.mark.parametrize("bad", [(0, 5), (5, 5), (7, 5), (5, 100)])
def test_milestones_rise_inside_the_run(bad: tuple[int, ...]) -> None:
    start = TrainConfig(optim=Optim(schedule="step", milestones=(1, 99)), train=Train(steps=100))
    with pytest.raises(ValueError) as error:
        start.changed(optim__milestones=bad)
    assert str(error.value) == f"optim.milestones is {bad}; it must be rising steps above 0 and below train.steps"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"milestones": (5,)}, "optim.milestones is (5,); it must be set for schedule step, and for no other"),
        ({"schedule": "step"}, "optim.milestones is (); it must be set for schedule step, and for no other"),
        ({"schedule": "constant", "mmcv_0x": True}, "optim.mmcv_0x is True; it must be false for a schedule but poly"),
    ],
)
def test_settings_that_the_schedule_would_ignore_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:
        TrainConfig(optim=Optim(**changes))
    assert str(error.value).startswith(message)


def test_changed_takes_both_forms_of_key_and_whole_sections() -> None:
    config = TrainConfig().changed(
        **{"optim.lr": 0.5, "optim__momentum": 0.1, "run.name": "a__b", "model": Model(dropout=0.0)}
    )
    assert config == TrainConfig(
        optim=Optim(lr=0.5, momentum=0.1), run=Run(name="a__b"), model=Model(dropout=0.0)
    )  # fmt: skip
    assert TrainConfig().changed() == TrainConfig()


def test_changed_leaves_the_original() -> None:
    config = TrainConfig()
    assert config.changed(optim__lr=0.5) != config
    assert config == TrainConfig()


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("optim.lrr", "unknown key optim.lrr; did you mean optim.lr?"),
        ("optim__lrr", "unknown key optim.lrr; did you mean optim.lr?"),
        ("opt.lr", "unknown key opt; did you mean optim?"),
        ("optim.lr.x", "unknown key optim.lr.x; did you mean optim.lr?"),
        ("lr", "unknown key lr; did you mean optim.lr?"),  # it is "run" that looks more like it
    ],
)
def test_changed_names_the_nearest_key(key: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        TrainConfig().changed(**{key: 1})
    assert str(error.value) == message


@pytest.mark.parametrize("turned", [False, True])
def test_rules_are_checked_after_all_changes(turned: bool) -> None:
    changes = [("train.steps", 20), ("optim.warmup_steps", 10)]
    start = TrainConfig(train=Train(steps=5), optim=Optim(warmup_steps=4))  # 10 of 5 would not be possible
    assert start.changed(**dict(changes[::-1] if turned else changes)).optim.warmup_steps == 10
    with pytest.raises(ValueError, match=r"optim\.warmup_steps is 4; it must be from 0 to below"):
        start.changed(train__steps=4)
