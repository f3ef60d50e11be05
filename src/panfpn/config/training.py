"""What only a training has, its losses, optimiser, loop and folder; and the configuration of a whole run."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, make_dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from panfpn.choices import LOGGERS, LOSSES, OPTIMIZERS, SCHEDULES
from panfpn.config.model import Data, Inference, Model
from panfpn.parsing import (
    BelowOne,
    Bounds,
    Count,
    NotNegative,
    Only,
    Share,
    check_key,
    check_settings,
    convert,
    parse,
    plain,
    require,
    settings_of,
)
from panfpn.yaml_text import read_yaml

if TYPE_CHECKING:  # a type checker cannot read choices from a dict
    LoggerName = str
    OptimizerName = str
    ScheduleName = str
else:
    LoggerName, OptimizerName, ScheduleName = Literal[*LOGGERS], Literal[*OPTIMIZERS], Literal[*SCHEDULES]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
_PANOPTIC = Only("PanopticFPN")
_MILESTONES = "rising steps above 0 and below train.steps"


_LossWeights: Any = make_dataclass(
    "_LossWeights",
    [(name, NotNegative, field(default=1.0 if name == "cross_entropy" else 0.0)) for name in LOSSES],
    frozen=True,
    kw_only=True,
    namespace={
        "__doc__": "\n".join(
            ("Weights.", "", "Attributes:", *(f"    {name}: Weight of this term; 0 = off." for name in LOSSES))
        )
    },
)


@dataclass(frozen=True, kw_only=True)
class Loss(_LossWeights):  # type: ignore[misc]  # a field for every line of choices.LOSSES
    """Weights of the loss terms (0 = off) and their settings."""

    denominator: Literal["labelled", "all"] = "labelled"
    """Divide the pixel losses by the labelled pixels, or by all pixels as mmsegmentation does."""
    class_weights: Annotated[
        tuple[float, ...] | Literal["auto", "median", "root", "effective"] | None,
        Bounds(at_least=0, of="a weight for every class"),
    ] = None
    """Of cross-entropy, OHEM and focal loss. From the pixels of training images (2,000 of more): median (auto is the
    same), the median class's frequency over each class's; root, the root of that; effective, one over the effective
    number of images that have it."""
    label_smoothing: BelowOne = 0.0
    ohem_threshold: Annotated[float, Bounds(above=0, at_most=1, of="a probability")] = 0.7
    """Pixels whose true class has at least this probability are easy."""
    ohem_min_kept: Share = 0.0625
    """Share of the pixels kept even if they are easy."""
    focal_gamma: NotNegative = 2.0
    instance: Annotated[NotNegative, _PANOPTIC] = 1.0
    """Panoptic FPN: λi, the weight of all losses of the instance branch (λs is cross_entropy)."""

    def __post_init__(self) -> None:
        check_settings(self, "loss.")
        first, *others = self.weights.items()
        wanted = f"positive, or another term of the loss ({', '.join(name for name, _ in others)})"
        require(any(self.weights.values()), f"loss.{first[0]}", first[1], wanted)

    @property
    def weights(self) -> dict[str, float]:
        """The weight of every term by its name."""
        return {name: getattr(self, name) for name in LOSSES}


@dataclass(frozen=True, kw_only=True)
class Optim:
    """Optimiser and learning rate (defaults: those of mmsegmentation)."""

    name: OptimizerName = "sgd"
    lr: Annotated[float, Bounds(above=0)] = 0.01
    momentum: BelowOne = 0.9
    betas: Annotated[tuple[float, float], Bounds(at_least=0, below=1, of="two numbers")] = (0.9, 0.999)
    weight_decay: NotNegative = 5e-4
    decay_norm_bias: bool = True
    """Decay normalisation weights, biases, layer scales, positions and class tokens too."""
    no_decay: tuple[str, ...] = ()
    """Patterns (with * and ?) of names of further weights that are not decayed, such as backbone.*norm*."""
    backbone_lr_factor: NotNegative = 1.0
    layer_decay: Annotated[float, Bounds(above=0, at_most=1)] = 1.0
    """What the rate is multiplied by from each layer of the backbone to the one before it (BEiT, MAE, ViTDet)."""
    schedule: ScheduleName = "poly"
    power: Annotated[float, Bounds(above=0)] = 0.9
    """Of poly."""
    min_lr: NotNegative = 1e-4
    """Where poly and cosine end."""
    mmcv_0x: bool = False
    """Poly and cosine would end one step after the last one, as in mmcv 0.x, which older repositories train with."""
    milestones: tuple[int, ...] = ()
    """Steps from which on schedule `step` multiplies the rate by `gamma`, once more at each."""
    gamma: Annotated[float, Bounds(above=0, at_most=1)] = 0.1
    warmup_steps: Annotated[int, Bounds(at_least=0)] = 0
    warmup_factor: Share = 0.001
    """Fraction of the learning rate at the first step of a linear warm-up."""
    clip_norm: Annotated[float | None, Bounds(above=0)] = None
    ema_decay: Annotated[float | None, Bounds(above=0, below=1)] = None
    """Keep an exponential moving average of the weights; it is what is evaluated and released."""

    def __post_init__(self) -> None:
        check_settings(self, "optim.")
        steps = self.milestones
        poly = self.schedule in ("poly", "cosine")
        require(not self.mmcv_0x or poly, "optim.mmcv_0x", self.mmcv_0x, "false for a schedule but poly and cosine")
        fits = bool(steps) == (self.schedule == "step")
        require(fits, "optim.milestones", steps, "set for schedule step, and for no other")
        require(all(low < high for low, high in pairwise((0, *steps))), "optim.milestones", steps, _MILESTONES)


@dataclass(frozen=True, kw_only=True)
class Train:
    """The loop."""

    steps: Count = 80_000
    minutes: Annotated[float | None, Bounds(above=0)] = None
    """In place of steps: as many as are done in this time, validations and all; the schedule follows the pace."""
    batch_size: Count = 8
    """Images per step over all ranks and accumulated micro-batches."""
    accumulate: Count = 1
    """Micro-batches per step and rank."""
    seed: Annotated[int, Bounds(at_least=0, below=2**32)] = 0
    precision: Precision = "auto"
    """auto: bfloat16 where the hardware has it, else float16 on CUDA and float32 elsewhere."""
    channels_last: bool = True
    compile: bool = False
    """torch.compile of the network: minutes at the start, then faster on GPUs."""
    recompute: bool = False
    """Activation checkpointing: the backbone's stages compute again in the backward pass what they did not keep; less
    memory for a third more time, same gradients."""
    sync_bn: bool = True
    """Batch norm over all ranks, when there are several."""
    frozen_bn: bool = False
    """Keep the backbone's batch norm as it was pretrained (the paper's fixed affine)."""
    freeze_at: Literal[0, 2, 3, 4, 5, "all"] = 0
    """Do not train the backbone up to c2 (2) … c5 (5); detectron2 freezes 2. all: nothing of it, and it stays in
    evaluation mode."""
    cache_gb: NotNegative = 0.0
    """With freeze_at all and data.variants: the backbone's maps of every form are computed once, before the first step,
    and kept in the run folder, in at most so many GB; 0: they are computed in every step."""
    rois: Annotated[int, Bounds(at_least=4), _PANOPTIC] = 512
    """Panoptic FPN: boxes of an image that the box head is trained on in a step, a quarter of them on things."""

    def __post_init__(self) -> None:
        check_settings(self, "train.")
        require(self.frozen_bn or self.freeze_at in (0, "all"), "train.freeze_at", self.freeze_at,
                "0 or all where train.frozen_bn is not set")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Run:
    """Where a run lives, and how often it logs, validates and saves."""

    name: str = "semantic_fpn"
    dir: Path | None = None
    """Folder of the run, which must not hold one yet; None: runs/NAME, numbered where that is taken."""
    device: str = "auto"
    """auto: cuda, else mps, else cpu."""
    log_every: Count = 50
    val_every: Count = 2_000
    checkpoint_every: Count = 1_000
    val_batch_size: Count = 1
    val_images: Count | None = None
    """Score so many images of the validation split, spread over it; None: all."""
    patience: Count | None = None
    """Stop after this many validations without a better mIoU."""
    loggers: tuple[LoggerName, ...] = ("tensorboard",)
    """Where curves and pictures go, beside the files of the run (wandb, mlflow: pip install 'panfpn[NAME]')."""

    def __post_init__(self) -> None:
        check_settings(self, "run.")
        plain_name = self.name.strip() and not set(self.name) & set("/\\\0") and self.name.strip(".")
        require(bool(plain_name), "run.name", self.name, "the name of a folder in runs/; run.dir takes a path")
        require(len(set(self.loggers)) == len(self.loggers), "run.loggers", self.loggers, "each of them once")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run, completely."""

    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    loss: Loss = field(default_factory=Loss)
    optim: Optim = field(default_factory=Optim)
    train: Train = field(default_factory=Train)
    run: Run = field(default_factory=Run)
    inference: Inference = field(default_factory=Inference)

    def __post_init__(self) -> None:
        check_settings(self, "")
        check_architecture(self.model.architecture, *(getattr(self, f.name) for f in fields(self)))
        bands, channels = self.data.bands, self.model.in_channels
        fits = not bands or len(bands) == channels
        require(fits, "data.bands", bands, f"of as many bands as the network sees: {channels} (model.in_channels)")
        needed = {
            "train.freeze_at all": self.train.freeze_at == "all", "data.variants": self.data.variants,
            "data.crop": self.data.crop, "model.architecture SemanticFPN": self.model.architecture == "SemanticFPN",
        }  # fmt: skip
        missing = " and ".join(key for key, there in needed.items() if not there)
        wanted = (
            f"0 without {missing}: the backbone's maps of an image must be the same in every epoch, and of one size"
        )
        require(not self.train.cache_gb or not missing, "train.cache_gb", self.train.cache_gb, wanted)
        milestones, warmup, steps = self.optim.milestones, self.optim.warmup_steps, self.train.steps
        timed = self.train.minutes is not None
        counted = not timed or self.optim.schedule != "step"
        require(counted, "train.minutes", self.train.minutes, "none where optim.schedule counts steps (step)")
        require(timed or all(step < steps for step in milestones), "optim.milestones", milestones, _MILESTONES)
        require(timed or warmup < steps, "optim.warmup_steps", warmup, "from 0 to below train.steps")

    def changed(self, **changes: Any) -> "TrainConfig":
        """A copy with changes by dotted or double-underscored key: `changed(**{"optim.lr": 0.1})`, `optim__lr=0.1`.

        A whole section, `optim=Optim(…)`, comes before the keys in it; a mapping changes what it names. ValueError for
        an unknown key, or for a value that is impossible when all changes are made.
        """
        whole: dict[str, Any] = {}
        parts: dict[str, dict[str, Any]] = {}
        for key, value in changes.items():
            section, _, name = key.replace("__", ".").partition(".")
            check_key(section, fields(self), "")
            if not name and not isinstance(value, Mapping):
                whole[section] = convert(value, type(getattr(self, section)), section)
                continue
            for inner, entry in ({name: value} if name else value).items():
                check_key(inner, fields(getattr(self, section)), f"{section}.")
                parts.setdefault(section, {})[inner] = entry
        for section, values in parts.items():
            whole[section] = replace(whole.get(section, getattr(self, section)), **values)
        return replace(self, **whole)

    def to_dict(self) -> dict[str, Any]:
        """Plain data: str, int, float, bool, None, list, dict."""
        return plain(asdict(self))  # type: ignore[no-any-return]

    def to_yaml(self) -> str:
        """The configuration as YAML that `from_yaml` reads back."""
        import yaml  # noqa: PLC0415 - only where text leaves

        return str(yaml.safe_dump(self.to_dict(), sort_keys=False))

    @staticmethod
    def from_yaml(path: str | Path) -> "TrainConfig":
        """Read a YAML file; ValueError names the file, the key, and the nearest key or the wanted type."""
        data = read_yaml(Path(path))
        try:
            return parse(TrainConfig, {} if data is None else data)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def check_architecture(architecture: str, *sections: Any) -> None:
    """ValueError unless every setting that only another architecture has is left at its default."""
    for section in sections:
        for setting in settings_of(type(section)):
            if setting.only and setting.only.architecture != architecture:
                owner = setting.only.architecture.replace("FPN", " FPN")
                key, value = f"{type(section).__name__.lower()}.{setting.name}", getattr(section, setting.name)
                require(value == setting.default, key, value, f"left at {setting.default!r}: it is {owner}'s")


def keys_of(architecture: str) -> frozenset[str]:
    """Dotted keys of the settings that only this architecture has."""
    keys = set()
    for part in fields(TrainConfig):
        for setting in settings_of(part.type):
            if setting.only and setting.only.architecture == architecture:
                keys.add(f"{part.name}.{setting.name}")
    return frozenset(keys)
