"""Checkpoints: what comes back is what went in, or a ValueError that names the file; never something else."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from panfpn.weights import files as checkpoint
from panfpn.weights.files import read_checkpoint, read_header, tensors_digest, write_checkpoint

HEADER = {"step": 12, "best": None, "config": {"lr": 0.1, "names": ["é", "b"]}}


def make_tensors() -> dict[str, torch.Tensor]:
    values = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 4)))
    return {
        "w.float32": values.float(),
        "w.float16": values.half(),
        "w.bfloat16": values.bfloat16(),
        "step": torch.tensor(7),  # 0-d int64
        "scalar": torch.tensor(0.5, dtype=torch.bfloat16),
        "ids": torch.tensor([2**62, -1]),
        "mask": torch.tensor([True, False]),
        "none": torch.zeros(0, 3),
        "turned": values.float().T,  # not contiguous
        "nan": torch.tensor([float("nan"), float("-inf"), -0.0]),
    }


def assert_same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
        mine, theirs = (t.contiguous().reshape(-1).view(torch.uint8) for t in (found[name], tensor))
        assert torch.equal(mine, theirs), name  # bytes: nan equals itself, -0 is not 0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "last.safetensors"


def write_small(path: Path) -> None:
    write_checkpoint(path, {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([3])}, {"step": 5}, role="run")


def test_round_trip(path: Path) -> None:
    digest = write_checkpoint(path, make_tensors(), HEADER, role="run")
    tensors, header = read_checkpoint(path, role="run")
    assert_same(tensors, make_tensors())
    assert header == HEADER | {"kind": "run", "format": 1}
    assert read_header(path) == header
    assert len(digest) == 64
    assert list(path.parent.iterdir()) == [path]


def test_round_trip_without_tensors(path: Path) -> None:
    write_checkpoint(path, {}, {}, role="release")
    assert read_checkpoint(path, role="release")[0] == {}


def test_parameters_are_written_without_their_graph(path: Path) -> None:
    write_checkpoint(path, {"w": torch.nn.Parameter(torch.ones(2)) * 2}, {}, role="run")
    found = read_checkpoint(path, role="run")[0]["w"]
    assert not found.requires_grad
    assert found.tolist() == [2, 2]


def test_tensors_that_share_memory_are_written(path: Path) -> None:
    tied = torch.arange(4.0)
    write_checkpoint(path, {"encoder": tied, "decoder": tied, "part": tied[:2]}, {}, role="run")
    assert_same(read_checkpoint(path, role="run")[0], {"encoder": tied, "decoder": tied, "part": tied[:2]})


def test_what_was_read_does_not_change_with_the_file(path: Path) -> None:
    write_small(path)
    tensors, _ = read_checkpoint(path, role="run")
    write_checkpoint(path, {"a": torch.zeros(2, 3), "b": torch.tensor([0])}, {}, role="run")
    assert tensors["a"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_digest_depends_on_everything(path: Path) -> None:
    digests = [
        write_checkpoint(path, tensors, header, role=kind)
        for tensors, header, kind in [
            ({"a": torch.zeros(4)}, {"step": 1}, "run"),
            ({"a": torch.ones(4)}, {"step": 1}, "run"),
            ({"b": torch.zeros(4)}, {"step": 1}, "run"),
            ({"a": torch.zeros(2, 2)}, {"step": 1}, "run"),
            ({"a": torch.zeros(4, dtype=torch.int32)}, {"step": 1}, "run"),
            ({"a": torch.zeros(4)}, {"step": 2}, "run"),
            ({"a": torch.zeros(4)}, {"step": 1}, "release"),
        ]
    ]
    assert len(set(digests)) == len(digests)
    assert digests[0] == write_checkpoint(path, {"a": torch.zeros(4)}, {"step": 1}, role="run")


def test_tensors_digest_does_not_depend_on_order_or_memory_layout() -> None:
    tensors = make_tensors()
    assert tensors_digest(dict(reversed(tensors.items()))) == tensors_digest(tensors)
    assert tensors_digest(tensors | {"turned": tensors["turned"].contiguous()}) == tensors_digest(tensors)
    assert tensors_digest(tensors | {"step": torch.tensor(8)}) != tensors_digest(tensors)


def areas(content: bytes) -> dict[str, tuple[int, int]]:
    """Where the parts of a safetensors file lie: 8 bytes of length, a JSON header, the tensors."""
    length = int.from_bytes(content[:8], "little")
    return {"length": (0, 8), "header": (8, 8 + length), "tensors": (8 + length, len(content))}


@pytest.mark.parametrize("area", ["length", "header", "tensors"])
def test_changed_byte_is_noticed(path: Path, area: str) -> None:
    write_small(path)
    content = path.read_bytes()
    tensors, header = read_checkpoint(path, role="run")
    start, end = areas(content)[area]
    rng = np.random.default_rng(0)
    places = range(start, end) if end - start < 50 else rng.choice(np.arange(start, end), 40, replace=False)
    refused = 0
    for place in places:
        broken = bytearray(content)
        broken[place] ^= int(rng.integers(1, 256))
        path.write_bytes(broken)
        try:
            found = read_checkpoint(path, role="run")
        except ValueError as error:
            assert str(path) in str(error)
            refused += 1
        else:  # white space of the header may turn into other white space, and that is all
            assert area == "header"
            assert found[1] == header
            assert_same(found[0], tensors)
    assert refused == len(places) if area == "tensors" else refused >= len(places) - 2


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (rb"\"step\": 5", rb"\"step\": 6"),
        (rb"\"run\"", rb"\"ran\""),
        (b'"a":', b'"c":'),
        (b"[2,3]", b"[3,2]"),
        (b'"F32"', b'"I32"'),
        (b'"I64"', b'"F64"'),
    ],
)
def test_header_that_is_changed_but_still_valid_is_noticed(path: Path, old: bytes, new: bytes) -> None:
    write_small(path)
    content = path.read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))
    with pytest.raises(ValueError, match=path.name):
        read_checkpoint(path, role="run")


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 60, 0.5, -33, -32, -1])
def test_truncated_file_is_named(path: Path, length: float) -> None:
    write_small(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * length) if length == 0.5 else int(length)])
    for read in (lambda: read_checkpoint(path, role="run"), lambda: read_header(path)):
        with pytest.raises(ValueError, match=r"last\.safetensors: not a whole safetensors file, it is truncated"):
            read()


def test_appended_bytes_are_noticed(path: Path) -> None:
    write_small(path)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ValueError, match=r"last\.safetensors"):
        read_checkpoint(path, role="run")


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"panfpn": "{}"}, {"sha256": "0" * 64}])
def test_file_of_another_program_is_refused(path: Path, metadata: dict[str, str] | None) -> None:
    save_file({"a": torch.ones(2)}, path, metadata=metadata)
    for read in (lambda: read_checkpoint(path, role="run"), lambda: read_header(path)):
        with pytest.raises(ValueError, match=r"last\.safetensors: a safetensors file, but not one that panfpn wrote"):
            read()


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '{"kind": "run"}', '{"kind": 3, "format": 1}',
                                  '{"kind": "run", "format": "1"}'])  # fmt: skip
def test_header_that_makes_no_sense_is_refused(path: Path, text: str) -> None:
    save_file({"a": torch.ones(2)}, path, metadata={"panfpn": text, "sha256": "0" * 64})
    for read in (lambda: read_checkpoint(path, role="run"), lambda: read_header(path)):
        with pytest.raises(ValueError, match=r"last\.safetensors: "):
            read()


def test_wrong_kind_is_refused(path: Path) -> None:
    write_small(path)
    with pytest.raises(ValueError, match=r"last\.safetensors: is a run file, but a release file is wanted here"):
        read_checkpoint(path, role="release")


def test_newer_format_asks_for_an_update(path: Path) -> None:
    text = json.dumps({"kind": "run", "format": 2})
    save_file({"a": torch.ones(2)}, path, metadata={"panfpn": text, "sha256": "0" * 64})
    for read in (lambda: read_checkpoint(path, role="run"), lambda: read_header(path)):
        with pytest.raises(ValueError, match="of format 2, but this panfpn reads up to 1; update panfpn"):
            read()


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    for wrong in (tmp_path / "none.safetensors", tmp_path):
        for read in (read_header, lambda p: read_checkpoint(p, role="run")):
            with pytest.raises(ValueError, match="no such file") as error:
                read(wrong)
            assert str(error.value).startswith(str(wrong))


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_interrupted_write_leaves_the_old_file(
    path: Path, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_small(path)
    old = path.read_bytes()

    def save_half(tensors: dict[str, torch.Tensor], file: Path, **kwargs: Any) -> None:
        file.write_bytes(old[:50])
        raise error("disk full")

    monkeypatch.setattr(checkpoint, "save_file", save_half)
    with pytest.raises(error):
        write_checkpoint(path, {"a": torch.zeros(2)}, {}, role="run")
    assert path.read_bytes() == old
    assert list(path.parent.iterdir()) == [path]


def test_header_that_json_cannot_hold_leaves_the_old_file(path: Path) -> None:
    write_small(path)
    with pytest.raises(TypeError):
        write_checkpoint(path, {"a": torch.zeros(2)}, {"path": Path("x")}, role="run")
    assert read_header(path)["step"] == 5
    assert list(path.parent.iterdir()) == [path]


def test_pickle_is_never_run(path: Path) -> None:
    torch.save({"a": torch.ones(2)}, path)
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        read_checkpoint(path, role="run")
