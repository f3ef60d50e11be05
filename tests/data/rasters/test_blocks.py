from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from panfpn.build import build_dataset, build_datasets
from panfpn.config import Data
from panfpn.data import identity_of, open_dataset, train_loader
from panfpn.data.balance import count_classes
from panfpn.data.loader import DrawSampler
from panfpn.data.rasters import blocks
from panfpn.engine import train
from panfpn.labels import IGNORE
from toy_run import toy, weights
from transforming import train_transform

rasterio, pyogrio, shapely = (pytest.importorskip(name) for name in ("rasterio", "pyogrio.raw", "shapely"))
features = pytest.importorskip("rasterio.features")
PLACE = rasterio.transform.from_origin(500_000, 5_000_000, 0.5, 0.5)
LABELS = "classes:\n- {name: meadow, value: 1}\n- {name: roof, value: 2}\n- {name: road, value: 7}\nignore: [255]\n"
HEIGHT, WIDTH = 300, 450


def write(path: Path, pixels: np.ndarray, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = pixels[:, :, None] if pixels.ndim == 2 else pixels
    profile = {"crs": "EPSG:32632", "transform": PLACE} | options
    with rasterio.open(path, "w", driver="GTiff", height=bands.shape[0], width=bands.shape[1], count=bands.shape[2],
                       dtype=bands.dtype, **profile) as file:  # fmt: skip
        file.write(np.moveaxis(bands, -1, 0))


def ground_truth() -> np.ndarray:
    labels = np.ones((HEIGHT, WIDTH), np.uint8)
    labels[40:120, 60:300] = 2
    labels[:, 200:220] = 7
    return labels


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two rasters with labels, in blocks of 128."""
    monkeypatch.setattr(blocks, "SIDE", 128)
    rng = np.random.default_rng(0)
    folder = tmp_path / "data"
    for name in ("north", "south"):
        labels = ground_truth() if name == "north" else ground_truth()[::-1]
        image = np.stack([labels * 30, 255 - labels * 20, labels * 9], -1) + rng.integers(0, 9, (HEIGHT, WIDTH, 3))
        write(folder / "images" / f"{name}.tif", image.astype(np.uint8), photometric="RGB")
        write(folder / "labels" / f"{name}.tif", np.ascontiguousarray(labels))
    (folder / "labels.yaml").write_text(LABELS)
    return folder


def put_together(data: Any, name: str) -> np.ndarray:
    """The train ids of a raster, from its blocks."""
    whole = np.full((HEIGHT, WIDTH), 99, np.int16)
    for i, block in enumerate(data.items):
        if block.image.stem == name:
            place = (slice(*block.rows), slice(*block.columns))
            assert (whole[place] == 99).all()
            whole[place] = data.open(i)[1]
    return whole


def test_blocks_cover_rasters_once(root: Path) -> None:
    data = open_dataset("raster", root, "train")
    want = np.select([ground_truth() == 1, ground_truth() == 2], [0, 1], 2)
    assert np.array_equal(put_together(data, "north"), want)
    assert np.array_equal(put_together(data, "south"), want[::-1])
    assert len(data) == 2 * 2 * 4  # 300 is 128 and 172 (44 are too few for a block), 450 four of them
    sample = data.read(3)
    assert sample.name == "north/000000_000384" and sample.image.shape == (128, 66, 3)


def test_blocks_are_divided(root: Path) -> None:
    train_part, val_part = build_datasets(Data(dataset="raster", root=root, split=0.25))
    names = [{data.name(i) for i in range(len(data))} for data in (train_part, val_part)]
    assert not names[0] & names[1] and len(names[0] | names[1]) == 16 and 2 <= len(names[1]) <= 7
    counts = [count_classes(data).sum(0) for data in (train_part, val_part)]
    assert all((count > 0).all() for count in counts)  # every class in both
    again = build_dataset(Data(dataset="raster", root=root, split=0.25), "val")
    assert {again.name(i) for i in range(len(again))} == names[1]
    assert identity_of(again).digest == identity_of(val_part).digest


def test_polygons_are_drawn_as_the_raster_would_be(root: Path) -> None:
    want = [put_together(open_dataset("raster", root, "train"), name) for name in ("north", "south")]
    for name in ("north", "south"):
        with rasterio.open(root / "labels" / f"{name}.tif") as file:
            found = [(shapely.geometry.shape(shape), int(value)) for shape, value in
                     features.shapes(file.read(1), transform=file.transform)]  # fmt: skip
        (root / "labels" / f"{name}.tif").unlink()
        names = np.array([{1: "meadow", 2: "roof", 7: "road"}[value] for _, value in found], object)
        pyogrio.write(str(root / "labels" / f"{name}.gpkg"), shapely.to_wkb([shape for shape, _ in found]), [names],
                      ["class"], geometry_type="Polygon", crs="EPSG:32632", driver="GPKG")  # fmt: skip
    data = open_dataset("raster", root, "train")
    for name, labels in zip(("north", "south"), want, strict=True):
        assert np.array_equal(put_together(data, name), labels)


def test_what_has_no_data_is_ignored_and_empty_blocks_are_left_out(root: Path) -> None:
    labels = ground_truth()
    labels[:, :130] = 0  # its nodata value
    write(root / "labels" / "north.tif", labels, nodata=0)
    with rasterio.open(root / "images" / "south.tif", "r+") as file:
        file.nodata = 255
    data = open_dataset("raster", root, "train")
    assert len(data) == 14  # the first column of blocks is gone
    whole = put_together(data, "north")
    assert (whole[:, 128:130] == IGNORE).all() and (whole[:, 130:] != IGNORE).all()


@pytest.mark.parametrize("bits", [8, 16])
def test_a_training_on_rasters(root: Path, bits: int, tmp_path: Path) -> None:
    settings: dict[str, Any] = {}
    if bits == 16:
        for path in (root / "images").iterdir():
            with rasterio.open(path) as file:
                pixels = np.moveaxis(file.read(), 0, -1)
            write(path, pixels.astype(np.uint16) * 257)
        settings = {"data__range": (0.0, 65535.0)}
    config = toy(root, tmp_path / "run").changed(
        data__dataset="raster", data__split=0.25, data__num_workers=2 if bits == 8 else 0, **settings
    )
    train(config)
    assert weights(tmp_path / "run")
    data = build_dataset(config.data, "train")
    one, two = (
        next(train_loader(data, train_transform(crop=(64, 64)), DrawSampler(steps=range(1), batch_size=4), seed=3,
                          num_workers=workers))
        for workers in (0, 2)
    )  # fmt: skip
    assert torch.equal(one.images, two.images) and torch.equal(one.targets, two.targets)


def test_what_is_wrong_is_named(root: Path) -> None:
    with pytest.raises(ValueError, match=r"with rasters right in images, set data\.split 0\.1"):
        open_dataset("raster", root, "val")
    write(root / "labels" / "south.tif", ground_truth(), transform=rasterio.transform.from_origin(0, 0, 0.5, 0.5))
    with pytest.raises(ValueError, match=r"south\.tif: lies elsewhere than its image"):
        open_dataset("raster", root, "train")
    write(root / "labels" / "south.tif", ground_truth()[:100])
    with pytest.raises(ValueError, match=r"south\.tif: 100×450 pixels, but its image .* has 300×450"):
        open_dataset("raster", root, "train")
    write(root / "labels" / "south.tif", ground_truth() + 1)
    with pytest.raises(ValueError, match=r"south\.tif \(rows from 0, columns from 0\): .*value"):
        open_dataset("raster", root, "train")
    (root / "labels" / "south.tif").unlink()
    with pytest.raises(ValueError, match=r"south\.tif: has no labels"):
        open_dataset("raster", root, "train")
    unpaired: list[str] = []
    assert len(open_dataset("raster", root, "train", unpaired=unpaired)) == 8 and "south.tif" in unpaired[0]
    shape = shapely.to_wkb([shapely.box(500_000, 4_999_900, 500_100, 5_000_000)])
    lawn = ([np.array(["lawn"], object)], ["class"], "class 'lawn', which labels.yaml does not")
    number = ([np.array([3])], ["number"], "no field `class` or `value`; they have number")
    for fields, names, match in (lawn, number):
        pyogrio.write(str(root / "labels" / "south.geojson"), shape, fields, names, geometry_type="Polygon",
                      crs="EPSG:32632", driver="GeoJSON")  # fmt: skip
        with pytest.raises(ValueError, match=match):
            open_dataset("raster", root, "train")
    (root / "labels.yaml").unlink()
    with pytest.raises(ValueError, match=r"labels\.yaml: no such file"):
        open_dataset("raster", root, "train")
