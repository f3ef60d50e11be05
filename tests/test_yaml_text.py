"""YAML of anyone's: bombs, depth and doubles are refused at once."""

import time
from pathlib import Path

import pytest

from panfpn.yaml_text import parse_yaml, read_yaml

LAUGHS = "a0: &a0 ha\n" + "".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]\n" for k in range(1, 12))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "its aliases stand for too much, in line"),
        ("x: &x " + "y" * 100_000 + "\nz: [" + ", ".join(["*x"] * 1000) + "]", "its aliases stand for too much"),
        ("[" * 2000, "nested more than 50 deep, in line 1"),
        ("a: 1\nb: {c: 1, c: 2}", "the key 'c' stands there twice in line 2, column 11"),
        ("a: *b", "undefined alias"),
        ("a: [1", "in line 2"),
        ("a: !!python/object/apply:os.system [true]", "could not determine a constructor"),
        ("? [1, 2]\n: 3", "found unhashable key"),
        ("a: 1\nb: 010", "YAML takes 010 for 8; write that number, or '010' in quotes if it is a name in line 2"),
        ("a: 1:30", "YAML takes 1:30 for 90"),
        ("a: " + "1" * 5000, "cannot be read as YAML"),
    ],
    ids=str,
)
def test_what_is_refused(text: str, message: str) -> None:
    begin = time.monotonic()
    with pytest.raises(ValueError, match=message) as error:
        parse_yaml(text)
    assert time.monotonic() - begin < 10 and len(str(error.value)) < 500


def test_aliases_that_stand_for_little_are_read() -> None:
    assert parse_yaml("a: &a [1, 2]\nb: *a\nc: {<<: {d: 1}, d: 2}") == {"a": [1, 2], "b": [1, 2], "c": {"d": 2}}


def test_whole_numbers() -> None:
    assert parse_yaml("[0, 7, -3, 0x1F, 1_000, '010', 0.5]") == [0, 7, -3, 31, 1000, "010", 0.5]


def test_a_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    for content, message in ((b"\xff\xfe\x00", "is not text in UTF-8"), (b"a: [", "cannot be read as YAML")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message) as error:
            read_yaml(path)
        assert str(error.value).startswith(f"{path}: ")
