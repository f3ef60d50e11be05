"""Plain pickles, read without running what they name. In: a file of Python 2 or 3. Out: its numbers, arrays, strings.

Python's own reader with a closed list of names. Behind every name stands a class of this file, for torch's reader too:
NumPy's own would believe a file that says of its bytes that they are pointers.
"""

import math
import mmap
import pickle
import pickletools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np


class RefusedError(pickle.UnpicklingError):
    """A pickle that would have to run something; `name` says what."""

    def __init__(self, name: str) -> None:
        super().__init__(f"GLOBAL {name}")  # as torch says it, which passes on the text alone
        self.name = name


class Inert:
    """Stands for an object of a library that is not needed here: takes any state, does nothing."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


class _Dtype(Inert):
    """Stands for `numpy.dtype`: a number of 1 to 8 bytes; of its state, only the byte order is looked at."""

    def __init__(self, code: str, *_: Any) -> None:
        if not re.fullmatch(r"[biu?f][1248]?", code):
            _refuse(f"numpy.dtype({code!r})")
        self.number = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        self.number = self.number.newbyteorder(state[1])


class _Array(np.ndarray[Any, Any]):
    """Stands for `numpy.ndarray`: filled with as many bytes as its shape wants, or not at all."""

    def __new__(cls, *_: Any) -> "_Array":
        _refuse("numpy.ndarray(…)")  # it would take as much memory as it is told

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        data = _bytes(data)
        if type(dtype) is not _Dtype or min(shape, default=0) < 0:
            raise ValueError("an array without a type or shape")
        if math.prod(shape) * dtype.number.itemsize != len(data):
            raise ValueError(f"an array of shape {shape} has {len(data)} bytes")
        super().__setstate__((1, shape, dtype.number, bool(fortran), bytes(data)))  # type: ignore[arg-type]


class _Reconstruct(Inert):
    """Stands for `_reconstruct`, which makes the array that `__setstate__` then fills."""

    def __new__(cls, base: Any, *_: Any) -> _Array:  # type: ignore[misc]
        if base is not _Array:
            _refuse(f"numpy._reconstruct({(base if isinstance(base, type) else type(base)).__name__})")
        return np.ndarray.__new__(_Array, 0, np.uint8)


class _FromBuffer(Inert):
    """Stands for `_frombuffer`, which arrays are written with since pickle's protocol 5."""

    def __new__(cls, data: Any, dtype: _Dtype, shape: tuple[int, ...], order: str, axes: Any = None) -> Any:
        array = np.frombuffer(_bytes(data), dtype.number)
        if order == "K" and axes is not None:
            return array.reshape(shape).transpose(axes)
        return array.reshape(shape, order="F" if order == "F" else "C")


class _Scalar(Inert):
    """Stands for `scalar`: one number."""

    def __new__(cls, dtype: _Dtype, data: Any) -> Any:
        return np.frombuffer(_bytes(data), dtype.number, count=1)[0]


class _Encode(Inert):
    """Stands for `_codecs.encode`, which carries bytes in old protocols."""

    def __new__(cls, text: str, encoding: str = "latin1") -> bytes:  # type: ignore[misc]
        if encoding not in ("latin1", "latin-1"):
            _refuse(f"_codecs.encode(…,{encoding!r})")
        return text.encode("latin1")


class _NoBytes(Inert):
    """Stands for `bytes`, which old protocols call for none at all."""

    def __new__(cls, *sizes: Any) -> bytes:  # type: ignore[misc]
        return _refuse("bytes") if sizes else b""


class _Ordered(Inert):
    """Stands for `OrderedDict`, which any dictionary is by now."""

    def __new__(cls, pairs: Any = ()) -> dict[Any, Any]:  # type: ignore[misc]
        if not all(isinstance(key, str | int) for key, _ in pairs):
            raise ValueError("a dictionary with other keys than names")
        return dict(pairs)


def _bytes(data: str | bytes | bytearray) -> bytes | bytearray:
    if not isinstance(data, str | bytes | bytearray):
        raise TypeError(f"{type(data).__name__} where bytes are wanted")
    return data.encode("latin1") if isinstance(data, str) else data  # Python 2 had no bytes


def _refuse(name: str) -> NoReturn:
    raise RefusedError(name)


NUMPY = {
    "numpy.ndarray": _Array, "numpy.dtype": _Dtype,
    **{f"numpy.{core}.multiarray._reconstruct": _Reconstruct for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _Scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _FromBuffer for core in ("core", "_core")},
    **{f"{builtins}.bytes": _NoBytes for builtins in ("builtins", "__builtin__")},
}  # fmt: skip
_PLAIN = {**NUMPY, "_codecs.encode": _Encode, "collections.OrderedDict": _Ordered}
_OPCODES = frozenset(
    """PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING
    BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8
    BYTEARRAY8 EMPTY_LIST APPEND APPENDS LIST EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT DICT SETITEM SETITEMS
    GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE GLOBAL STACK_GLOBAL REDUCE BUILD""".split()  # noqa: SIM905
)


# What torch's own reader takes besides.
_TORCH_OPCODES = _OPCODES | frozenset(
    """BINPERSID NEWOBJ NEWOBJ_EX EMPTY_SET ADDITEMS FROZENSET POP POP_MARK DUP LONG1""".split()  # noqa: SIM905
)
_GROWING = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "BUILD", "ADDITEMS")
_DEEPEST = 100  # of what is in what
_LONGEST_SET = 5_000  # entries, which could all have one hash
_LARGEST_KEY = 1 << 60  # numbers up to this hash as they are
_COPIES = 16  # times its length: a file that copies its data at each of a few levels needs so much at most


class _PlainUnpickler(pickle.Unpickler):
    """Python's reader with a closed list of names."""

    def find_class(self, module: str, name: str) -> Any:
        """The class that stands for a name."""
        return _PLAIN.get(f"{module}.{name}") or _refuse(f"{module}.{name}")


def read_plain(path: Path) -> Any:
    """The numbers, strings, arrays, lists, tuples and dictionaries of a plain pickle, as Python 2 or 3 wrote it."""
    # Mapped: a length that the file only claims takes no memory.
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        _check_opcodes(mapped, len(mapped))
        mapped.seek(0)
        return _PlainUnpickler(mapped, encoding="latin1").load()


@dataclass(slots=True)
class _Entry:
    """An entry of the stack: the opcode that made it, and the bytes and entries that it holds or was made of."""

    opcode: str
    size: int = 1
    depth: int = 0
    is_key: bool = True  # hashes as no other does: a name, or a number that is not huge


def check_torch_opcodes(file: Any, size: int) -> None:
    """Refuse what torch's reader would take, and could take for ever or without end; see `_check_opcodes`."""
    _check_opcodes(file, size, _TORCH_OPCODES)


def _check_opcodes(file: Any, size: int, allowed: frozenset[str] = _OPCODES) -> None:
    """Refuse what plain data need not, and what could cost more than the file's length.

    That is a memo that begins at a high number (it would be allocated from 0 on), keys that can have one hash (tuples,
    fractions, huge numbers), deep nesting, long sets, bytes that are only counted, and data that are named again and
    again for calls that copy them. Opcodes are read, not run.
    """
    stack: list[_Entry] = []
    marks: list[int] = []
    memo: dict[int, _Entry] = {}
    left = most = _COPIES * size  # bytes and entries that calls may yet be given
    for opcode, argument, _ in pickletools.genops(file):
        name, taken = opcode.name, len(opcode.stack_before)
        if name not in allowed:
            _refuse(f"the opcode {name}")
        if name in ("GLOBAL", "STACK_GLOBAL") and argument and argument.endswith(" bytearray"):
            _refuse(argument.replace(" ", "."))
        if name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            number = argument if isinstance(argument, int) else len(memo)
            if number > 1000 + 2 * len(memo):
                raise ValueError(f"entry {number} in a memo of {len(memo)}")
            memo[number] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])  # type: ignore[index]
        elif name == "MARK":
            marks.append(len(stack))
        else:
            beneath = taken
            if pickletools.stackslice in opcode.stack_before:
                mark, beneath = marks.pop(), taken - 2
                items = stack[mark:]
                del stack[mark:]
            else:
                items = stack[len(stack) - taken :]
            keys = items[1:2] if name == "SETITEM" else items[::2] if name in ("SETITEMS", "DICT") else []
            if not all(key.is_key for key in keys):
                raise ValueError("a dictionary with other keys than names")
            if name in ("ADDITEMS", "FROZENSET") and len(items) > _LONGEST_SET:
                raise ValueError(f"a set of more than {_LONGEST_SET} entries")
            depth = max((item.depth for item in items), default=0) + (name not in ("REDUCE", "BUILD"))
            if depth > _DEEPEST and allowed is not _OPCODES:  # torch's reader goes as deep on the stack
                raise ValueError(f"nested more than {_DEEPEST} deep")
            held = 1 + sum(item.size for item in items)
            held += len(argument) if isinstance(argument, str | bytes | bytearray) else 0
            if name in ("REDUCE", "BUILD"):
                left -= held
                if left < 0:
                    raise ValueError(f"what it repeats would fill more than {most} bytes")
            made = items[0] if name == "DUP" else _Entry(name, min(held, most + 1), depth, _is_key(name, argument))
            if name in _GROWING:  # the same one, also where it is named again
                made = stack[-beneath]
                made.size, made.depth = min(made.size + held, most + 1), max(made.depth, depth)
            del stack[len(stack) - beneath :]
            stack += [made] * len(opcode.stack_after)


def _is_key(opcode: str, argument: Any) -> bool:
    if isinstance(argument, int) and not isinstance(argument, bool):
        return abs(argument) < _LARGEST_KEY
    return not (isinstance(argument, float) or opcode.startswith(("TUPLE", "EMPTY_TUPLE", "FROZENSET")))
