"""Data sets of the Hugging Face Hub, here from the disk; skipped without the extra `datasets`."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from panfpn.cli import main
from panfpn.data import import_dataset, open_dataset

datasets = pytest.importorskip("datasets")


def saved(root: Path, mask_column: str = "label") -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    masks = [generator.integers(0, 3, (20, 30)).astype(np.uint8) for _ in range(5)]
    rows = {
        "image": [Image.fromarray(generator.integers(0, 255, (20, 30, 3)).astype(np.uint8)) for _ in masks],
        mask_column: [Image.fromarray(mask) for mask in masks],
        "scene": ["street"] * 5,
    }
    types = {"image": datasets.Image(), mask_column: datasets.Image(), "scene": datasets.Value("string")}
    whole = datasets.Dataset.from_dict(rows, features=datasets.Features(types))
    splits = {"train": whole.select(range(3)), "validation": whole.select(range(3, 5))}
    datasets.DatasetDict(splits).save_to_disk(str(root))
    return masks


def test_rows_become_files(tmp_path: Path) -> None:
    masks = saved(tmp_path / "hub")
    (tmp_path / "hub" / "id2label.json").write_text(json.dumps({"0": "road", "1": "sky", "2": "road"}))
    result = import_dataset(tmp_path / "hub", tmp_path / "ours", progress=False)
    assert result.counts == {"train": 3, "val": 2} and result.table.names == ("road 0", "sky", "road 2")
    found = [open_dataset("folder", tmp_path / "ours", split).read(i).target for split, n in (("train", 3), ("val", 2))
             for i in range(n)]  # fmt: skip
    assert all(np.array_equal(a, b) for a, b in zip(found, masks, strict=True))


def test_without_names_classes_are_called_by_their_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path / "hub", "annotation")
    main(["data", "import", str(tmp_path / "hub"), "-o", str(tmp_path / "ours")])
    said = capsys.readouterr().out
    assert "masks in 'annotation'" in said and "has no id2label.json" in said
    assert open_dataset("folder", tmp_path / "ours", "val").table.names == ("class_0", "class_1", "class_2")


def test_columns_that_are_none_are_listed(tmp_path: Path) -> None:
    saved(tmp_path / "hub", "thermal")
    with pytest.raises(ValueError, match="columns of pictures image, thermal"):
        import_dataset(tmp_path / "hub", tmp_path / "ours", progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["hub"]
