import json
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

import panfpn.deploy.tiles as tiles_module
from panfpn import Predictor
from panfpn.cli import main
from panfpn.config import Inference
from panfpn.data.rasters import Geography, open_raster
from panfpn.deploy import window_size
from panfpn.deploy.export import export
from panfpn.deploy.folder import predict_to_folder
from panfpn.deploy.raster_files import Labels, write_png, write_tif
from panfpn.deploy.tiles import TileOptions, label_raster
from panfpn.deploy.window_size import cut, window_for
from panfpn.labels import LabelClass, LabelTable
from panfpn.tasks.panoptic import PanopticTask
from panfpn.tasks.semantic import SemanticTask
from panfpn.tasks.tiles import JoinedTiles
from panfpn.types import Detections, PanopticMap, Preprocess, Segment
from panfpn.weights.zoo import shipped_model

rasterio = pytest.importorskip("rasterio")
TABLE = LabelTable(
    name="toy", ignore=(200,),
    classes=tuple(LabelClass(name=f"class {k}", color=(k * 50, 255 - k * 40, 7), values=(k * 10,)) for k in range(4)),
)  # fmt: skip


class Pointwise(nn.Module):
    """A network whose logits at a cell are those of its 4 × 4 pixels, and of nothing else."""

    num_classes, stride = 4, 4

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(4, 3, 1, 1, generator=generator))
        self.calls = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return F.conv2d(F.avg_pool2d(images, 4), self.weight)


class Near(Pointwise):
    """One whose logits depend on pixels at most 20 away."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(4)
        self.wide = nn.Parameter(torch.randn(4, 4, 5, 5, generator=generator))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return F.conv2d(super().forward(images), self.wide, padding=2)


class Constant(Pointwise):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.weight.view(1, 4, 1, 1) if self.weight.numel() == 4 else self.weight[:, :1].permute(1, 0, 2, 3)
        return logits.expand(len(images), 4, images.shape[2] // 4, images.shape[3] // 4)


def predictor(network: nn.Module, **settings: Any) -> Predictor:
    preprocess = Preprocess(**{"mean": (100.0, 110.0, 120.0), "std": (60.0,) * 3, "size_divisor": 32} | settings)
    return Predictor(SemanticTask(network, TABLE, preprocess))


@pytest.fixture
def image() -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(small, (613, 405), interpolation=cv2.INTER_CUBIC), np.uint8)


@pytest.fixture
def npy(image: np.ndarray, tmp_path: Path) -> Path:
    np.save(tmp_path / "big.npy", image)
    return tmp_path / "big.npy"


def labelled(path: Path, folder: Path, by: Predictor, **options: Any) -> np.ndarray:
    chosen = TileOptions(**{"window": 192, "form": "npy"} | options)
    result = label_raster(path, folder, name="big", predictor=by, options=chosen, progress=False)
    assert result.files[0] == folder / f"big.{chosen.form}" and result.windows > 1
    assert sorted(p.name for p in folder.iterdir()) == [result.files[0].name]  # nothing else is left
    return np.load(result.files[0])


def raw(labels: np.ndarray) -> np.ndarray:
    return np.array([0, 10, 20, 30])[labels]


def test_a_pointwise_network_gives_what_it_gives_of_the_whole(image: np.ndarray, npy: Path, tmp_path: Path) -> None:
    by = predictor(Pointwise())
    found = labelled(npy, tmp_path / "out", by)
    whole = raw(by(image).labels)
    assert len(np.unique(whole)) == 4
    inside = (slice(0, 404), slice(0, 612))  # the last cell is partly padding, whose size the whole's differs in
    assert np.array_equal(found[inside], whole[inside])


def test_a_constant_network_gives_one_label(npy: Path, tmp_path: Path) -> None:
    assert len(np.unique(labelled(npy, tmp_path / "out", predictor(Constant())))) == 1


def test_labels_are_the_whole_images_where_no_seam_is_near(image: np.ndarray, npy: Path, tmp_path: Path) -> None:
    by = predictor(Near())
    found, whole = labelled(npy, tmp_path / "out", by), raw(by(image).labels)
    rows, columns = cut(open_raster(npy), by.task, 192)
    far = np.ones(whole.shape, bool)
    for axis, cuts in enumerate((rows, columns)):
        for (_, stop), (start, _) in pairwise(cuts.windows):  # whose edges are within 20 pixels of what is between
            side = [slice(None), slice(None)]
            side[axis] = slice(start - 4, stop + 4)
            far[tuple(side)] = False
    far[-28:] = far[:, -28:] = False  # as above
    assert far.mean() > 0.15 and np.array_equal(found[far], whole[far])
    assert (found == whole).mean() > 0.97


def test_stopped_and_gone_on_with_gives_the_same_bytes(
    image: np.ndarray, npy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by = predictor(Near())
    want = labelled(npy, tmp_path / "whole", by, form="npy").tobytes()
    add = tiles_module.Work.write

    def stop_at(call: int) -> Callable[..., None]:
        calls = 0

        def write(*arguments: Any) -> None:
            nonlocal calls
            calls += 1
            if calls == call:
                raise MemoryError("killed")
            add(*arguments)

        return write

    for call in (2, 5, 7):  # in the first band, and twice behind a band that is done
        with monkeypatch.context() as patch, pytest.raises(MemoryError):
            patch.setattr(tiles_module.Work, "write", stop_at(call))
            labelled(npy, tmp_path / "out", by)
        assert (tmp_path / "out" / ".big.panfpn-part").is_dir() and not (tmp_path / "out" / "big.npy").exists()
    fresh = predictor(Near())
    calls = fresh.task.model.calls
    assert labelled(npy, tmp_path / "out", fresh).tobytes() == want
    assert 0 < fresh.task.model.calls - calls < by.task.model.calls  # what was done was not done again


def test_an_unfinished_result_of_other_settings_is_not_gone_on_with(
    npy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by = predictor(Near())
    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(tiles_module, "_put", _raise_memory_error)
        labelled(npy, tmp_path / "out", by)
    other = Near()
    other.weight.data += 1
    with pytest.raises(
        ValueError, match=r"\.big\.panfpn-part: holds an unfinished result whose model was .*delete the folder"
    ):
        labelled(npy, tmp_path / "out", predictor(other))
    with pytest.raises(ValueError, match="whose window was 192, and now is 256"):
        labelled(npy, tmp_path / "out", by, window=256)
    (tmp_path / "out" / ".big.panfpn-part" / "state.safetensors").write_bytes(b"cut")
    with pytest.raises(ValueError, match=r"state\.safetensors: damaged"):
        labelled(npy, tmp_path / "out", by)


def _raise_memory_error(*_: Any) -> None:
    raise MemoryError("killed")


def test_what_has_no_data_is_not_labelled_and_not_computed(image: np.ndarray, tmp_path: Path) -> None:
    pixels = image.copy()
    pixels[pixels == 0] = 1
    pixels[:, 300:] = 0  # the right side, where whole windows are empty
    pixels[100:110, 50:60] = 0
    path = tmp_path / "in.tif"
    place = rasterio.transform.from_origin(500_000, 5_000_000, 0.5, 0.5)
    with rasterio.open(path, "w", driver="GTiff", height=405, width=613, count=3, dtype="uint8", nodata=0,
                       crs="EPSG:32632", transform=place, photometric="RGB") as file:  # fmt: skip
        file.write(np.moveaxis(pixels, -1, 0))
    by = predictor(Pointwise())
    options = TileOptions(window=192)
    result = label_raster(path, tmp_path / "out", name="in", predictor=by, options=options, progress=False)
    assert 0 < result.empty < result.windows and by.task.model.calls == result.windows - result.empty
    with rasterio.open(result.files[0]) as file:
        labels = file.read(1)
        assert file.crs.to_epsg() == 32632 and file.transform == place and file.nodata == 200
        assert file.colormap(1)[30][:3] == TABLE.classes[3].color and file.tags(1)["CLASS_10"] == "class 1"
        assert file.profile["tiled"] and file.profile["compress"] == "deflate"
    valid = (pixels != 0).any(2)
    assert np.array_equal(labels == 200, ~valid)
    far = cv2.erode(valid.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    assert np.array_equal(labels[far][:1000], raw(by(pixels).labels)[far][:1000])


def test_more_than_eight_bits_need_a_range(image: np.ndarray, tmp_path: Path) -> None:
    by = predictor(Pointwise())
    np.save(tmp_path / "big.npy", image.astype(np.uint16) * 16)
    with pytest.raises(ValueError, match=r"big\.npy \(rows from 0.*data.range 0 65535"):
        labelled(tmp_path / "big.npy", tmp_path / "out", by)
    by.task.read_as(bands=(), range=(0.0, 255.0 * 16), pages=None)
    (tmp_path / "out").rename(tmp_path / "gone")
    plain = tmp_path / "plain"
    plain.mkdir()
    np.save(plain / "big.npy", image)
    want = labelled(plain / "big.npy", plain / "out", predictor(Pointwise()))
    assert np.array_equal(labelled(tmp_path / "big.npy", tmp_path / "out", by), want)
    by.task.read_as(bands=(), range="percentile", pages=None)
    stretched = labelled(tmp_path / "big.npy", tmp_path / "percent", by)
    assert (stretched == raw(by(image.astype(np.uint16) * 16).labels)).mean() > 0.98


def test_settings_of_whole_images_are_refused(npy: Path, tmp_path: Path) -> None:
    by = predictor(Pointwise())
    by.task.inference = Inference(flip=True)
    with pytest.raises(ValueError, match=r"inference\.flip is True; an image that is labelled in windows takes False"):
        labelled(npy, tmp_path / "out", by)


def test_windows_grow_with_memory_and_never_beyond_it(npy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_size, "_of_network", lambda pixels: 300.0)  # as of a ResNet-50
    by, raster = predictor(Near()), open_raster(npy)
    raster.height = raster.width = 50_000
    sides = [window_for(raster, by.task, memory) for memory in (1_400_000_000, 4_000_000_000, 9_000_000_000)]
    assert sides == [768, 2048, 2048]
    with pytest.raises(ValueError, match=r"windows of 512 pixels take .* GB .* are allowed; allow more with --memory"):
        window_for(raster, by.task, 1_000_000)


class Squares(PanopticTask):
    """Calls every connected square of one colour a thing, and the rest stuff; nothing is learnt."""

    def __init__(self, table: LabelTable) -> None:
        nn.Module.__init__(self)
        self.table, self.engine = table, None
        self.preprocess, self.inference = Preprocess(mean=(0.0,) * 3, std=(1.0,) * 3), Inference()
        self.pixels = Pointwise()  # type: ignore[assignment]
        self.pixels.register_buffer("mean", torch.zeros(3))
        self.pixels.precision = torch.float32  # type: ignore[assignment]

    @property
    def stride(self) -> int:
        return 4

    @property
    def model(self) -> Any:
        return self.pixels

    def predict(self, images: Any, **_: Any) -> list[PanopticMap]:
        (image,) = images
        count, segments = cv2.connectedComponents((image[:, :, 0] > 0).astype(np.uint8), connectivity=4)
        info = [Segment(id=i, train_id=1, name="square", thing=True, area=1, box=(0, 0, 1, 1), score=0.5 + i / 1000)
                for i in range(1, count)]  # fmt: skip
        segments[segments == 0] = count
        info.append(Segment(id=count, train_id=0, name="ground", thing=False, area=1, box=(0, 0, 1, 1)))
        none = Detections(boxes=np.zeros((0, 4), np.float32), scores=np.zeros(0, np.float32),
                          classes=np.zeros(0, np.int16), masks=())  # fmt: skip
        return [PanopticMap(segments=segments.astype(np.int32), info=tuple(info), table=self.table,
                            semantic=np.zeros(image.shape[:2], np.int16), detections=none)]  # fmt: skip


def test_things_are_joined_across_seams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ground = LabelClass(name="ground", color=(0, 0, 0), values=(0,))
    table = LabelTable(name="toy", classes=(ground, LabelClass(name="square", color=(9,) * 3, values=(1,), thing=True)))
    rng = np.random.default_rng(0)
    pixels = np.zeros((700, 900, 3), np.uint8)
    for top in range(5, 680, 45):
        for left in range(5, 880, 45):
            height, width = rng.integers(10, 40, 2)
            pixels[top : top + height, left : left + width] = 255
    np.save(tmp_path / "in.npy", pixels)
    by = Predictor(Squares(table))
    options = TileOptions(window=256, form="tif")
    add = JoinedTiles.add
    calls = 0

    def stop_once(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 9:
            raise MemoryError("killed")
        return add(*arguments)

    monkeypatch.setattr(JoinedTiles, "add", stop_once)
    with pytest.raises(MemoryError):
        label_raster(tmp_path / "in.npy", tmp_path / "out", name="in", predictor=by, options=options, progress=False)
    result = label_raster(tmp_path / "in.npy", tmp_path / "out", name="in", predictor=by, options=options)
    assert [path.name for path in result.files] == ["in.tif", "in.json"]
    with rasterio.open(result.files[0]) as file:
        ids = file.read(1)
    infos = json.loads(result.files[1].read_text())["segments_info"]
    count, want, stats, _ = cv2.connectedComponentsWithStats((pixels[:, :, 0] > 0).astype(np.uint8), connectivity=4)
    assert len(infos) == count == len(np.unique(ids)) and [info["id"] for info in infos] == list(range(1, count + 1))
    by_id = {info["id"]: info for info in infos}
    for k in range(1, count):
        (number,) = np.unique(ids[want == k])  # one id for a thing, and for no other
        left, top, width, height, area = stats[k].tolist()
        assert (ids == number).sum() == area == by_id[number]["area"]
        assert by_id[number]["bbox"] == [left, top, width, height] and by_id[number]["isthing"]
    assert not by_id[count]["isthing"] and by_id[count]["area"] == int((want == 0).sum())


def test_an_exported_file_labels_rasters_too(tmp_path: Path, npy: Path) -> None:
    pytest.importorskip("onnxruntime")
    released = Predictor.from_file(device="cpu", precision="float32")
    file = export(shipped_model(), tmp_path / "model.onnx", size=(320, 320)).files[0]
    by = Predictor.from_file(file)
    found = labelled(npy, tmp_path / "out", by, window=320)
    want = released.table.decode(released(np.load(npy)).labels)
    assert (found == want).mean() > 0.9  # it sees 320 × 320 pixels at a time, and that size only


@pytest.mark.parametrize("form", ["tif", "png", "zarr", "npy"])
def test_the_verb_writes_every_form(form: str, image: np.ndarray, npy: Path, tmp_path: Path, capsys: Any) -> None:
    zarr = pytest.importorskip("zarr")
    out = tmp_path / "out"
    assert main(["predict", str(npy), "-o", str(out), "--raster-form", form, "--window", "256"]) == 0
    assert "405×613 pixels in 6 windows of 256" in capsys.readouterr().out
    found = {
        "tif": lambda: rasterio.open(out / "big.tif").read(1), "npy": lambda: np.load(out / "big.npy"),
        "png": lambda: cv2.imread(str(out / "big.png"), cv2.IMREAD_UNCHANGED),
        "zarr": lambda: zarr.open_array(str(out / "big.zarr"), mode="r")[:],
    }[form]()  # fmt: skip
    table = LabelTable.named("camvid")
    if form == "png":  # OpenCV shows a palette's colours
        found = table.encode(cv2.cvtColor(found, cv2.COLOR_BGR2RGB)) if table.masks == "colors" else found
    assert found.shape[:2] == (405, 613)
    known = json.loads((out / "predictions.json").read_text())
    assert known["inputs"] == {"big": str(npy)} and f"big.{form}" in known["files"]


def test_photos_and_rasters_go_together(image: np.ndarray, npy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    cv2.imwrite(str(folder / "photo.png"), image)
    npy.rename(folder / "big.npy")
    (folder / "bad.npy").write_text("no array")
    found = predict_to_folder([folder], tmp_path / "out", predictor=predictor(Pointwise()), progress=False)
    assert found.done == 1 and len(found.rasters) == 1
    assert [failure.name for failure in found.failures] == ["bad"] and "bad.npy" in found.failures[0].reason
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["big.tif", "photo.png", "photo_overlay.jpg", "predictions.json"]


def test_a_changed_array_is_not_gone_on_with(image: np.ndarray, tmp_path: Path, monkeypatch: Any) -> None:
    zarr = pytest.importorskip("zarr")
    array = zarr.create_array(str(tmp_path / "big.zarr"), shape=image.shape, chunks=(64, 64, 3), dtype="uint8")
    array[:] = image
    by = predictor(Near())
    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(tiles_module, "_put", _raise_memory_error)
        labelled(tmp_path / "big.zarr", tmp_path / "out", by)
    array[:64, :64] = 255 - image[:64, :64]
    with pytest.raises(ValueError, match="holds an unfinished result whose image was"):
        labelled(tmp_path / "big.zarr", tmp_path / "out", by)


@pytest.mark.parametrize("height", [40, 150])
def test_a_raster_of_one_band_goes_on_too(image: np.ndarray, height: int, tmp_path: Path, monkeypatch: Any) -> None:
    np.save(tmp_path / "big.npy", image[:height])
    by = predictor(Near())
    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(tiles_module, "_put", _raise_memory_error)
        labelled(tmp_path / "big.npy", tmp_path / "out", by)
    assert labelled(tmp_path / "big.npy", tmp_path / "out", by).shape == (height, 613)


def test_an_unfinished_result_without_its_pixels_is_no_result(npy: Path, tmp_path: Path, monkeypatch: Any) -> None:
    by = predictor(Near())
    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(tiles_module, "_put", _raise_memory_error)
        labelled(npy, tmp_path / "out", by)
    (tmp_path / "out" / ".big.panfpn-part" / "labels.raw").unlink()
    with pytest.raises(ValueError, match=r"labels\.raw: is not what the unfinished result needs"):
        labelled(npy, tmp_path / "out", by)


def test_a_folder_of_the_users_is_left_alone(npy: Path, tmp_path: Path) -> None:
    mine = tmp_path / "out" / ".big.panfpn-part"
    mine.mkdir(parents=True)
    (mine / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="holds something else than an unfinished result"):
        labelled(npy, tmp_path / "out", predictor(Pointwise()))
    assert (mine / "letter.txt").read_text() == "dear"


def test_a_full_disk_is_noticed(tmp_path: Path, monkeypatch: Any) -> None:
    np.zeros((600, 700), np.uint8).tofile(tmp_path / "a")
    place = Geography(None, rasterio.transform.from_origin(0, 0, 1, 1))
    labels = Labels(file=tmp_path / "a", shape=(600, 700), dtype=np.dtype(np.uint8), nodata=255, names={}, colors={},
                    geography=place)  # fmt: skip
    write_tif(labels, tmp_path / "whole.tif")
    size = (tmp_path / "whole.tif").stat().st_size
    opened = rasterio.open

    def cut(path: Any, mode: str = "r", **options: Any) -> Any:
        if mode == "r":
            os.truncate(path, size // 2)  # what GDAL leaves, without a word
        return opened(path, mode, **options)

    monkeypatch.setattr(rasterio, "open", cut)
    with pytest.raises(OSError, match="not written whole"):
        write_tif(labels, tmp_path / "cut.tif")


def test_a_broken_raster_costs_no_other(npy: Path, image: np.ndarray, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    npy.rename(folder / "big.npy")
    cv2.imwrite(str(folder / "photo.png"), image)
    (folder / "noise.tif").write_bytes(b"II*\0" + bytes(17 << 20))
    np.savez(folder / "several.npz", a=image)
    (folder / "several.npz").rename(folder / "several.npy")
    with rasterio.open(
        folder / "c.vrt.tif", "w", driver="GTiff", height=9, width=9, count=1, dtype="complex64"
    ) as file:
        file.write(np.zeros((1, 9, 9), np.complex64))
    (folder / "c.vrt.tif").rename(folder / "c.vrt")
    found = predict_to_folder([folder], tmp_path / "out", predictor=predictor(Pointwise()), progress=False)
    assert found.done == 1 and len(found.rasters) == 1
    reasons = {failure.name: failure.reason for failure in found.failures}
    assert set(reasons) == {"noise", "several", "c"} and "several arrays" in reasons["several"]
    assert "complex values" in reasons["c"] and "noise.tif" in reasons["noise"]


def test_arrays_that_are_folders_are_inputs(image: np.ndarray, tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    folder = tmp_path / "in"
    array = zarr.create_array(str(folder / "deep" / "a.zarr"), shape=image.shape, chunks=(64, 64, 3), dtype="uint8")
    array[:] = image
    by = predictor(Pointwise())
    for number, argument in enumerate((str(folder), str(folder / "deep" / "*.zarr"))):
        found = predict_to_folder([argument], tmp_path / f"out{number}", predictor=by, progress=False)
        assert len(found.rasters) == 1 and not found.failures and not found.left_out.counts


def test_pages_orientation_and_bits_are_minded(image: np.ndarray, tmp_path: Path) -> None:
    by = predictor(Pointwise())
    tifffile.imwrite(tmp_path / "pages.tif", np.stack([image, image]), photometric="rgb")
    tifffile.imwrite(tmp_path / "turned.tif", image, photometric="rgb", extratags=[(274, 3, 1, 6, True)])
    for name, match in (("pages", "has 2 pages; in windows only the first"), ("turned", "stored turned or mirrored")):
        with pytest.raises(ValueError, match=match):
            labelled(tmp_path / f"{name}.tif", tmp_path / "out", by)
    Image.fromarray(image[:, :, 0] > 120).save(tmp_path / "bits.png")
    found = labelled(tmp_path / "bits.png", tmp_path / "bits", by)
    whole = raw(by(tmp_path / "bits.png").labels)
    assert (found[:400, :600] == whole[:400, :600]).all()


def test_floats_without_numbers_are_no_data_in_geotiffs_too(image: np.ndarray, tmp_path: Path) -> None:
    values = image.astype(np.float32)
    values[30:60, 40:80, 1] = np.nan
    with rasterio.open(tmp_path / "big.tif", "w", driver="GTiff", height=405, width=613, count=3, dtype="float32") as f:
        f.write(np.moveaxis(values, -1, 0))
    by = predictor(Pointwise())
    by.task.read_as(bands=(), range=(0.0, 255.0), pages=None)
    found = labelled(tmp_path / "big.tif", tmp_path / "out", by)
    assert (found[30:60, 40:80] == 200).all() and (found == 200).sum() == 30 * 40


def test_impossible_outputs_are_refused_before_anything_is_labelled(npy: Path, tmp_path: Path) -> None:
    by = Predictor(Squares(TABLE))
    with pytest.raises(ValueError, match="segment ids need more bits than a PNG has"):
        label_raster(npy, tmp_path / "out", name="big", predictor=by, options=TileOptions(window=192, form="png"))
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="of a raster, its labels are written, and not confidence"):
        predict_to_folder([npy], tmp_path / "out", predictor=predictor(Pointwise()), what=("confidence",))


def test_polygons_of_nothing_are_an_empty_layer(image: np.ndarray, tmp_path: Path) -> None:
    pyogrio = pytest.importorskip("pyogrio")
    with rasterio.open(tmp_path / "in.tif", "w", driver="GTiff", height=405, width=613, count=3, dtype="uint8",
                       nodata=0, crs="EPSG:32632") as file:  # fmt: skip
        file.write(np.zeros((3, 405, 613), np.uint8))
    options = TileOptions(window=192, polygons="gpkg")
    by = predictor(Pointwise())
    result = label_raster(tmp_path / "in.tif", tmp_path / "out", name="in", predictor=by, options=options)
    assert result.regions == 0 and result.empty == result.windows
    assert pyogrio.read_info(result.files[1])["features"] == 0


def test_pngs_hold_no_segment_ids(tmp_path: Path) -> None:
    np.zeros((4, 5), np.int32).tofile(tmp_path / "a")
    labels = Labels(file=tmp_path / "a", shape=(4, 5), dtype=np.dtype(np.int32), nodata=0, names={}, colors={})
    with pytest.raises(ValueError, match="segment ids need more bits than a PNG has"):
        write_png(labels, tmp_path / "a.png")
