"""A pack on another machine: few large files, read in ranges. In: a pack, or an address. Out: samples.

An address is whatever fsspec opens: a folder, http(s)://, s3://, gs:// … Items that were read lie in a folder of this
machine, bounded in bytes, which all processes share; each is compared with its hash when it comes in.
"""

import contextlib
import os
import posixpath
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from panfpn.data.pack import PackedDataset, check_layout
from panfpn.data.pack_index import INDEX, Item, check_split, parse_index, read_index
from panfpn.extras import optional
from panfpn.fetch import without_password
from panfpn.files import read_bytes, replacing, write_json
from panfpn.progress import progress_bar
from panfpn.types import RGB, Reading

SHARDS = "shards.json"
_FORMAT = "panfpn shards 1"
_BLOCK = 1 << 24  # bytes that are copied at a time
_LARGEST_INDEX = 1 << 30  # bytes
_TRIES, _PAUSE = 4, 0.5  # of a read from another machine, and seconds before the second try


@dataclass(frozen=True, slots=True, kw_only=True)
class Shards:
    """Where the items of a pack lie: for each split, shard and offset of each item, in the index's order."""

    format: str = _FORMAT
    splits: dict[str, list[tuple[int, int]]]

    def __post_init__(self) -> None:
        if self.format != _FORMAT:
            raise ValueError(f"its format is {self.format!r}; this version reads {_FORMAT!r}")
        for split, places in self.splits.items():
            check_split(split)
            if any(shard < 0 or offset < 0 for shard, offset in places):
                raise ValueError(f"split {split!r} has a negative place")


def shard_name(split: str, number: int) -> str:
    """A shard's file, below the folder or address of all."""
    return f"{split}/shard-{number:05}.bin"


def write_shards(pack: Path, out: Path, *, size: int = 10**9, progress: bool = True) -> list[Path]:
    """Copy a pack into shards of at most `size` bytes (or one item); what is there is kept. Returns the shards.

    ValueError: not a pack, one that is not packed to its end, or a folder that holds anything else.
    """
    index = read_index(pack)
    for split, part in index.splits.items():
        if not part.complete:
            raise ValueError(f"{pack}: split {split!r} is not packed to its end; call `panfpn data pack` again")
    if out.is_dir():
        for left in [*out.glob(f".{SHARDS}.*"), *out.glob(f".{INDEX}.*"), *out.glob("*/.shard-*")]:
            left.unlink()  # what `replacing` had begun when a call was killed
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / SHARDS).is_file())):
        raise ValueError(f"{out}: holds something else than shards; choose a folder for them alone")
    if not (out / SHARDS).is_file():
        write_json(out / SHARDS, asdict(Shards(splits={})))
    (out / INDEX).unlink(missing_ok=True)  # written last: where it is, it fits the shards
    files, places = [], {}
    for split, part in index.splits.items():
        groups = _groups(part.items, size)
        places[split] = [(number, offset) for number, group in enumerate(groups) for offset in _offsets(group)]
        with progress_bar(f"writing {split}", len(groups), show=progress, unit="shards") as advance:
            for number, group in enumerate(groups):
                files.append(out / shard_name(split, number))
                _write_shard(files[-1], [item.file(pack, split) for item in group], group)
                advance(number + 1)
    write_json(out / SHARDS, asdict(Shards(splits=places)))
    index.write(out)
    for left in set(out.glob("*/shard-*.bin")) - set(files):  # of an earlier pack
        left.unlink()
    return files


def _groups(items: list[Item], size: int) -> list[list[Item]]:
    groups: list[list[Item]] = []
    room = 0
    for item in items:
        if item.num_bytes > room:
            groups.append([])
            room = size
        groups[-1].append(item)
        room -= item.num_bytes
    return groups


def _offsets(items: list[Item]) -> Iterator[int]:
    offset = 0
    for item in items:
        yield offset
        offset += item.num_bytes


def _write_shard(path: Path, files: list[Path], items: list[Item]) -> None:
    stamp = path.with_suffix(".sha256")  # of the items' hashes: what the shard is made of
    made_of = sha256("".join(item.sha256 for item in items).encode()).hexdigest()
    if path.is_file() and stamp.is_file() and stamp.read_text() == made_of:
        return
    stamp.unlink(missing_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as target:
        for file, item in zip(files, items, strict=True):
            data = read_bytes(file)
            if sha256(data).hexdigest() != item.sha256:
                raise ValueError(f"{file}: damaged pack: not the bytes that were packed; see `panfpn data check`")
            target.write(data)
    stamp.write_text(made_of)


def open_shards(
    url: str, layout: str, split: str, *, cache: Path | None = None, cache_bytes: int = 10**10, reading: Reading = RGB
) -> PackedDataset:
    """A split of the shards behind an address; what was read of them lies in `cache`, of at most `cache_bytes`.

    Raises:
        ValueError: nothing there, not shards, or of another data set; a cache too small for the largest item.
        ImportError: what fsspec needs for this kind of address.
    """
    shown = without_password(url)
    store = ShardStore(url, cache or default_cache(url), cache_bytes)
    index = parse_index(store.whole(INDEX), f"{shown}/{INDEX}")
    shards = _parsed(store.whole(SHARDS), f"{shown}/{SHARDS}")
    part, places = index.splits.get(split), shards.splits.get(split)
    if part is None or places is None:
        raise ValueError(f"{shown}: has no split {split!r}; there are {', '.join(index.splits)}")
    if len(places) != len(part.items):
        raise ValueError(f"{shown}: {SHARDS} places {len(places)} items of {len(part.items)}; write the shards again")
    check_layout(shown, index, layout, reading)
    largest = max((item.num_bytes for item in part.items), default=0)
    if largest > cache_bytes:
        raise ValueError(f"data.pack_cache_gb is {cache_bytes / 1e9:g}; the largest image of {shown} takes "
                         f"{largest / 1e9:.3f} GB")  # fmt: skip
    table, mask_table = part.tables()
    store.places = {item.sha256: place for item, place in zip(part.items, places, strict=True)}
    return PackedDataset(table, mask_table or table, Path(shown), split, tuple(part.items), store)


def default_cache(url: str) -> Path:
    """Where items of an address lie unless somebody says otherwise."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "panfpn" / "packs" / sha256(url.encode()).hexdigest()[:16]


def _parsed(data: bytes, source: str) -> Shards:
    import pydantic  # noqa: PLC0415 - only where text enters

    try:
        return pydantic.TypeAdapter(Shards).validate_json(data)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"{source}: {'.'.join(map(str, first['loc']))}: {first['msg']}; write the shards "
                         "again") from error  # fmt: skip


class ShardStore:
    """Items of shards as files of this machine. May be pickled; each process opens the address for itself."""

    def __init__(self, url: str, cache: Path, limit: int) -> None:
        self.url, self.cache, self.limit = url.rstrip("/"), cache, limit
        self.places: dict[str, tuple[int, int]] = {}  # shard and offset by the item's hash
        self._opened: tuple[int, Any, str] | None = None  # process, file system, path in it

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}

    def path(self, split: str, item: Item) -> Path:
        """The item's pixel file, fetched if it is not there; it may be gone again as soon as another one comes."""
        path = self.cache / f"{item.sha256}.raw"
        try:
            if path.stat().st_size == item.num_bytes:  # else it was cut short by somebody, and comes anew
                with contextlib.suppress(PermissionError):  # somebody else's file
                    os.utime(path)  # the oldest go first
                return path
        except FileNotFoundError:
            pass
        except OSError as error:
            raise ValueError(f"{self.cache}: cannot be used as data.pack_cache ({error.strerror})") from error
        shard, offset = self.places[item.sha256]
        name = shard_name(split, shard)
        data = self._read(name, offset, offset + item.num_bytes)
        if sha256(data).hexdigest() != item.sha256:
            raise ValueError(f"{without_password(self.url)}/{name}: not the bytes that were packed at {offset} "
                             f"({item.name}); write the shards again")  # fmt: skip
        try:
            with _locked(self.cache):
                self._make_room(len(data))
                with replacing(path) as temporary:
                    temporary.write_bytes(data)
        except OSError as error:
            raise ValueError(f"{self.cache}: cannot be used as data.pack_cache ({error.strerror})") from error
        return path

    def whole(self, name: str) -> bytes:
        """A small file behind the address."""
        return self._read(name, 0, _LARGEST_INDEX)

    def _read(self, name: str, start: int, stop: int) -> bytes:
        shown = f"{without_password(self.url)}/{name}"
        for turn in range(_TRIES):
            try:
                fs, folder = self._file_system()
                found: bytes = fs.cat_file(posixpath.join(folder, name), start=start, end=stop)
            except FileNotFoundError as error:
                raise ValueError(f"{shown}: is not there; data.pack_url is the address of what `panfpn data shard` "
                                 "wrote") from error  # fmt: skip
            except ImportError as error:
                raise ImportError(
                    f"{shown}: {error}; install what it needs with pip install 'panfpn[remote]'"
                ) from error
            except Exception as error:  # each file system has its own
                if turn == _TRIES - 1:
                    raise ValueError(f"{shown}: cannot be read ({type(error).__name__}: {error})") from error
                time.sleep(_PAUSE * 2**turn)
                continue
            if len(found) > stop - start:
                raise ValueError(f"{shown}: its server does not answer requests for a range of bytes; put the shards "
                                 "behind one that does")  # fmt: skip
            return found
        raise AssertionError

    def _file_system(self) -> tuple[Any, str]:
        if self._opened is None or self._opened[0] != os.getpid():  # connections do not survive a fork
            fsspec: Any = optional("fsspec", "remote", "data.pack_url needs")
            fs, path = fsspec.core.url_to_fs(self.url, skip_instance_cache=True)
            self._opened = (os.getpid(), fs, path)
        return self._opened[1], self._opened[2]

    def _make_room(self, wanted: int) -> None:
        files = []
        for entry in os.scandir(self.cache):
            if entry.name.endswith(".raw"):
                about = entry.stat()
                files.append((about.st_mtime_ns, about.st_size, entry.path))
        used = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if used + wanted <= self.limit:
                break
            Path(path).unlink(missing_ok=True)
            used -= size


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Only one process at a time makes room in a cache."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as file:
        _lock(file)
        yield


def _lock(file: IO[str]) -> None:
    try:
        import fcntl  # noqa: PLC0415 - Windows has none
    except ImportError:
        return
    fcntl.flock(file, fcntl.LOCK_EX)
