"""Recipes: named functions that return a whole TrainConfig. `changes` are keys: `camvid_lite0(optim__lr=1e-3)`.

Each docstring holds the command, the hardware and hours, and the expected score.
"""

import difflib
import inspect
from collections.abc import Callable

from panfpn.config import TrainConfig
from panfpn.recipes.automatic import auto
from panfpn.recipes.panoptic import (
    panoptic_folder,
    panoptic_r50_cityscapes,
    panoptic_r50_coco_1x,
    panoptic_r50_coco_3x,
    panoptic_r101_cityscapes,
    panoptic_r101_coco_3x,
    panoptic_scenes,
)
from panfpn.recipes.probes import (
    dinov3_frozen,
    probe_ade20k,
    probe_ade20k_moganet,
    probe_ade20k_nextvit,
    probe_ade20k_poolformer,
    probe_ade20k_repvit,
    probe_ade20k_twins,
    probe_ade20k_uniformer,
    probe_ade20k_xcit,
    vit_ade20k,
)
from panfpn.recipes.published import (
    fpn_r50_ade20k,
    fpn_r50_cityscapes,
    fpn_r101_ade20k,
    fpn_r101_cityscapes,
    paper_r50_cityscapes,
    paper_r101_cityscapes,
)
from panfpn.recipes.small import camvid_lite0, folder, probe, scenes

__all__ = [
    "NAMES",
    "auto",
    "camvid_lite0",
    "describe",
    "dinov3_frozen",
    "find",
    "folder",
    "fpn_r50_ade20k",
    "fpn_r50_cityscapes",
    "fpn_r101_ade20k",
    "fpn_r101_cityscapes",
    "panoptic_folder",
    "panoptic_r50_cityscapes",
    "panoptic_r50_coco_1x",
    "panoptic_r50_coco_3x",
    "panoptic_r101_cityscapes",
    "panoptic_r101_coco_3x",
    "panoptic_scenes",
    "paper_r50_cityscapes",
    "paper_r101_cityscapes",
    "probe",
    "probe_ade20k",
    "probe_ade20k_moganet",
    "probe_ade20k_nextvit",
    "probe_ade20k_poolformer",
    "probe_ade20k_repvit",
    "probe_ade20k_twins",
    "probe_ade20k_uniformer",
    "probe_ade20k_xcit",
    "scenes",
    "summary",
    "vit_ade20k",
]  # fmt: skip

_RECIPES: dict[str, Callable[..., TrainConfig]] = {
    recipe.__name__: recipe
    for recipe in (
        scenes, camvid_lite0, folder, probe, panoptic_scenes, panoptic_folder,
        fpn_r50_cityscapes, fpn_r101_cityscapes, fpn_r50_ade20k, fpn_r101_ade20k,
        paper_r50_cityscapes, paper_r101_cityscapes,
        panoptic_r50_coco_1x, panoptic_r50_coco_3x, panoptic_r101_coco_3x,
        panoptic_r50_cityscapes, panoptic_r101_cityscapes,
        probe_ade20k, probe_ade20k_poolformer, probe_ade20k_repvit, probe_ade20k_nextvit, probe_ade20k_twins,
        probe_ade20k_moganet, probe_ade20k_uniformer, probe_ade20k_xcit, vit_ade20k, dinov3_frozen,
    )
}  # fmt: skip
NAMES = tuple(_RECIPES)


def find(name: str) -> Callable[..., TrainConfig]:
    """The recipe called `name`; ValueError names the nearest."""
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.3)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(NAMES)}"
        raise ValueError(f"no recipe {name!r}; {hint} (a configuration file ends in .yaml)")
    return _RECIPES[name]


def summary(name: str) -> str:
    """The first line of a recipe's docstring."""
    return (find(name).__doc__ or "").splitlines()[0]


def describe(name: str) -> str:
    """A recipe's docstring and its settings as YAML."""
    return f"{inspect.getdoc(find(name))}\n\n{find(name)().to_yaml()}"
