"""Data sets on disk. In: a root and a split. Out: a `Dataset`, whose samples carry an image and its train ids.

Layouts: Cityscapes, ADE20K SceneParsing, CamVid, a folder of one's own, and procedural scenes.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from panfpn.data.scenes import CLASSES, draw_scene
from panfpn.files import IMAGE_SUFFIXES, decode_image, decode_mask, is_hidden, read_bytes
from panfpn.labels import LabelClass, LabelTable
from panfpn.types import RawMask, Sample


class Dataset(Protocol):
    """Samples by number, in an order fixed by their names."""

    @property
    def table(self) -> LabelTable:
        """How labels are named and written."""

    def __len__(self) -> int:
        """Number of samples."""

    def name(self, index: int) -> str:
        """The sample's name, unique in its split."""

    def open(self, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int16] | RawMask]:
        """An image, RGB [H, W, 3], and its train ids, made where they are looked at: what training cuts from.

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
            raise ValueError(
                f"{image_path} is {_size(image)} but its mask {mask_path} is {_size(mask)}; they must agree"
            )
        table = self.mask_table or self.table
        return image, RawMask(table.in_form(mask, mask_path), table, mask_path)

    def read(self, index: int) -> Sample:
        """Decode one image and its mask; see `Dataset.read`."""
        image, mask = self.open(index)
        return Sample(image=image, target=mask[:, :], name=self.name(index))


def _size(image: npt.NDArray[np.generic]) -> str:
    return f"{image.shape[1]}×{image.shape[0]} pixels"


@dataclass(frozen=True, eq=False)
class SceneDataset:
    """Procedural street scenes: scene i of a split is a function of (split, i)."""

    table: LabelTable
    split: str
    count: int
    size: tuple[int, int]

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        """The scene's name."""
        return f"scene_{self.split}_{index:05d}"

    def open(self, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int16]]:
        """Draw one scene."""
        scene = draw_scene(zlib.crc32(self.split.encode()), index, height=self.size[0], width=self.size[1])
        return scene.image, scene.labels

    def read(self, index: int) -> Sample:
        """Draw one scene."""
        image, target = self.open(index)
        return Sample(image=image, target=target, name=self.name(index))


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
    kind: str, root: Path | None, split: str, *, scene_count: int = 64, scene_size: tuple[int, int] = (192, 256)
) -> Dataset:
    """The data set `kind` (cityscapes, ade20k, camvid, folder, scenes) under `root`.

    Raises:
        ValueError: a missing root, an empty split, an image without mask or a mask without image; it names what was
            looked for, and where.
    """
    if kind == "scenes":
        return SceneDataset(table=scenes_table(), split=split, count=scene_count, size=scene_size)
    if root is None:
        raise ValueError(f"data.root is not set; data set {kind!r} needs the folder that holds it")
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder (data.root of data set {kind!r})")
    return {"cityscapes": _cityscapes, "ade20k": _ade20k, "camvid": _camvid, "folder": _folder}[kind](root, split)


def _cityscapes(root: Path, split: str) -> FileDataset:
    table = LabelTable.named("cityscapes")
    images = _listed(root / "leftImg8bit" / split, lambda p: p.name.endswith("_leftImg8bit.png"))
    masks = _listed(root / "gtFine" / split, lambda p: "_gtFine_label" in p.name)
    images = {name.removesuffix("_leftImg8bit"): path for name, path in images.items()}
    train_ids = {n.removesuffix("_gtFine_labelTrainIds"): p for n, p in masks.items() if n.endswith("TrainIds")}
    raw_ids = {n.removesuffix("_gtFine_labelIds"): p for n, p in masks.items() if n.endswith("labelIds")}
    if len(train_ids) >= len(raw_ids):
        return FileDataset(table, _paired(images, train_ids, root, split), table.as_train_ids())
    return FileDataset(table, _paired(images, raw_ids, root, split))


def _ade20k(root: Path, split: str) -> FileDataset:
    folder = {"train": "training", "val": "validation"}.get(split, split)
    images, masks = _listed(root / "images" / folder), _listed(root / "annotations" / folder)
    return FileDataset(LabelTable.named("ade20k"), _paired(images, masks, root, split))


def _camvid(root: Path, split: str) -> FileDataset:
    images, masks = _listed(root / split), _listed(root / f"{split}annot")
    return FileDataset(LabelTable.named("camvid"), _paired(images, masks, root, split))


def _folder(root: Path, split: str) -> FileDataset:
    if not (root / "labels.yaml").is_file():
        raise ValueError(
            f"{root / 'labels.yaml'}: no such file; it must name each raw mask value, its class or `ignore`"
        )
    table = LabelTable.from_yaml(root / "labels.yaml")
    images, masks = _listed(root / "images" / split), _listed(root / "masks" / split)
    return FileDataset(table, _paired(images, masks, root, split))


def _listed(folder: Path, wanted: Callable[[Path], bool] = lambda _: True) -> dict[str, Path]:
    """Images below `folder` by their relative path without suffix."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder, so the split is empty")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(path, folder) and wanted(path):
            name = path.relative_to(folder).with_suffix("").as_posix()
            if name in found:
                raise ValueError(f"{found[name]} and {path}: two files of one name; rename one of them")
            found[name] = path
    if not found:
        raise ValueError(f"{folder}: holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}), so the split is empty")
    return found


def _paired(
    images: dict[str, Path], masks: dict[str, Path], root: Path, split: str
) -> tuple[tuple[str, Path, Path], ...]:
    for kind, lonely, other in (
        ("image", images.keys() - masks.keys(), "mask"),
        ("mask", masks.keys() - images.keys(), "image"),
    ):
        if lonely:
            names = ", ".join(sorted(lonely)[:5]) + (", …" if len(lonely) > 5 else "")
            verb = "has" if len(lonely) == 1 else "have"
            plural = "" if len(lonely) == 1 else "s"
            raise ValueError(f"{root}: {len(lonely)} {kind}{plural} of split {split!r} {verb} no {other}: {names}")
    return tuple((name, images[name], masks[name]) for name in sorted(images))
