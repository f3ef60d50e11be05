"""`panfpn data`."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from panfpn.verbs.options import parse_options

_DATA_HELP = """usage: panfpn data pack ROOT -o DIR [options]     pack a data set, or bring its pack up to date
       panfpn data check DIR [--root ROOT]        compare every byte of a pack with its hashes

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
class _Pack:
    root: tyro.conf.Positional[Path]
    """Folder of the data set."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder of the pack; one that holds anything else is refused."""
    dataset: Literal["cityscapes", "ade20k", "camvid", "folder"] = "folder"
    """Layout of the data set."""
    splits: tuple[str, ...] = ("train", "val")
    """What to pack; other splits of the pack stay as they are."""


_PACK_HELP = """panfpn data pack ROOT -o DIR [options]

Copy a data set's pixels into a folder that training reads without decoding. Called again, it goes on where it was
stopped, and packs only what changed. The data set is not touched."""


def _run_pack(arguments: list[str]) -> int:
    options = parse_options(_Pack, "data pack", arguments, _PACK_HELP)
    from panfpn.data import write_pack

    root, out = options.root.expanduser(), options.out.expanduser()
    for result in write_pack(options.dataset, root, out, options.splits):
        counts = f"{result.packed} packed, {result.kept} already there, {result.removed} removed"
        sys.stdout.write(f"{result.split}: {counts}; {result.num_bytes / 1e9:.2f} GB\n")
    sys.stdout.write(f"{out}: up to date; train with --data.pack {out}\n")
    return 0


@dataclass(frozen=True)
class _Check:
    pack: tyro.conf.Positional[Path]
    """Folder of the pack."""
    root: Path | None = None
    """Folder of the data set, whose files are then compared too."""


_CHECK_HELP = """panfpn data check DIR [--root ROOT]

Read a pack to its end, and compare it (and the files that it was made of) with the hashes in its index."""


def _run_check(arguments: list[str]) -> int:
    options = parse_options(_Check, "data check", arguments, _CHECK_HELP)
    from panfpn.data import check_pack

    root = options.root.expanduser() if options.root else None
    count = check_pack(options.pack.expanduser(), root)
    sys.stdout.write(f"{options.pack}: all {count} items are as they were packed\n")
    return 0
