"""Data of other tools, written as a folder of ours. In: a folder in any layout. Out: images, masks, labels.yaml.

The images are copied as they are; masks hold the values that labels.yaml names, `instances/` a number for each thing.
Nothing is written unless all of it can be read: the folder gets its name when it is complete.
"""

import os
import shutil
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from panfpn.data.dataset import FileDataset, open_dataset
from panfpn.data.huggingface import is_hub, write_hub
from panfpn.data.joint_table import ids_in, joint_table
from panfpn.data.layouts.request import NoInstancesError
from panfpn.data.loader import start_worker
from panfpn.data.recognition import recognise, splits_of
from panfpn.data.segments import PanopticDataset, things_in
from panfpn.files import encoded
from panfpn.labels import LabelTable, free_value
from panfpn.orphans import complete_or_nothing, end_with_parent
from panfpn.progress import progress_bar
from panfpn.types import RGB, Reading, Segments

_WORKERS = 2
_FEW = 64  # samples that are written faster than workers start
_BATCH = 16
_LARGEST = 65535  # value of a PNG

_job: list[Callable[[int], None]] = []  # of a process that writes

Files = FileDataset | PanopticDataset
Array = npt.NDArray[np.int16]


@dataclass(frozen=True, kw_only=True)
class ImportResult:
    """What `import_dataset` wrote."""

    layout: str
    root: Path
    table: LabelTable
    counts: dict[str, int]  # images by split
    notes: tuple[str, ...]  # what was left out


def import_dataset(
    path: Path, out: Path, *, layout: str | None = None, splits: Sequence[str] = (), stuff: Sequence[str] = (),
    reading: Reading = RGB, say: Callable[[str], object] = lambda _: None, progress: bool = True,
) -> ImportResult:  # fmt: skip
    """Write the data under `path` as a folder `out`, which must not hold anything yet.

    Splits that name or number their classes differently get one table. `layout` is one of `panfpn.choices.LAYOUTS`
    (None: what is recognised), `splits` are those that are taken (none: all that are there), `stuff` names classes that
    are no things. `reading` says what image files leave open. `say` gets a sentence about what was found.

    Raises:
        ValueError: nothing that is known, or the first thing in it that is wrong; nothing is left then.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out}: is there already, and not empty; name another folder with -o")
    if layout is None and is_hub(path):
        with complete_or_nothing(out) as folder:
            counts, table = write_hub(path, folder, say, progress=progress)
        return ImportResult(layout="Hugging Face", root=path, table=table, counts=counts, notes=())
    found, root = recognise(path) if layout is None else (layout, path.expanduser())
    names = tuple(splits) or tuple(splits_of(found, root)) or ("train",)  # which will say what is missing
    data = {split: _open(found, root, split, tuple(stuff), reading) for split in names}
    table = joint_table([d.table for d in data.values()])
    unknown = [s for s in stuff if s not in table.names]
    if unknown:
        raise ValueError(f"--stuff names {unknown[0]!r}, which is none of the classes: {', '.join(table.names[:12])}")
    things = [c.name for c in table.classes if c.thing]
    say(f"{root}: {found}, {', '.join(f'{len(d)} images of {s}' for s, d in data.items())}; {table.num_classes} classes"
        f" ({len(things)} of them things)")  # fmt: skip
    notes = tuple(note for split, d in data.items() for note in _notes(split, d))
    written = _as_written(table)
    with complete_or_nothing(out) as folder:
        plain = written.to_dict()
        (folder / "labels.yaml").write_text(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True), "utf-8")
        for split, d in data.items():
            with progress_bar(split, len(d), show=progress) as advance:
                ids = ids_in(table, d.table)
                with closing(_written(len(d), partial(_write, d, folder, split, written, ids))) as written_so_far:
                    for count in written_so_far:
                        advance(count)
    return ImportResult(
        layout=found, root=root, table=written, counts={s: len(d) for s, d in data.items()}, notes=notes
    )


def _open(layout: str, root: Path, split: str, stuff: tuple[str, ...], reading: Reading) -> Files:
    """A split, with segments where it has things."""
    try:
        data = open_dataset(layout, root, split, panoptic=True, stuff=stuff, reading=reading)
    except NoInstancesError:
        data = open_dataset(layout, root, split, stuff=stuff, reading=reading)
    if not isinstance(data, Files):
        raise ValueError(f"data set {layout!r} has no files that could be written")
    return data


def _notes(split: str, data: Files) -> Iterator[str]:
    if data.left_out.counts:
        yield f"{split}: left out: {data.left_out}"
    yield from getattr(data, "notes", ())


def _as_written(table: LabelTable) -> LabelTable:
    """The table of the masks that are written: the same values, or train ids where PNGs cannot hold those."""
    first = [c.values[0] for c in table.classes]
    if table.masks == "colors" or not 0 <= min(first) <= max(first) <= _LARGEST:
        return table.as_train_ids(free_value(range(len(first))))
    used = [v for c in table.classes for v in c.values]
    void = table.ignore[0] if table.ignore and 0 <= table.ignore[0] <= _LARGEST else free_value(used)
    return replace(table, ignore=(void, *(v for v in table.ignore if v != void)))


def _written(count: int, write: Callable[[int], None]) -> Generator[int, None, None]:
    """Write samples 0 … count - 1, in processes of their own where there are many; how many are, after every few.

    ValueError for the first that cannot be read. When the iterator is closed, nothing is being written any more.
    """
    batches = [range(start, min(start + _BATCH, count)) for start in range(0, count, _BATCH)]
    if count <= _FEW:
        for rows in batches:
            for index in rows:
                write(index)
            yield rows.stop
        return
    pool = ProcessPoolExecutor(_WORKERS, initializer=_start, initargs=(os.getpid(), write))
    try:
        for rows, error in zip(batches, pool.map(_write_rows, batches), strict=True):
            if error is not None:
                raise error
            yield rows.stop
    finally:
        pool.shutdown(cancel_futures=True)


def _start(parent: int, write: Callable[[int], None]) -> None:
    """What a process that writes begins with."""
    end_with_parent(parent)
    start_worker(0)
    _job.append(write)


def _write_rows(rows: range) -> ValueError | None:
    try:
        for index in rows:
            _job[0](index)
    except ValueError as error:
        return error
    return None


def _write(data: Files, folder: Path, split: str, table: LabelTable, ids: Array, index: int) -> None:
    """One sample; `ids` are the train ids of `table` for those of the data set, IGNORE last."""
    name, image = (data.items if isinstance(data, FileDataset) else data.images)[index][:2]
    target = data.open(index)[1]
    place = folder / "images" / split / f"{name}{image.suffix.lower()}"
    mask = folder / "masks" / split / f"{name}.png"
    for path in (place, mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(image, place)
    labels = ids[target.labels if isinstance(target, Segments) else target[:, :]]
    mask.write_bytes(encoded(np.asarray(table.decode(labels)), ".png", mask))
    if isinstance(target, Segments):
        numbers = folder / "instances" / split / f"{name}.png"
        numbers.parent.mkdir(parents=True, exist_ok=True)
        numbers.write_bytes(encoded(_numbers(target, data.table), ".png", numbers))


def _numbers(segments: Segments, table: LabelTable) -> npt.NDArray[Any]:
    """A number for each thing that is no crowd, 0 elsewhere: [H, W] of as many bits as that takes."""
    single = things_in(table)[segments.classes] & ~segments.crowd
    number = np.zeros(len(single) + 1, np.uint8 if single.sum() < 256 else np.uint16)  # the last is IGNORE's
    number[:-1][single] = np.arange(1, int(single.sum()) + 1)
    return number[segments.index]
