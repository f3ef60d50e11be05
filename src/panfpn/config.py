"""Every setting of a run: frozen dataclasses, their defaults, and YAML in and out.

In: keyword arguments or a YAML file. Out: a TrainConfig, checked once here; nothing below ever changes it.
"""

from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from panfpn.config_rules import rules
from panfpn.parsing import check_key, parse, plain

DatasetName = Literal["cityscapes", "ade20k", "camvid", "coco_panoptic", "folder", "scenes"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True)
class Data:
    """What to learn from, and how it is augmented (defaults: the published pipeline of mmsegmentation)."""

    dataset: DatasetName = "folder"
    root: Path | None = None
    """Folder of the data set; `scenes` needs none."""
    pack: Path | None = None
    """Folder that `panfpn data pack` wrote: pixels are read from it, and root only tells whether it is up to date
    (root None: the pack alone is the data set)."""
    train_split: str = "train"
    val_split: str = "val"
    crop: tuple[int, int] | None = (512, 512)
    """Height and width of a training sample in pixels; None: the whole scaled image, as large as it is."""
    scale: tuple[int, int] | None = None
    """Longer and shorter side that images are fitted into (ratio kept) before anything else, in training and
    prediction; None: the image's own size."""
    size_divisor: int = 32
    """The network sees images padded on the right and below to a multiple of this. 32 keeps all levels of the pyramid
    aligned; 1 is what mmsegmentation's published models do."""
    ratio: tuple[float, float] = (0.5, 2.0)
    """Range of the random scale around `scale`."""
    short_sides: tuple[int, ...] = ()
    """Draw the shorter side from these in place of `ratio`, the longer at most `scale`'s (detectron2)."""
    aspect: float = 1.0
    """Random stretch of width against height, up to this factor; 1 is none, as published."""
    cat_max_ratio: float = 0.75
    """Draw a crop again (10 times at most) while one class fills more than this share of it."""
    flip: float = 0.5
    """Probability of a horizontal mirror image."""
    photometric: float = 1.0
    """Strength of the photometric distortion: 1 as published, 0 none."""
    instances: Literal["panoptic", "json"] = "panoptic"
    """Where COCO's instances come from in training: the panoptic PNGs, or instances_*.json, whose masks overlap."""
    num_workers: int = 2
    scenes: tuple[int, int] = (512, 64)
    """How many training and validation scenes there are (data set `scenes`)."""
    scene_size: tuple[int, int] = (192, 256)
    """Height and width of a scene in pixels."""


@dataclass(frozen=True, kw_only=True)
class Inference:
    """How a trained network is asked for labels; travels with the weights."""

    mode: Literal["whole", "slide"] = "whole"
    """The image in one piece, or in overlapping windows whose logits are averaged."""
    window: tuple[int, int] = (512, 512)
    """Height and width of a window in pixels (slide)."""
    stride: tuple[int, int] = (341, 341)
    """Step from window to window, down and to the right (slide)."""
    ratios: tuple[float, ...] = (1.0,)
    """Several: the mean softmax of the image at these scales (published: 0.5 0.75 1.0 1.25 1.5 1.75)."""
    flip: bool = False
    """Average with the mirror image too."""
    ratios_of: Literal["resized", "original"] = "resized"
    """What ratios and flip begin with: the image fitted into `scale` (mmsegmentation 0.x, which made the published
    numbers), or the original image whatever `scale` is (1.x)."""
    stretch: bool = False
    """Resize to a multiple of size_divisor instead of padding (PVT, PoolFormer)."""
    box_score: float = 0.05
    """Panoptic FPN: boxes with a lower score are no detections."""
    nms: float = 0.5
    """A box that overlaps a better one of its class by more than this IoU is dropped."""
    nms_over_classes: bool = False
    """Of any class (mmdetection)."""
    detections: int = 100
    """At most so many of an image are kept."""
    confidence: float = 0.5
    """Only detections with at least this score enter the panoptic map."""
    overlap: float = 0.5
    """A thing of which more than this share is covered by better ones is dropped."""
    stuff_area: int = 4096
    """A stuff segment needs at least so many pixels."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """Semantic FPN or Panoptic FPN on a timm backbone."""

    architecture: Literal["SemanticFPN", "PanopticFPN"] = "SemanticFPN"
    backbone: str = "resnet50c"
    """Any timm model with features at strides 4, 8, 16, 32."""
    num_classes: int | None = None
    """None: as many as the label table has."""
    in_channels: int = 3
    pretrained: bool = False
    """ImageNet weights from timm's hub (needs a network)."""
    backbone_weights: Path | None = None
    """Local weights in timm's names (.safetensors, .pth); wins over `pretrained`."""
    start_from: str | None = None
    """Release file or run folder to fine-tune: every tensor of its network that fits is taken over ("camvid_lite0": the
    model that ships with panfpn). Its classifier is taken over only if the classes are the same."""
    fpn_channels: int = 256
    head_channels: int = 128
    norm: Literal["batch", "group"] = "batch"
    """Normalisation in the head; group is the paper's."""
    dropout: float = 0.1
    drop_path: float = 0.0
    """Stochastic depth of the backbone, where it has it."""
    semantic_things: Literal["other", "all"] = "other"
    """Panoptic FPN: the semantic branch calls all things 'other', or (the paper on Cityscapes) learns each class."""
    anchor_scale: float = 8.0
    """Side of a square anchor in steps of its level: 8 gives 32 to 512 pixels on p2 to p6."""
    box_channels: int = 1024
    mask_channels: int = 256
    mean: tuple[float, ...] | None = None
    """Of the input in 0..255; None: what the backbone was trained with."""
    std: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Weights of the loss terms (0 = off) and their settings."""

    cross_entropy: float = 1.0
    ohem: float = 0.0
    dice: float = 0.0
    lovasz: float = 0.0
    focal: float = 0.0
    denominator: Literal["labelled", "all"] = "labelled"
    """Divide the pixel losses by the labelled pixels, or by all pixels as mmsegmentation does."""
    class_weights: tuple[float, ...] | None = None
    label_smoothing: float = 0.0
    ohem_threshold: float = 0.7
    """Pixels whose true class has at least this probability are easy."""
    ohem_min_kept: float = 0.0625
    """Share of the pixels kept even if they are easy."""
    focal_gamma: float = 2.0
    instance: float = 1.0
    """Panoptic FPN: λi, the weight of all losses of the instance branch (λs is cross_entropy)."""

    @property
    def weights(self) -> dict[str, float]:
        """The weight of every term by its name."""
        return {name: getattr(self, name) for name in ("cross_entropy", "ohem", "dice", "lovasz", "focal")}


@dataclass(frozen=True, kw_only=True)
class Optim:
    """Optimiser and learning rate (defaults: those of mmsegmentation)."""

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.01
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 5e-4
    decay_norm_bias: bool = True
    """Decay normalisation weights and biases too."""
    backbone_lr_factor: float = 1.0
    schedule: Literal["poly", "cosine", "step", "constant"] = "poly"
    power: float = 0.9
    """Of poly."""
    min_lr: float = 1e-4
    """Where poly and cosine end."""
    mmcv_0x: bool = False
    """Poly and cosine would end one step after the last one, as in mmcv 0.x, which older repositories train with."""
    milestones: tuple[int, ...] = ()
    """Steps from which on schedule `step` multiplies the rate by `gamma`, once more at each."""
    gamma: float = 0.1
    warmup_steps: int = 0
    warmup_factor: float = 0.001
    """Fraction of the learning rate at the first step of a linear warm-up."""
    clip_norm: float | None = None
    ema_decay: float | None = None
    """Keep an exponential moving average of the weights; it is what is evaluated and released."""


@dataclass(frozen=True, kw_only=True)
class Train:
    """The loop."""

    steps: int = 80_000
    batch_size: int = 8
    """Images per step over all ranks and accumulated micro-batches."""
    accumulate: int = 1
    """Micro-batches per step and rank."""
    seed: int = 0
    precision: Precision = "auto"
    """auto: bfloat16 where the hardware has it, else float32."""
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
    freeze_at: int = 0
    """Do not train the backbone up to c2 (2) … c5 (5); detectron2 freezes 2."""
    rois: int = 512
    """Panoptic FPN: boxes of an image that the box head learns from in a step."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Where a run lives, and how often it looks up from its work."""

    name: str = "semantic_fpn"
    dir: Path | None = None
    """Folder of the run, which must not hold one yet; None: runs/NAME, numbered where that is taken."""
    device: str = "auto"
    """auto: cuda, else mps, else cpu."""
    log_every: int = 50
    val_every: int = 2_000
    checkpoint_every: int = 1_000
    val_batch_size: int = 1
    patience: int | None = None
    """Stop after this many validations without a better mIoU."""


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
        for key, valid, wanted in rules(self):
            if not valid:
                section, name = key.split(".")
                value = getattr(getattr(self, section), name)
                raise ValueError(f"{key} is {value!r}; it must be {wanted}")

    def changed(self, **changes: Any) -> "TrainConfig":
        """A copy with changes by dotted or double-underscored key: `changed(**{"optim.lr": 0.1})`, `optim__lr=0.1`."""
        sections: dict[str, Any] = {}
        for key, value in changes.items():
            section, _, name = key.replace("__", ".").partition(".")
            check_key(section, fields(self), "")
            part = sections.get(section, getattr(self, section))
            if name:
                check_key(name, fields(part), f"{section}.")
                value = replace(part, **{name: value})
            sections[section] = value
        return replace(self, **sections)

    def to_dict(self) -> dict[str, Any]:
        """Plain data: str, int, float, bool, None, list, dict."""
        return plain(asdict(self))  # type: ignore[no-any-return]

    def to_yaml(self) -> str:
        """The configuration as YAML that `from_yaml` reads back."""
        import yaml  # noqa: PLC0415 - only where text leaves

        return str(yaml.safe_dump(self.to_dict(), sort_keys=False))

    @staticmethod
    def from_yaml(path: Path) -> "TrainConfig":
        """Read a YAML file; ValueError names the file, the key, and the nearest key or the wanted type."""
        import yaml  # noqa: PLC0415

        try:
            data = yaml.safe_load(path.read_text("utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise ValueError(f"{path}: cannot be read as YAML ({str(error).splitlines()[0]})") from error
        try:
            return parse(TrainConfig, {} if data is None else data)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
