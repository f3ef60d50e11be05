"""Rasters, in blocks: images/[SPLIT/]NAME.tif, labels/[SPLIT/]NAME.tif (or polygons: .gpkg, .geojson), labels.yaml."""

from pathlib import Path

from panfpn.data.images import IMAGE_SUFFIXES
from panfpn.data.layouts.listing import SPLITS, first_existing, names_of_split
from panfpn.data.layouts.request import SplitRequest
from panfpn.data.rasters import RASTER_SUFFIXES
from panfpn.data.rasters.blocks import VECTORS, Block, RasterBlocks, blocks_of
from panfpn.progress import progress_bar

_TIFF = frozenset({".tif", ".tiff"})
_RASTERS = IMAGE_SUFFIXES | RASTER_SUFFIXES


def open_split(request: SplitRequest) -> RasterBlocks:
    """The blocks of a split's rasters; without folders of splits all are `train`, which data.split divides.

    ValueError for a raster without labels, labels of another size or place, and a missing labels.yaml. Blocks without a
    labelled pixel are left out.
    """
    request.refuse_panoptic()
    root, table = request.folder, request.own_table()
    if table is None:
        raise ValueError(f"{root / 'labels.yaml'}: no such file; it must name each value of the labels, or `ignore`")
    images, labels = (_folder(root / part, request.split) for part in ("images", "labels"))
    if images is None or labels is None:
        missing = "images" if images is None else "labels"
        raise ValueError(f"{root / missing / request.split}: no such folder, so the split is empty; with rasters right "
                         f"in {missing}, set data.split 0.1, which divides their blocks")  # fmt: skip
    blocks: list[Block] = []
    for image in sorted(images.iterdir()):
        if image.suffix.lower() not in _RASTERS:
            continue
        truth = first_existing(labels / f"{image.stem}{suffix}" for suffix in sorted(_RASTERS | VECTORS))
        if truth is None:
            sentence = f"{image}: has no labels; {labels / image.stem}.tif or .gpkg is looked for"
            if request.unpaired is None:
                raise ValueError(sentence)
            request.unpaired.append(sentence)
            continue
        blocks += blocks_of(image.stem, image, truth)
    data = RasterBlocks(table, tuple(blocks), request.reading)
    used = []
    with progress_bar("looking through blocks", len(blocks), unit="blocks") as advance:
        for i, block in enumerate(blocks):
            if (data.open(i)[1] >= 0).any():
                used.append(block)
            else:
                request.left_out.add("blocks without a labelled pixel", block.image)
            advance(i + 1)
    if not used:
        raise ValueError(f"{images}: holds no raster with labels, so the split is empty")
    return RasterBlocks(table, tuple(used), request.reading)


def splits(root: Path) -> list[str]:
    """The splits that are there, of images in a form that rasters have, or with polygons: photos are no rasters."""
    if not (root / "labels.yaml").is_file() or not (root / "labels").is_dir():
        return []
    forms = ((root / "images", RASTER_SUFFIXES | _TIFF), (root / "labels", RASTER_SUFFIXES | VECTORS))
    if not any(p.suffix.lower() in suffixes for part, suffixes in forms for p in part.rglob("*")):
        return []
    return [split for split in SPLITS if all(_folder(root / part, split) for part in ("images", "labels"))]


def _folder(folder: Path, split: str) -> Path | None:
    """That of a split; the whole folder for `train`, where it has no folders."""
    found = first_existing(folder / name for name in names_of_split(split))
    if found is None and split == "train" and folder.is_dir() and not any(p.is_dir() for p in folder.iterdir()):
        return folder
    return found
