"""Settings that follow from the data, the machine and the time. In: what they are. Out: choices, each with its reason.

Nothing is read or measured here (panfpn.planning does): the same data, machine and minutes give the same settings.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from panfpn.config import Data, Run, TrainConfig
from panfpn.recipes.observed import Choice, Fingerprint, Machine, fixed
from panfpn.recipes.sizes import PIXELS, scale_factor, sizes_of

DEVICES = tuple(PIXELS)
_BATCHES = {"cpu": (16, 8, 4), "cuda": (32, 16, 8), "mps": (16, 8, 4)}
_STEPS_WANTED = 1500  # before batches become larger
_TRAINED = 0.9  # share of the time that is spent in steps
_VALIDATING = 0.08  # at most so much of it in validations
_LONGEST_VALIDATION = 0.1  # of it in one
_FEWEST_SCORED = 50  # images
_FORWARD = 3.0  # how many times as fast a validation sees pixels
_MOST_MEMORY = 0.6  # share of the free memory that a step may take
FEW = 64  # images, fewer than which are divided into folds where no split validates
FOLDS = 3
_RARE = 0.005  # share of the pixels
_MOST_COUNTED = 2000  # images, all of whose masks are read for crops of rare classes


def structure(data: Fingerprint, device: str, weights: Mapping[str, str], given: Mapping[str, Any]) -> list[Choice]:
    """What does not depend on the pace: data, network, crop, augmentation, loss.

    `weights` are the backbones whose ImageNet weights are at hand, and where: a file, or "hub".
    """
    apart = data.segments and data.most_alike > 1
    architecture = given.get("model.architecture", "PanopticFPN" if apart else "SemanticFPN")
    panoptic = architecture == "PanopticFPN"
    sizes = list(sizes_of(data, device, given, panoptic=panoptic))
    factor = scale_factor(data, given.get("data.scale", next((c.value for c in sizes if c.key == "data.scale"), None)))
    return [
        *fixed(_MEASURED), *fixed(_PANOPTIC if panoptic else _SEMANTIC),
        Choice(key="model.architecture", value=architecture, reason="things are told apart in these data" if panoptic
               else "no image has two things of one class" if data.segments else "no instances in these data"),
        *_of_data(data), *sizes, *_of_network(device, weights, given),
        *(_of_things(data, factor) if panoptic else _of_classes(data, given)),
    ]  # fmt: skip


_MEASURED = (  # whatever the data are
    "of all small recipes that were measured",
    {"optim.name": "adamw", "optim.decay_norm_bias": False, "optim.clip_norm": 5.0, "optim.min_lr": 0.0},
)
_SEMANTIC = (
    "measured for fine-tuning on a few hundred photos (recipe camvid_lite0)",
    {"optim.weight_decay": 0.05, "optim.backbone_lr_factor": 0.5, "model.drop_path": 0.05, "loss.dice": 0.5},
)
_PANOPTIC = (
    "measured on nuclei and street scenes (recipe panoptic_folder)",
    {"optim.weight_decay": 0.01, "model.norm": "group", "model.dropout": 0.0, "model.box_channels": 512,
     "model.mask_channels": 128, "train.rois": 64},
)  # fmt: skip


def _of_data(data: Fingerprint) -> Iterator[Choice]:
    yield Choice(key="data.dataset", value=data.dataset, reason="the layout that the folder has")
    yield Choice(key="data.root", value=data.root, reason="given")
    yield Choice(key="data.train_split", value=data.train_split, reason=f"{data.num_train} images")
    if data.val_split is not None:
        yield Choice(key="data.val_split", value=data.val_split, reason=f"{data.num_val} images")
    else:
        share = 0.3 if data.num_train < FEW else 0.2
        yield Choice(key="data.split", value=share, reason=f"no split for validation: {share:.0%} of the "
                     f"{data.num_train} images validate, each class divided so")  # fmt: skip
    if data.channels != 3:
        yield Choice(key="model.in_channels", value=data.channels, reason="bands of the images")


def _of_network(device: str, weights: Mapping[str, str], given: Mapping[str, Any]) -> Iterator[Choice]:
    """Backbone, weights and width; what continues a model (`model.start_from`) has that model's."""
    if given.get("model.start_from"):
        return
    wide = device == "cuda" and bool(weights)
    yield Choice(key="model.fpn_channels", value=256 if wide else 128,
                 reason="the paper's" if wide else "half the paper's width, a third of its time")  # fmt: skip
    wanted = ("convnext_tiny", "resnet50", "tf_efficientnet_lite0") if wide else ("tf_efficientnet_lite0", "resnet18")
    name = given.get("model.backbone") or next((n for n in wanted if n in weights), next(iter(weights), None))
    if name is None:
        why = "all that fits of the model that ships, which is at hand everywhere; ImageNet weights by --weights"
        yield Choice(key="model.backbone", value="tf_efficientnet_lite0", reason="of the model that ships with panfpn")
        yield Choice(key="model.start_from", value="camvid_lite0", reason=why)
        return
    why = f"the best for {device} of those whose weights are at hand: {', '.join(weights)}"
    yield Choice(key="model.backbone", value=name, reason=why)
    if name not in weights:
        why = (
            "its ImageNet weights are neither at hand nor to be had (--weights FILE): it learns from these images alone"
        )
        yield Choice(key="model.pretrained", value=False, reason=why)
    elif weights[name] == "hub":
        yield Choice(key="model.pretrained", value=True, reason="from the hub, or its cache")
    else:
        yield Choice(key="model.backbone_weights", value=Path(weights[name]), reason="a local file")


def _of_classes(data: Fingerprint, given: Mapping[str, Any]) -> Iterator[Choice]:
    there = {name: share for name, share in data.shares.items() if share > 0}
    if len(there) < 3:
        return
    reason = f"classes have {min(there.values()):.2%} to {max(there.values()):.0%} of the pixels (measured on CamVid)"
    yield Choice(key="loss.class_weights", value="root", reason=reason)
    rare = {name: share for name, share in there.items() if share < _RARE}
    if rare and data.num_train <= _MOST_COUNTED and not given.get("data.variants"):
        name = min(rare, key=lambda n: rare[n])
        yield Choice(key="data.rare_crops", value=0.5, reason=f"{name!r} has {rare[name]:.2%} of the pixels"
                     + f", and {len(rare) - 1} more are rare" * (len(rare) > 1))  # fmt: skip


def _of_things(data: Fingerprint, factor: float) -> Iterator[Choice]:
    """Anchors and thresholds; the network sees things `factor` times as large as they are."""
    tenth, median, most = (factor * side for side in data.thing_sides)
    yield Choice(
        key="model.anchor_scale",
        value=4.0 if median < 100 else 8.0,
        reason=f"the network sees things with sides of {tenth:.0f} to {most:.0f} pixels (10 % to 90 %)",
    )
    if data.most_things > 60:
        value = min(1000, math.ceil(1.5 * data.most_things / 50) * 50)
        yield Choice(key="inference.detections", value=value, reason=f"an image has up to {data.most_things} things")
    yield Choice(
        key="inference.stuff_area",
        value=64 if max(data.size) <= 640 else 1024,
        reason=f"images of {data.size[1]}×{data.size[0]} are smaller than COCO's, whose 4096 is the default",
    )


def rhythm(
    data: Fingerprint, machine: Machine, minutes: float, settings: Data, given: Mapping[str, Any]
) -> list[Choice]:
    """What follows from the pace with `settings` of the data: batch, learning rate, warm-up, average, validations."""
    assert settings.crop is not None, "samples have one size"
    pixels = settings.crop[0] * settings.crop[1]
    images = 60 * minutes * _TRAINED * machine.pixels_per_s / pixels
    sizes = _BATCHES[machine.device]
    batch = next((b for b in sizes if images / b >= _STEPS_WANTED), sizes[-1])
    whole = given.get("train.accumulate", 1)
    batch = given.get("train.batch_size", math.ceil(batch / whole) * whole)
    steps = max(1, int(images / batch))
    limit = math.inf if machine.memory_gb is None else _MOST_MEMORY * machine.memory_gb
    parts = 1
    while parts < batch and batch / parts * pixels * machine.bytes_per_pixel / 1e9 > limit and batch % (2 * parts) == 0:
        parts *= 2
    free = "an unknown" if machine.memory_gb is None else f"{machine.memory_gb:.1f} GB of"
    pace = f"{machine.pixels_per_s / pixels:.3g} images/s measured"
    validation, count = validation_seconds(data, machine, settings), num_val(data)
    part = max(min(count, _FEWEST_SCORED), int(count * min(1.0, _LONGEST_VALIDATION * 60 * minutes / validation)))
    each = validation * part / count
    times = max(1, min(10, int(_VALIDATING * 60 * minutes / each)))
    lr = 1.5e-3 * math.sqrt(batch / 8)
    return [
        Choice(key="train.minutes", value=minutes, reason="the time that there is"),
        Choice(key="train.batch_size", value=batch, reason=f"{pace}: about {steps} steps in {minutes:g} minutes"),
        Choice(key="train.accumulate", value=parts, reason=f"of {free} free memory a step may take {_MOST_MEMORY:.0%}"),
        Choice(key="optim.lr", value=float(f"{lr:.2g}"), reason=f"1.5e-3 for batches of 8, by the root of {batch}"),
        Choice(key="optim.warmup_steps", value=max(5, min(500, steps // 20)), reason="a twentieth of the steps"),
        Choice(key="optim.ema_decay", value=float(f"{min(0.9998, max(0.9, 1 - 5 / steps)):.5g}"),
               reason="the average of the last fifth of the steps is what is released"),
        Choice(key="run.val_every", value=max(1, math.ceil(steps / times)),
               reason=f"{times} validation{'s' * (times > 1)} of about {each:.0f} s"),
        *([Choice(key="run.val_images", value=part, reason=f"all {count} would take {validation:.0f} s each time; "
                  "panfpn eval scores all of them")] if part < count else []),
        Choice(key="run.checkpoint_every", value=max(1, steps // 20), reason="a kill costs a twentieth of the time"),
        Choice(key="run.log_every", value=max(1, min(50, steps // 40)), reason="some forty lines"),
        Choice(key="data.num_workers", value=1 if machine.device == "cpu" else min(8, max(1, machine.cores - 1)),
               reason=f"{machine.cores} cores" + ", which the network needs" * (machine.device == "cpu")),
    ]  # fmt: skip


def num_val(data: Fingerprint) -> int:
    """Images that validate, where a part of those for training does if no others are there."""
    return data.num_val or max(1, round(0.2 * data.num_train))


def validation_seconds(data: Fingerprint, machine: Machine, settings: Data) -> float:
    """What a validation on all images takes, about."""
    image = data.size[0] * data.size[1] * scale_factor(data, settings.scale) ** 2
    return num_val(data) * image / (_FORWARD * machine.pixels_per_s)


def settled(choices: list[Choice], given: Mapping[str, Any]) -> TrainConfig:
    """The configuration of choices; what is `given` (by dotted key) wins."""
    values = {c.key: c.value for c in choices}
    return TrainConfig(run=Run(name="auto")).changed(**{**values, **given})


def auto(
    data: str | Path, *, minutes: float = 60.0, device: str = "auto", weights: str | Path | None = None,
    machine: Machine | None = None, say: Callable[[str], Any] | None = None, **changes: Any,
) -> TrainConfig:  # fmt: skip
    """Settings for a folder of photos and a time limit, from the data and a short measurement of this machine.

    Command: panfpn train auto --data.root DIR --minutes 60
    Hardware: any; a step is measured first, for about 20 seconds. Score: see docs/benchmarks.md.
    `weights` is a file or a folder of files NAME.safetensors with ImageNet weights of timm's backbones; `machine` an
    earlier measurement, with which the settings depend on the data and the weights at hand alone; `say` gets each
    choice with its reason.
    """
    from panfpn.planning import plan_training  # noqa: PLC0415 - it looks and measures, which is far above recipes

    plan = plan_training(data, minutes=minutes, device=device, weights=weights, machine=machine, given=changes)
    for line in plan.lines() if say else ():
        assert say is not None
        say(line)
    return plan.config
