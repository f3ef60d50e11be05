"""What a run was trained on, wherever it stands. In: a data set. Out: its classes, names and sizes, and differences."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from panfpn.data.dataset import Dataset, FileDataset
from panfpn.data.pack import PackedDataset
from panfpn.data.rasters.blocks import RasterBlocks
from panfpn.data.segments import PanopticDataset
from panfpn.labels import LabelTable

_SHOWN = 3


@dataclass(frozen=True, slots=True, eq=False)
class Identity:
    """The classes of a data set, and its listing: the bytes of each sample's files by its name."""

    classes: dict[str, Any]
    listing: dict[str, list[int]]

    @property
    def digest(self) -> str:
        """SHA-256 of the listing, in its order."""
        return hashlib.sha256(json.dumps(list(self.listing.items())).encode()).hexdigest()

    def summary(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"classes": self.classes, "count": len(self.listing), "sha256": self.digest}


def identity_of(dataset: Dataset) -> Identity:
    """The identity of a data set; equal for its files elsewhere, and for a pack of them."""
    listing = {dataset.name(i): _sizes(dataset, i) for i in range(len(dataset))}
    return Identity(_classes(dataset.table), listing)


def differences(summary: Mapping[str, Any], listing: Mapping[str, Any] | None, now: Identity) -> str:
    """How a data set differs from what a checkpoint knows, in words; empty where it does not.

    `listing` is that of then, if it is still known: it names the files.
    """
    then = summary["classes"]
    if then != now.classes:
        return _table_difference(then, now.classes)
    if summary["sha256"] == now.digest:
        return ""
    counts = f"{summary['count']} samples then and {len(now.listing)} now"
    if listing is None:
        return f"other files ({counts})"
    gone, new = ([n for n in a if n not in b] for a, b in ((listing, now.listing), (now.listing, listing)))
    other = [n for n in listing if n in now.listing and list(listing[n]) != now.listing[n]]
    parts = [f"{len(names)} {what}: {', '.join(names[:_SHOWN])}{', …' * (len(names) > _SHOWN)}"
             for names, what in ((gone, "gone"), (new, "new"), (other, "of another size")) if names]  # fmt: skip
    return f"{'; '.join(parts) or 'another order'} ({counts})"


def _classes(table: LabelTable) -> dict[str, Any]:
    """All of a table but what it is called and drawn in."""
    plain = table.to_dict()
    entries = [{key: entry.get(key) for key in ("name", "value", "thing")} for entry in plain["classes"]]
    return {"masks": plain["masks"], "ignore": plain["ignore"], "classes": entries}


def _table_difference(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    old, new = then["classes"], now["classes"]
    for k in range(max(len(old), len(new))):
        before, after = (entries[k] if k < len(entries) else None for entries in (old, new))
        if before != after:
            shown = [_shown_class(entry) for entry in (before, after)]
            return f"other classes: train id {k} was {shown[0]} and is {shown[1]}"
    return (
        f"another label table: masks {then['masks']}, ignore {then['ignore']} then; {now['masks']}, {now['ignore']} now"
    )


def _shown_class(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return "none"
    values = ", ".join(map(str, entry["value"]))
    return f"{entry['name']!r} ({'a thing, ' * bool(entry['thing'])}value {values})"


def _sizes(dataset: Dataset, index: int) -> list[int]:
    """Bytes of a sample's files; empty where there are none."""
    if isinstance(dataset, FileDataset):
        return [_size(path) for path in dataset.items[index][1:]]
    if isinstance(dataset, PackedDataset):
        item = dataset.items[index]
        return [item.image.size, item.mask.size]
    if isinstance(dataset, RasterBlocks):
        block = dataset.items[index]
        return [_size(block.image), _size(block.labels)]
    if isinstance(dataset, PanopticDataset):
        return [_size(path) for path in (dataset.images[index][1], dataset.source.file(index))]
    return []


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # reading it will say so
        return -1
