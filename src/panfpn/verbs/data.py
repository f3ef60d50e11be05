"""`panfpn data`."""

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Literal

import tyro

from panfpn.config import DatasetName
from panfpn.files import printable
from panfpn.labels import LabelTable
from panfpn.types import Reading
from panfpn.verbs.options import Out, ReadingOptions, num_bytes, parse_options

_DATA_HELP = """usage: panfpn data import PATH -o DIR [--from NAME]
                                                  bring polygons and masks of other tools into a folder of ours
       panfpn data pack ROOT -o DIR [options]     pack a data set, or bring its pack up to date
       panfpn data shard PACK -o DIR [--size 1GB] copy a pack into few large files, to be read over a network
       panfpn data check ROOT [--page FILE]       look through a data set of any layout before training on it
       panfpn data check DIR [--root ROOT]        compare every byte of a pack with its hashes

import reads COCO's instances JSON (also Roboflow's), Pascal VOC and CVAT masks, Ultralytics' data.yaml (polygons or
masks), Roboflow's masks, LabelMe, Label Studio (brush, polygons) and list files. All can also be trained on as they
are: --data.dataset coco, voc, yolo, roboflow, labelme, labelstudio, list.

A pack holds the pixels as they are: a training reads only the rows of its windows, and decodes nothing. It takes 3
bytes per pixel and what the masks take (Cityscapes: 29 GB). Train from it with --data.pack DIR beside --data.root ROOT,
or without a root where the files are not at hand. (panfpn data pack --help shows the options.)
Put its shards behind any address and train with --data.pack-url ADDRESS: images are read as they are needed, and kept
in a folder of at most --data.pack-cache-gb.
"""


def run_data(arguments: list[str]) -> int:
    """Import, pack, shard or check a data set."""
    verbs: dict[str, Callable[[list[str]], int]] = {"import": _run_import, "pack": _run_pack, "shard": _run_shard,
                                                     "check": _run_check}  # fmt: skip
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
    from panfpn.data import write_pack

    root, out = options.root.expanduser(), options.out.expanduser()
    reading = _reading(options.data, options.channels)
    for result in write_pack(options.dataset, root, out, options.splits, reading=reading):
        counts = f"{result.packed} packed, {result.kept} already there, {result.removed} removed"
        sys.stdout.write(f"{result.split}: {counts}; {result.num_bytes / 1e9:.2f} GB\n")
    sys.stdout.write(f"{out}: up to date; train with --data.pack {out}\n")
    return 0


@dataclass(frozen=True)
class _Shard:
    pack: tyro.conf.Positional[Path]
    """Folder of a pack."""
    out: Out[Path]
    """Folder of the shards; one that holds anything else is refused."""
    size: str = "1GB"
    """What a shard takes at most (or one image, if that is larger)."""


_SHARD_HELP = """panfpn data shard PACK -o DIR [--size 1GB]

Copy a pack into few large files, which lie on a web server or in a bucket as they are. Called again, it writes what has
changed. Train from them with --data.pack-url ADDRESS (pip install 'panfpn[remote]')."""


def _run_shard(arguments: list[str]) -> int:
    options = parse_options(_Shard, "data shard", arguments, _SHARD_HELP)
    from panfpn.data import write_shards

    files = write_shards(options.pack.expanduser(), options.out.expanduser(), size=num_bytes(options.size, "--size"))
    total = sum(file.stat().st_size for file in files)
    sys.stdout.write(f"{options.out}: {len(files)} shards, {total / 1e9:.2f} GB; train with --data.pack-url, the "
                     "address that they get\n")  # fmt: skip
    return 0


def _reading(options: _Reading, channels: int) -> Reading:
    """What the options say of the images."""
    from panfpn.config import Data
    from panfpn.tasks import reading_of

    settings = Data(**{f.name: getattr(options, f.name) for f in fields(_Reading)})
    if channels < 1 or (settings.bands and len(settings.bands) != channels):
        raise ValueError(f"--channels is {channels}; it must be the number of bands that the network sees")
    return reading_of(settings, channels)


@dataclass(frozen=True)
class _Import:
    path: tyro.conf.Positional[Path]
    """Folder of the data, the file in it that describes them, or hf:OWNER/NAME of the Hugging Face Hub."""
    out: Out[Path]
    """Folder that is written: images/, masks/, instances/ and labels.yaml; it must not hold anything yet."""
    from_: Annotated[DatasetName | None, tyro.conf.arg(name="from")] = None
    """Layout of the data; without, what is recognised."""
    splits: tuple[str, ...] = ()
    """What is taken; without, all that is there."""
    stuff: tuple[str, ...] = ()
    """Classes of shapes that are no things, such as road."""
    channels: int = 3
    """Of an image that the network sees (model.in_channels)."""
    data: _Reading = field(default_factory=_Reading)


_IMPORT_HELP = """panfpn data import PATH -o DIR [options]

Write images and labels of another tool as a folder that panfpn trains on, with labels.yaml. Where shapes overlap, the
smaller one is seen; what none claims is background. Polygons become the pixels that COCO's own rasteriser gives.
Nothing is written unless all can be read."""


def _run_import(arguments: list[str]) -> int:
    options = parse_options(_Import, "data import", arguments, _IMPORT_HELP)
    from panfpn.data.importing import import_dataset

    def say(text: str) -> None:
        sys.stdout.write(printable(f"{text}\n"))

    out = options.out.expanduser()
    result = import_dataset(
        options.path, out, layout=options.from_, splits=options.splits, stuff=options.stuff, say=say,
        reading=_reading(options.data, options.channels),
    )  # fmt: skip
    for note in result.notes:
        say(note)
    say(f"{out}: {', '.join(f'{count} images of {split}' for split, count in result.counts.items())}, and labels.yaml")
    files = _Files(**asdict(options.data), dataset="folder", root=out)
    return _check_files(_Check(data=files, split=tuple(result.counts), channels=options.channels))


@dataclass(frozen=True)
class _Files(_Reading):
    dataset: DatasetName | None = None
    """Layout of the data set; without, what is recognised."""
    root: Path | None = None
    """Its folder, in place of the first argument."""


@dataclass(frozen=True)
class _Check:
    path: tyro.conf.Positional[Path | None] = None
    """Folder of a data set, or of a pack."""
    root: Path | None = None
    """Folder of the data set that a pack was made of, whose files are then compared with it too."""
    data: _Files = field(default_factory=_Files)
    split: tuple[str, ...] = ()
    """Splits that are looked at; without, all that are there (train and val of a layout that is named)."""
    page: Path | None = None
    """HTML file with the histogram, samples of every class and the suspects."""
    json: Path | None = None
    """JSON file with all numbers and findings."""
    channels: int = 3
    """Of an image that the network sees (model.in_channels)."""


_CHECK_HELP = """panfpn data check ROOT [--page data.html] [--json data.json]
panfpn data check DIR [--root ROOT]

Look through a data set of any layout before training on it: files that cannot be read, values that nothing names,
classes without a pixel, images that stand in train and in val, what is rare and what is odd. Masks without a
labels.yaml get one proposed. The exit code is 2 if anything is wrong (up to 50 lines for each split).
Of a pack, every byte is compared with the hashes in its index (and with the files under ROOT)."""
_SHOWN = 50


def _run_check(arguments: list[str]) -> int:
    options = parse_options(_Check, "data check", arguments, _CHECK_HELP)
    from panfpn.data import check_pack

    if options.path is not None and options.data.root is not None:
        raise ValueError("--data.root stands for the first argument; give one of them")
    if options.path is None and options.data.root is None:
        what = "--data.dataset needs the folder of its files" if options.data.dataset else "name a folder"
        raise ValueError(f"{what}: panfpn data check ROOT (of a data set, or of a pack)")
    if options.path is None or not (options.path.expanduser() / "pack.json").is_file():
        if options.root is not None:
            raise ValueError("--root belongs to a pack; the folder of a data set is named by --data.root")
        return _check_files(options)
    root = options.root.expanduser() if options.root else None
    count = check_pack(options.path.expanduser(), root)
    sys.stdout.write(f"{options.path}: all {count} items are as they were packed\n")
    return 0


def _check_files(options: _Check) -> int:
    """Prints what is wrong; returns 2 if anything is."""
    from panfpn.data.doctor import diagnose
    from panfpn.data.recognition import recognise, splits_of
    from panfpn.files import write_json

    named, root = options.data.dataset, (options.path or options.data.root or Path()).expanduser()
    layout, root = (named, root) if named else recognise(root)
    splits = options.split or (("train", "val") if named else tuple(splits_of(layout, root)))
    unnamed = layout in ("folder", "pairs") and not (root / "labels.yaml").is_file()
    table = _proposed(layout, root, splits) if unnamed else None
    reading = _reading(options.data, options.channels)
    diagnosis = diagnose(layout, root, splits, table=table, reading=reading)
    for split in splits:
        _print_problems([f.sentence for f in diagnosis.problems if f.split == split], f"{root}, split {split}")
    between = [f.sentence for f in diagnosis.problems if not f.split]
    if between:
        _print_problems(between, f"{root}, all splits")
    for finding in diagnosis.findings:
        if finding.severity == "note":
            sys.stdout.write(printable(f"note: {finding.sentence}\n"))
    if options.path is not None:
        from panfpn.report.tables import print_diagnosis

        print_diagnosis(diagnosis)
    if options.json is not None:
        write_json(options.json.expanduser(), diagnosis.to_dict())
    if options.page is not None:
        from panfpn.data import open_dataset
        from panfpn.report.data_page import write_data_page

        data = {
            r.split: open_dataset(layout, root, r.split, unpaired=[], table=table, reading=reading)
            for r in diagnosis.splits
        }
        write_data_page(options.page.expanduser(), diagnosis, data)
        sys.stdout.write(f"{options.page}\n")
    return 2 if diagnosis.problems else 0


def _print_problems(sentences: list[str], where: str) -> None:
    for sentence in sentences[:_SHOWN]:
        sys.stdout.write(printable(f"{sentence}\n"))
    more = f", {len(sentences) - _SHOWN} of them not shown" if len(sentences) > _SHOWN else ""
    sys.stdout.write(f"{where}: {len(sentences) or 'no'} problem{'s' * (len(sentences) != 1)}{more}\n")


def _proposed(layout: str, root: Path, splits: tuple[str, ...]) -> LabelTable:
    """Of masks that nothing names; it is printed."""
    from panfpn.data.layouts import folder, pairs
    from panfpn.data.proposal import of_instances, propose

    files = (pairs if layout == "pairs" else folder).mask_files(root, splits)
    if not files and not (root / "instances").is_dir():
        raise ValueError(f"{root}: neither labels.yaml nor masks of {', '.join(splits)}, so nothing says what is there")
    proposal = propose(files) if files else of_instances()
    sys.stdout.write(f"{root / 'labels.yaml'}: no such file; of what lies there it could be (name the classes):"
                     f"\n\n{proposal.text()}\n")  # fmt: skip
    return proposal.table
