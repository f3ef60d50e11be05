"""Labels of images that fit no memory. In: a raster and a predictor. Out: one file of labels, and what it took.

Windows are read ahead, labelled, and their final pixels written to a plain file; after each band of windows its state
is saved. A call that was stopped, however it ended, goes on behind the last whole band, and ends in the same bytes.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from panfpn.choices import RASTER_FORMS, lookup
from panfpn.data.rasters import Raster, open_raster
from panfpn.data.rasters.bands import Bands
from panfpn.deploy.polygons import check_polygons, write_polygons
from panfpn.deploy.predictor import Predictor
from panfpn.deploy.raster_files import Labels, Work, check_form
from panfpn.deploy.raster_segments import final_segments
from panfpn.deploy.raster_values import Values
from panfpn.deploy.window_size import cut, window_for
from panfpn.engine.run_lock import locked
from panfpn.files import replacing, write_json
from panfpn.progress import progress_bar
from panfpn.tasks.tiles import Tiles
from panfpn.types import Segment

Window = tuple[npt.NDArray[np.uint8] | None, npt.NDArray[np.bool_] | None]  # image, and which pixels have data
_STATE, _PIXELS = "state.safetensors", "labels.raw"


@dataclass(frozen=True, kw_only=True)
class TileOptions:
    """How rasters are labelled."""

    memory: int | None = None  # bytes that the process may take; None: a quarter of the machine's
    window: int | None = None  # pixels of a side; None: as large as memory allows
    form: str = "tif"  # one of `panfpn.choices.RASTER_FORMS`
    polygons: str | None = None  # gpkg or geojson: what polygons of the regions are written as, beside the labels
    simplify: float = 1.0  # tolerance of their edges in pixels; 0: as the pixels are


@dataclass(frozen=True, kw_only=True)
class RasterResult:
    """What came of a raster."""

    files: tuple[Path, ...]
    height: int
    width: int
    side: int  # of a window
    windows: int
    empty: int  # windows without data
    regions: int | None = None  # polygons that were written


def label_raster(
    path: Path, folder: Path, *, name: str, predictor: Predictor, options: TileOptions, progress: bool = True
) -> RasterResult:
    """Label a raster into `folder`/`name`.tif (or another form); a Panoptic FPN's segments are in `name`.json.

    Raises:
        ValueError: of the raster (not readable, bands or range left open), of settings that need the whole image, of
            too little memory, or of an unfinished result of other settings.
        KeyboardInterrupt: with what was done in words; the same call goes on.
    """
    write = lookup(RASTER_FORMS, options.form, "form")
    task = predictor.task
    target = folder / f"{name}.{options.form}"
    part = target.parent / f".{target.stem}.panfpn-part"  # hidden, so that nobody takes it for an input
    if part.is_symlink() or (part.is_dir() and not all(_is_ours(path) for path in part.iterdir())):
        raise ValueError(f"{part}: holds something else than an unfinished result; move it away")
    try:
        with contextlib.closing(open_raster(path)) as raster:
            side = options.window or window_for(raster, task, options.memory)
            tiles = task.tiles(*cut(raster, task, side))
            values = Values.of(task.table, tiles)
            check_form(options.form, values.dtype)
            if options.polygons:
                check_polygons()
            part.mkdir(parents=True, exist_ok=True)
            with locked(part, "labels this raster"):
                key = {"image": _identity(raster), "model": predictor.digest, "window": side,
                       "reading": asdict(task.preprocess.reading)}  # fmt: skip
                state = _State.read(part / _STATE, key) or _State(key=key, arrays={})
                _label(raster, tiles, values, part, state, progress=progress)
                labels = values.labels(part / _PIXELS, raster)
                result = RasterResult(
                    files=(target,), height=raster.height, width=raster.width, side=tiles.rows.side,
                    windows=len(tiles.rows.windows) * len(tiles.columns.windows), empty=state.empty,
                )  # fmt: skip
                result = _finish(labels, tiles, values, part, result, write, options)
                (part / _STATE).unlink()  # first: without it, what is left begins anew
                for left in part.iterdir():
                    if left.is_dir():  # another form's, of a call that was stopped
                        shutil.rmtree(left)
                    elif left.name != ".lock":
                        left.unlink()
            with contextlib.suppress(OSError):  # another process may have begun there
                part.rmdir()
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(str(error) or f"interrupted: {path} is not labelled to its end; the same command goes "
                                              "on from there") from None  # fmt: skip
    return result


def _is_ours(path: Path) -> bool:
    """Whether a file of an unfinished result."""
    return path.name == ".lock" or path.name.startswith(("labels.", f".{_STATE}", _STATE))


def _finish(
    labels: Labels, tiles: Tiles, values: Values, part: Path, result: RasterResult,
    write: Callable[[Labels, Path], None], options: TileOptions,
) -> RasterResult:  # fmt: skip
    """Write the files of a raster whose windows are all labelled, whole, and put them into their places."""
    (target,) = result.files
    infos: list[Segment] | None = None
    if values.are_ids:
        labels, infos = final_segments(labels, tiles)
    made = part / f"labels.{options.form}"
    write(labels, made)
    files, regions = [target], None
    if options.polygons:
        shapes = part / f"labels.{options.polygons}"
        shapes.unlink(missing_ok=True)
        regions = write_polygons(labels, shapes, simplify=options.simplify)
        files.append(target.with_name(f"{target.name.removesuffix(options.form)}{options.polygons}"))
        _put(shapes, files[-1])
    _put(made, target)
    if infos is not None:  # after its raster: where there is a JSON, there are its segments
        segments = [info.to_dict(tiles.task.table) for info in infos]
        files.append(target.with_name(f"{target.name.removesuffix(options.form)}json"))
        size = {"height": result.height, "width": result.width}
        write_json(files[-1], {"file_name": target.name, **size, "segments_info": segments})
    return replace(result, files=tuple(files), regions=regions)


@dataclass(kw_only=True)
class _State:
    """How far a raster is, in one file, which is written whole after each band."""

    key: dict[str, Any]  # what the result is a function of
    bands: int = 0  # that are done
    empty: int = 0
    arrays: dict[str, npt.NDArray[Any]]  # of the tiles

    @staticmethod
    def read(path: Path, key: dict[str, Any]) -> "_State | None":
        """The state of an earlier call; None if there is none. ValueError if its result would be another one."""
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="numpy") as file:
                about = json.loads(file.metadata()["state"])
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            found, bands, empty = dict(about["key"]), int(about["bands"]), int(about["empty"])
        except (SafetensorError, KeyError, ValueError, TypeError) as error:
            raise ValueError(f"{path}: damaged ({error}); delete {path.parent} to begin anew") from error
        for name, value in json.loads(json.dumps(key)).items():
            if found.get(name) != value:
                raise ValueError(f"{path.parent}: holds an unfinished result whose {name} was {found.get(name)}, and "
                                 f"now is {value}; finish that one, or delete the folder to begin anew")  # fmt: skip
        return _State(key=key, bands=bands, empty=empty, arrays=arrays)

    def write(self, path: Path) -> None:
        """Save it."""
        about = {"key": self.key, "bands": self.bands, "empty": self.empty}
        with replacing(path) as temporary:
            save_file(self.arrays, temporary, {"state": json.dumps(about)})


def _label(raster: Raster, tiles: Tiles, values: Values, part: Path, state: _State, *, progress: bool) -> None:
    """Write the values of all bands that are not done yet."""
    across, down = len(tiles.columns.windows), len(tiles.rows.windows)
    size = raster.height * raster.width * values.dtype.itemsize
    pixels = part / _PIXELS
    if state.bands and not (pixels.is_file() and pixels.stat().st_size == size):
        raise ValueError(f"{pixels}: is not what the unfinished result needs; delete {part} to begin anew")
    if state.bands:
        tiles.restore(state.arrays)
    reader = _Reader(raster, tiles)
    todo = [(i, j) for i in range(state.bands, down) for j in range(across)]
    try:
        with (
            Work(pixels, (raster.height, raster.width), values.dtype) as work,
            progress_bar("labelling", down * across, show=progress, unit="windows") as advance,
            contextlib.closing(reader.windows(todo)) as windows,
        ):
            for (i, j), (image, valid) in zip(todo, windows, strict=True):
                rows, columns, labels = tiles.add(i, j, image)
                state.empty += image is None
                work.write(rows, columns, values.of_labels(labels, _inside(valid, tiles, (i, j), rows, columns)))
                advance(i * across + j + 1)
                if j == across - 1:
                    work.flush()
                    state.bands, state.arrays = i + 1, tiles.state()
                    state.write(part / _STATE)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted: {state.bands} of {down} bands of {raster.path} are done; the same "
                                "command goes on from there") from None  # fmt: skip


class _Reader:
    """Reads windows as the network sees them, ahead of it, in a thread of its own."""

    def __init__(self, raster: Raster, tiles: Tiles) -> None:
        preprocess = tiles.task.preprocess
        self.bands, self.tiles = Bands(raster, preprocess.reading), tiles
        self.fill = np.clip(np.rint(preprocess.mean), 0, 255).astype(np.uint8)  # where there is no data

    def windows(self, order: list[tuple[int, int]]) -> Generator[Window, None, None]:
        """The windows in this order."""
        with ThreadPoolExecutor(1) as reader:
            ahead = [reader.submit(self._window, *index) for index in order[:1]]
            for k in range(len(order)):
                ahead += [reader.submit(self._window, *index) for index in order[k + 1 : k + 2]]
                yield ahead.pop(0).result()

    def _window(self, i: int, j: int) -> Window:
        rows, columns = extent(self.tiles, i, j)
        image, valid = self.bands.read(rows, columns)
        if valid is not None:
            if not valid.any():
                return None, valid
            image = np.where(valid[:, :, None], image, self.fill)
        top, left = self.tiles.rows.windows[i][0] - rows.start, self.tiles.columns.windows[j][0] - columns.start
        return np.require(image[top:, left:], requirements=("C", "W")), valid


def extent(tiles: Tiles, i: int, j: int) -> tuple[slice, slice]:
    """The rows and columns of a window, and of a cell above and before it, whose last pixels become final with it."""
    (top, bottom), (left, right) = tiles.rows.windows[i], tiles.columns.windows[j]
    return (slice(top - tiles.rows.stride if top else 0, bottom),
            slice(left - tiles.columns.stride if left else 0, right))  # fmt: skip


def _inside(
    valid: npt.NDArray[np.bool_] | None, tiles: Tiles, index: tuple[int, int], rows: slice, columns: slice
) -> npt.NDArray[np.bool_] | None:
    """Which of the pixels that became final have data."""
    if valid is None:
        return None
    down, across = extent(tiles, *index)
    return valid[rows.start - down.start : rows.stop - down.start,
                 columns.start - across.start : columns.stop - across.start]  # fmt: skip


def _put(made: Path, target: Path) -> None:
    """Put a file, or a folder, into its place, once it is on disk."""
    if made.is_file():
        with made.open("rb+") as file:
            os.fsync(file.fileno())
    if target.is_dir():
        shutil.rmtree(target)
    made.replace(target)


def _identity(raster: Raster) -> list[Any]:
    """What tells a raster from another, or from itself changed."""
    digest = hashlib.sha256()
    for file in raster.files():
        about = file.stat() if file.exists() else None
        digest.update(repr((str(file), about and (about.st_size, about.st_mtime_ns))).encode())
    return [str(raster.path.resolve()), raster.height, raster.width, raster.bands, digest.hexdigest()[:16]]
