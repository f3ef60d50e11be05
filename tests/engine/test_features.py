"""Frozen backbones, images in a number of forms, and features that are computed once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import panfpn
from panfpn import TrainConfig
from panfpn.data import open_dataset
from panfpn.data.loader import DrawSampler, Forms, train_loader
from panfpn.engine import features
from toy_run import rows, toy, weights
from transforming import train_transform

FROZEN = {"train.freeze_at": "all", "data.variants": 2, "train.cache_gb": 1.0, "train.steps": 5}


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in rows(folder, "train")]


def test_a_frozen_backbone_stays_as_it_is(folder_data: Path, tmp_path: Path) -> None:
    config = toy(folder_data, tmp_path / "run", **{"train.freeze_at": "all", "train.steps": 2, "model.drop_path": 0.0})
    panfpn.train(config.changed(**{"run.dir": tmp_path / "one", "train.steps": 1}))
    panfpn.train(config)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "run")
    changed = {n for n, t in two.items() if n.startswith("model/") and not torch.equal(t, one[n])}
    assert changed and not [n for n in changed if n.startswith("model/backbone.")]
    assert not [n for n in two if n.startswith("optimizer/backbone.")]


@pytest.mark.parametrize("workers", [0, 2])
def test_cached_features_train_as_computed_ones(workers: int, folder_data: Path, tmp_path: Path) -> None:
    config = toy(folder_data, tmp_path / "cached", **{**FROZEN, "data.num_workers": workers, "model.dropout": 0.0})
    panfpn.train(config)
    panfpn.train(config.changed(**{"run.dir": tmp_path / "plain", "train.cache_gb": 0.0}))
    assert losses(tmp_path / "cached") == pytest.approx(losses(tmp_path / "plain"), rel=2e-3)  # 16 bits
    assert len(losses(tmp_path / "cached")) == 5
    assert not (tmp_path / "cached" / features.FOLDER).exists()  # the run has ended


def test_a_cut_run_goes_on_with_what_lies_there(
    folder_data: Path, tmp_path: Path, cut_power: Callable[[TrainConfig, int], None]
) -> None:
    config = toy(folder_data, tmp_path / "whole", **FROZEN)
    panfpn.train(config)
    cut_power(config.changed(**{"run.dir": tmp_path / "cut"}), 3)
    files = [tmp_path / "cut" / features.FOLDER / name for name in ("maps", "targets")]
    before = [file.stat().st_mtime_ns for file in files]
    panfpn.train(resume=tmp_path / "cut")
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert whole.keys() == cut.keys() and all(torch.equal(t, cut[n]) for n, t in whole.items())
    assert losses(tmp_path / "whole") == losses(tmp_path / "cut")
    assert all(before) and not any(file.exists() for file in files)


def test_a_run_that_ends_while_features_are_computed(
    folder_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "_TOGETHER", 3)
    monkeypatch.setattr(features._Chunks, "micro_batch", 3)
    monkeypatch.setattr(features, "_SAVED", 1)
    config = toy(folder_data, tmp_path / "whole", **FROZEN)
    panfpn.train(config)
    computed: list[int] = []
    write = features.write_json

    def crash(path: Path, content: dict[str, Any]) -> None:
        write(path, content)
        if "done" not in content:
            return  # the key
        computed.append(content["done"])
        if len(computed) == 2:
            raise RuntimeError("power cut")

    monkeypatch.setattr(features, "write_json", crash)
    with pytest.raises(RuntimeError, match="power cut"):
        panfpn.train(config.changed(**{"run.dir": tmp_path / "cut"}))
    panfpn.train(config.changed(**{"run.dir": tmp_path / "other"}))
    assert computed == [1, 2, 1, 2, 3, 4]  # 12 forms; the cut run had no checkpoint yet
    assert losses(tmp_path / "other") == losses(tmp_path / "whole")


def test_what_lies_there_is_used_only_if_it_is_of_this_backbone(folder_data: Path, tmp_path: Path) -> None:
    config = toy(folder_data, tmp_path / "run", **FROZEN)
    config = panfpn.build.resolve(config, panfpn.build.build_datasets(config.data)[0].table)
    train_data = panfpn.build.build_datasets(config.data)[0]
    ranks = type("Alone", (), {"rank": 0, "world": 1, "first": True, "wait": lambda self: None})()
    folder = tmp_path / "run"
    folder.mkdir()
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        task = panfpn.build.build_task(config, train_data.table)
        cache = features.FeatureCache(folder, task, train_data, panfpn.build.build_transform(config.data), config)
        (folder / "features" / "maps").touch() if (folder / "features").exists() else None
        stamp = (folder / "features" / "done_0.json").stat().st_mtime_ns if found else 0
        cache.fill(ranks)
        found.append((folder / "features" / "done_0.json").stat().st_mtime_ns != stamp)
    assert found == [True, False, True]


def test_too_many_features_are_refused(folder_data: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"train\.cache_gb is 1e-06, but the features of 6 images in 2 forms take 0\.00 GB"
    ):
        panfpn.train(toy(folder_data, tmp_path / "run", **{**FROZEN, "train.cache_gb": 1e-6}))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"train.freeze_at": 0}, "without train.freeze_at all"),
        ({"data.variants": None}, r"without data\.variants"),
        ({"data.crop": None, "train.freeze_at": 0}, r"without train\.freeze_at all and data\.crop"),
    ],
)
def test_what_cannot_be_cached(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=rf"train\.cache_gb is 1\.0; it must be 0 {why}"):
        toy(Path("x"), None, **{**FROZEN, **changes})


def test_forms_come_again() -> None:
    forms = Forms(5, seed=3, variants=2)
    drawn = [forms(draw) for draw in range(20)]
    assert {index for index, _ in drawn} == set(range(5))
    assert [form for _, form in drawn] == [0] * 5 + [1] * 5 + [0] * 5 + [1] * 5
    assert sorted(drawn[:5]) == sorted(drawn[10:15]) != drawn[:5]
    anew = Forms(5, seed=3)
    assert [anew(draw)[1] for draw in range(20)] == list(range(20))
    assert [anew(draw)[0] for draw in range(20)] == [index for index, _ in drawn]  # the order is the same

    data = open_dataset("scenes", None, "train", scene_count=5, scene_size=(64, 96))
    sampler = DrawSampler(steps=range(4), batch_size=5)
    batches = list(train_loader(data, train_transform(crop=(32, 48)), sampler, seed=3, variants=2, num_workers=0))
    pictures = [dict(zip(b.names, b.images.numpy(), strict=True)) for b in batches]
    assert all(np.array_equal(pictures[0][name], pictures[2][name]) for name in pictures[0])
    assert any(not np.array_equal(pictures[0][name], pictures[1][name]) for name in pictures[0])
