"""Backbones compared: what is trained, written, resumed, and what one that fails costs."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import panfpn
from panfpn.cli import main
from panfpn.config import ProbeSettings
from panfpn.parsing import plain
from panfpn.probing import Row, run
from panfpn.probing.candidates import USUAL, base_config, candidate_config, expand

SMALL: dict[str, Any] = {"weights": "random", "steps": 2, "batch_size": 2, "num_workers": 0, "device": "cpu"}
TWO = ("test_resnet", "test_vit")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything in this process: children import for seconds."""
    monkeypatch.setattr(run, "in_child", lambda function, *arguments: function(*arguments))


def test_backbones_are_compared(here: None, folder_data: Path, tmp_path: Path) -> None:
    said: list[str] = []
    out = tmp_path / "probe"
    found = panfpn.probe(folder_data, out=out, backbones=(*TWO, "no_such_net"), say=said.append, **SMALL)
    assert [row.name for row in found.rows][2:] == ["no_such_net"] and {row.name for row in found.rows[:2]} == set(TWO)
    assert "timm has no backbone 'no_such_net'" in found.rows[2].problem and found.rows[2].miou is None
    for row in found.rows[:2]:
        assert 0 <= row.low <= row.miou <= row.high <= 1
        assert row.latency_ms > 0 and row.memory_mb >= 0 and row.params_m > 1 and row.gflops > 0 and row.step_s > 0
        assert row.weights == "random"
    assert found.rows[0].miou >= found.rows[1].miou
    assert found.steps == 2 and "2 of 3 backbones are trained, each for 2 steps of 2 images" in said
    written = json.loads((out / "probe.json").read_text())
    assert {row["name"]: row["miou"] for row in written["rows"]} == {row.name: row.miou for row in found.rows}
    page = (out / "probe.html").read_text()
    assert "test_resnet" in page and "no_such_net</b>: timm has no backbone" in page and "<script" not in page
    scored = panfpn.evaluate(out / "test_vit", panfpn.TrainConfig.from_yaml(out / "test_vit" / "config.yaml").data,
                             device="cpu", progress=False)  # fmt: skip
    assert scored.miou == next(row.miou for row in found.rows if row.name == "test_vit")


def test_a_killed_probe_ends_in_the_same_table(
    here: None, folder_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = panfpn.probe(folder_data, out=tmp_path / "whole", backbones=TWO, say=str, **SMALL)
    trained, score = [], run._train_and_score

    def killed(config: Any) -> Any:
        trained.append(config.run.name)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return score(config)

    with monkeypatch.context() as patch:
        patch.setattr(run, "_train_and_score", killed)
        with pytest.raises(KeyboardInterrupt):
            panfpn.probe(folder_data, out=tmp_path / "cut", backbones=TWO, say=str, **SMALL)
    before = json.loads((tmp_path / "cut" / "probe.json").read_text())
    said: list[str] = []
    again = panfpn.probe(folder_data, out=tmp_path / "cut", backbones=TWO, say=said.append, **SMALL)
    assert not [line for line in said if line.startswith("measuring")]
    assert said[-1] == "training test_vit (2 of 2)"
    assert {row.name: (row.miou, row.low, row.high) for row in again.rows} == {
        row.name: (row.miou, row.low, row.high) for row in whole.rows
    }
    assert next(r for r in before["rows"] if r["name"] == "test_resnet")["latency_ms"] == next(
        row.latency_ms for row in again.rows if row.name == "test_resnet"
    )


def test_frozen_backbones(here: None, folder_data: Path, tmp_path: Path) -> None:
    found = panfpn.probe(folder_data, out=tmp_path / "probe", backbones=TWO, frozen=True, say=str, **SMALL)
    config = panfpn.TrainConfig.from_yaml(tmp_path / "probe" / "test_vit" / "config.yaml")
    assert (config.train.freeze_at, config.data.variants) == ("all", 4) and config.train.cache_gb > 0
    assert all(row.miou is not None for row in found.rows)


def test_a_budget_leaves_out_what_is_slow(here: None, folder_data: Path, tmp_path: Path) -> None:
    found = panfpn.probe(folder_data, out=tmp_path / "probe", backbones=TWO, budget_ms=0.001, say=str, **SMALL)
    assert [row.problem for row in found.rows] == ["takes more than the 0.001 ms that are allowed"] * 2
    assert found.steps == 2 and not found.pareto


def test_the_front() -> None:
    numbers = {"good": (0.8, 30.0), "quick": (0.5, 5.0), "beaten": (0.5, 6.0), "bad": (0.4, 40.0), "twin": (0.8, 30.0)}
    rows = tuple(Row(name=name, miou=miou, latency_ms=ms) for name, (miou, ms) in numbers.items())
    found = run.Probe(dir=Path(), steps=1, rows=(*rows, Row(name="failed", problem="why")))
    assert found.pareto == {"good", "quick", "twin"}


def test_steps_fill_the_minutes() -> None:
    rows = [Row(name="a", step_s=0.5), Row(name="b", step_s=1.0)]
    assert run._affordable(rows, ProbeSettings(minutes=10)) == int(600 * 0.9 / 1.5)
    assert run._affordable(rows, ProbeSettings(minutes=0.01)) == 20
    assert run._affordable([], ProbeSettings()) == 0


def test_names_and_patterns() -> None:
    assert expand(()) == list(USUAL)
    found = expand(("resnet50", "test_vit*", "test_vit"))
    assert found[0] == "resnet50" and len(found) == len(set(found)) > 4
    assert all(name.startswith("test_vit") for name in found[1:])
    with pytest.raises(ValueError, match="no backbone of timm is called 'nothing_"):
        expand(("nothing_*",))
    with pytest.raises(ValueError, match=r"\d+ backbones of timm are called '\*', such as"):
        expand(("*",))


@pytest.mark.parametrize("name", ["../escaped", "/escaped", "a/b", "..", ".hidden", ""])
def test_no_name_leads_out_of_the_folder(name: str, folder_data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no backbone of timm is called"):
        panfpn.probe(folder_data, out=tmp_path / "probe", backbones=(name,), **SMALL)
    assert not (tmp_path / "probe").exists() and not list(tmp_path.rglob("escaped*"))


def test_what_failed_is_tried_again(
    here: None, folder_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(config: Any) -> Any:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(run, "_train_and_score", full)
        found = panfpn.probe(folder_data, out=tmp_path / "probe", backbones=TWO[:1], say=str, **SMALL)
    assert found.rows[0].problem == "no space left on device"
    again = panfpn.probe(folder_data, out=tmp_path / "probe", backbones=TWO[:1], say=str, **SMALL)
    assert again.rows[0].problem == "" and again.rows[0].miou is not None


def test_a_tag_that_timm_does_not_know_costs_its_line(here: None, folder_data: Path, tmp_path: Path) -> None:
    found = panfpn.probe(folder_data, out=tmp_path / "probe", backbones=("resnet18.nope",), say=str, **SMALL)
    assert "timm has no weights 'nope' for 'resnet18'" in found.rows[0].problem


def test_weights_from_a_folder(folder_data: Path, tmp_path: Path) -> None:
    (tmp_path / "test_vit.safetensors").touch()
    settings = ProbeSettings(weights=str(tmp_path))
    base = base_config(folder_data, settings)[0]
    config, source = candidate_config(base, "test_vit", settings)
    assert config.model.backbone_weights == tmp_path / "test_vit.safetensors" and source == "test_vit.safetensors"
    assert candidate_config(base, "test_resnet", settings)[1] == "random"
    config, source = candidate_config(base, "resnet50", ProbeSettings())
    assert config.model.pretrained and source == "timm"
    with pytest.raises(ValueError, match="timm has no pretrained weights for 'resnet18c'"):
        candidate_config(base, "resnet18c", ProbeSettings())
    with pytest.raises(ValueError, match="weights is elsewhere; it must be hub, random, or a folder"):
        candidate_config(base, "resnet50", ProbeSettings(weights="elsewhere"))


def test_folders_and_settings_that_cannot_be(folder_data: Path, tmp_path: Path) -> None:
    (tmp_path / "photo.png").touch()
    with pytest.raises(ValueError, match="is there, and holds no probe"):
        panfpn.probe(folder_data, out=tmp_path, backbones=TWO, **SMALL)
    (tmp_path / "probe.json").write_text("{}")
    with pytest.raises(ValueError, match=r"probe\.json: is damaged"):
        panfpn.probe(folder_data, out=tmp_path, backbones=TWO, **SMALL)
    state = run._State(tmp_path, plain({"data": folder_data, **asdict(ProbeSettings(backbones=TWO, **SMALL))}), TWO)
    state.write()
    with pytest.raises(ValueError, match=r"holds a probe with other settings \(steps\)"):
        panfpn.probe(folder_data, out=tmp_path, backbones=TWO, **{**SMALL, "steps": 3})
    for changes, why in (
        ({"minutes": 0.0}, "minutes is 0"), ({"budget_ms": -1.0}, "budget_ms is -1"), ({"dataset": "foldr"}, "folder"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=why):
            ProbeSettings(**changes)


def test_on_the_command_line(
    here: None, folder_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--weights", "random", "--steps", "1", "--batch-size", "2", "--num-workers", "0", "--device", "cpu"]
    out = str(tmp_path / "probe")
    assert main(["probe", str(folder_data), "--backbones", "test_resnet", *words, "-o", out]) == 0
    said = capsys.readouterr().out
    assert "test_resnet" in said and "no other is both better and quicker" in said and "probe.html" in said
    assert main(["probe", "--weights", "random"]) == 2
    assert "probe needs the folder of a data set" in capsys.readouterr().err
