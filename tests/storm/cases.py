"""Bad inputs, each with what a person would type. In: a folder to make them in, a seed. Out: `Case`s.

Everything that is made here must be refused: what may be read as well as not (a flipped bit in the pixels of a JPEG) is
not in it.
"""

import copy
import io
import itertools
import json
import pickle
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
import torch
import yaml
from PIL import Image

from panfpn.config import TrainConfig
from panfpn.data import write_pack
from panfpn.weights.files import read_checkpoint, write_checkpoint

MODEL = Path(str(resources.files("panfpn"))) / "weights" / "camvid_lite0.safetensors"
RNG = np.random.default_rng(7)
PICTURE = RNG.integers(0, 256, (40, 56, 3), dtype=np.uint8)
MASK = RNG.integers(0, 2, (40, 56), dtype=np.uint8)
LABELS = "classes:\n  - {name: a, value: 0}\n  - {name: b, value: 1}\n"


@dataclass(frozen=True)
class Case:
    """A call that must fail: its words, and which texts its complaint must hold, one for each bad input."""

    kind: str
    words: tuple[str, ...]
    culprits: tuple[str, ...]
    out: Path | None = None  # where nothing half-written may lie
    environment: dict[str, str] = field(default_factory=dict)
    code: int = 2
    prepare: Callable[[], object] | None = None  # makes what the call reads, right before it


def encoded(form: str, pixels: np.ndarray = PICTURE, **options: Any) -> bytes:
    box = io.BytesIO()
    Image.fromarray(pixels).save(box, form, **options)
    return box.getvalue()


def tiff(pixels: np.ndarray, **options: Any) -> bytes:
    box = io.BytesIO()
    tifffile.imwrite(box, pixels, **options)
    return box.getvalue()


def flipped(data: bytes, places: range, count: int) -> Iterator[bytes]:
    for place in RNG.integers(places.start, places.stop, count):
        broken = bytearray(data)
        broken[place] ^= 1 << int(RNG.integers(8))
        yield bytes(broken)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, *, body: bytes = b"", kind: int = 0, bits: int = 8, crc: bool = True) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    head = head if crc else head[:-1] + bytes((head[-1] ^ 1,))
    return b"\x89PNG\r\n\x1a\n" + head + (body or chunk(b"IDAT", zlib.compress(bytes(999)))) + chunk(b"IEND", b"")


def bad_images() -> Iterator[tuple[str, bytes]]:
    """Name and content of files that are no images, or whose pixels can mean several things."""
    forms = {"png": {}, "jpg": {}, "bmp": {}, "webp": {"lossless": True}, "gif": {}, "tif": {"compression": "tiff_lzw"},
             "jp2": {}, "ppm": {}, "avif": {}}  # fmt: skip
    names = {"jpg": "JPEG", "tif": "TIFF", "jp2": "JPEG2000"}
    for suffix, options in forms.items():
        whole = encoded(names.get(suffix, suffix.upper()), **options)
        for share in (0, 0.002, 0.01, 0.05, 0.2, 0.5):
            yield f"cut{share}.{suffix}", whole[: int(len(whole) * share)]
        yield f"zeros.{suffix}", bytes(len(whole))
        yield f"text.{suffix}", b"<html>404 not found</html>" * 20
        yield f"head.{suffix}", whole[:8] + bytes(300)
    whole = encoded("PNG")
    for k, data in enumerate(flipped(whole, range(8, len(whole) - 12), 80)):
        yield f"flip{k}.png", data
    for k, (width, height) in enumerate(itertools.product((0, 1, 2**31 - 1, 2**32 - 1, 100_000, 40_000), repeat=2)):
        if (width, height) != (1, 1):
            yield f"size{k}.png", png(width, height)
    for k, (kind, bits) in enumerate(itertools.product(range(8), (0, 3, 5, 16, 32, 255))):
        if (kind, bits) not in ((0, 16), (2, 16), (4, 16), (6, 16)):
            yield f"kind{k}.png", png(9, 9, kind=kind, bits=bits)
    for k, length in enumerate((2**31 - 1, 2**31, 2**32 - 1, 10**6)):
        yield f"length{k}.png", png(9, 9, body=struct.pack(">I", length) + b"IDAT" + bytes(50))
    yield "crc.png", png(9, 9, crc=False)
    jpeg = encoded("JPEG")
    scan = jpeg.index(b"\xff\xda")
    yield "no_body.jpg", jpeg[: scan + 14] + b"\xff\xd9"
    yield "no_end.jpg", jpeg[:-2]
    for marker in (0xDB, 0xC4, 0xC0):
        start = jpeg.index(bytes((0xFF, marker)))
        length = int.from_bytes(jpeg[start + 2 : start + 4])
        stripped = jpeg
        while (start := stripped.find(bytes((0xFF, marker)))) >= 0:
            length = int.from_bytes(stripped[start + 2 : start + 4])
            stripped = stripped[:start] + stripped[start + 2 + length :]
        yield f"without{marker}.jpg", stripped
    size = jpeg.index(b"\xff\xc0") + 5
    for k, sides in enumerate(((65_535, 65_535), (0, 0), (65_535, 1), (30_000, 30_000))):
        if sides != (65_535, 1):
            yield f"claims{k}.jpg", jpeg[:size] + struct.pack(">HH", *sides) + jpeg[size + 4 :]
    for compression in ("deflate", "lzw", None):
        data = tiff(PICTURE, photometric="rgb", compression=compression)
        for share in (0.1, 0.5, 0.9):
            yield f"strip{compression}{share}.tif", data[: int(len(data) * share)]
    data = tiff(PICTURE, photometric="rgb", compression="deflate", rowsperstrip=5)
    strips = range(300, len(data) - 200)
    for k, broken in enumerate(flipped(data, strips, 12)):
        yield f"deflate{k}.tif", broken
    open_ = [
        (PICTURE[:, :, 0].astype(np.uint16) * 16, {}), (PICTURE.astype(np.float32), {"photometric": "rgb"}),
        (np.concatenate([PICTURE, PICTURE[:, :, :2]], 2), {"photometric": "minisblack"}),
        (PICTURE[:, :, :2], {"photometric": "minisblack", "planarconfig": "contig"}),
        (np.full((9, 9), np.nan, np.float32), {}), (PICTURE[:, :, 0].astype(np.int32), {}),
        (PICTURE[:, :, 0].astype(np.complex64), {}), (PICTURE[:, :, 0].astype(np.float64), {}),
        (np.stack([PICTURE, PICTURE]), {"photometric": "rgb"}),
    ]  # fmt: skip
    for k, (samples, options) in enumerate(open_):
        yield f"open{k}.tif", tiff(samples, **options)
    pages = [Image.fromarray(PICTURE), Image.fromarray(PICTURE[::-1])]
    for form, suffix in (("TIFF", "tif"), ("GIF", "gif"), ("PNG", "png"), ("WEBP", "webp")):
        yield f"pages.{suffix}", encoded_pages(pages, form)
    yield "photo.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    for name in ("notes.pdf.png", "archive.jpg"):
        yield name, b"%PDF-1.7" if "pdf" in name else b"PK\x03\x04" + bytes(100)


def encoded_pages(pages: list[Image.Image], form: str) -> bytes:
    box = io.BytesIO()
    pages[0].save(box, form, save_all=True, append_images=pages[1:])
    return box.getvalue()


def images(folder: Path) -> Iterator[Case]:
    files = dict(bad_images())
    for name, data in files.items():
        (folder / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "in" / name).write_bytes(data)
    names = list(files)
    for begin in range(0, len(names), 40):
        part = names[begin : begin + 40]
        words = tuple(str(folder / "in" / name) for name in part)
        out = folder / f"out{begin}"
        yield Case("image", ("predict", *words, "-o", str(out), "--precision", "float32"), words, out)


def data_set(root: Path, labels: str = LABELS, mask: bytes | None = None, suffix: str = "png") -> Path:
    for part, data, end in (
        ("images", encoded("PNG"), "png"),
        ("masks", encoded("PNG", MASK) if mask is None else mask, suffix),
    ):
        path = root / part / "train" / f"x.{end}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (root / "labels.yaml").write_text(labels)
    return root


def check(root: Path, layout: str = "folder") -> tuple[str, ...]:
    return "data", "check", "--data.dataset", layout, "--data.root", str(root), "--split", "train"


def masks(folder: Path) -> Iterator[Case]:
    files = [(name, data) for name, data in bad_images() if not name.startswith(("open", "kind"))]
    grey = encoded("PNG", MASK)
    files += [(f"grey{k}.png", data) for k, data in enumerate(flipped(grey, range(8, len(grey) - 12), 60))]
    files += [
        (f"lossy.{end}", encoded(form, MASK)) for end, form in (("jpg", "JPEG"), ("webp", "WEBP"), ("avif", "AVIF"))
    ]
    files += [("value.png", encoded("PNG", MASK + 7)), ("size.png", encoded("PNG", MASK[:-1])),
              ("half.tif", tiff(MASK + np.float32(0.5))), ("nan.tif", tiff(MASK * np.float32(np.nan))),
              ("rgb.png", encoded("PNG", PICTURE)), ("bands.tif", tiff(np.stack([MASK] * 5, 2), photometric="minisblack")),
              ("complex.tif", tiff(MASK.astype(np.complex64)))]  # fmt: skip
    for k, (name, data) in enumerate(files):
        root = data_set(folder / str(k), mask=data, suffix=name.rpartition(".")[2])
        yield Case("mask", check(root), (str(root),))


def deep(levels: int) -> str:
    return "[" * levels + "]" * levels


LAUGHS = "a0: &a0 ha\n" + "".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]\n" for k in range(1, 12))
VALUES: list[Any] = [
    None,
    "",
    "x",
    -1,
    1.5,
    True,
    [],
    {},
    [[]],
    "\x1b[31m",
    "9" * 5000,
    float("nan"),
    10**30,
    "y" * 5000,
]


def yaml_tables(folder: Path) -> Iterator[Case]:
    base = yaml.safe_load(LABELS)
    texts = [LAUGHS, LAUGHS + LABELS, deep(3000), "classes: " + deep(3000), "classes: *a", "a: [", "\t", "- 1", "7", "''",
             LABELS + "classes: []\n", "classes:\n  - {name: a, name: b, value: 1}\n", "classes: !!python/name:os.system\n",
             "classes: &a [*a]", "x: 1\n" + LABELS, LABELS + "masks: greys\n", LABELS + "ignore: x\n",
             LABELS + "ignore: [1]\n", "%YAML 9\n---\n", "classes: {name: a, value: 0}", LABELS + "name: [1]\n"]  # fmt: skip
    tables = []
    for key, value in itertools.product(("name", "value", "color", "thing"), VALUES):
        table = copy.deepcopy(base)
        table["classes"][0][key] = value
        fine = {("name", k) for k in ("x", -1, 1.5, "9" * 5000, "y" * 5000, 10**30, "\x1b[31m")} | {
            ("value", -1),
            ("thing", True),
        }
        if isinstance(value, float | str | int | None) and (
            (key, value) in fine or (key, value) == ("name", float("nan"))
        ):
            continue
        if key == "name" and value != value:
            continue
        tables.append(table)
    for key, value in itertools.product(("classes", "masks", "ignore"), VALUES):
        if (key, value) in (("ignore", -1), ("ignore", [])):
            continue
        tables.append(base | {key: value})
    colors = [[300, 0, 0], [0, 0], [0, 0, 0, 0], ["a", 0, 0], -1, 1 << 24, "#12345", "#gggggg", "red", [1.5, 0, 0]]
    tables += [{"classes": [{"name": "a", "value": 0, "color": color}]} for color in colors]
    tables += [{"masks": "colors", "classes": [{"name": "a", "value": color}]} for color in colors]
    tables += [{"classes": [{"name": "a", "value": 0}, {"name": second, "value": value}]}
               for second, value in (("a", 1), ("b", 0), ("b", [1, 0]))]  # fmt: skip
    for k, text in enumerate([*texts, *map(yaml.safe_dump, tables)]):
        root = data_set(folder / str(k), labels=text)
        yield Case("labels.yaml", check(root), (str(root),))


def configurations(folder: Path) -> Iterator[Case]:
    """Every field with values that it cannot have, in a YAML file."""
    bad = ["\x00\x1b[2J", {"a": 1}, [[1]], float("nan"), float("inf"), -(10**30), True]
    texts = [LAUGHS, deep(3000), "optim:\n  lr: 1\n  lr: 2\n", "optim: []", "optim: 3", "- x", "{", "\xff", "trian: {}",
             "optim: {learning_rate: 1}", "7", "data: &a {root: *a}"]  # fmt: skip
    for section in fields(TrainConfig):
        for setting in fields(getattr(TrainConfig(), section.name)):
            default = getattr(getattr(TrainConfig(), section.name), setting.name)
            for value in bad:
                text = isinstance(default, str | Path) or setting.name in (
                    "root", "pack", "backbone_weights", "start_from", "dir", "loggers",
                )  # fmt: skip
                if (value is True and isinstance(default, bool)) or (isinstance(value, str) and text):
                    continue
                texts.append(yaml.safe_dump({section.name: {setting.name: value}}))
    for k, text in enumerate(texts):
        path = folder / f"{k}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="latin1")
        yield Case("configuration", ("train", str(path), "--run.dir", str(folder / f"run{k}")), (), folder / f"run{k}")


def releases(folder: Path) -> Iterator[Case]:
    """The shipped model with another header, other tensors, or other bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = MODEL.read_bytes()
    tensors, header = read_checkpoint(MODEL, role="release")
    made: list[tuple[str, Callable[[Path], object]]] = []
    for k, data in enumerate([b"", whole[:100], whole[:-1], whole + b"x", b"\xff" * 8 + whole[8:], bytes(9) + whole[9:],
                              b"\x10\0\0\0\0\0\0\0" + b"[" * 16, struct.pack("<Q", 10**12) + whole[8:],
                              *flipped(whole, range(9, len(whole)), 25)]):  # fmt: skip
        made.append((f"bytes{k}", lambda path, data=data: path.write_bytes(data)))
    for key, value in itertools.product(("architecture", "model", "scale", "size_divisor", "inference", "table", "reading"),
                                        ("x", -1, [], [1, 2, 3], {"x": 1}, 10**12)):  # fmt: skip
        if (key, value) not in (("inference", []), ("reading", [])):
            made.append(
                (
                    f"{key}{len(made)}",
                    lambda path, c={**header, key: value}: write_checkpoint(path, tensors, c, role="release"),
                )
            )
    for key, values in {
        "fpn_channels": (10**9, 0, -5, 65_536, 1), "head_channels": (10**9, 65_536), "num_classes": (10**9, 32_000, 1),
        "in_channels": (10**6, 1000, 0), "backbone": ("eva_giant_patch14_560", "no such", "", "resnet152", 7),
        "norm": ("layer", "group"), "dropout": (2, -1, "x"), "mean": ([1], "x", [float("nan")] * 3), "std": ([0, 0, 0],),
        "architecture": ("PanopticFPN",),
    }.items():  # fmt: skip
        for value in values:
            changed = {**header, "model": {**header["model"], key: value}}
            made.append(
                (f"{key}{len(made)}", lambda path, c=changed: write_checkpoint(path, tensors, c, role="release"))
            )
    for name, change in itertools.product(list(tensors)[::40], ("gone", "nan", "shape", "complex", "int")):
        other = dict(tensors)
        if change == "gone":
            del other[name]
        elif change == "shape":
            other[name] = torch.zeros(3, 5)
        else:
            kind = {"nan": torch.float32, "complex": torch.complex64, "int": torch.int32}[change]
            if change == "int" and not tensors[name].is_floating_point():
                continue
            other[name] = (tensors[name].float() * float("nan")).to(kind) if change == "nan" else tensors[name].to(kind)
        made.append((f"tensor{len(made)}", lambda path, o=other: write_checkpoint(path, o, header, role="release")))
    made.append(("more", lambda path: write_checkpoint(path, {**tensors, "x": torch.zeros(1)}, header, role="release")))
    made.append(("role", lambda path: write_checkpoint(path, tensors, header, role="run")))
    (folder / "x.png").write_bytes(encoded("PNG"))
    for name, write in made:
        path = folder / f"{name}.safetensors"
        words = ("predict", str(folder / "x.png"), "-o", str(folder / "out"), "--model", str(path))
        yield Case("release", words, (str(path),), folder / "out", prepare=partial(write, path))


class _Global:
    """Unpickles to a call of `name` with `arguments`."""

    def __init__(self, call: Any, arguments: tuple[Any, ...]) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call, self.arguments


def pickles(folder: Path) -> Iterator[Case]:
    """Checkpoints that run code, never end, or claim more than they hold."""
    import collections
    import os

    weights = {f"backbone.layer{k}.weight": torch.rand(4, 4) for k in range(5)}
    box = io.BytesIO()
    torch.save(weights, box)
    whole = box.getvalue()
    legacy = io.BytesIO()
    torch.save(weights, legacy, _use_new_zipfile_serialization=False)
    prime = 2**61 - 1
    colliding = {k * prime: 0 for k in range(1, 30_000)}
    nested: Any = []
    for _ in range(400):
        nested = [nested]
    objects: dict[str, Any] = {
        "list": [1], "none": None, "text": "x", "system": _Global(os.system, ("true",)), "eval": _Global(eval, ("1",)),
        "bytearray": _Global(bytearray, (10**11,)), "dict": colliding, "set": set(colliding),
        "counter": collections.Counter(colliding), "stride": {"state_dict": {"w": torch.zeros(1).expand(10**10)}},
        "nested": nested, "numbers": {"state_dict": {"w": 3}}, "empty": {}, "no tensors": {"state_dict": {}},
        "nan": {"state_dict": {"backbone.conv1.weight": torch.full((4, 3, 7, 7), float("nan"))}},
    }  # fmt: skip
    files: dict[str, bytes] = {}
    for name, data in objects.items():
        for style in ("zip", "legacy", "plain"):
            box = io.BytesIO()
            try:
                if style == "plain":
                    pickle.dump(data, box, protocol=2)
                else:
                    torch.save(data, box, _use_new_zipfile_serialization=style == "zip")
            except (RecursionError, TypeError, AttributeError):
                continue
            files[f"{name}_{style}.{'pkl' if style == 'plain' else 'pth'}"] = box.getvalue()
    for share in (0, 0.1, 0.5, 0.9, 0.99):
        files[f"cut{share}.pth"] = whole[: int(len(whole) * share)]
        files[f"cutold{share}.pth"] = legacy.getvalue()[: int(len(legacy.getvalue()) * share)]
    for k, data in enumerate(flipped(whole, range(100, len(whole) - 400), 40)):
        files[f"flip{k}.pth"] = data
    files["deflated.pth"] = repacked(whole, zipfile.ZIP_DEFLATED)
    files["bomb.pth"] = repacked(whole, zipfile.ZIP_DEFLATED, bytes(200_000_000))
    for k in range(30):
        files[f"noise{k}.pth"] = RNG.bytes(200 + 50 * k)
        files[f"noise{k}.pkl"] = b"\x80\x02" + RNG.bytes(100 + 30 * k) + b"."
    for k, levels in enumerate((200, 5000, 100_000)):
        files[f"deep{k}.pkl"] = b"\x80\x02" + b"]" * levels + b"a" * (levels - 1) + b"."
        files[f"tuples{k}.pkl"] = b"\x80\x02}" + b"(" * levels + b"t" * levels + b"K\x01s."
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        out = folder / f"{name}.safetensors"
        yield Case("checkpoint", ("convert", str(path), "-o", str(out), "--labels", "camvid"), (str(path),), out.parent)


def repacked(data: bytes, compression: int, more: bytes = b"") -> bytes:
    box = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(box, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name) + (more if name.endswith("/data/0") else b""))
    return box.getvalue()


def packs(folder: Path) -> Iterator[Case]:
    root = data_set(folder / "set")
    write_pack("folder", root, folder / "whole", ["train"], progress=False)
    index = json.loads((folder / "whole/pack.json").read_text())
    item = index["splits"]["train"]["items"][0]
    changes: list[Any] = [
        None,
        [],
        7,
        {"format": "x"},
        index | {"dataset": "no"},
        index | {"splits": 3},
        index | {"reading": 3},
    ]
    for key, value in itertools.product(item, (None, -1, 10**12, "../../x", "/etc/passwd", "", [], "x" * 64)):
        if value != item[key] and not (key == "name" and value == "x" * 64):
            other = copy.deepcopy(index)
            other["splits"]["train"]["items"][0][key] = value
            changes.append(other)
    swapped = copy.deepcopy(index)
    first = swapped["splits"]["train"]["items"][0]
    first["height"], first["width"] = first["height"] + 1, first["width"]
    changes.append(swapped)
    for k, change in enumerate(changes):
        pack = folder / f"pack{k}"
        shutil.copytree(folder / "whole", pack)
        (pack / "pack.json").write_text(json.dumps(change))
        yield Case("pack", ("data", "check", str(pack)), (str(pack),))
    raw = next((folder / "whole").rglob("*.raw"))
    for k, data in enumerate(
        [b"", raw.read_bytes()[:-1], *flipped(raw.read_bytes(), range(len(raw.read_bytes())), 15)]
    ):
        pack = folder / f"raw{k}"
        shutil.copytree(folder / "whole", pack)
        (pack / raw.relative_to(folder / "whole")).write_bytes(data)
        yield Case("pack", ("data", "check", str(pack)), (str(pack),))


def panoptic(folder: Path) -> Iterator[Case]:
    """COCO's panoptic format with something wrong in it."""
    ids = np.full((40, 56), 7, np.uint8)
    ids[:10] = 9
    rgb = np.stack([ids, 0 * ids, 0 * ids], 2)
    base: dict[str, Any] = {
        "images": [{"id": 1, "file_name": "1.png", "height": 40, "width": 56}],
        "categories": [{"id": 1, "name": "person", "isthing": 1}, {"id": 184, "name": "tree-merged", "isthing": 0}],
        "annotations": [{"image_id": 1, "file_name": "1.png", "segments_info": [
            {"id": 9, "category_id": 1, "iscrowd": 0, "area": 560, "bbox": [0, 0, 56, 10]},
            {"id": 7, "category_id": 184, "iscrowd": 0, "area": 1680, "bbox": [0, 10, 56, 30]}]}],
    }  # fmt: skip
    changes: list[Any] = [
        [],
        3,
        {},
        {"images": 3},
        base | {"images": []},
        base | {"annotations": []},
        base | {"categories": []},
    ]
    places = [("images", 0, key) for key in ("id", "file_name", "height", "width")]
    places += [("categories", k, key) for k in (0, 1) for key in ("id", "name", "isthing")]
    places += [("annotations", 0, key) for key in ("image_id", "file_name", "segments_info")]
    for (part, k, key), value in itertools.product(places, (None, -1, "x", 1.5, [], {})):
        other = copy.deepcopy(base)
        if (key, value) in (("isthing", -1), ("isthing", "x"), ("isthing", 1.5)) and k == 0:
            continue
        other[part][k][key] = value
        changes.append(other)
    for k, key, value in itertools.product(
        (0, 1), ("id", "category_id", "area"), (None, -1, 0, "x", 1.5, 10**12, [], 8)
    ):
        other = copy.deepcopy(base)
        other["annotations"][0]["segments_info"][k][key] = value
        changes.append(other)
    for part in ("images", "annotations"):
        other = copy.deepcopy(base)
        other[part] = other[part] * 2
        changes.append(other)
    for k, change in enumerate(changes):
        root = folder / str(k)
        for path in (root / "train2017/1.png", root / "annotations/panoptic_train2017/1.png"):
            path.parent.mkdir(parents=True, exist_ok=True)
        (root / "train2017/1.png").write_bytes(encoded("PNG"))
        (root / "annotations/panoptic_train2017/1.png").write_bytes(encoded("PNG", rgb))
        (root / "annotations/panoptic_train2017.json").write_text(json.dumps(change))
        yield Case("panoptic JSON", check(root, "coco_panoptic"), (str(root),))


def videos(folder: Path) -> Iterator[Case]:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "whole.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 5, (56, 40))
    for _ in range(20):
        writer.write(PICTURE)
    writer.release()
    whole = path.read_bytes()
    for k, data in enumerate(
        [b"", b"text", whole[:50], whole[:3000], whole[: len(whole) // 2], bytes(5000), RNG.bytes(5000)]
    ):
        for suffix in ("avi", "mp4", "ts", "wmv", "flv", "mkv"):
            bad = folder / f"{k}.{suffix}"
            bad.write_bytes(data)
            if suffix == "avi" or k != 4:  # the others' containers are not AVI, and are read all the same
                out = folder / f"out{k}{suffix}"
                yield Case("video", ("predict", str(bad), "-o", str(out), "--precision", "float32"), (str(bad),), out)


def words(folder: Path) -> Iterator[Case]:
    """What is typed."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "x.png").write_bytes(encoded("PNG"))
    photo, out = str(folder / "x.png"), str(folder / "out")
    calls: list[tuple[str, ...]] = [
        ("nothing",), ("predict",), ("predict", photo), ("predict", "", "-o", out), ("predict", photo, "-o", ""),
        ("predict", photo, "-o", out, "--model", ""), ("predict", photo, "-o", out, "--save", ""),
        ("predict", photo, "-o", out, "--save", "depth"), ("predict", photo, "-o", out, "--batch-size", "0"),
        ("predict", photo, "-o", out, "--batch-size", "-1"), ("predict", photo, "-o", out, "--device", "tpu"),
        ("predict", photo, "-o", out, "--precision", "int3"), ("predict", photo, "-o", out, "--frames", "0"),
        ("predict", photo, "-o", out, "--scale", "0", "0"), ("predict", photo, "-o", out, "--scale", "x", "y"),
        ("predict", photo, "-o", out, "--data.bands", "0", "1", "2"), ("predict", photo, "-o", out, "--data.bands", "1"),
        ("predict", photo, "-o", out, "--data.range", "5", "5"), ("predict", photo, "-o", out, "--data.range", "nan", "1"),
        ("predict", photo, "-o", out, "--data.pages", "0"), ("predict", photo, "-o", out, "--engine", "tensorrt"),
        ("predict", photo, "-o", out, "-o", out, "--device", "cpu", "--device", "cpu"), ("predict", photo, "-o", photo),
        ("predict", photo, "-o", f"{photo}/deep"), ("predict", photo, "-o", out, "--format", "ade21k"),
        ("predict", photo, "-o", out, "--check"), ("predict", photo, "-o", out, "--size-divisor", "0"),
        ("predict", photo, "-o", out, "--inference.ratios", "nan"), ("predict", photo, "-o", out, "--inference.ratios", "0"),
        ("predict", "ftp://x/y.png", "-o", out), ("predict", "http://127.0.0.1:9/x.png", "-o", out),
        ("predict", "98", "-o", out), ("predict", f"{folder}/*.jpg", "-o", out), ("predict", "rtsp://127.0.0.1:9/x", "-o", out),
        ("eval",), ("eval", "no"), ("eval", photo), ("eval", str(MODEL)), ("eval", str(MODEL), "--data.root", "/nowhere"),
        ("eval", str(MODEL), "--data.root", str(folder), "--batch-size", "0"), ("eval", "", "--data.root", str(folder)),
        ("eval", str(MODEL), "--data.root", str(folder), "--json", "/proc/x.json"),
        ("eval", str(MODEL), "--data.root", str(folder), "--json", f"{folder}/x.txt"),
        ("eval", str(MODEL), "--data.root", str(folder), "--trimap-width", "3"),
        ("compare",), ("compare", photo, photo), ("compare", "no.json", "no.json"), ("convert",), ("convert", photo),
        ("convert", "no.pth"), ("convert", str(MODEL), "-o", f"{folder}/x.png"), ("data",), ("data", "no"),
        ("data", "pack"), ("data", "pack", "/nowhere", "-o", out), ("data", "check"), ("data", "check", "/nowhere"),
        ("data", "pack", str(folder), "-o", out, "--channels", "0"), ("train",), ("train", "no"), ("train", "no.yaml"),
        ("train", "scenes", "--train.steps", "0"), ("train", "scenes", "--train.steps", "1e3"),
        ("train", "scenes", "--optim.lr", "nan"), ("train", "scenes", "--optim.lr", "inf"), ("train", "scenes", "extra"),
        ("train", "scenes", "--run.name", "../../x"), ("train", "scenes", "--run.name", "/no/where"),
        ("train", "scenes", "--run.name", ""), ("train", "scenes", "--no-such", "1"), ("train", "--resume"),
        ("train", "--resume", "/nowhere"), ("train", "--resume", str(folder)), ("train", "scenes", "--resume", str(folder)),
        ("train", "scenes", "--data.crop", "0", "0"), ("train", "scenes", "--model.in-channels", "4"),
        ("train", "folder"), ("train", "folder", "--data.root", "/nowhere"), ("train", "folder", "--data.root", str(folder)),
        ("train", "scenes", "--train.batch-size", "3", "--train.accumulate", "2"), ("recipes", "no"),
        ("benchmark", "inference"), ("benchmark", "inference", "no"), ("benchmark", "nothing"),
        ("benchmark", "inference", "scenes", "--num-classes", "0"), ("benchmark", "inference", "scenes", "--repeats", "0"),
        ("benchmark", "inference", "scenes", "--batch", "-3"), ("benchmark", "inference", "scenes", "--json", "/proc/x.json"),
    ]  # fmt: skip
    for call in calls:
        yield Case("words", call, (), folder / "out")


def scores(folder: Path) -> Iterator[Case]:
    """Files that `compare` is given."""
    base: dict[str, Any] = {
        "classes": {"a": {}, "b": {}}, "confusion": [[5, 1, 0], [2, 9, 0], [0, 0, 0]],
        "images": [{"name": "x", "pixels": 17, "classes": [[0, 5, 7, 6], [1, 9, 10, 11]]}],
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    good = folder / "good.json"
    good.write_text(json.dumps(base))
    others: list[Any] = [[], 3, {}, {"pq": 3}, base | {"classes": []}, base | {"classes": 3}, base | {"images": []}]
    for value in (None, "x", [], [[1]], [[-1, 0, 0]] * 3, [[0.5, 0, 0]] * 3, [[10**30, 0, 0]] * 3, {}):
        others.append(base | {"confusion": value})
    for value in (None, "x", 3, {}, [3], [{}], [{"name": "x", "pixels": -1, "classes": []}]):
        others.append(base | {"images": value})
    for k, value in itertools.product(range(4), (-1, 0.5, None, "x", 10**30, True, [])):
        other = copy.deepcopy(base)
        other["images"][0]["classes"][0][k] = value
        others.append(other)
    for k, other in enumerate(others):
        path = folder / f"{k}.json"
        path.write_text(json.dumps(other))
        yield Case("scores", ("compare", str(path), str(good)), ())


def environments(folder: Path) -> Iterator[Case]:
    """Where it is run."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "x.png").write_bytes(encoded("PNG"))
    photo = str(folder / "x.png")
    for variable, value in (
        ("PANFPN_WEIGHTS", "\x1b[31m"),
        ("PANFPN_CACHE", "/proc/none"),
        ("PANFPN_MIRRORS", "gopher://x"),
    ):
        words_ = ("predict", photo, "-o", str(folder / "out"), "--model", "fpn_r50_cityscapes")
        yield Case("environment", words_, (), environment={variable: value})
    for out in ("/proc/x", "/dev/null/x", "/sys/kernel/x"):
        yield Case("environment", ("predict", photo, "-o", out, "--precision", "float32"), (out,))
        yield Case("environment", ("train", "scenes", "--run.dir", out), (out,))
        yield Case(
            "environment", ("data", "pack", str(data_set(folder / "set")), "-o", out, "--splits", "train"), (out,)
        )
    if Path("/dev/full").exists():
        for end in ("overlay.jpg", "labels.png"):
            yield Case("environment", ("convert", str(MODEL), "-o", f"/dev/full/{end}"), ("/dev/full",))


def runs(folder: Path) -> Iterator[Case]:
    """A run that was stopped, with another checkpoint, log or configuration."""
    import panfpn

    root = data_set(folder / "set")
    shutil.copytree(root / "images/train", root / "images/val")
    shutil.copytree(root / "masks/train", root / "masks/val")
    config = panfpn.recipes.folder(
        data__root=root, data__crop=(64, 64), data__num_workers=0, model__backbone="test_resnet", model__fpn_channels=8,
        model__head_channels=8, model__start_from=None, train__steps=4, train__batch_size=2, optim__warmup_steps=0,
        run__dir=folder / "whole", run__val_every=2, run__checkpoint_every=2, run__log_every=1, run__loggers=(),
        run__device="cpu", train__precision="float32",
    )  # fmt: skip
    panfpn.train(config)
    last = folder / "whole/last.safetensors"
    tensors, header = read_checkpoint(last, role="run")
    header["step"] = 2
    made: list[Callable[[Path], object]] = []

    def change(path: Path, tensors: Any = tensors, header: Any = header) -> None:
        write_checkpoint(path / "last.safetensors", tensors, header, role="run")

    whole = last.read_bytes()
    for data in (b"", whole[:1000], whole[:-1], *flipped(whole, range(9, len(whole)), 15)):
        made.append(lambda path, data=data: (path / "last.safetensors").write_bytes(data))
    for key, value in itertools.product(("step", "best_step", "bad_validations", "scaler", "best", "config", "data"),
                                        (None, -1, 1.5, "x", 10**12, [1], True)):  # fmt: skip
        if (key, value) not in (("best", None), ("best", -1), ("best", 1.5), ("best", 10**12), ("best", True)) and not (
            key in ("best_step", "bad_validations") and value == 10**12
        ):
            made.append(lambda path, h={**header, key: value}: change(path, header=h))
    for name in [name for name in tensors if name.startswith(("optim/", "model/"))][::25]:
        made.append(lambda path, name=name: change(path, {n: t for n, t in tensors.items() if n != name}))
        made.append(lambda path, name=name: change(path, {**tensors, name: torch.zeros(3, 5)}))
        if tensors[name].is_floating_point() and name.startswith("model/"):
            made.append(lambda path, name=name: change(path, {**tensors, name: tensors[name] * float("nan")}))
    made.append(lambda path: change(path, {**tensors, "optim/nothing/exp_avg": torch.zeros(1)}))
    made.append(
        lambda path: change(
            path, header={**header, "config": {**header["config"], "optim": {**header["config"]["optim"], "lr": 0.5}}}
        )
    )
    made.append(lambda path: (path / "last.safetensors").unlink())
    made.append(lambda path: shutil.copy(path / "model.safetensors", path / "last.safetensors"))
    for line in ("nonsense", "[]", '{"step": null}', "7"):
        made.append(
            lambda path, line=line: (path / "metrics.jsonl").write_text(
                f"{line}\n" + (path / "metrics.jsonl").read_text()
            )
        )
    for text in ("", "{", "optim: {lr: 5}", "data: {root: /nowhere}", LAUGHS):
        made.append(lambda path, text=text: (path / "config.yaml").write_text(text))
    made.append(lambda path: (path / "config.yaml").unlink())
    made.append(
        lambda path: (
            (path / "data.json").write_text("{")
            or change(
                path,
                header={
                    **header,
                    "data": {**header["data"], "training": {**header["data"]["training"], "sha256": "0" * 64}},
                },
            )
        )
    )
    for k, make in enumerate(made):
        path = folder / f"run{k}"

        def prepare(path: Path = path, make: Callable[[Path], object] = make) -> None:
            shutil.copytree(folder / "whole", path)
            change(path)
            make(path)

        yield Case("run folder", ("train", "--resume", str(path)), (str(path),), prepare=prepare)


KINDS: dict[str, Callable[[Path], Iterator[Case]]] = {
    "images": images, "masks": masks, "labels": yaml_tables, "configurations": configurations, "releases": releases,
    "pickles": pickles, "packs": packs, "panoptic": panoptic, "videos": videos, "words": words, "scores": scores,
    "environments": environments, "runs": runs,
}  # fmt: skip
