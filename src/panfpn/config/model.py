"""What belongs to a trained model: its data, its network, and how it predicts."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from panfpn.choices import ARCHITECTURES, DRAWN, LAYOUTS
from panfpn.parsing import BelowOne, Bounds, Count, NotNegative, Only, Share, Size, Width, check_settings, require

if TYPE_CHECKING:  # a type checker cannot read choices from a dict
    Architecture = str
    DatasetName = str
else:
    Architecture, DatasetName = Literal[*ARCHITECTURES], Literal[*LAYOUTS]
_LARGEST_SIDE = 32_768  # of an image that is made larger
_PANOPTIC = Only("PanopticFPN")


def num_folds(share: float) -> int:
    """How many parts of this share a data set has."""
    return max(1, round(1 / share))


@dataclass(frozen=True, kw_only=True)
class Data:
    """Training and validation data, and how they are augmented (defaults: mmsegmentation's published pipeline)."""

    dataset: DatasetName = "folder"
    root: Path | None = None
    """Folder of the data set; `scenes` needs none."""
    pack: Path | None = None
    """Folder that `panfpn data pack` wrote: pixels are read from it, and root only tells whether it is up to date
    (root None: the pack alone is the data set)."""
    pack_url: str | None = None
    """Address of a pack in shards (`panfpn data shard`), of which images are read as they are needed: a folder, http(s)
    or what else fsspec opens (s3://, gs://)."""
    pack_cache: Path | None = None
    """Folder of this machine that they are kept in; none: below ~/.cache/panfpn."""
    pack_cache_gb: Annotated[float, Bounds(above=0)] = 10.0
    """That folder takes at most so many gigabytes."""
    train_split: str = "train"
    val_split: str = "val"
    split: Annotated[float | None, Bounds(above=0, below=1, of="a share")] = None
    """Share of the training images that validates in place of a split of its own; each class is divided so, always
    in the same way."""
    fold: Annotated[int, Bounds(at_least=0)] = 0
    """Which of the shares that data.split divides the training images into validates: of 0.2, 0 to 4."""
    crop: Size | None = (512, 512)
    """Height and width of a training sample in pixels; None: the whole scaled image, as large as it is."""
    scale: Size | None = None
    """Longer and shorter side that images are fitted into (ratio kept) before anything else, in training and
    prediction; None: the image's own size."""
    size_divisor: Annotated[int, Bounds(above=0, at_most=4096)] = 32
    """The network sees images padded on the right and below to a multiple of this. 32 keeps all levels of the pyramid
    aligned; 1 is what mmsegmentation's published models do."""
    ratio: Annotated[tuple[float, float], Bounds(above=0, of="two factors")] = (0.5, 2.0)
    """Range of the random scale around `scale`."""
    short_sides: Annotated[tuple[int, ...], Bounds(above=0, of="sizes in pixels")] = ()
    """Draw the shorter side from these in place of `ratio`, the longer at most `scale`'s (detectron2)."""
    aspect: Annotated[float, Bounds(at_least=1, of="a factor of")] = 1.0
    """Random stretch of width against height, up to this factor; 1 is none, as published."""
    cat_max_ratio: Annotated[float, Bounds(above=0, at_most=1, of="a share")] = 0.75
    """Draw a crop again (10 times at most) while one class fills more than this share of it."""
    flip: Annotated[float, Bounds(at_least=0, at_most=1, of="a probability")] = 0.5
    """Probability of a horizontal mirror image."""
    rotate90: Annotated[float, Bounds(at_least=0, at_most=1, of="a probability")] = 0.0
    """Probability that a sample is turned, by one, two or three quarters: for images without up and down (from above,
    through a microscope); at 0.75 all four are as likely."""
    photometric: NotNegative = 1.0
    """Strength of the photometric distortion: 1 as published, 0 none."""
    instances: Annotated[Literal["panoptic", "json"], _PANOPTIC] = "panoptic"
    """Where COCO's instances come from in training: the panoptic PNGs, or instances_*.json, whose masks overlap."""
    bands: Annotated[tuple[int, ...], Bounds(above=0, of="numbers of bands")] = ()
    """Which of a file's bands the network sees, numbered from 1; without, those that its header makes plain."""
    range: tuple[float, float] | Literal["percentile"] | None = None
    """What is black and white in images of more than 8 bits (0 4095 for 12 bits, 0 65535 for 16), or percentile: 2 %
    and 98 % of each band of each image; none: such images are refused."""
    pages: Count | None = None
    """Which page of files with several is read, numbered from 1; none: such files are refused."""
    mask_orientation: Literal["auto", "turned", "stored"] = "auto"
    """What masks of photos that EXIF turns were drawn on: turned pixels, as viewers show them, or stored ones; auto: by
    the sizes, and where they do not tell, such photos are refused."""
    variants: Count | None = None
    """In so many forms (crop, scale, mirror, turn, colours) each training image is seen, drawn once; none: in another
    one every time."""
    rare_crops: Annotated[float, Bounds(at_least=0, at_most=1, of="a probability")] = 0.0
    """Probability that a training sample is drawn for a rare class: an image that has it, and a crop that shows it."""
    num_workers: Annotated[int, Bounds(at_least=0)] = 2
    memory_gb: NotNegative = 1.0
    """Training images stay decoded in memory, if all of them fit into so many GB (shared by all workers); 0: none."""
    scenes: Annotated[tuple[int, int], Bounds(above=0, of="two counts")] = (512, 64)
    """How many training and validation scenes there are (data set `scenes`)."""
    scene_size: Annotated[tuple[int, int], Bounds(at_least=64, of="two sizes in pixels")] = (192, 256)
    """Height and width of a scene in pixels."""

    def __post_init__(self) -> None:
        check_settings(self, "data.")
        require(self.ratio[0] <= self.ratio[1], "data.ratio", self.ratio, "two positive factors, the smaller first")
        span = self.range if isinstance(self.range, tuple) else (0.0, 1.0)
        rising = span[0] < span[1] and all(abs(limit) < float("inf") for limit in span)
        require(rising, "data.range", self.range, "two finite numbers, the smaller first, or percentile")
        bounded = self.scale is None or max(self.scale) <= _LARGEST_SIDE
        require(bounded, "data.scale", self.scale, f"two sizes of at most {_LARGEST_SIDE} pixels")
        sides, scaled = self.short_sides, self.scale is not None
        require(not sides or scaled, "data.short_sides", sides, "empty where data.scale is none")
        drawn = self.dataset in DRAWN
        one = not (self.pack_url and (self.pack or self.split or drawn))
        require(one, "data.pack_url", self.pack_url, "the only source: no data.pack, data.split or procedural scenes")
        require(not (self.pack and drawn), "data.pack", self.pack, "none for procedural scenes, which are drawn")
        free = not self.rare_crops or self.variants is None
        require(
            free, "data.rare_crops", self.rare_crops, "0 where images are seen in a number of forms (data.variants)"
        )
        folds = 1 if self.split is None else num_folds(self.split)
        require(self.fold < folds, "data.fold", self.fold, f"from 0 to below {folds}, of as many as data.split makes")
        parts = self.split is None or self.train_split != self.val_split
        require(parts, "data.val_split", self.val_split, "another name than data.train_split where data.split divides")
        require(not (self.pack and self.split), "data.split", self.split, "none for a pack, whose splits are made")
        possible = self.instances == "panoptic" or self.dataset in ("coco_panoptic", "coco")
        require(possible, "data.instances", self.instances, "panoptic but for coco_panoptic and coco")


@dataclass(frozen=True, kw_only=True)
class Inference:
    """How a trained network predicts; travels with the weights."""

    mode: Annotated[Literal["whole", "slide"], Only("SemanticFPN")] = "whole"
    """The image in one piece, or in overlapping windows whose logits are averaged."""
    window: Size = (512, 512)
    """Height and width of a window in pixels (slide)."""
    stride: Size = (341, 341)
    """Step from window to window, down and to the right (slide)."""
    ratios: Annotated[tuple[float, ...], Bounds(above=0, at_most=100, of="factors")] = (1.0,)
    """Several: the mean softmax of the image at these scales (published: 0.5 0.75 1.0 1.25 1.5 1.75)."""
    flip: bool = False
    """Average with the mirror image too."""
    ratios_of: Literal["resized", "original"] = "resized"
    """What ratios and flip begin with: the image fitted into `scale` (mmsegmentation 0.x, which made the published
    numbers), or the original image whatever `scale` is (1.x)."""
    stretch: bool = False
    """Resize to a multiple of size_divisor instead of padding (PVT, PoolFormer)."""
    box_score: Annotated[Share, _PANOPTIC] = 0.05
    """Panoptic FPN: boxes with a lower score are no detections."""
    nms: Annotated[Share, _PANOPTIC] = 0.5
    """A box that overlaps a better one of its class by more than this IoU is dropped."""
    nms_over_classes: Annotated[bool, _PANOPTIC] = False
    """Of any class (mmdetection)."""
    detections: Annotated[int, Bounds(at_least=1, at_most=10_000), _PANOPTIC] = 100  # ids are int16
    """At most so many of an image are kept."""
    confidence: Annotated[Share, _PANOPTIC] = 0.5
    """Only detections with at least this score enter the panoptic map."""
    overlap: Annotated[Share, _PANOPTIC] = 0.5
    """A thing of which more than this share is covered by better ones is dropped."""
    stuff_area: Annotated[int, Bounds(at_least=0), _PANOPTIC] = 4096
    """A stuff segment needs at least so many pixels."""

    def __post_init__(self) -> None:
        check_settings(self, "inference.")
        inside = all(step <= side for step, side in zip(self.stride, self.window, strict=True))
        wanted = "two steps of at most the window's size, so that no pixel is left out"
        require(inside, "inference.stride", self.stride, wanted)
        require(bool(self.ratios), "inference.ratios", self.ratios, "one factor or several")


@dataclass(frozen=True, kw_only=True)
class Model:
    """Semantic FPN or Panoptic FPN on a timm backbone."""

    architecture: Architecture = "SemanticFPN"
    backbone: str = "resnet50c"
    """Any timm model (docs/backbones.md lists them)."""
    pyramid: Literal["feature2pyramid", "simple"] | None = None
    """How levels are made of a backbone with one stride, such as a plain transformer: transposed convolutions of four
    of its blocks, then the FPN (none, and mmsegmentation's), or ViTDet's simple pyramid of the last, without FPN."""
    blocks: Annotated[tuple[int, ...], Bounds(at_least=0, of="numbers of blocks")] = ()
    """Which blocks of such a backbone those maps are of: four, counted from 0; none: at even quarters of its depth."""
    final_norm: bool = False
    """Their maps after the norm that follows the last block, as DINO's probes take them."""
    num_classes: Width | None = None
    """None: as many as the label table has."""
    in_channels: Annotated[int, Bounds(above=0, at_most=1024)] = 3
    pretrained: bool = False
    """ImageNet weights from timm's hub (needs a network)."""
    backbone_weights: Path | None = None
    """Local weights in timm's names (.safetensors, .pth); wins over `pretrained`."""
    start_from: str | None = None
    """Release file or run folder to fine-tune: every tensor of its network that fits is taken over ("camvid_lite0": the
    model that ships with panfpn). Its classifier is taken over only if the classes are the same."""
    fpn_channels: Width = 256
    head_channels: Width = 128
    norm: Literal["batch", "group"] = "batch"
    """Normalisation in the head; group is the paper's."""
    dropout: BelowOne = 0.1
    drop_path: BelowOne = 0.0
    """Stochastic depth of the backbone, where it has it."""
    semantic_things: Annotated[Literal["other", "all"], _PANOPTIC] = "other"
    """Panoptic FPN: the semantic branch calls all things 'other', or (the paper on Cityscapes) has a class for each."""
    anchor_scale: Annotated[float, Bounds(above=0, at_most=64), _PANOPTIC] = 8.0
    """Side of a square anchor in steps of its level: 8 gives 32 to 512 pixels on p2 to p6."""
    box_channels: Annotated[Width, _PANOPTIC] = 1024
    mask_channels: Annotated[Width, _PANOPTIC] = 256
    mean: Annotated[tuple[float, ...] | None, Bounds(of="a number for every channel")] = None
    """Of the input in 0..255; None: what the backbone was trained with."""
    std: Annotated[tuple[float, ...] | None, Bounds(above=0, of="a number for every channel")] = None

    def __post_init__(self) -> None:
        check_settings(self, "model.")
