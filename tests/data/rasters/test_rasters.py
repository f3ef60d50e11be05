from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from panfpn.data.rasters import is_raster, open_raster, sources

rasterio = pytest.importorskip("rasterio")
PIXELS = np.random.default_rng(0).integers(0, 256, (300, 410, 3)).astype(np.uint8)
PLACE = rasterio.transform.from_origin(500_000, 5_000_000, 0.5, 0.5)
WINDOWS = [(slice(0, 300), slice(0, 410)), (slice(17, 203), slice(111, 409)), (slice(299, 300), slice(0, 1))]


def write_geo(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    profile = {"crs": "EPSG:32632", "transform": PLACE} | options
    with rasterio.open(
        path, "w", driver="GTiff", height=pixels.shape[0], width=pixels.shape[1], count=pixels.shape[2],
        dtype=pixels.dtype, **profile,
    ) as file:  # fmt: skip
        file.write(np.moveaxis(pixels, -1, 0))
    return path


def as_geo(folder: Path) -> Path:
    return write_geo(folder / "geo.tif", PIXELS, photometric="RGB", tiled=True, blockxsize=128, blockysize=128)


def as_npy(folder: Path) -> Path:
    np.save(folder / "a.npy", PIXELS)
    return folder / "a.npy"


def as_zarr(folder: Path) -> Path:
    zarr = pytest.importorskip("zarr")
    array = zarr.create_array(str(folder / "a.zarr"), shape=PIXELS.shape, chunks=(64, 64, 3), dtype="uint8")
    array[:] = PIXELS
    return folder / "a.zarr"


def as_slide(folder: Path) -> Path:
    pytest.importorskip("openslide")
    tifffile.imwrite(folder / "a.tif", PIXELS, tile=(128, 128), photometric="rgb", compression="deflate")
    return (folder / "a.tif").rename(folder / "a.svs")


def as_vrt(folder: Path) -> Path:
    pytest.importorskip("rasterio.shutil").copy(str(as_geo(folder)), str(folder / "a.vrt"), driver="VRT")
    return folder / "a.vrt"


@pytest.mark.parametrize("write", [as_geo, as_npy, as_zarr, as_slide, as_vrt])
def test_windows_are_cut_from_the_whole(write: Callable[[Path], Path], tmp_path: Path) -> None:
    raster = open_raster(write(tmp_path))
    assert (raster.height, raster.width, raster.bands, raster.dtype) == (300, 410, 3, "uint8")
    for rows, columns in WINDOWS:
        samples, valid = raster.read(rows, columns)
        assert np.array_equal(samples, PIXELS[rows, columns]) and (valid is None or valid.all())
    raster.close()


LAYOUTS: list[dict[str, Any]] = [
    {}, {"tile": (128, 64)}, {"rowsperstrip": 7}, {"compression": "deflate"},
    {"tile": (64, 64), "bigtiff": True, "compression": "deflate", "predictor": True},
]  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_plain_tiff_needs_no_extra(layout: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "find_spec", lambda name: None)
    options = {key: value for key, value in layout.items() if key != "bigtiff"}
    with tifffile.TiffWriter(tmp_path / "a.tif", bigtiff=bool(layout.get("bigtiff"))) as file:
        file.write(PIXELS, photometric="rgb", **options)
    raster = open_raster(tmp_path / "a.tif")
    for rows, columns in WINDOWS:
        assert np.array_equal(raster.read(rows, columns)[0], PIXELS[rows, columns])
    raster.close()


def test_a_geotiff_is_not_stripped_of_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = as_geo(tmp_path)
    monkeypatch.setattr(sources, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"geo.tif: a GeoTIFF.*panfpn\[geo\]"):
        open_raster(path)


def test_a_geotiff_knows_its_place_and_its_nodata(tmp_path: Path) -> None:
    pixels = PIXELS.astype(np.uint16) + 1
    pixels[100:, :50] = 0
    raster = open_raster(write_geo(tmp_path / "a.tif", pixels, nodata=0))
    samples, valid = raster.read(slice(90, 200), slice(0, 100))
    assert np.array_equal(samples, pixels[90:200, :100])
    assert valid is not None and np.array_equal(valid, (pixels[90:200, :100] != 0).all(2))
    assert raster.geography is not None and raster.geography.placed
    assert raster.geography.crs.to_epsg() == 32632 and raster.geography.transform == PLACE


def test_alpha_and_palettes(tmp_path: Path) -> None:
    four = np.dstack([PIXELS, np.where(np.arange(410) < 200, 255, 0)[None].repeat(300, 0)]).astype(np.uint8)
    raster = open_raster(write_geo(tmp_path / "a.tif", four, photometric="RGB", alpha="YES"))
    samples, valid = raster.read(slice(0, 9), slice(190, 210))
    assert raster.alpha and raster.colors and samples.shape[2] == 4
    assert valid is not None and np.array_equal(valid[0], np.arange(190, 210) < 200)
    index = (PIXELS[:, :, :1] % 3).astype(np.uint8)
    path = write_geo(tmp_path / "p.tif", index)
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {0: (1, 2, 3), 1: (40, 50, 60), 2: (7, 8, 9)})
    raster = open_raster(path)
    colors = np.array([(1, 2, 3), (40, 50, 60), (7, 8, 9)], np.uint8)
    assert np.array_equal(raster.read(*WINDOWS[1])[0], colors[index[WINDOWS[1]][:, :, 0]])


def test_floats_that_are_no_numbers_are_no_data(tmp_path: Path) -> None:
    values = np.ones((20, 30), np.float32)
    values[3, 4] = np.nan
    np.save(tmp_path / "a.npy", values)
    samples, valid = open_raster(tmp_path / "a.npy").read(slice(0, 20), slice(0, 30))
    assert samples.shape == (20, 30, 1) and valid is not None and np.argwhere(~valid).tolist() == [[3, 4]]


def broken(folder: Path) -> dict[str, Path]:
    files = {name: folder / name for name in ("text.tif", "cut.npy", "text.npy", "text.svs", "text.vrt", "none.tif")}
    for name in ("text.tif", "text.npy", "text.svs", "text.vrt"):
        files[name].write_text("no raster")
    files["cut.npy"].write_bytes(as_npy(folder).read_bytes()[:1000])
    np.save(folder / "first.npy", PIXELS.transpose(2, 0, 1))
    np.save(folder / "words.npy", np.array([["a", "b"]]))
    np.save(folder / "four.npy", np.zeros((2, 3, 4, 5)))
    (folder / "empty.zarr").mkdir()
    return files | {name: folder / name for name in ("first.npy", "words.npy", "four.npy", "empty.zarr")}


def test_what_is_no_raster_is_named(tmp_path: Path) -> None:
    for name, path in broken(tmp_path).items():
        if name == "text.svs" and find_spec("openslide") is None:
            continue
        with pytest.raises(ValueError, match=name):
            open_raster(path)


def test_pickles_are_not_read(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[{}]], object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"a\.npy"):
        open_raster(tmp_path / "a.npy")


def test_which_paths_are_read_in_windows_only(tmp_path: Path) -> None:
    assert is_raster(tmp_path / "a.npy") and is_raster(tmp_path / "b.vrt") and not is_raster(tmp_path / "c.tif")
    assert is_raster(as_zarr(tmp_path)) and not is_raster(tmp_path)
