from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from panfpn.data.rasters import Geography
from panfpn.deploy import raster_files
from panfpn.deploy.polygons import write_polygons
from panfpn.deploy.raster_files import Labels

shapely, pyogrio, rasterio = (pytest.importorskip(name) for name in ("shapely", "pyogrio", "rasterio"))
NAMES = {0: "ground", 1: "roof", 2: "tree", 3: "car"}
PLACE = rasterio.transform.from_origin(500_000, 5_000_000, 0.5, 0.5)


@pytest.fixture
def labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Labels:
    """Blocks and single pixels of four classes over five strips, with a hole that has no data."""
    rng = np.random.default_rng(0)
    values = cv2.resize(rng.integers(0, 4, (60, 12)).astype(np.uint8), (250, 2300), interpolation=cv2.INTER_NEAREST)
    values = np.where(rng.random(values.shape) < 0.002, 3, values).astype(np.uint8)
    values[400:700, 20:90] = 255
    values[:, 120:126] = 2  # one region from top to bottom
    values.tofile(tmp_path / "labels.raw")
    monkeypatch.setattr(raster_files, "_STRIP", 250 * 512)
    geography = Geography(rasterio.crs.CRS.from_epsg(32632), PLACE)
    return Labels(file=tmp_path / "labels.raw", shape=values.shape, dtype=values.dtype, nodata=255, names=NAMES,
                  colors={}, geography=geography)  # fmt: skip


def values_of(labels: Labels) -> np.ndarray:
    return np.fromfile(labels.file, labels.dtype).reshape(labels.shape)


def read(path: Path) -> tuple[Any, dict[str, np.ndarray], dict[str, Any]]:
    about, _, shapes, columns = pyogrio.raw.read(path)
    return shapely.from_wkb(shapes), dict(zip(about["fields"], columns, strict=True)), about


@pytest.mark.parametrize("suffix", ["gpkg", "geojson"])
@pytest.mark.parametrize("simplify", [0, 2])
def test_polygons_are_valid_whole_and_add_up(suffix: str, simplify: float, labels: Labels, tmp_path: Path) -> None:
    path, values = tmp_path / f"out.{suffix}", values_of(labels)
    count = write_polygons(labels, path, simplify=simplify)
    shapes, fields, about = read(path)
    assert (
        count
        == len(shapes)
        == sum(cv2.connectedComponents((values == k).astype(np.uint8), connectivity=4)[0] - 1 for k in NAMES)
    )  # regions that several strips share are one
    assert shapely.is_valid(shapes).all() and about["crs"] == "EPSG:32632"
    assert fields["pixels"].sum() == pytest.approx((values != 255).sum())
    assert shapely.area(shapes).sum() == pytest.approx(fields["area"].sum()) == pytest.approx((values != 255).sum() / 4)
    assert [NAMES[value] for value in fields["value"].tolist()] == fields["class"].tolist()
    if not simplify:
        for value in NAMES:
            assert fields["pixels"][fields["value"] == value].sum() == (values == value).sum()


def test_polygons_lie_where_their_pixels_are(labels: Labels, tmp_path: Path) -> None:
    write_polygons(labels, tmp_path / "out.gpkg")
    shapes, fields, _ = read(tmp_path / "out.gpkg")
    drawn = rasterio.features.rasterize(
        zip(shapes, fields["value"].tolist(), strict=True), labels.shape, fill=255, transform=PLACE, dtype=np.uint8
    )
    assert np.array_equal(drawn, values_of(labels))


def test_neighbours_share_their_simplified_edges(labels: Labels, tmp_path: Path) -> None:
    write_polygons(labels, tmp_path / "out.gpkg", simplify=3)
    shapes, _, _ = read(tmp_path / "out.gpkg")
    tree = shapely.STRtree(shapes)
    first, second = tree.query(shapes, "overlaps")
    shared = shapely.area(shapely.intersection(shapes[first], shapes[second]))
    assert shared.sum() == pytest.approx(0, abs=1e-6)


def test_without_a_place_y_points_up(tmp_path: Path) -> None:
    np.array([[0, 0], [1, 1]], np.uint8).tofile(tmp_path / "a")
    labels = Labels(file=tmp_path / "a", shape=(2, 2), dtype=np.dtype(np.uint8), nodata=255, names=NAMES, colors={})
    assert write_polygons(labels, tmp_path / "out.geojson") == 2
    shapes, fields, _ = read(tmp_path / "out.geojson")
    bounds = {value: shape.bounds for value, shape in zip(fields["value"].tolist(), shapes, strict=True)}
    assert bounds == {0: (0.0, -1.0, 2.0, 0.0), 1: (0.0, -2.0, 2.0, -1.0)}
