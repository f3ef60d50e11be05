"""`panfpn data`."""

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import tyro

from panfpn.config import DatasetName
from panfpn.files import printable
from panfpn.verbs.options import Out, ReadingOptions, parse_options

_DATA_HELP = """usage: panfpn data pack ROOT -o DIR [options]     pack a data set, or bring its pack up to date
       panfpn data check DIR [--root ROOT]        compare every byte of a pack with its hashes
       panfpn data check --data.dataset NAME --data.root ROOT [--split NAMES]
                                                  list what is wrong in the files of a data set

A pack holds the pixels as they are: a training reads only the rows of its windows, and decodes nothing. It takes 3
bytes per pixel and what the masks take (Cityscapes: 29 GB). Train from it with --data.pack DIR beside --data.root ROOT,
or without a root where the files are not at hand. (panfpn data pack --help shows the options.)
"""


def run_data(arguments: list[str]) -> int:
    """Pack a data set, or check a pack."""
    verbs: dict[str, Callable[[list[str]], int]] = {"pack": _run_pack, "check": _run_check}
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(_DATA_HELP)
        return 0 if arguments else 2
    if arguments[0] not in verbs:
        raise ValueError(f"{arguments[0]!r} is not a verb of data; choose from {', '.join(verbs)}")
    return verbs[arguments[0]](arguments[1:])


@dataclass(frozen=True)
class _Reading(ReadingOptions):
    mask_orientation: Literal["auto", "turned", "stored"] = "auto"
    """What masks of photos that EXIF turns were drawn on: turned pixels, stored ones, or what the sizes tell."""


@dataclass(frozen=True)
class _Pack:
    root: tyro.conf.Positional[Path]
    """Folder of the data set."""
    out: Out[Path]
    """Folder of the pack; one that holds anything else is refused."""
    dataset: DatasetName = "folder"
    """Layout of the data set, whose samples must be images with masks of classes."""
    splits: tuple[str, ...] = ("train", "val")
    """What to pack; other splits of the pack stay as they are."""
    channels: int = 3
    """Of an image that the network sees (model.in_channels)."""
    data: _Reading = field(default_factory=_Reading)


_PACK_HELP = """panfpn data pack ROOT -o DIR [options]

Copy a data set's pixels into a folder that training reads without decoding. Called again, it goes on where it was
stopped, and packs only what changed. The data set is not touched."""


def _run_pack(arguments: list[str]) -> int:
    options = parse_options(_Pack, "data pack", arguments, _PACK_HELP)
    from panfpn.config import Data
    from panfpn.data import write_pack
    from panfpn.tasks import reading_of

    root, out = options.root.expanduser(), options.out.expanduser()
    settings = Data(**asdict(options.data))
    if options.channels < 1 or (settings.bands and len(settings.bands) != options.channels):
        raise ValueError(f"--channels is {options.channels}; it must be the number of bands that the network sees")
    reading = reading_of(settings, options.channels)
    for result in write_pack(options.dataset, root, out, options.splits, reading=reading):
        counts = f"{result.packed} packed, {result.kept} already there, {result.removed} removed"
        sys.stdout.write(f"{result.split}: {counts}; {result.num_bytes / 1e9:.2f} GB\n")
    sys.stdout.write(f"{out}: up to date; train with --data.pack {out}\n")
    return 0


@dataclass(frozen=True)
class _Files:
    dataset: DatasetName | None = None
    """Layout of a data set that is to be checked itself."""
    root: Path | None = None
    """Its folder."""


@dataclass(frozen=True)
class _Check:
    pack: tyro.conf.Positional[Path | None] = None
    """Folder of the pack."""
    root: Path | None = None
    """Folder of the data set, whose files are then compared with the pack too."""
    data: _Files = field(default_factory=_Files)
    split: tuple[str, ...] = ("train", "val")
    """Splits of the data set."""


_CHECK_HELP = """panfpn data check DIR [--root ROOT]
panfpn data check --data.dataset NAME --data.root ROOT [--split NAMES]

Read a pack to its end, and compare it (and the files that it was made of) with the hashes in its index; or read a data
set to its end, and list what is wrong with its files (up to 50 lines for each split)."""
_SHOWN = 50
_COUNTED = 200  # masks in which classes are looked for, after all were read


def _run_check(arguments: list[str]) -> int:
    options = parse_options(_Check, "data check", arguments, _CHECK_HELP)
    from panfpn.data import check_pack

    if (options.pack is None) == (options.data.dataset is None):
        raise ValueError("name the folder of a pack, or a data set by --data.dataset and --data.root, and not both")
    if options.pack is None:
        return _check_files(options)
    if options.data.root is not None:
        raise ValueError("--data.root belongs to --data.dataset; the files of a pack are named by --root")
    root = options.root.expanduser() if options.root else None
    count = check_pack(options.pack.expanduser(), root)
    sys.stdout.write(f"{options.pack}: all {count} items are as they were packed\n")
    return 0


def _notes(layout: str, root: Path, split: str) -> list[str]:
    """What is no fault of a split, and should be known: what is left out, and classes without a pixel."""
    from panfpn.data import open_dataset
    from panfpn.data.census import census

    data = open_dataset(layout, root, split)
    left_out = getattr(data, "left_out", None)
    notes = [f"left out: {left_out}"] if left_out is not None and left_out.counts else []
    try:
        return [*notes, *census(data, most=_COUNTED).notes()]
    except ValueError as error:
        return [*notes, str(error)]


def _check_files(options: _Check) -> int:
    """Prints what is wrong; returns 2 if anything is."""
    from panfpn.data import check_dataset

    if options.root is not None:
        raise ValueError("--root belongs to a pack; the folder of a data set is named by --data.root")
    if options.data.dataset is None or options.data.root is None:
        raise ValueError("--data.dataset needs the folder of its files: --data.root")
    root, total = options.data.root.expanduser(), 0
    for split in options.split:
        count = 0
        for problem in check_dataset(options.data.dataset, root, split):
            count += 1
            if count <= _SHOWN:
                sys.stdout.write(printable(f"{problem}\n"))
        more = f", {count - _SHOWN} of them not shown" if count > _SHOWN else ""
        sys.stdout.write(f"{root}, split {split}: {count or 'no'} problem{'s' * (count != 1)}{more}\n")
        total += count
        for note in _notes(options.data.dataset, root, split) if not count else ():
            sys.stdout.write(printable(f"{note}\n"))
    return 2 if total else 0
