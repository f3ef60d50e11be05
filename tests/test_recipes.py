"""Recipes: each builds, says how it is run, and takes changes."""

import inspect
from pathlib import Path

import pytest

from panfpn import recipes
from panfpn.config import TrainConfig


def test_every_public_function_that_returns_a_configuration_is_listed() -> None:
    makers = [n for n, f in vars(recipes).items()
              if inspect.isfunction(f) and inspect.signature(f).return_annotation is TrainConfig]  # fmt: skip
    assert sorted(makers) == sorted(recipes.NAMES)


@pytest.mark.parametrize("name", recipes.NAMES)
def test_recipe_builds(name: str) -> None:
    config = recipes.find(name)()
    assert isinstance(config, TrainConfig)
    assert config.run.name == name  # the folder of the run tells the recipe


@pytest.mark.parametrize("name", recipes.NAMES)
def test_recipe_takes_changes_and_keeps_the_rest(name: str) -> None:
    plain = recipes.find(name)()
    changed = recipes.find(name)(optim__lr=0.125, **{"run.name": "mine"})
    assert (changed.optim.lr, changed.run.name) == (0.125, "mine")
    assert changed.changed(optim__lr=plain.optim.lr, run__name=name) == plain


@pytest.mark.parametrize("name", recipes.NAMES)
def test_recipe_names_the_nearest_key(name: str) -> None:
    with pytest.raises(ValueError, match=r"unknown key optim\.lrr; did you mean optim\.lr"):
        recipes.find(name)(optim__lrr=1)


@pytest.mark.parametrize("name", recipes.NAMES)
def test_docstring_holds_the_command(name: str) -> None:
    lines = (inspect.getdoc(recipes.find(name)) or "").splitlines()
    assert lines[0] == recipes.summary(name)
    assert lines[0].endswith(".")
    assert [line for line in lines if line.startswith(f"Command: panfpn train {name}")]


@pytest.mark.parametrize("name", recipes.NAMES)
def test_description_is_docstring_and_settings(tmp_path: Path, name: str) -> None:
    text = recipes.describe(name)
    doc = inspect.getdoc(recipes.find(name)) or ""
    assert text.startswith(doc)
    path = tmp_path / "r.yaml"
    path.write_text(text.removeprefix(doc))
    assert TrainConfig.from_yaml(path) == recipes.find(name)()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("scene", "did you mean scenes?"),
        ("camvid", "did you mean camvid_lite0?"),
        ("zzz", "there are scenes, camvid_lite0"),
        ("find", "no recipe 'find'"),  # a function of the module, and no recipe
        ("", "there are scenes, camvid_lite0"),
    ],
)
def test_unknown_recipe_names_the_nearest(name: str, hint: str) -> None:
    for ask in (recipes.find, recipes.summary, recipes.describe):
        with pytest.raises(ValueError) as error:
            ask(name)
        assert hint in str(error.value)
        assert f"no recipe {name!r}" in str(error.value)
