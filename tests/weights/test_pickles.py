"""Plain pickles: what NumPy and Python write comes back; what a file may not do is refused before it is done."""

import os
import pickle
import struct
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from panfpn.weights.foreign import read_foreign, state_dict_of

RECONSTRUCT, SCALAR = np.zeros(0).__reduce__()[0], np.float64(0).__reduce__()[0]
BLANK = (np.ndarray, (0,), b"b")
# As Python 2 writes {"w": float32 [1, 2]}: NumPy's old names, bytes as a string.
PYTHON_2 = (
    b"\x80\x02}q\x00U\x01wcnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85U\x01b\x87R(K\x01K\x02"
    b"\x85cnumpy\ndtype\nq\x03U\x02f4K\x00K\x01\x87Rq\x04(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
    b"U\x08" + np.array([1, 2], "<f4").tobytes() + b"tbs."
)


class _Reduces:
    """An object whose pickle is this call."""

    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


def write(path: Path, data: object, protocol: int = 4) -> Path:
    path.write_bytes(data if isinstance(data, bytes) else pickle.dumps(data, protocol))
    return path


def refusal(path: Path, data: object) -> str:
    with pytest.raises(ValueError) as caught:
        read_foreign(write(path, data))
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and "\n" not in text and len(text) < 400
    return text


@pytest.mark.parametrize("protocol", range(6))
def test_what_numpy_and_python_write(protocol: int, tmp_path: Path) -> None:
    kinds = ("?", "i1", "u1", "<i2", "<u2", "<i4", "<i8", "<u8", "<f2", "<f4", ">f4", "<f8")
    arrays = {kind: np.arange(6).reshape(2, 3).astype(kind) for kind in kinds}
    arrays |= {"turned": np.asfortranarray(arrays["<f4"]), "none": np.zeros((0, 4)), "one": np.array(3.5, np.float32)}
    arrays |= {"strided": np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1), "same": arrays["<f4"]}
    plain = {"__author__": "é", "list": [1, -(2**70), 0.5, None, True], "tuple": (1, (2, b"\x00\xff")), "": {3: "x"}}
    numbers = {"f": np.float32(0.1), "i": np.int64(-5), "b": np.bool_(False)}
    file = write(tmp_path / "x.pkl", {"model": OrderedDict(arrays), **plain, **numbers}, protocol)
    data = read_foreign(file)
    for name, value in {**plain, **numbers}.items():
        assert data[name] == value and type(data[name]) is type(value), name
    for name, array in arrays.items():
        assert np.array_equal(data["model"][name], array)
        assert data["model"][name].dtype.newbyteorder("=") == array.dtype.newbyteorder("=")
    tensors = state_dict_of(data)
    for name, tensor in tensors.items():
        assert np.array_equal(tensor.numpy(), arrays[name])
    for name, tensor in tensors.items():
        tensor.zero_()  # memory of its own, not the file's
        assert np.array_equal(data["model"][name], arrays[name])


def test_what_python_2_writes(tmp_path: Path) -> None:
    data = read_foreign(write(tmp_path / "x.pkl", PYTHON_2))
    assert data["w"].dtype == np.float32 and data["w"].tolist() == [1, 2]


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    ("call", "named"),
    [
        ((os.system, ("touch pwned",)), "posix.system"),
        ((eval, ("open('pwned', 'w')",)), "eval"),
        ((getattr, ("x", "upper")), "getattr"),
        ((np.load, ("pwned.npy", None, True)), "numpy.load"),
        ((np.fromfile, ("secret",)), "numpy"),
        ((np.memmap, ("pwned", "uint8", "w+", 0, (3,))), "numpy.memmap"),
        ((RECONSTRUCT, (np.memmap, (0,), b"b")), "numpy.memmap"),
        ((RECONSTRUCT, (np.matrix, (0,), b"b")), "numpy.matrix"),
        ((RECONSTRUCT, (dict, (0,), b"b")), "dict"),
        ((RECONSTRUCT, (OrderedDict, (10**12,), b"b")), "_reconstruct("),
        ((np.dtype, ("O", False, True)), "numpy.dtype('O')"),
        ((np.dtype, ("V8", False, True)), "numpy.dtype('V8')"),
        ((np.dtype, ("U4", False, True)), "numpy.dtype('U4')"),
        ((bytes.fromhex, ("00",)), "getattr"),
        ((bytes, (2**40,)), "bytes"),
        ((np.ndarray, ((2**34,),)), "numpy.ndarray("),
        ((bytearray, (2**40,)), "bytearray"),
        ((set, ([1],)), "set"),
        ((torch.Tensor, ()), "torch"),
    ],
)
def test_what_would_run_is_named(
    call: tuple[Any, ...], named: str, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = refusal(tmp_path / "x.pkl", pickle.dumps({"model": _Reduces(*call)}, protocol))
    wanted = text.removeprefix(f"{tmp_path / 'x.pkl'}: not loaded: to unpickle it, ").partition(" would have to run")[0]
    assert named in wanted and len(wanted) < 60
    assert [p.name for p in tmp_path.iterdir()] == ["x.pkl"]


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    assert "numpy.dtype('O8') would have to run" in refusal(tmp_path / "x.pkl", {"a": np.array([{}, None])})


@pytest.mark.parametrize("save", [write, lambda path, data: torch.save(data, path)])
def test_bytes_that_are_said_to_be_pointers_stay_bytes(save: Callable[..., Any], tmp_path: Path) -> None:
    """NumPy's own dtype takes such a state, and then follows the 8 bytes as a pointer."""
    forged = _Reduces(np.dtype, ("f8", False, True), (3, "<", None, None, None, -1, -1, 1))
    assert pickle.loads(pickle.dumps(forged)).hasobject  # noqa: S301 - the trap is there
    array = _Reduces(RECONSTRUCT, BLANK, (1, (1,), forged, False, b"\x10" * 8))
    number = _Reduces(SCALAR, (forged, b"\x10" * 8))
    save(tmp_path / "x.pth", {"model": {"a": array}, "n": number})
    data = read_foreign(tmp_path / "x.pth")
    expected = np.frombuffer(b"\x10" * 8, "<f8")
    assert not data["model"]["a"].dtype.hasobject and np.array_equal(data["model"]["a"], expected)
    assert data["n"] == expected[0] and type(data["n"]) is np.float64


F4 = np.dtype("f4")


@pytest.mark.parametrize(
    "state",
    [
        (1, (10**12,), F4, False, b"1234"),
        (1, (2**62, 2**62), F4, False, b""),
        (1, (-1,), F4, False, b""),
        (1, (2,), F4, False, b"1234"),
        (1, (0,), F4, False, b"1234"),
        (1, (1.0,), F4, False, b"1234"),
        (1, "x", F4, False, b"1234"),
        (1, (1,), "f4", False, b"1234"),
        (1, (1,), F4, False, [None]),
        (1, (1,) * 70, F4, False, b"1234"),
        (1, (1,)),
        None,
    ],
)
@pytest.mark.parametrize("save", [write, lambda path, data: torch.save(data, path)])
def test_arrays_that_are_not_what_they_say(state: Any, save: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    save(path, {"a": _Reduces(RECONSTRUCT, BLANK, state)})
    if state is None:  # never filled
        assert read_foreign(path)["a"].size == 0
        return
    with pytest.raises(ValueError, match=r"x\.pth: cannot be read as a checkpoint, it is damaged"):
        read_foreign(path)


def test_a_blank_array_takes_no_memory_of_its_own(tmp_path: Path) -> None:
    data = read_foreign(write(tmp_path / "x.pkl", {"a": _Reduces(RECONSTRUCT, (np.ndarray, (10**12,), b"b"))}))
    assert data["a"].size == 0


def key(value: bytes) -> bytes:
    return b"\x80\x04}" + value + b"Ns."


HOSTILE = {
    "a far memo": (b"\x80\x04}r" + struct.pack("<I", 2**31) + b".", "entry 2147483648 in a memo of 0"),
    "a long that is not there": (b"\x80\x04\x8b" + struct.pack("<i", 2**31 - 1) + b"x", "damaged"),
    "a text that is not there": (b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"x", "damaged"),
    "bytes that are not there": (b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x", "damaged"),
    "a bytearray that is not there": (b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"x", "damaged"),
    "a frame that is not there": (b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"}.", "damaged"),
    "a tuple as deep as a stack": (key(b")" + b"\x85" * 100_000), "other keys than names"),
    "a tuple of 2**60 parts": (key(b")" + b"2\x86" * 60), "opcode DUP"),
    "the same by memo": (key(b")" + b"".join(b"q\x01h\x01\x86" for _ in range(60))), "other keys than names"),
    "by a list of items": (b"\x80\x04}(" + b")\x85q\x01" + b"N" + b"h\x01Nu.", "other keys than names"),
    "by a dictionary at once": (b"\x80\x04()\x85Nd.", "other keys than names"),
    "pairs of an OrderedDict": (b"\x80\x02ccollections\nOrderedDict\n]]()\x85Nea\x85R.", "other keys than names"),
    "a persistent name": (b"\x80\x04}Q.", "opcode BINPERSID"),
    "an extension": (b"\x80\x02\x82\x01.", "opcode EXT1"),
    "an old instance": (b"(S'touch pwned'\nios\nsystem\n.", "opcode INST"),
    "a new object": (b"\x80\x04cbuiltins\nobject\n)\x81.", "opcode NEWOBJ"),
    "a set": (b"\x80\x04\x8f.", "opcode EMPTY_SET"),
    "a buffer from elsewhere": (b"\x80\x05\x97.", "opcode NEXT_BUFFER"),
    "state for a class": (b"\x80\x04cnumpy.core.multiarray\nscalar\nN}X\x01\x00\x00\x00aK\x01s\x86b.", "damaged"),
    "state for a dictionary": (b"\x80\x04}}X\x01\x00\x00\x00aK\x01sb.", "damaged"),
    "a stack that is too low": (b"\x80\x04}s.", "damaged"),
    "no end": (b"\x80\x04}", "damaged"),
    "another alphabet": (b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00hex\x86R.", "'hex'"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_end_soon(kind: str, tmp_path: Path) -> None:
    start = time.perf_counter()
    assert HOSTILE[kind][1] in refusal(tmp_path / "x.pkl", HOSTILE[kind][0])
    assert time.perf_counter() - start < 20  # not for ever
    fresh = read_foreign(write(tmp_path / "good.pkl", {"a": np.float32(2), "w": np.ones(2)}, 2))
    assert fresh["a"] == 2 and fresh["w"].tolist() == [1, 1]  # nothing here was changed by it


def test_deep_lists_are_just_data(tmp_path: Path) -> None:
    depth = 20_000
    data = read_foreign(
        write(tmp_path / "x.pkl", b"\x80\x04}X\x01\x00\x00\x00a" + b"]" * depth + b"a" * (depth - 1) + b"s.")
    )
    assert len(data["a"]) == 1
    assert state_dict_of(data) == {}


def test_any_byte_may_be_wrong(tmp_path: Path) -> None:
    whole = pickle.dumps({"model": {"w": np.arange(6, dtype=np.float32)}, "n": np.float64(1)}, 2)
    rng = np.random.default_rng(0)
    for place in range(0, len(whole), 2):
        changed = bytearray(whole)
        changed[place] = rng.integers(256)
        try:
            data = read_foreign(write(tmp_path / "x.pkl", bytes(changed)))
        except ValueError as error:
            assert str(error).startswith(f"{tmp_path / 'x.pkl'}: ")
        else:
            state_dict_of(data)


def calls(count: int, setup: bytes, call: bytes) -> bytes:
    """A list of what `count` calls give, after what `setup` leaves in memo 0."""
    return b"\x80\x04](" + setup + b"\x94" + call * count + b"e."


@pytest.mark.parametrize(
    ("setup", "call"),
    [
        (b"X\x00\x00\x01\x00" + b"a" * 2**16, b"c_codecs\nencode\nh\x00\x85R"),
        (b"](" + b"K\x01K\x02\x86" * 2**14 + b"e", b"ccollections\nOrderedDict\nh\x00\x85R"),
        (b"\x96" + struct.pack("<Q", 2**16) + b"a" * 2**16, b"cnumpy.core.numeric\n_frombuffer\n(h\x00"
         b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87RJ\x00\x00\x01\x00\x85U\x01CtR"),
    ],
)  # fmt: skip
def test_data_that_calls_would_copy_again_and_again(setup: bytes, call: bytes, tmp_path: Path) -> None:
    assert "holds a list" in refusal(tmp_path / "x.pkl", calls(3, setup, call))
    text = refusal(tmp_path / "x.pkl", calls(200, setup, call))
    assert "what it repeats would fill more than" in text


def test_an_array_of_many_names_is_copied_once() -> None:
    array = np.zeros(1000)
    found = state_dict_of({f"w{i}": array for i in range(1000)})
    assert len(found) == 1000 and len({t.data_ptr() for t in found.values()}) == 1
    found["w0"].add_(1)
    assert not array.any()
