"""Data sets on disk. In: a root and a split. Out: a `Dataset`, whose samples carry an image and its train ids.

Layouts: Cityscapes, ADE20K SceneParsing, CamVid, COCO panoptic, a folder of one's own, and procedural scenes.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from panfpn.data.coco import open_coco
from panfpn.data.instances import CityscapesSegments, FolderSegments
from panfpn.data.listing import listed, paired
from panfpn.data.panoptic import PanopticDataset, different_sizes
from panfpn.data.scenes import CLASSES, Scene, draw_scene
from panfpn.files import decode_image, decode_mask, read_bytes
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
    scene_size: tuple[int, int] = (192, 256),
) -> Dataset:  # fmt: skip
    """The data set `kind` (cityscapes, ade20k, camvid, coco_panoptic, folder, scenes) under `root`.

    With `panoptic`, samples carry segments too.

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
    openers = {
        "cityscapes": _cityscapes,
        "ade20k": _ade20k,
        "camvid": _camvid,
        "folder": _folder,
        "coco_panoptic": _coco,
    }
    return openers[kind](root, split, panoptic)


def _asked(table: LabelTable, panoptic: bool) -> LabelTable:
    """The table; ValueError if a panoptic data set is asked for and it has no things."""
    if panoptic and not any(c.thing for c in table.classes):
        raise ValueError(f"label table {table.name!r} has no things; use Semantic FPN (model.architecture SemanticFPN)")
    return table


def _coco(root: Path, split: str, panoptic: bool) -> Dataset:
    return open_coco(root, split, _asked(LabelTable.named("coco_panoptic"), panoptic), panoptic=panoptic)


def _cityscapes(root: Path, split: str, panoptic: bool) -> Dataset:
    table = _asked(LabelTable.named("cityscapes"), panoptic)
    images = listed(root / "leftImg8bit" / split, lambda p: p.name.endswith("_leftImg8bit.png"))
    images = {name.removesuffix("_leftImg8bit"): path for name, path in images.items()}
    if panoptic:
        maps = listed(root / "gtFine" / split, lambda p: p.name.endswith("_gtFine_instanceIds.png"))
        maps = {name.removesuffix("_gtFine_instanceIds"): path for name, path in maps.items()}
        names, files, ids = zip(*paired(images, maps, root, split, "map of instance ids"), strict=True)
        return PanopticDataset(table, tuple(zip(names, files, strict=True)), CityscapesSegments(table, ids))
    masks = listed(root / "gtFine" / split, lambda p: "_gtFine_label" in p.name)
    train_ids = {n.removesuffix("_gtFine_labelTrainIds"): p for n, p in masks.items() if n.endswith("TrainIds")}
    raw_ids = {n.removesuffix("_gtFine_labelIds"): p for n, p in masks.items() if n.endswith("labelIds")}
    if len(train_ids) >= len(raw_ids):
        return FileDataset(table, paired(images, train_ids, root, split), table.as_train_ids())
    return FileDataset(table, paired(images, raw_ids, root, split))


def _ade20k(root: Path, split: str, panoptic: bool) -> Dataset:
    folder = {"train": "training", "val": "validation"}.get(split, split)
    images, masks = listed(root / "images" / folder), listed(root / "annotations" / folder)
    return FileDataset(_asked(LabelTable.named("ade20k"), panoptic), paired(images, masks, root, split))


def _camvid(root: Path, split: str, panoptic: bool) -> Dataset:
    images, masks = listed(root / split), listed(root / f"{split}annot")
    return FileDataset(_asked(LabelTable.named("camvid"), panoptic), paired(images, masks, root, split))


def _folder(root: Path, split: str, panoptic: bool) -> Dataset:
    if not (root / "labels.yaml").is_file():
        raise ValueError(
            f"{root / 'labels.yaml'}: no such file; it must name each raw mask value, its class or `ignore`"
        )
    table = _asked(LabelTable.from_yaml(root / "labels.yaml"), panoptic)
    images, has_masks = listed(root / "images" / split), (root / "masks" / split).is_dir()
    if not panoptic and (has_masks or not (root / "instances" / split).is_dir()):
        return FileDataset(table, paired(images, listed(root / "masks" / split), root, split))
    maps = listed(root / "instances" / split)
    names, files, ids = zip(*paired(images, maps, root, split, "map of instance ids"), strict=True)
    masks = None
    if has_masks:
        masks = tuple(mask for *_, mask in paired(images, listed(root / "masks" / split), root, split))
    else:
        _check_one_thing(table, root)
    return PanopticDataset(table, tuple(zip(names, files, strict=True)), FolderSegments(table, ids, masks), panoptic)


def _check_one_thing(table: LabelTable, root: Path) -> None:
    """ValueError if instances without masks leave the class of a pixel open."""
    things = [c for c in table.classes if c.thing]
    if len(things) != 1:
        raise ValueError(f"{root / 'labels.yaml'}: declares {len(things)} things, but without masks/ the class of an "
                         "instance is known only if there is exactly one")  # fmt: skip
    if 0 in things[0].values or not table.knows(0):
        raise ValueError(f"{root / 'labels.yaml'}: value 0 must be a class of stuff or ignored: it is what pixels "
                         "without an instance are")  # fmt: skip
