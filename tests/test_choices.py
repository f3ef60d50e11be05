"""Whatever can be chosen by name is there; what cannot is refused with the nearest name."""

import subprocess
import sys

import pytest

from panfpn import choices

DICTS = {name: value for name, value in vars(choices).items() if isinstance(value, dict) and name.isupper()}
ENTRIES = [pytest.param(entries, key, id=f"{name}-{key}") for name, entries in DICTS.items() for key in entries]


@pytest.mark.parametrize(("entries", "key"), ENTRIES)
def test_every_choice_is_there(entries: dict[str, str], key: str) -> None:
    assert callable(choices.lookup(entries, key, "x"))


def test_every_architecture_has_a_writer() -> None:
    assert choices.WRITERS.keys() == choices.ARCHITECTURES.keys()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lovas", "loss is 'lovas'; did you mean lovasz? (choices: cross_entropy, ohem, dice, lovasz, focal)"),
        ("zzz", "loss is 'zzz'; choose from cross_entropy, ohem, dice, lovasz, focal"),
    ],
)
def test_no_such_choice(name: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        choices.lookup(choices.LOSSES, name, "loss")
    assert str(error.value) == message


def test_leaf_imports_nothing_of_the_package_and_no_torch() -> None:
    code = (
        "import sys, panfpn.choices\n"
        "print(*sorted(m for m in sys.modules if m.startswith(('torch', 'panfpn', 'numpy', 'pydantic'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["panfpn", "panfpn.choices"]
