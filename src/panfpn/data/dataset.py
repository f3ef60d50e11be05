"""Data sets on disk. In: a root and a split. Out: a `Dataset`, whose samples carry an image and its train ids.

Layouts: Cityscapes, ADE20K SceneParsing, CamVid, COCO panoptic, a folder of one's own, and procedural scenes.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from panfpn.data.images import decode_image, decode_mask
from panfpn.data.layouts.coco import cityscapes_files, coco_files, open_coco
from panfpn.data.layouts.id_maps import CityscapesSegments, FolderSegments, check_one_thing
from panfpn.data.layouts.listing import listed, paired
from panfpn.data.scenes import CLASSES, Scene, draw_scene
from panfpn.data.segments import PanopticDataset, different_sizes
from panfpn.files import read_bytes
from panfpn.labels import LabelClass, LabelTable
from panfpn.types import RawMask, Sample, Segments


class Dataset(Protocol):
    """Samples by number, in an order fixed by their names."""

    @property
    def table(self) -> LabelTable:
        """How labels are named and written."""

    def __len__(self) -> int:
        """Number of samples."""

    def name(self, index: int) -> str:
        """The sample's name, unique in its split."""

    def open(self, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int16] | RawMask | Segments]:
        """An image, RGB [H, W, 3], and its train ids, made where they are looked at: what training cuts from.

        Of a panoptic data set the segments, which give train ids too.

        ValueError, at the latest then, names the file that cannot be used, and why.
        """

    def read(self, index: int) -> Sample:
        """One whole sample; ValueError names the file that cannot be used, and why."""


@dataclass(frozen=True, eq=False)
class FileDataset:
    """Images and masks on disk, paired by name. `mask_table` reads masks that hold other values than `table`'s."""

    table: LabelTable
    items: tuple[tuple[str, Path, Path], ...]  # (name, image, mask)
    mask_table: LabelTable | None = None

    def __len__(self) -> int:
        return len(self.items)

    def name(self, index: int) -> str:
        """The sample's name: its path below the split, without suffix."""
        return self.items[index][0]

    def open(self, index: int) -> tuple[npt.NDArray[np.uint8], RawMask]:
        """Decode one image and its mask; see `Dataset.open`."""
        _, image_path, mask_path = self.items[index]
        return self.decode(index, read_bytes(image_path), read_bytes(mask_path))

    def decode(self, index: int, image_data: bytes, mask_data: bytes) -> tuple[npt.NDArray[np.uint8], RawMask]:
        """`open` for an item whose two files have been read already."""
        _, image_path, mask_path = self.items[index]
        image, mask = decode_image(image_data, image_path), decode_mask(mask_data, mask_path)
        if image.shape[:2] != mask.shape[:2]:
            raise ValueError(different_sizes(image_path, image.shape[:2], mask_path, mask.shape[:2]))
        table = self.mask_table or self.table
        return image, RawMask(table.in_form(mask, mask_path), table, mask_path)

    def read(self, index: int) -> Sample:
        """Decode one image and its mask; see `Dataset.read`."""
        image, mask = self.open(index)
        return Sample(image=image, target=mask[:, :], name=self.name(index))


@dataclass(frozen=True, eq=False)
class SceneDataset:
    """Procedural street scenes: scene i of a split is a function of (split, i)."""

    table: LabelTable
    split: str
    count: int
    size: tuple[int, int]
    panoptic: bool = False

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        """The scene's name."""
        return f"scene_{self.split}_{index:05d}"

    def open(self, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int16] | Segments]:
        """Draw one scene."""
        scene = self._draw(index)
        return scene.image, _segments(scene) if self.panoptic else scene.labels

    def read(self, index: int) -> Sample:
        """Draw one scene."""
        scene = self._draw(index)
        segments = _segments(scene) if self.panoptic else None
        return Sample(image=scene.image, target=scene.labels, name=self.name(index), segments=segments)

    def _draw(self, index: int) -> Scene:
        return draw_scene(zlib.crc32(self.split.encode()), index, height=self.size[0], width=self.size[1])


def _segments(scene: Scene) -> Segments:
    classes = scene.categories[1:].astype(np.int16)
    index = (scene.segments - 1).astype(np.int16)  # 0 is void
    return Segments(
        index=index, classes=classes, crowd=np.zeros(len(classes), np.bool_), ids=1 + np.arange(len(classes))
    )


def scenes_table() -> LabelTable:
    """The classes of the procedural scenes."""
    colors = ((70, 130, 180), (70, 70, 70), (128, 64, 128), (244, 35, 232), (107, 142, 35), (0, 0, 142), (0, 60, 100),
              (220, 20, 60), (220, 220, 0))  # fmt: skip
    things = {"car", "bus", "person", "traffic sign"}
    classes = (
        LabelClass(name=n, color=c, thing=n in things, values=(k,))
        for k, (n, c) in enumerate(zip(CLASSES, colors, strict=True))
    )
    return LabelTable(name="scenes", classes=tuple(classes), ignore=(255,))


def open_dataset(
    kind: str, root: Path | None, split: str, *, panoptic: bool = False, scene_count: int = 64,
    scene_size: tuple[int, int] = (192, 256), instances: str = "panoptic", lonely: list[str] | None = None,
) -> Dataset:  # fmt: skip
    """The data set `kind` (cityscapes, ade20k, camvid, coco_panoptic, folder, scenes) under `root`.

    With `panoptic`, samples carry segments too, and with `instances` "json" the things of COCO are those of
    instances_SPLIT.json in training. A list `lonely` gets a sentence for every image without mask and mask
    without image, which are then left out.

    Raises:
        ValueError: a missing root, an empty split, an image without mask or a mask without image; it names what was
            looked for, and where. With `panoptic`, a data set that knows no things or no instances.
    """
    if kind == "scenes":
        return SceneDataset(scenes_table(), split, scene_count, scene_size, panoptic)
    if root is None:
        raise ValueError(f"data.root is not set; data set {kind!r} needs the folder that holds it")
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder (data.root of data set {kind!r})")
    if kind == "folder":
        if not (root / "labels.yaml").is_file():
            raise ValueError(
                f"{root / 'labels.yaml'}: no such file; it must name each raw mask value, its class or `ignore`"
            )
        table = LabelTable.from_yaml(root / "labels.yaml")
    else:
        table = LabelTable.named(kind)
    if panoptic and not any(c.thing for c in table.classes):
        raise ValueError(f"label table {table.name!r} has no things; use Semantic FPN (model.architecture SemanticFPN)")
    if kind == "coco_panoptic":
        files = coco_files(root, split)
        return open_coco(files, table, panoptic=panoptic, instances=files.instances if instances == "json" else None)
    if kind == "cityscapes" and panoptic:
        return _cityscapes_panoptic(root, split, table, lonely)
    if kind == "folder" and (panoptic or not (root / "masks" / split).exists()) and (root / "instances").exists():
        return _folder_with_instances(root, split, table, panoptic, lonely)
    if panoptic:
        where = f"no folder {root / 'instances'}" if kind == "folder" else f"data set {kind!r} has no maps of instances"
        raise ValueError(f"{where}, so things cannot be told apart; use Semantic FPN (model.architecture SemanticFPN)")
    openers = {"cityscapes": _cityscapes, "ade20k": _ade20k, "camvid": _camvid, "folder": _folder}
    return openers[kind](root, split, table, lonely)


def _cityscapes(root: Path, split: str, table: LabelTable, lonely: list[str] | None) -> FileDataset:
    images = _cityscapes_images(root, split)
    masks = listed(root / "gtFine" / split, lambda p: "_gtFine_label" in p.name)
    train_ids = {n.removesuffix("_gtFine_labelTrainIds"): p for n, p in masks.items() if n.endswith("TrainIds")}
    raw_ids = {n.removesuffix("_gtFine_labelIds"): p for n, p in masks.items() if n.endswith("labelIds")}
    if len(train_ids) >= len(raw_ids):
        return FileDataset(table, paired(images, train_ids, root, split, lonely=lonely), table.as_train_ids())
    return FileDataset(table, paired(images, raw_ids, root, split, lonely=lonely))


def _cityscapes_panoptic(root: Path, split: str, table: LabelTable, lonely: list[str] | None) -> PanopticDataset:
    """From the maps of instance ids that the data set comes with, or from COCO's form where only that is there."""
    coco = root / "gtFine" / f"cityscapes_panoptic_{split}.json"
    if coco.is_file() and not any((root / "gtFine" / split).rglob("*_gtFine_instanceIds.png")):
        return open_coco(cityscapes_files(root, split), table, panoptic=True)
    maps = listed(root / "gtFine" / split, lambda p: p.name.endswith("_gtFine_instanceIds.png"))
    maps = {name.removesuffix("_gtFine_instanceIds"): path for name, path in maps.items()}
    items = paired(_cityscapes_images(root, split), maps, root, split, "map of instance ids", lonely)
    images, files = tuple(item[:2] for item in items), tuple(item[2] for item in items)
    return PanopticDataset(table, images, CityscapesSegments(table, files))


def _cityscapes_images(root: Path, split: str) -> dict[str, Path]:
    images = listed(root / "leftImg8bit" / split, lambda p: p.name.endswith("_leftImg8bit.png"))
    return {name.removesuffix("_leftImg8bit"): path for name, path in images.items()}


def _ade20k(root: Path, split: str, table: LabelTable, lonely: list[str] | None) -> FileDataset:
    folder = {"train": "training", "val": "validation"}.get(split, split)
    images, masks = listed(root / "images" / folder), listed(root / "annotations" / folder)
    return FileDataset(table, paired(images, masks, root, split, lonely=lonely))


def _camvid(root: Path, split: str, table: LabelTable, lonely: list[str] | None) -> FileDataset:
    images, masks = listed(root / split), listed(root / f"{split}annot")
    return FileDataset(table, paired(images, masks, root, split, lonely=lonely))


def _folder(root: Path, split: str, table: LabelTable, lonely: list[str] | None) -> FileDataset:
    images, masks = listed(root / "images" / split), listed(root / "masks" / split)
    return FileDataset(table, paired(images, masks, root, split, lonely=lonely))


def _folder_with_instances(
    root: Path, split: str, table: LabelTable, panoptic: bool, lonely: list[str] | None
) -> PanopticDataset:
    """Of maps of instance ids, and masks of the classes if there are any; else the table must have one thing."""
    images, maps = listed(root / "images" / split), listed(root / "instances" / split)
    items = paired(images, maps, root, split, "map of instance ids", lonely)
    masks = None
    if (root / "masks" / split).is_dir():
        pairs = paired(images, listed(root / "masks" / split), root, split, "mask", lonely)
        found = {name: mask for name, _, mask in pairs}
        items = tuple(item for item in items if item[0] in found)
        masks = tuple(found[name] for name, *_ in items)
    else:
        check_one_thing(table, root / "labels.yaml")
    source = FolderSegments(table, tuple(item[2] for item in items), masks)
    return PanopticDataset(table, tuple(item[:2] for item in items), source, panoptic)
