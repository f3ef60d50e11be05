"""Every setting of a run: frozen dataclasses, their defaults, and YAML in and out.

In: keyword arguments or a YAML file. Out: a TrainConfig, checked once here; nothing below ever changes it.
"""

import difflib
import math
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_type_hints

DatasetName = Literal["cityscapes", "ade20k", "camvid", "folder", "scenes"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
T = TypeVar("T")


TERMS = ("cross_entropy", "ohem", "dice", "lovasz", "focal")  # of the loss


@dataclass(frozen=True, kw_only=True)
class Data:
    """What to learn from, and how it is augmented (defaults: the published pipeline of mmsegmentation)."""

    dataset: DatasetName = "folder"
    root: Path | None = None
    """Folder of the data set; `scenes` needs none."""
    train_split: str = "train"
    val_split: str = "val"
    crop: tuple[int, int] = (512, 512)
    """Height and width of a training sample in pixels."""
    scale: tuple[int, int] | None = None
    """Longer and shorter side that images are fitted into (ratio kept) before anything else, in training and
    prediction; None: the image's own size."""
    size_divisor: int = 32
    """The network sees images padded on the right and below to a multiple of this. 32 keeps all levels of the pyramid
    aligned; 1 is what mmsegmentation's published models do."""
    ratio: tuple[float, float] = (0.5, 2.0)
    """Range of the random scale around `scale`."""
    aspect: float = 1.0
    """Random stretch of width against height, up to this factor; 1 is none, as published."""
    cat_max_ratio: float = 0.75
    """Draw a crop again (10 times at most) while one class fills more than this share of it."""
    flip: float = 0.5
    """Probability of a horizontal mirror image."""
    photometric: float = 1.0
    """Strength of the photometric distortion: 1 as published, 0 none."""
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


@dataclass(frozen=True, kw_only=True)
class Model:
    """Semantic FPN on a timm backbone."""

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
    schedule: Literal["poly", "cosine", "constant"] = "poly"
    power: float = 0.9
    min_lr: float = 1e-4
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
    sync_bn: bool = True
    """Batch norm over all ranks, when there are several."""
    frozen_bn: bool = False
    """Keep the backbone's batch norm as it was pretrained (the paper's fixed affine)."""


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
        for key, valid, wanted in _rules(self):
            if not valid:
                section, name = key.split(".")
                value = getattr(getattr(self, section), name)
                raise ValueError(f"{key} is {value!r}; it must be {wanted}")

    def changed(self, **changes: Any) -> "TrainConfig":
        """A copy with changes by dotted or double-underscored key: `changed(**{"optim.lr": 0.1})`, `optim__lr=0.1`."""
        sections: dict[str, Any] = {}
        for key, value in changes.items():
            section, _, name = key.replace("__", ".").partition(".")
            _check_key(section, fields(self), "")
            part = sections.get(section, getattr(self, section))
            if name:
                _check_key(name, fields(part), f"{section}.")
                value = replace(part, **{name: value})
            sections[section] = value
        return replace(self, **sections)

    def to_dict(self) -> dict[str, Any]:
        """Plain data: str, int, float, bool, None, list, dict."""
        return _plain(asdict(self))  # type: ignore[no-any-return]

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


def parse(kind: type[T], data: Any, prefix: str = "") -> T:
    """Build the dataclass `kind` of plain data; ValueError names the key, its value and what was wanted."""
    import pydantic  # noqa: PLC0415 - only where text enters

    if not isinstance(data, dict):
        raise ValueError(f"{prefix.rstrip('.') or 'the file'} holds {data!r}; a mapping of settings was wanted")
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, value in data.items():
        _check_key(str(key), fields(kind), prefix)  # type: ignore[arg-type]
        hint = hints[key]
        if is_dataclass(hint):
            values[key] = parse(hint, value, f"{prefix}{key}.")  # type: ignore[arg-type]
            continue
        try:
            values[key] = pydantic.TypeAdapter(hint).validate_python(value)
        except pydantic.ValidationError as error:
            raise ValueError(f"{prefix}{key} is {value!r}; {error.errors()[0]['msg'].lower()}") from error
    return kind(**values)


def _check_key(key: str, known: Any, prefix: str) -> None:
    names = [f.name for f in known]
    if key not in names:
        inside = [f"{f.name}.{key}" for f in known if any(g.name == key for g in _fields_of(f.default_factory))]
        near = inside or difflib.get_close_matches(key, names, n=1, cutoff=0.4)
        hint = f"did you mean {prefix}{near[0]}?" if near else f"known here: {', '.join(names)}"
        raise ValueError(f"unknown key {prefix}{key}; {hint}")


def _fields_of(kind: Any) -> tuple[Any, ...]:
    return fields(kind) if is_dataclass(kind) else ()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


def _rules(c: TrainConfig) -> list[tuple[str, bool, str]]:
    """Key, whether its value is possible, and what it must be."""
    d, m, o, t, r, i = c.data, c.model, c.optim, c.train, c.run, c.inference
    return [
        ("data.crop", min(d.crop) > 0, "two positive sizes in pixels"),
        ("data.scale", d.scale is None or min(d.scale) > 0, "two positive sizes in pixels, or none"),
        ("data.size_divisor", d.size_divisor > 0, "positive"),
        ("data.ratio", 0 < d.ratio[0] <= d.ratio[1], "two positive factors, the smaller first"),
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
        *((f"loss.{name}", 0 <= getattr(c.loss, name) < math.inf, "0 or more") for name in (*TERMS, "focal_gamma")),
        (
            "loss.cross_entropy",
            any(getattr(c.loss, name) > 0 for name in TERMS),
            "positive, or another term of the loss",
        ),
        ("loss.ohem_threshold", 0 < c.loss.ohem_threshold <= 1, "above 0, at most 1"),
        ("loss.ohem_min_kept", 0 <= c.loss.ohem_min_kept <= 1, "a share from 0 to 1"),
        ("loss.label_smoothing", 0 <= c.loss.label_smoothing < 1, "from 0 to below 1"),
        ("optim.lr", 0 < o.lr < math.inf, "positive"),
        ("optim.min_lr", 0 <= o.min_lr < math.inf, "0 or more"),
        ("optim.power", o.power > 0, "positive"),
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
        ("train.seed", 0 <= t.seed < 2**32, "from 0 to 2**32 - 1"),
        ("run.log_every", r.log_every > 0, "positive"),
        ("run.val_every", r.val_every > 0, "positive"),
        ("run.checkpoint_every", r.checkpoint_every > 0, "positive"),
        ("run.val_batch_size", r.val_batch_size > 0, "positive"),
        ("inference.window", min(i.window) > 0, "two positive sizes in pixels"),
        (
            "inference.stride",
            0 < i.stride[0] <= i.window[0] and 0 < i.stride[1] <= i.window[1],
            "two positive steps, at most the window's size (no pixel may be left out)",
        ),
        ("inference.ratios", min(i.ratios, default=0) > 0, "one or more positive factors"),
        ("run.patience", r.patience is None or r.patience > 0, "positive, or none"),
    ]
