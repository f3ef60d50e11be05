"""What the settings of a run must be. In: a TrainConfig. Out: its rules, each with the sentence for who breaks it."""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any


def rules(c: Any) -> list[tuple[str, bool, str]]:
    """Key, whether its value is possible, and what it must be.

    A configuration's own class lies above this file, which so takes any object of its shape.
    """
    d, m, o, t, r, i = c.data, c.model, c.optim, c.train, c.run, c.inference
    return [
        ("data.pack", d.pack is None or d.dataset != "scenes", "none for procedural scenes, which are drawn"),
        ("data.crop", d.crop is None or min(d.crop) > 0, "two positive sizes in pixels, or none"),
        ("data.scale", d.scale is None or min(d.scale) > 0, "two positive sizes in pixels, or none"),
        ("data.size_divisor", d.size_divisor > 0, "positive"),
        ("data.ratio", 0 < d.ratio[0] <= d.ratio[1], "two positive factors, the smaller first"),
        ("data.short_sides", min(d.short_sides or (1,)) > 0, "positive sizes in pixels"),
        ("data.short_sides", not d.short_sides or d.scale is not None, "empty where data.scale is none"),
        ("data.instances", d.instances == "panoptic" or d.dataset == "coco_panoptic", "panoptic but for coco_panoptic"),
        ("data.aspect", d.aspect >= 1, "a factor of at least 1"),
        ("data.cat_max_ratio", 0 < d.cat_max_ratio <= 1, "a share above 0, at most 1"),
        ("data.flip", 0 <= d.flip <= 1, "a probability from 0 to 1"),
        ("data.photometric", d.photometric >= 0, "0 or more"),
        ("data.num_workers", d.num_workers >= 0, "0 or more"),
        ("data.scenes", min(d.scenes) > 0, "two positive counts"),
        ("data.scene_size", min(d.scene_size) >= 64, "two sizes of at least 64 pixels"),
        ("model.num_classes", m.num_classes is None or m.num_classes > 0, "positive, or none"),
        ("model.in_channels", m.in_channels > 0, "positive"),
        ("model.fpn_channels", m.fpn_channels > 0, "positive"),
        ("model.head_channels", m.head_channels > 0, "positive"),
        ("model.dropout", 0 <= m.dropout < 1, "from 0 to below 1"),
        ("model.drop_path", 0 <= m.drop_path < 1, "from 0 to below 1"),
        ("model.anchor_scale", 0 < m.anchor_scale <= 64, "above 0, at most 64"),
        ("model.box_channels", m.box_channels > 0, "positive"),
        ("model.mask_channels", m.mask_channels > 0, "positive"),
        ("loss.instance", 0 <= c.loss.instance < math.inf, "0 or more"),
        *((f"loss.{name}", 0 <= weight < math.inf, "0 or more") for name, weight in c.loss.weights.items()),
        ("loss.focal_gamma", 0 <= c.loss.focal_gamma < math.inf, "0 or more"),
        ("loss.cross_entropy", any(c.loss.weights.values()), "positive, or another term of the loss"),
        ("loss.ohem_threshold", 0 < c.loss.ohem_threshold <= 1, "above 0, at most 1"),
        ("loss.ohem_min_kept", 0 <= c.loss.ohem_min_kept <= 1, "a share from 0 to 1"),
        ("loss.label_smoothing", 0 <= c.loss.label_smoothing < 1, "from 0 to below 1"),
        ("optim.lr", 0 < o.lr < math.inf, "positive"),
        ("optim.min_lr", 0 <= o.min_lr < math.inf, "0 or more"),
        ("optim.power", o.power > 0, "positive"),
        (
            "optim.mmcv_0x",
            not o.mmcv_0x or o.schedule in ("poly", "cosine"),
            "false for a schedule but poly and cosine",
        ),
        ("optim.milestones", bool(o.milestones) == (o.schedule == "step"), "set for schedule step, and for no other"),
        ("optim.milestones", _rise(0, *o.milestones, max(t.steps, 1)), "rising steps above 0 and below train.steps"),
        ("optim.gamma", 0 < o.gamma <= 1, "above 0, at most 1"),
        ("optim.warmup_factor", 0 <= o.warmup_factor <= 1, "from 0 to 1"),
        ("loss.class_weights", min(c.loss.class_weights or (0,)) >= 0, "0 or more for every class"),
        ("model.std", min(m.std or (1,)) > 0, "positive for every channel"),
        ("optim.momentum", 0 <= o.momentum < 1, "from 0 to below 1"),
        ("optim.betas", all(0 <= beta < 1 for beta in o.betas), "two numbers from 0 to below 1"),
        ("optim.weight_decay", 0 <= o.weight_decay < math.inf, "0 or more"),
        ("optim.warmup_steps", 0 <= o.warmup_steps < max(t.steps, 1), "from 0 to below train.steps"),
        ("optim.clip_norm", o.clip_norm is None or o.clip_norm > 0, "positive, or none"),
        ("optim.ema_decay", o.ema_decay is None or 0 < o.ema_decay < 1, "between 0 and 1, or none"),
        ("train.steps", t.steps > 0, "positive"),
        ("train.batch_size", t.batch_size > 0, "positive"),
        ("train.accumulate", t.accumulate > 0, "positive"),
        ("train.freeze_at", t.freeze_at in (0, 2, 3, 4, 5), "0, or 2 to 5"),
        ("train.freeze_at", not t.freeze_at or t.frozen_bn, "0 where train.frozen_bn is not set"),
        ("train.rois", t.rois >= 4, "at least 4, as a quarter of them are on things"),
        ("train.seed", 0 <= t.seed < 2**32, "from 0 to 2**32 - 1"),
        ("run.log_every", r.log_every > 0, "positive"),
        ("run.val_every", r.val_every > 0, "positive"),
        ("run.checkpoint_every", r.checkpoint_every > 0, "positive"),
        ("run.val_batch_size", r.val_batch_size > 0, "positive"),
        ("run.patience", r.patience is None or r.patience > 0, "positive, or none"),
        ("inference.window", min(i.window) > 0, "two positive sizes in pixels"),
        (
            "inference.stride",
            all(0 < step <= side for step, side in zip(i.stride, i.window, strict=True)),
            "two positive steps, at most the window's size, so that no pixel is left out",
        ),
        (
            "inference.ratios",
            i.ratios and all(0 < r <= 100 for r in i.ratios),
            "factors above 0, up to 100",
        ),
        *(
            (f"inference.{name}", 0 <= getattr(i, name) <= 1, "from 0 to 1")
            for name in ("box_score", "nms", "confidence", "overlap")
        ),
        ("inference.detections", 0 < i.detections <= 10_000, "from 1 to 10000"),  # ids of segments are int16
        ("inference.mode", m.architecture != "PanopticFPN" or i.mode == "whole", "whole for Panoptic FPN"),
        ("inference.stuff_area", i.stuff_area >= 0, "0 or more"),
        *(_of_instances(c) if m.architecture == "SemanticFPN" else ()),
    ]


_INSTANCES = {
    "data": ("instances",),
    "model": ("semantic_things", "anchor_scale", "box_channels", "mask_channels"),
    "loss": ("instance",),
    "train": ("rois",),
    "inference": (
        "box_score", "nms", "nms_over_classes", "detections", "confidence", "overlap", "stuff_area",
    ),
}  # fmt: skip


def _of_instances(c: Any) -> Iterator[tuple[str, bool, str]]:
    """What Semantic FPN would ignore must be left alone."""
    for section, names in _INSTANCES.items():
        part = getattr(c, section)
        for name in names:
            default = type(part).__dataclass_fields__[name].default
            yield f"{section}.{name}", getattr(part, name) == default, f"left at {default!r}: it is Panoptic FPN's"


def _rise(*values: int) -> bool:
    return all(low < high for low, high in pairwise(values))
