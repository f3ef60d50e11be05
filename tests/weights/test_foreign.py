"""Other people's files: what is in them comes back, or one sentence says why not."""

import json
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from panfpn.weights.foreign import read_foreign, state_dict_of, write_foreign

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "a.count": torch.tensor(3), "b": torch.ones(2, dtype=torch.float16)}


def same(found: dict[str, torch.Tensor]) -> bool:
    return found.keys() == STATE.keys() and all(
        torch.equal(found[n], t) and found[n].dtype == t.dtype for n, t in STATE.items()
    )


@pytest.mark.parametrize("wrap", [dict, lambda s: {"state_dict": s}, lambda s: {"model": OrderedDict(s), "epoch": 3}])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("zipped", [True, False])
def test_every_wrapping(wrap: Callable[..., Any], prefix: str, zipped: bool, tmp_path: Path) -> None:
    data = wrap({prefix + name: t for name, t in STATE.items()})
    torch.save(data, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    assert same(state_dict_of(read_foreign(tmp_path / "x.pth")))


def test_safetensors(tmp_path: Path) -> None:
    safetensors.torch.save_file(STATE, tmp_path / "x.safetensors")
    assert same(state_dict_of(read_foreign(tmp_path / "x.safetensors")))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    write_foreign(path, {"state_dict": STATE, "meta": {"names": ["é"]}})
    assert read_foreign(path)["meta"] == {"names": ["é"]}
    assert same(state_dict_of(read_foreign(path)))
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_half_written_stays(tmp_path: Path) -> None:
    with pytest.raises((AttributeError, TypeError, ValueError)):
        write_foreign(tmp_path / "x.pth", {"state_dict": STATE, "meta": lambda: None})
    assert list(tmp_path.iterdir()) == []


def test_arrays_and_numbers_of_numpy_are_let_in(tmp_path: Path) -> None:
    arrays = {kind: np.arange(3).astype(kind) for kind in ("bool", "int8", "uint8", "int64", "float16", "float64")}
    numbers = {"best": np.float64(0.5), "iteration": np.int64(7), "done": np.bool_(True)}
    torch.save({"model": STATE, "arrays": arrays, "numbers": numbers}, tmp_path / "x.pth")
    data = read_foreign(tmp_path / "x.pth")
    for kind, array in arrays.items():
        assert np.array_equal(data["arrays"][kind], array) and data["arrays"][kind].dtype == array.dtype
    assert data["numbers"] == numbers


def test_what_is_no_tensor_is_left_out() -> None:
    data = {"state_dict": {"a": torch.ones(1), "version": 3, 7: torch.zeros(1), "note": None}}
    assert list(state_dict_of(data)) == ["a", "7"]
    assert state_dict_of({"state_dict": 3, "model": "resnet", "w": torch.ones(1)}).keys() == {"w"}


def damaged(kind: str, path: Path) -> Path:
    torch.save({"state_dict": STATE}, path)
    whole = path.read_bytes()
    if kind == "folder":
        path.unlink()
        path.mkdir()
    elif kind == "gone":
        path.unlink()
    else:
        path.write_bytes({
            "empty": b"", "half a zip": whole[: len(whole) // 2], "zip without its end": whole[:-30],
            "zip magic": b"PK\x03\x04",
            "text": b"hello", "json": json.dumps({"a": 1}).encode(), "pickle's first byte": b"\x80",
            "HTML": b"<!DOCTYPE html><html>404</html>", "zeros": bytes(4096),
        }[kind])  # fmt: skip
    return path


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".bin", ""])
@pytest.mark.parametrize(
    "kind",
    ["empty", "half a zip", "zip without its end", "zip magic", "text", "json", "pickle's first byte", "HTML", "zeros"],
)
def test_a_damaged_file_is_named(kind: str, suffix: str, tmp_path: Path) -> None:
    path = damaged(kind, tmp_path / f"x{suffix}")
    with pytest.raises(ValueError) as caught:
        read_foreign(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: cannot be read as a checkpoint, it is damaged or of another format (")
    assert "\n" not in text and len(text) < 400


@pytest.mark.parametrize("kind", ["folder", "gone"])
def test_what_is_no_file(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"x\.pth: no such file$"):
        read_foreign(damaged(kind, tmp_path / "x.pth"))


@pytest.mark.parametrize(("data", "kind"), [([1, 2], "list"), (torch.ones(2), "Tensor"), (3, "int"), ("x", "str")])
def test_what_is_no_mapping(data: object, kind: str, tmp_path: Path) -> None:
    torch.save(data, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=rf"x\.pth: holds a {kind}, but a mapping of names to tensors is wanted"):
        read_foreign(tmp_path / "x.pth")


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch pwned",)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_pickle_that_wants_to_run_is_refused_by_name(
    protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"state_dict": _Evil()}, protocol))
    with pytest.raises(ValueError, match=r"evil\.pth: not loaded: to unpickle it, posix\.system would have to run"):
        read_foreign(tmp_path / "evil.pth")
    assert not (tmp_path / "pwned").exists()


def test_what_is_written_twice_is_equal_to_the_byte(tmp_path: Path) -> None:
    paths = tmp_path / "a.pth", tmp_path / "b.pth"
    for path in paths:
        write_foreign(path, {"state_dict": {"w": torch.arange(6.0)}})
    assert paths[0].read_bytes() == paths[1].read_bytes()
