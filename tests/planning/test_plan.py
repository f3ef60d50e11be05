"""Settings from data, machine and time: what is chosen, what is given and kept, what is said, and a run of it."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from huggingface_hub import constants

from hub_server import local_hub
from panfpn import recipes
from panfpn.cli import main
from panfpn.config import Data
from panfpn.planning import plan_training
from panfpn.planning.fingerprint import located, look_at
from panfpn.planning.measurement import weights_at_hand
from panfpn.planning.plan import read_machine
from panfpn.recipes import sizes
from panfpn.recipes.automatic import rhythm, settled, structure
from panfpn.recipes.observed import Fingerprint, Machine
from panfpn.recipes.sizes import enlarged, fitting_crop, seconds_to_try

CPU = Machine(device="cpu", name="a CPU", cores=2, memory_gb=16.0, network="tf_efficientnet_lite0",
              pixels_per_s=1e6, bytes_per_pixel=2500)  # fmt: skip
STREET = Fingerprint(
    dataset="camvid", root=Path("camvid"), train_split="train", val_split="val", num_train=367, num_val=101,
    looked_at=200, size=(360, 480), largest=480, channels=3, shares={"road": 0.6, "sky": 0.398, "pole": 0.002},
)  # fmt: skip
NUCLEI = replace(
    STREET, dataset="folder", val_split=None, num_train=40, num_val=0, size=(256, 256), largest=256,
    shares={"background": 0.8, "nucleus": 0.2}, segments=True, thing_sides=(6.0, 14.0, 30.0), most_things=110,
    most_alike=110,
)  # fmt: skip


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A hub that has nothing yet, and a cache that is empty."""
    with local_hub(monkeypatch, tmp_path / "cache") as server:
        yield server


def chosen(data: Fingerprint, minutes: float = 60, machine: Machine = CPU, **given: Any) -> Any:
    given = {key.replace("__", "."): value for key, value in given.items()}
    first = structure(data, machine.device, {}, given)
    draft = settled(first, given)
    return settled([*first, *rhythm(data, machine, minutes, draft.data, given)], given)


def test_street_scenes_are_seen_whole_and_rare_classes_more_often() -> None:
    config = chosen(STREET)
    assert config.model.architecture == "SemanticFPN"
    assert config.data.crop == (352, 480)
    assert config.data.scale is None
    assert config.data.rare_crops > 0
    assert config.loss.class_weights == "root"
    assert (config.train.minutes, config.model.start_from) == (60, "camvid_lite0")


def test_small_things_are_enlarged_and_fewer_images_divided() -> None:
    config = chosen(NUCLEI)
    assert config.model.architecture == "PanopticFPN"
    assert config.data.split == 0.3
    assert config.data.scale is not None
    assert 320 <= max(config.data.scale) <= 512
    assert config.inference.detections == 200
    assert config.model.anchor_scale == 4.0
    alone = chosen(replace(NUCLEI, most_things=3, most_alike=1))  # a polygon of each class: nothing to tell apart
    assert alone.model.architecture == "SemanticFPN"


def test_validations_that_take_long_score_a_part() -> None:
    many = replace(STREET, num_train=7000, num_val=1000, size=(1080, 1920), largest=1920)
    config = chosen(many, minutes=20)
    assert config.run.val_images is not None
    assert 50 <= config.run.val_images < 1000
    assert config.data.rare_crops == 0  # for which the masks of all would be read
    assert chosen(STREET).run.val_images is None
    assert chosen(replace(many, num_val=30), minutes=1).run.val_images is None


def test_larger_sizes_are_tried_where_the_time_is_enough(folder_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert seconds_to_try(15, 1.0) == 0
    monkeypatch.setattr(sizes, "FEWEST", 3)
    assert seconds_to_try(1000, 100.0) == pytest.approx(5 + 1.2 * 100 * (4.8125 * 0.06 + 2.25))
    slow, fast = (plan_training(folder_data, minutes=3, device="cpu", machine=replace(CPU, pixels_per_s=pace),
                                suits=True) for pace in (200.0, 1e6))  # fmt: skip
    assert slow.spare == 0 and slow.config.train.minutes == 3
    assert 5 < fast.spare < 6 and fast.config.train.minutes < 3


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
@pytest.mark.parametrize(("height", "width"), [(40, 60), (360, 480), (1024, 2048), (4000, 300), (3000, 4000)])
def test_crops_fit_images_and_devices(device: str, height: int, width: int) -> None:
    config = chosen(
        replace(STREET, size=(height, width), largest=max(height, width)), machine=replace(CPU, device=device)
    )
    crop = config.data.crop
    assert crop is not None
    assert all(side % 32 == 0 and side >= 64 for side in crop)
    assert crop[0] * crop[1] <= 512 * 1024
    seen = {"cpu": 360_448, "cuda": 2_097_152, "mps": 393_216}[device]
    assert (config.data.scale is not None) == (height * width > seen)
    if config.data.scale is not None:
        fitted = height * width * (max(config.data.scale) / max(height, width)) ** 2
        assert fitted == pytest.approx(seen, rel=0.15)


def test_a_giant_among_small_images_is_brought_to_their_size() -> None:
    assert chosen(replace(STREET, largest=4000)).data.scale == (480, 480)


def test_thin_regions_are_enlarged_where_the_time_allows() -> None:
    thin = replace(NUCLEI, thin=0.5, smallest=256, segments=False)
    side = {factor: round(256 * factor / 32) * 32 for factor in (1.75, 1.5, 1.25)}
    often = 30 * 40 * 256 * 256 / 60  # pixels a second that show 40 images 30 times in a minute
    for factor, pace in ((1.75, 3.2), (1.5, 2.4), (1.25, 1.6), (None, 1.5)):
        choices = {c.key: c for c in enlarged(thin, replace(CPU, pixels_per_s=pace * often), 1, {})}
        assert bool(choices) == (factor is not None)
        if factor is not None:
            assert choices["data.scale"].value == (side[factor], side[factor])
            assert choices["data.crop"].value[0] <= side[factor]
    fast = replace(CPU, pixels_per_s=1e9)
    assert enlarged(replace(thin, thin=0.3), fast, 1, {}) == []
    assert enlarged(replace(thin, smallest=100), fast, 1, {}) == []
    assert enlarged(thin, fast, 1, {"data.crop": (64, 64)}) == []
    large = replace(thin, size=(500, 700), largest=700, smallest=700)
    assert enlarged(large, fast, 1, {}) == []  # has as many pixels as a CPU learns from already


def test_images_without_up_and_down_are_turned() -> None:
    for turned, probability in ((0.0, 0.0), (1.2, 0.75), (1.6, 0.0)):
        assert chosen(replace(NUCLEI, turned=turned)).data.rotate90 == probability
    for given in ({"data.rotate90": 0.0}, {"data.flip": 0.0}):
        assert chosen(replace(NUCLEI, turned=1.2), **given).data.rotate90 == 0
    for turned, probability in ((0.0, 0.75), (1.2, 0.75), (1.6, 0.0)):
        assert chosen(replace(NUCLEI, dataset="raster", turned=turned)).data.rotate90 == probability


def test_the_largest_crop_in_a_number_of_pixels() -> None:
    assert fitting_crop(360, 480, 180_224) == (352, 480)
    assert fitting_crop(1024, 2048, 524_288) == (704, 704)
    assert fitting_crop(300, 4000, 90_000) == (288, 288)
    assert fitting_crop(10, 10, 90_000) == (64, 64)


def test_a_slow_machine_takes_smaller_batches_and_little_memory_divides_them() -> None:
    fast, slow = chosen(STREET, machine=replace(CPU, pixels_per_s=5e6)), chosen(STREET, minutes=5)
    assert fast.train.batch_size > slow.train.batch_size == 4
    assert fast.optim.lr > slow.optim.lr
    assert fast.optim.warmup_steps > slow.optim.warmup_steps
    small = chosen(STREET, machine=replace(CPU, pixels_per_s=5e6, memory_gb=4.0))
    assert small.train.accumulate > 1
    assert small.train.batch_size % small.train.accumulate == 0


def test_what_is_given_wins() -> None:
    config = chosen(NUCLEI, model__architecture="SemanticFPN", data__crop=(96, 128), optim__lr=0.5, train__batch_size=3)
    assert config.loss.class_weights is None  # two classes
    assert config.model.architecture == "SemanticFPN"
    assert (config.data.crop, config.optim.lr, config.train.batch_size) == ((96, 128), 0.5, 3)
    assert config.inference.detections == 100  # Panoptic FPN's own settings are left alone
    other = chosen(STREET, model__backbone="resnet18")
    assert (other.model.backbone, other.model.start_from) == ("resnet18", None)


def test_weights_are_those_at_hand_of_the_backbone_that_is_trained() -> None:
    files = {"resnet50": "/w/resnet50.safetensors", "tf_efficientnet_lite0": "hub"}
    on_cpu, on_gpu = (settled(structure(STREET, device, files, {}), {}).model for device in ("cpu", "cuda"))
    assert (on_cpu.backbone, on_cpu.pretrained, on_cpu.fpn_channels) == ("tf_efficientnet_lite0", True, 128)
    assert (on_gpu.backbone, on_gpu.backbone_weights) == ("resnet50", Path("/w/resnet50.safetensors"))
    named = {"model.backbone": "resnet50"}
    assert settled(structure(STREET, "cpu", files, named), named).model.backbone_weights is not None
    other = {"model.backbone": "resnet18"}
    plain = settled(structure(STREET, "cpu", {}, other), other).model
    assert (plain.pretrained, plain.start_from) == (False, None)
    none = settled(structure(STREET, "cuda", {}, {}), {}).model
    assert (none.start_from, none.fpn_channels) == ("camvid_lite0", 128)  # as wide as the model that it goes on with


def test_odd_sizes_and_machines() -> None:
    assert chosen(replace(STREET, size=(12, 16), largest=2000)).data.scale == (64, 64)
    assert chosen(STREET, machine=replace(CPU, memory_gb=None)).train.accumulate == 1
    assert chosen(STREET, minutes=0.01).optim.ema_decay == 0.9
    assert chosen(STREET, data__variants=4).data.rare_crops == 0


def test_a_model_that_is_gone_on_with_brings_its_sizes(folder_data: Path) -> None:
    plan = plan_training(folder_data, device="cpu", machine=CPU, given={"model.start_from": "camvid_lite0"})
    model = plan.config.model
    assert (model.backbone, model.fpn_channels, model.start_from) == ("tf_efficientnet_lite0", 128, "camvid_lite0")


@pytest.mark.parametrize(
    ("given", "said"),
    [({"data.crop": None}, "data.crop is none"), ({"train.minutes": None}, "train.minutes is none"),
     ({"train.minutes": 0.0}, "train.minutes is 0"), ({"data.root": None}, "data.root is not set"),
     ({"data.nonsense": 1}, "data.nonsense"), ({"model.architecture": "PanopticFPN"}, "tells no things apart")],
)  # fmt: skip
def test_what_cannot_be_planned_is_said_before_anything_is_measured(
    folder_data: Path, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        plan_training(None, device="cpu", given={"data.root": folder_data, **given})


def test_the_same_data_machine_and_time_give_the_same_settings(folder_data: Path) -> None:
    plans = [plan_training(folder_data, minutes=3, device="cpu", machine=CPU) for _ in range(2)]
    assert plans[0].config == plans[1].config == recipes.auto(folder_data, minutes=3, device="cpu", machine=CPU)
    assert plans[0].config.data.val_split == "val"
    assert plans[0].fingerprint.num_train == 6
    assert plans[0].fingerprint.size == (44, 60)
    assert "6 training images for 3 classes are few" in plans[0].notes[0]
    said: list[str] = []
    recipes.auto(folder_data, device="cpu", machine=CPU, say=said.append)
    assert len(said) == len(plans[0].choices) + 1
    assert all("(" in line for line in said[:-1])


def test_shares_and_sizes_are_those_of_the_masks(folder_data: Path) -> None:
    data, validates = located(Data(root=folder_data), named=False)
    found = look_at(data, validates=validates)
    masks = [cv2.imread(str(p), cv2.IMREAD_UNCHANGED) for p in sorted((folder_data / "masks/train").iterdir())]
    values = np.concatenate([m.ravel() for m in masks])
    labelled = np.isin(values, (0, 10, 20)).sum()
    assert found.shares["box"] == pytest.approx((values == 20).sum() / labelled, abs=1e-6)
    assert not found.segments


def test_without_a_split_for_validation_one_is_made(folder_data: Path) -> None:
    for part in ("images", "masks"):
        shutil.rmtree(folder_data / part / "val")
    plan = plan_training(folder_data, minutes=3, device="cpu", machine=CPU)
    assert plan.config.data.split == 0.3
    assert plan.fingerprint.val_split is None


def test_how_narrow_regions_are(tmp_path: Path) -> None:
    for split in ("train", "val"):
        stripes = np.zeros((64, 64), np.uint8)
        stripes[:, 20:24] = 1  # four pixels wide
        for kind in ("images", "masks"):
            (tmp_path / kind / split).mkdir(parents=True)
            pixels = stripes if kind == "masks" else np.repeat(stripes[..., None], 3, -1) * 90
            for name in "ab":
                cv2.imwrite(str(tmp_path / kind / split / f"{name}.png"), pixels)
    (tmp_path / "labels.yaml").write_text("classes:\n- {name: ground, value: 0}\n- {name: line, value: 1}\n")
    assert look_at(Data(root=tmp_path), validates=True).thin == 0.5


def test_instances_are_measured(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for split, count in (("train", 3), ("val", 2)):
        for i in range(count):
            index = np.zeros((64, 96), np.uint16)
            for k in range(6):
                index[8:18, 4 + 15 * k : 14 + 15 * k] = k + 1
            for part, pixels in (("images", np.full((64, 96, 3), 40 + i, np.uint8)), ("instances", index)):
                file = root / part / split / f"{i}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(file), pixels)
    (root / "labels.yaml").write_text("name: cells\nclasses:\n- {name: cell, value: 1, thing: true}\n"
                                      "- {name: ground, value: 0}\n")  # fmt: skip
    with pytest.raises(ValueError, match="is of SemanticFPN with tf_efficientnet_lite0 on cpu, but PanopticFPN"):
        plan_training(root, minutes=3, device="cpu", machine=CPU)
    plan = plan_training(root, minutes=3, device="cpu", machine=replace(CPU, architecture="PanopticFPN"))
    assert plan.config.model.architecture == "PanopticFPN"
    assert plan.fingerprint.most_alike == 6
    assert plan.fingerprint.thing_sides == (10.0, 10.0, 10.0)
    assert plan.fingerprint.most_things == 6
    assert plan.config.data.scale == (192, 192)
    semantic = plan_training(root, minutes=3, device="cpu", machine=CPU, given={"model.architecture": "SemanticFPN"})
    assert not semantic.fingerprint.segments
    file = root / "instances/train/1.png"
    index = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)[:60]
    cv2.imwrite(str(file), index)
    masks = root / "masks"
    for split in ("train", "val"):
        (masks / split).mkdir(parents=True)
        for i in range(3 if split == "train" else 2):
            cv2.imwrite(str(masks / split / f"{i}.png"), np.eye(64, 96, dtype=np.uint8))
    without = plan_training(root, minutes=3, device="cpu", machine=CPU)
    assert without.config.model.architecture == "SemanticFPN"
    assert without.notes[0].startswith("note: things are not told apart, as their maps cannot be used: ")
    assert "instances/" in without.notes[0]
    with pytest.raises(ValueError, match="instances"):
        plan_training(root, device="cpu", machine=CPU, given={"model.architecture": "PanopticFPN"})


def test_weights_lie_where_they_are_said_to(tmp_path: Path) -> None:
    for name in ("resnet18.safetensors", "readme.txt", "no_such_network.pth"):
        (tmp_path / name).write_bytes(b"")
    assert weights_at_hand(tmp_path) == {"resnet18": str(tmp_path / "resnet18.safetensors")}
    with pytest.raises(ValueError, match="called as timm calls"):
        weights_at_hand(tmp_path / "readme.txt")
    with pytest.raises(ValueError, match=r"resnet50\.safetensors: no such file or folder of weights"):
        weights_at_hand(tmp_path / "resnet50.safetensors")


def test_the_hub_has_no_say_in_what_a_cpu_trains(hub: Any, folder_data: Path) -> None:
    before = plan_training(folder_data, device="cpu", machine=CPU).config
    hub.repositories["timm/tf_efficientnet_lite0.in1k"] = {"main": {"model.safetensors": b"weights"}}
    assert plan_training(folder_data, device="cpu", machine=CPU).config == before
    assert before.model.start_from == "camvid_lite0"
    named = plan_training(folder_data, device="cpu", machine=CPU, given={"model.backbone": "tf_efficientnet_lite0"})
    assert (named.config.model.pretrained, named.config.model.start_from) == (True, None)


def test_the_hub_is_asked_where_nothing_is_cached(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert weights_at_hand(None) == {}
    hub.repositories["timm/tf_efficientnet_lite0.in1k"] = {"main": {"model.safetensors": b"weights"}}
    assert weights_at_hand(None) == {"tf_efficientnet_lite0": "hub"}
    assert weights_at_hand(None, "resnet18") == {}
    assert weights_at_hand(None, "no_such_network") == {}
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert weights_at_hand(None) == {}


def test_a_profile_of_another_network_or_none_is_refused(folder_data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="measure again"):
        plan_training(folder_data, device="cpu", machine=replace(CPU, network="resnet50"))
    file = tmp_path / "plan.json"
    for text in ("[]", '{"machine": {"device": "cpu"}}', '{"machine": {"cores": -1}}', "{}"):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"plan\.json"):
            read_machine(file)


def test_an_unlabelled_or_missing_folder_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "auto"]) == 2
    assert "data.root is not set" in capsys.readouterr().err
    assert main(["train", "auto", "--data.root", str(tmp_path / "none")]) == 2
    assert "no such file or folder" in capsys.readouterr().err
    assert main(["train", "auto", "--data.root", str(tmp_path), "--minutes", "-3"]) == 2
    assert "train.minutes is -3" in capsys.readouterr().err


def test_a_split_that_is_not_there_is_not_replaced_by_another(folder_data: Path) -> None:
    with pytest.raises(ValueError, match=r"vall: no such folder.* holds train, val"):
        plan_training(folder_data, device="cpu", machine=CPU, given={"data.val_split": "vall"})


@pytest.mark.parametrize("names", [("Train", "Val"), ("train2017", "val2017"), ("training", "validation")])
def test_a_split_for_validation_is_known_by_its_other_names(names: tuple[str, str], folder_data: Path) -> None:
    for part in ("images", "masks"):
        for old, new in zip(("train", "val"), names, strict=True):
            (folder_data / part / old).rename(folder_data / part / new)
    plan = plan_training(folder_data, minutes=20, device="cpu", machine=CPU, folds=None)
    assert (plan.fingerprint.num_train, plan.fingerprint.num_val, plan.folds) == (6, 3, 1)
    assert plan.fingerprint.val_split == names[1]


def test_a_bad_mask_of_validation_is_found_before_the_training(folder_data: Path) -> None:
    file = sorted((folder_data / "masks/val").iterdir())[-1]
    cv2.imwrite(str(file), cv2.imread(str(file), cv2.IMREAD_UNCHANGED)[:-3])
    with pytest.raises(ValueError, match=file.name):
        plan_training(folder_data, device="cpu", machine=CPU)


def test_one_class_alone_is_told(folder_data: Path) -> None:
    (folder_data / "labels.yaml").write_text("classes:\n- {name: sky, value: 0}\n- {name: moon, value: 77}\n"
                                             "ignore: [10, 20, 255]\n")  # fmt: skip
    notes = plan_training(folder_data, device="cpu", machine=CPU).notes
    assert notes[0].startswith("note: of 2 classes only sky has pixels, read as folder (data.dataset)")


def test_the_verb_measures_trains_and_leaves_its_plan(
    folder_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "auto", f"--data.root={folder_data}", "--minutes=0.2", "--device", "cpu", "--run.dir",
             str(tmp_path / "run"), "--model.fpn-channels", "16", "--run.loggers", "tensorboard"]  # fmt: skip
    assert main(words) == 0
    out = capsys.readouterr()
    assert "images/s measured" in out.err
    assert "model.fpn_channels        16  (given)" in out.err
    assert "best mIoU" in out.out
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert plan["machine"]["pixels_per_s"] > 0
    assert {c["key"] for c in plan["choices"]} >= {"data.crop", "optim.lr", "train.minutes"}
    assert read_machine(tmp_path / "run" / "plan.json").cores >= 1
    assert torch.get_num_threads() == 1


def test_auto_is_listed_with_the_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    assert "panfpn train auto --help" in capsys.readouterr().out
    assert main(["recipes", "auto"]) == 0
    assert "Hardware: any" in capsys.readouterr().out
