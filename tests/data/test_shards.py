"""A pack behind an address gives the pack's own samples, within the room that it is given."""

import pickle
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from panfpn.build import build_dataset
from panfpn.cli import main
from panfpn.config import Data, TrainConfig
from panfpn.data import (
    PackedDataset,
    identity_of,
    open_pack,
    open_shards,
    shards,
    train_loader,
    write_pack,
    write_shards,
)
from panfpn.data.loader import DrawSampler
from panfpn.engine import train
from toy_run import toy, weights
from transforming import train_transform


class Ranges(SimpleHTTPRequestHandler):
    """A file server that knows ranges, as web servers and buckets do; `broken` answers fail before one is right."""

    asked: list[tuple[str, str | None]]
    broken = 0

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        wanted = self.headers.get("Range")
        type(self).asked.append((self.path, wanted))
        if type(self).broken:
            type(self).broken -= 1
            self.send_error(503)
            return
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        start, stop = 0, len(data)
        if wanted:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last) + 1, len(data))
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        self.wfile.write(data[start:stop])


@pytest.fixture
def pack(folder_data: Path, tmp_path: Path) -> Path:
    write_pack("folder", folder_data, tmp_path / "pack", ("train", "val"))
    return tmp_path / "pack"


@pytest.fixture
def sharded(pack: Path, tmp_path: Path) -> Path:
    write_shards(pack, tmp_path / "shards", size=30_000)
    return tmp_path / "shards"


@pytest.fixture
def server(sharded: Path) -> Iterator[str]:
    pytest.importorskip("aiohttp")
    Ranges.asked, Ranges.broken = [], 0
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranges, directory=str(sharded))) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()


def assert_same(first: PackedDataset, second: PackedDataset) -> None:
    assert len(first) == len(second) > 0 and first.table == second.table
    for i in range(len(first)):
        a, b = first.read(i), second.read(i)
        assert a.name == b.name and np.array_equal(a.image, b.image) and np.array_equal(a.target, b.target)


def held(cache: Path) -> int:
    return sum(path.stat().st_size for path in cache.glob("*.raw"))


@pytest.mark.parametrize("split", ["train", "val"])
def test_samples_are_those_of_the_pack(split: str, server: str, pack: Path, tmp_path: Path) -> None:
    far = open_shards(server, "folder", split, cache=tmp_path / "cache")
    assert_same(far, open_pack(pack, "folder", split))
    asked = len(Ranges.asked)
    assert_same(far, open_pack(pack, "folder", split))
    assert len(Ranges.asked) == asked  # all of it is here by now
    assert identity_of(far).digest == identity_of(open_pack(pack, "folder", split)).digest


def test_shards_are_of_the_size_that_was_asked_for(pack: Path, sharded: Path) -> None:
    sizes = [path.stat().st_size for path in sorted(sharded.rglob("*.bin"))]
    items = [path.stat().st_size for path in pack.rglob("*.raw")]
    assert sum(sizes) == sum(items) and max(sizes) <= 30_000 and len(sizes) < len(items)
    times = {path: path.stat().st_mtime_ns for path in sharded.rglob("*.bin")}
    write_shards(pack, sharded, size=30_000)  # again: nothing is written
    assert times == {path: path.stat().st_mtime_ns for path in sharded.rglob("*.bin")}
    write_shards(pack, sharded, size=1)  # an item each
    assert len(list(sharded.rglob("*.bin"))) == len(items)


def test_a_cache_of_a_few_items_holds_no_more(server: str, pack: Path, tmp_path: Path) -> None:
    near, cache = open_pack(pack, "folder", "train"), tmp_path / "cache"
    limit = 2 * max(item.num_bytes for item in near.items)
    far = open_shards(server, "folder", "train", cache=cache, cache_bytes=limit)
    opened = []
    for turn in range(3):
        for i in range(len(far)):
            image, _ = far.open((i * 5 + turn) % len(far))
            opened.append((image, image.copy()))
            assert 0 < held(cache) <= limit
    assert all(np.array_equal(image, copy) for image, copy in opened)  # also of files that were taken away
    assert_same(far, near)


def test_workers_share_a_cache(server: str, pack: Path, tmp_path: Path) -> None:
    near, cache = open_pack(pack, "folder", "train"), tmp_path / "cache"
    limit = 3 * max(item.num_bytes for item in near.items)
    far = open_shards(server, "folder", "train", cache=cache, cache_bytes=limit)
    batches = [
        list(train_loader(data, train_transform(crop=(32, 32)), DrawSampler(steps=range(12), batch_size=3), seed=1,
                          num_workers=workers))
        for data, workers in ((near, 0), (pickle.loads(pickle.dumps(far)), 2))  # noqa: S301 - our own
    ]  # fmt: skip
    for one, other in zip(*batches, strict=True):
        assert torch.equal(one.images, other.images) and torch.equal(one.targets, other.targets)
    assert held(cache) <= limit and not [path for path in cache.iterdir() if path.name.startswith(".") and
                                         path.name != ".lock"]  # fmt: skip


def test_a_server_that_fails_is_asked_again(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_PAUSE", 0.01)
    far = open_shards(server, "folder", "val", cache=tmp_path / "cache")
    Ranges.broken = 2
    assert far.read(0).image.size
    Ranges.broken = 100
    with pytest.raises(ValueError, match=r"127\.0\.0\.1:\d+/val/shard-0000.*cannot be read"):
        far.read(1)


def test_what_is_wrong_is_named(server: str, sharded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_PAUSE", 0.01)
    far = open_shards(server, "folder", "train", cache=tmp_path / "cache")
    shard = sharded / "train" / "shard-00000.bin"
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    with pytest.raises(ValueError, match=r"shard-00000\.bin: not the bytes that were packed at 0 \(photo_0\)"):
        far.read(0)
    with pytest.raises(ValueError, match=r"data\.pack_cache_gb is 1e-06; the largest image"):
        open_shards(server, "folder", "train", cache=tmp_path / "cache", cache_bytes=1000)
    with pytest.raises(ValueError, match=r"has no split 'test'; there are train, val"):
        open_shards(server, "folder", "test", cache=tmp_path / "cache")
    with pytest.raises(ValueError, match=r"packs a data set 'folder', but data\.dataset is 'camvid'"):
        open_shards(server, "camvid", "val", cache=tmp_path / "cache")
    (sharded / "shards.json").write_text('{"format": "other", "splits": {}}')
    with pytest.raises(ValueError, match=r"shards\.json: .*its format is 'other'"):
        open_shards(server, "folder", "val", cache=tmp_path / "cache")
    (sharded / "pack.json").unlink()
    with pytest.raises(ValueError, match=r"pack\.json: is not there; data\.pack_url is the address"):
        open_shards(server, "folder", "val", cache=tmp_path / "cache")


def test_nothing_leads_outside(pack: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_shards(pack, out)
    text = (out / "shards.json").read_text().replace("train", "../train")
    (out / "shards.json").write_text(text)
    with pytest.raises(ValueError, match=r"shards\.json"):
        open_shards(str(out), "folder", "val", cache=tmp_path / "cache")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="holds something else than shards"):
        write_shards(pack, tmp_path / "mine")
    damaged = next(pack.rglob("*.raw"))
    damaged.write_bytes(bytes(damaged.stat().st_size))
    with pytest.raises(ValueError, match="damaged pack: not the bytes that were packed"):
        write_shards(pack, tmp_path / "again")
    assert not (tmp_path / "again" / "pack.json").exists()  # written last


def test_a_training_from_shards_is_that_from_the_files(
    server: str, folder_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    ends = []
    for name, places in (("near", {}), ("far", {"data__pack_url": server, "data__root": None})):
        train(toy(folder_data, tmp_path / name).changed(**places))
        ends.append(weights(tmp_path / name))
    assert (tmp_path / "cache" / "panfpn").is_dir()
    assert ends[0].keys() == ends[1].keys() and all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


def test_the_verb_writes_shards(pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "shard", str(pack), "-o", str(tmp_path / "out"), "--size", "20KB"]) == 0
    assert "shards, 0.00 GB; train with --data.pack-url" in capsys.readouterr().out
    data = Data(dataset="folder", pack_url=str(tmp_path / "out"), pack_cache=tmp_path / "cache")
    assert len(build_dataset(data, "train")) == 6
    with pytest.raises(ValueError, match=r"data\.pack_url is .*the only source"):
        Data(dataset="folder", pack_url="x", pack=pack)
    assert TrainConfig(data=data).data.pack_cache_gb == 10


def test_shards_do_not_take_a_packs_place(pack: Path, sharded: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(pack, other)
    for place in (other, pack):
        with pytest.raises(ValueError, match="holds something else than shards"):
            write_shards(pack, place)
    assert (other / "pack.json").read_bytes() == (pack / "pack.json").read_bytes()
    (sharded / "train" / ".shard-00000.bin.x1.bin").write_bytes(b"half")  # what a kill leaves
    (sharded / ".pack.json.x1.json").write_bytes(b"half")
    write_shards(pack, sharded, size=30_000)
    assert not list(sharded.rglob(".*"))


def test_a_cache_that_is_none_and_items_that_are_cut(sharded: Path, pack: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    far = open_shards(str(sharded), "folder", "val", cache=tmp_path / "file")
    with pytest.raises(ValueError, match=r"file: cannot be used as data\.pack_cache \(Not a directory\)"):
        far.read(0)
    far = open_shards(str(sharded), "folder", "val", cache=tmp_path / "cache")
    want = far.read(0)
    for item in (tmp_path / "cache").glob("*.raw"):
        item.write_bytes(item.read_bytes()[:100])
    assert np.array_equal(far.read(0).image, want.image)


def test_a_server_without_ranges_is_named(sharded: Path, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    plain = partial(SimpleHTTPRequestHandler, directory=str(sharded))
    with ThreadingHTTPServer(("127.0.0.1", 0), plain) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        far = open_shards(f"http://127.0.0.1:{http.server_address[1]}", "folder", "train", cache=tmp_path / "cache")
        with pytest.raises(ValueError, match="its server does not answer requests for a range of bytes"):
            far.read(1)
        http.shutdown()
