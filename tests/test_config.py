"""The configuration: YAML there and back, and every mistake named with its key, its value and what was wanted."""

import math
import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from panfpn import choices, recipes
from panfpn.config import Data, Inference, Loss, Model, Optim, Run, Train, TrainConfig, check_architecture
from panfpn.parsing import Bounds, Setting, settings_of

SECTIONS: dict[str, Any] = {f.name: f.default_factory for f in fields(TrainConfig)}
SETTINGS = {f"{name}.{s.name}": s for name, section in SECTIONS.items() for s in settings_of(section)}

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


def test_yaml_round_trip_of_every_type_of_value(tmp_path: Path) -> None:
    config = read(tmp_path, EVERYTHING.to_yaml())
    assert config == EVERYTHING
    for section in fields(config):  # equality alone would let 1 pass for 1.0 and True
        mine, theirs = getattr(config, section.name), getattr(EVERYTHING, section.name)
        for f in fields(mine):
            assert type(getattr(mine, f.name)) is type(getattr(theirs, f.name)), f.name


@settings(deadline=None, max_examples=40)
@given(
    lr=st.floats(0, 1e6, exclude_min=True),
    momentum=st.floats(0, 1, exclude_max=True),
    name=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\\\0"), max_size=20).filter(
        lambda name: name.strip() and name.strip(".")
    ),
    crop=st.tuples(st.integers(1, 2**40), st.integers(1, 2**40)),
)
def test_yaml_round_trip_of_any_value(
    tmp_path_factory: pytest.TempPathFactory, lr: float, momentum: float, name: str, crop: tuple[int, int]
) -> None:
    config = TrainConfig().changed(optim__lr=lr, optim__momentum=momentum, run__name=name, data__crop=crop)
    assert read(tmp_path_factory.mktemp("c"), config.to_yaml()) == config


def values_of(hint: Any, bounds: Bounds | None) -> st.SearchStrategy[Any]:
    """Any value of the type, inside the bounds."""
    if get_origin(hint) is Literal:
        return st.sampled_from(get_args(hint))
    if get_origin(hint) is tuple:
        entries = [values_of(inner, bounds) for inner in get_args(hint) if inner is not Ellipsis]
        return st.lists(entries[0], max_size=3).map(tuple) if Ellipsis in get_args(hint) else st.tuples(*entries)
    if get_args(hint):  # … | None
        return st.one_of(values_of(inner, bounds) for inner in get_args(hint))
    bounds = bounds or Bounds()
    if hint is float:
        low = bounds.at_least if bounds.above is None else math.nextafter(bounds.above, math.inf)
        high = bounds.at_most if bounds.below is None else math.nextafter(bounds.below, -math.inf)
        return st.floats(low, high, allow_nan=False, allow_infinity=False)
    if hint is int:
        least = bounds.at_least if bounds.above is None else bounds.above + 1
        most = bounds.at_most if bounds.below is None else bounds.below - 1
        return st.integers(-9 if least is None else int(least), 2**40 if most is None else int(most))
    text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    paths = text.filter(lambda name: "\0" not in name).map(Path)
    return {bool: st.booleans(), str: text, Path: paths, type(None): st.none()}[hint]


@settings(deadline=None, max_examples=150)
@given(data=st.data(), key=st.sampled_from(sorted(SETTINGS)))
def test_yaml_round_trip_of_any_setting(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, key: str
) -> None:
    setting = SETTINGS[key]
    value = data.draw(values_of(setting.hint, setting.bounds))
    architecture = setting.only.architecture if setting.only else "SemanticFPN"
    try:
        config = TrainConfig().changed(**{"model.architecture": architecture}).changed(**{key: value})
    except ValueError:  # a setting that goes with another
        assume(False)
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
            "data: {dataset: cocos}",
            "data.dataset is 'cocos'; did you mean coco? (choices: cityscapes, ade20k, camvid, coco_panoptic",
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
    with pytest.raises(ValueError, match=r"none\.yaml: cannot be read \(No such file"):
        TrainConfig.from_yaml(str(tmp_path / "none.yaml"))


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
    ("data.rotate90", 1.1, 0.75),
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
    """The defaults, of Panoptic FPN where only it has the setting."""
    instances = key in ("train.rois", "inference.detections")
    return TrainConfig().changed(**{"model.architecture": "PanopticFPN" if instances else "SemanticFPN"})


WRONG: dict[Any, Any] = {int: "many", float: "fast", bool: "perhaps", str: 5, Path: 5, tuple: 3, Literal: "zzz"}


def wrong_value(hint: Any) -> Any:
    origin = get_origin(hint)
    if origin in (tuple, Literal) or not get_args(hint):
        return WRONG[origin or hint]
    return wrong_value(get_args(hint)[0])  # … | None


@pytest.mark.parametrize("key", SETTINGS)
def test_every_setting_refuses_a_wrong_type(key: str) -> None:
    section, name = key.split(".")
    for bad in (wrong_value(SETTINGS[key].hint), object(), [object()]):
        for make in (lambda bad: SECTIONS[section](**{name: bad}), lambda bad: TrainConfig().changed(**{key: bad})):
            with pytest.raises(ValueError) as error:
                make(bad)
            assert str(error.value).startswith(f"{key} is ") and "\n" not in str(error.value)


def outside(setting: Setting) -> list[Any]:
    """Values of the right type that the bounds exclude."""
    bounds, numbers = setting.bounds, []
    assert bounds is not None
    for edge, step in ((bounds.above, 0), (bounds.at_least, -1), (bounds.below, 0), (bounds.at_most, 1)):
        numbers += [] if edge is None else [edge + step]
    plain = (
        setting.hint if get_origin(setting.hint) is tuple or not get_args(setting.hint) else get_args(setting.hint)[0]
    )
    numbers += [math.nan, math.inf] if float in (plain, *get_args(plain)) else []
    if get_origin(plain) is not tuple:
        return numbers
    size = 1 if Ellipsis in get_args(plain) else len(get_args(plain))
    return [(number,) * size for number in numbers]


@pytest.mark.parametrize("key", [key for key, setting in SETTINGS.items() if setting.bounds])
def test_every_bounded_setting_refuses_what_is_outside(key: str) -> None:
    section, name = key.split(".")
    assert outside(SETTINGS[key])
    for bad in outside(SETTINGS[key]):
        with pytest.raises(ValueError) as error:
            SECTIONS[section](**{name: bad})
        assert str(error.value).startswith(f"{key} is ") and "; it must be " in str(error.value)


def test_every_default_is_allowed() -> None:
    for setting in SETTINGS.values():
        assert setting.bounds is None or setting.bounds.allow(setting.default), setting.name


@pytest.mark.parametrize(
    ("bounds", "words", "inside", "beyond"),
    [
        (Bounds(), "finite", -3.0, math.nan),
        (Bounds(above=0), "positive", 1e-9, 0),
        (Bounds(above=2), "above 2", 3, 2),
        (Bounds(at_least=0), "0 or more", 0, -1),
        (Bounds(at_least=0, at_most=1), "from 0 to 1", 1, 1.1),
        (Bounds(at_least=0, below=1), "from 0 to below 1", 0, 1),
        (Bounds(above=0, at_most=1), "above 0, at most 1", 1, 0),
        (Bounds(above=0, below=1), "above 0, below 1", 0.5, 1),
        (Bounds(at_most=1), "at most 1", 1, 2),
        (Bounds(below=1), "below 1", 0, 1),
    ],
)
def test_bounds_say_what_they_allow(bounds: Bounds, words: str, inside: float, beyond: float) -> None:
    assert str(bounds) == words
    assert bounds.allow(inside) and bounds.allow((inside, inside)) and bounds.allow(()) and bounds.allow(None)
    assert not bounds.allow(beyond) and not bounds.allow((inside, beyond))


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("data.root", "some/dir", Path("some/dir")),
        ("model.backbone_weights", "w.pth", Path("w.pth")),
        ("run.dir", "runs/x", Path("runs/x")),
        ("model.start_from", Path("a/model.safetensors"), "a/model.safetensors"),
        ("data.crop", [64, 96], (64, 96)),
        ("data.ratio", [1, 2], (1.0, 2.0)),
        ("inference.ratios", [1, 1.5], (1.0, 1.5)),
        ("loss.class_weights", [1, 2], (1.0, 2.0)),
        ("run.loggers", ["tensorboard", "wandb"], ("tensorboard", "wandb")),
        ("run.loggers", [], ()),
        ("optim.lr", 1, 1.0),
        ("optim.lr", "1e-4", 1e-4),
        ("train.steps", 5.0, 5),
    ],
)
def test_values_are_converted(key: str, value: Any, expected: Any) -> None:
    section, name = key.split(".")
    for part in (SECTIONS[section](**{name: value}), replace(SECTIONS[section](), **{name: value}),
                 getattr(TrainConfig().changed(**{key: value}), section)):  # fmt: skip
        assert getattr(part, name) == expected
        assert type(getattr(part, name)) is type(expected)
        if isinstance(expected, tuple):
            assert [type(entry) for entry in getattr(part, name)] == [type(entry) for entry in expected]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("train.steps", "many", "train.steps is 'many'; input should be a valid integer"),
        ("train.steps", True, "train.steps is True; input should be no truth value"),
        ("data.crop", (True, 2), "data.crop is (True, 2); input should be no truth value"),
        ("data.crop", {64, 96}, "; input should be a valid tuple"),
        ("data.crop", [3], "data.crop is [3]; tuple should have more items"),
        ("data.root", 3, "data.root is 3; input should be a path"),
        ("optim.name", "adam", "optim.name is 'adam'; did you mean adamw? (choices: sgd, adamw)"),
        ("optim.schedule", "cos", "did you mean cosine?"),
        ("model.architecture", "PanopticFpn", "did you mean PanopticFPN? (choices: SemanticFPN, PanopticFPN)"),
        ("data.dataset", "cocos", "did you mean coco? (choices: cityscapes, ade20k, camvid, coco_panoptic, "),
        ("inference.mode", "slid", "inference.mode is 'slid'; did you mean slide? (choices: whole, slide)"),
        ("run.loggers", ["wand"], "run.loggers is 'wand'; did you mean wandb? (choices: tensorboard, wandb, mlflow)"),
        ("run.loggers", ["wandb", "wandb"], "run.loggers is ('wandb', 'wandb'); it must be each of them once"),
        ("train.freeze_at", 1, "train.freeze_at is 1; choose from 0, 2, 3, 4, 5, all"),
        ("train.freeze_at", 2, "train.freeze_at is 2; it must be 0 or all where train.frozen_bn is not set"),
        ("loss.cross_entropy", 0, "it must be positive, or another term of the loss (ohem, dice, lovasz, focal)"),
        ("data.flip", 2, "data.flip is 2.0; it must be a probability from 0 to 1"),
        ("data.crop", (0, 1), "data.crop is (0, 1); it must be two sizes in pixels, each positive, or none"),
        ("data.short_sides", (5,), "data.short_sides is (5,); it must be empty where data.scale is none"),
        ("inference.stride", (600, 5), "it must be two steps of at most the window's size"),
        ("inference.ratios", (), "inference.ratios is (); it must be one factor or several"),
    ],
)
def test_refused_in_a_sentence(key: str, value: Any, message: str) -> None:
    section, name = key.split(".")
    for make in (lambda: SECTIONS[section](**{name: value}), lambda: TrainConfig().changed(**{key: value}),
                 lambda: recipes.scenes(**{key.replace(".", "__"): value})):  # fmt: skip
        if key == "data.short_sides":
            make = lambda: Data(short_sides=value)  # noqa: E731 - the recipe has a scale
        with pytest.raises(ValueError) as error:
            make()
        assert message in str(error.value) and str(error.value).startswith(f"{key} is ")


def test_sections_are_taken_as_mappings_too() -> None:
    assert TrainConfig(optim={"lr": 1, "name": "adamw"}).optim == Optim(lr=1.0, name="adamw")  # type: ignore[arg-type]
    start = TrainConfig(optim=Optim(name="adamw"))
    changed = start.changed(optim={"lr": 1}, optim__momentum=0.5)
    assert changed.optim == Optim(name="adamw", lr=1.0, momentum=0.5)  # a mapping changes what it names
    for make in (lambda: TrainConfig(optim=3), lambda: TrainConfig().changed(optim=3, optim__lr=1)):  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"^optim holds 3; a mapping of settings was wanted$"):
            make()
    with pytest.raises(ValueError, match=r"^unknown key optim\.lrr; did you mean optim\.lr\?$"):
        TrainConfig().changed(optim={"lrr": 1})


@pytest.mark.parametrize("turned", [False, True])
def test_a_whole_section_comes_before_its_keys(turned: bool) -> None:
    changes = [("optim", Optim(lr=0.5)), ("optim.momentum", 0.1)]
    assert TrainConfig().changed(**dict(changes[::-1] if turned else changes)).optim == Optim(lr=0.5, momentum=0.1)


def test_rules_of_an_architecture_without_a_configuration() -> None:
    check_architecture("SemanticFPN", Data(), Inference(mode="slide"), Model())
    check_architecture("PanopticFPN", Inference(stuff_area=5), Loss(instance=0.5))
    with pytest.raises(ValueError, match=r"^inference.stuff_area is 5; it must be left at 4096: it is Panoptic FPN's$"):
        check_architecture("SemanticFPN", Data(), Inference(stuff_area=5))
    with pytest.raises(ValueError, match=r"^inference.mode is 'slide'; it must be left at 'whole': it is Semantic FPN"):
        check_architecture("PanopticFPN", Inference(mode="slide"))


def test_weights_of_the_losses_are_the_lines_of_choices() -> None:
    assert list(Loss().weights) == list(choices.LOSSES)
    assert Loss().weights == {name: float(name == "cross_entropy") for name in choices.LOSSES}
    assert Loss(dice=1).weights["dice"] == 1.0
    code = (
        "from panfpn.choices import LOSSES, LAYOUTS\n"
        "LOSSES['mine'] = LAYOUTS['mine'] = 'my_module:mine'\n"
        "from panfpn.cli import main\n"
        "from panfpn.config import Data, Loss, TrainConfig\n"
        "assert Loss(mine=0.5).weights['mine'] == 0.5 and TrainConfig().to_dict()['loss']['mine'] == 0.0\n"
        "assert Data(dataset='mine').dataset == 'mine'\n"
        "main(['train', 'scenes', '--help'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "--loss.mine FLOAT" in done.stdout
    assert "folder,pairs,scenes,mine}" in re.sub(r"[│\s]", "", done.stdout)  # the choices take several lines


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
