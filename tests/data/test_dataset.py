"""A data set is opened by its layout's name, and known again by its fingerprint."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from panfpn.choices import LAYOUTS, lookup
from panfpn.data import (
    Dataset,
    WindowedDataset,
    check_dataset,
    from_pairs,
    identity_of,
    open_dataset,
    open_pack,
    write_pack,
)
from panfpn.data.layouts.request import SplitRequest


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_refuses_a_missing_root(layout: str, tmp_path: Path) -> None:
    """Each is a file that exports `open_split`; that of scenes, which are drawn, needs no root."""
    assert callable(lookup(LAYOUTS, layout, "data.dataset"))
    if layout == "scenes":
        assert len(open_dataset(layout, None, "val", scene_count=3)) == 3
        return
    with pytest.raises(ValueError, match=rf"data\.root is not set; data set '{layout}' needs the folder"):
        open_dataset(layout, None, "val")
    with pytest.raises(ValueError, match=rf"nowhere: no such folder \(data\.root of data set '{layout}'\)"):
        open_dataset(layout, tmp_path / "nowhere", "val")


def test_unknown_layout() -> None:
    with pytest.raises(ValueError, match=r"data\.dataset is 'citscapes'; did you mean cityscapes\?"):
        open_dataset("citscapes", None, "val")


def test_a_layout_is_a_line_in_the_dict(monkeypatch: pytest.MonkeyPatch, folder_data: Path) -> None:
    """What a new one needs: `open_split`; `panfpn data check` then reads it to its end."""
    monkeypatch.setitem(LAYOUTS, "toy", f"{__name__}:open_toy")
    assert [open_dataset("toy", folder_data, "val").name(i) for i in range(2)] == ["photo_0", "photo_1"]
    (folder_data / "masks/val/photo_1.png").write_bytes(b"")
    problems = list(check_dataset("toy", folder_data, "val", progress=False))
    assert len(problems) == 1 and "photo_1.png: not a readable image" in problems[0]


def open_toy(request: SplitRequest) -> Dataset:
    pairs: list[Any] = [
        (request.folder / f"images/val/photo_{i}.png", request.folder / f"masks/val/photo_{i}.png") for i in range(2)
    ]
    return from_pairs(pairs, open_dataset("folder", request.folder, request.split).table)


def test_what_has_open_is_windowed(folder_data: Path) -> None:
    assert isinstance(open_dataset("folder", folder_data, "val"), WindowedDataset)


def fingerprint(data: Any) -> str:
    return json.dumps(identity_of(data).summary())


def test_identity(folder_data: Path, tmp_path: Path) -> None:
    data = open_dataset("folder", folder_data, "train")
    first = fingerprint(data)
    assert first == fingerprint(open_dataset("folder", str(folder_data), "train"))
    assert first != fingerprint(open_dataset("folder", folder_data, "val"))
    # Moved, and packed: the same data.
    text = (folder_data / "labels.yaml").read_text()
    (folder_data / "labels.yaml").write_text(text.removeprefix("name: toy\n"))
    shutil.copytree(folder_data, tmp_path / "elsewhere")
    assert fingerprint(open_dataset("folder", tmp_path / "elsewhere", "train")) == first
    write_pack("folder", folder_data, tmp_path / "pack", ["train"], progress=False)
    assert fingerprint(open_pack(tmp_path / "pack", "folder", "train")) == first
    # A class renamed, a value more, a sample less, another order: other data.
    for change in ("sky|heaven", "value: 10|value: [10, 11]", "ignore: [255]|ignore: [254, 255]", ", thing: true|"):
        old, _, new = change.partition("|")
        assert old in text
        (folder_data / "labels.yaml").write_text(text.replace(old, new))
        assert fingerprint(open_dataset("folder", folder_data, "train")) != first
    others = replace(data, items=data.items[1:]), replace(data, items=data.items[::-1])  # type: ignore[type-var,attr-defined]
    assert len({first, *map(fingerprint, others)}) == 3  # type: ignore[arg-type]
