"""The doctor finds what was planted, names the file, and finds nothing in what is sound."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from foreign_sets import photos, write_coco, write_voc
from panfpn.cli import main
from panfpn.data.doctor import Diagnosis, Finding, diagnose

Array = npt.NDArray[Any]
HEIGHT, WIDTH = 96, 128
LABELS = """name: yard
classes:
  - {name: ground, value: 0}
  - {name: wall, value: 1}
  - {name: person, value: 2, thing: true}
  - {name: ghost, value: 3}
  - {name: cat, value: 4}
ignore: [255]
"""


def photo(number: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Array:
    """Blobs and grain, other ones for each number."""
    generator = np.random.default_rng(number)
    coarse = generator.integers(0, 255, (6, 8, 3)).astype(np.uint8)
    picture = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC).astype(np.int16)
    return (picture + generator.integers(-12, 12, picture.shape)).clip(0, 255).astype(np.uint8)


def labels(number: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Array:
    """Ground, a wall and a person that stand elsewhere for each number, and something ignored."""
    generator = np.random.default_rng(1000 + number)
    mask = np.zeros(size, np.uint8)
    row, column = int(generator.integers(8, size[0] // 2)), int(generator.integers(8, size[1] // 2))
    mask[row:] = 1
    mask[row : row + 6, column : column + 7] = 2
    mask[:3] = 255
    return mask


class Yard:
    """A sound set of 12 and 6 photos, in which things can be planted."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "labels.yaml").parent.mkdir(parents=True, exist_ok=True)
        (root / "labels.yaml").write_text(LABELS)
        for split, numbers in (("train", range(12)), ("val", range(12, 18))):
            for number in numbers:
                self.put(split, f"p{number:02d}", photo(number), labels(number))

    def image(self, split: str, name: str, suffix: str = ".png") -> Path:
        return self.root / "images" / split / f"{name}{suffix}"

    def mask(self, split: str, name: str, suffix: str = ".png") -> Path:
        return self.root / "masks" / split / f"{name}{suffix}"

    def put(self, split: str, name: str, pixels: Array | None, mask: Array | None, **options: Any) -> None:
        for path, array in ((self.image(split, name, options.pop("suffix", ".png")), pixels),
                            (self.mask(split, name), mask)):  # fmt: skip
            path.parent.mkdir(parents=True, exist_ok=True)
            if array is not None:
                Image.fromarray(array).save(path, **(options if path.parent.parent.name == "images" else {}))

    def look(self) -> Diagnosis:
        return diagnose("folder", self.root, ("train", "val"), num_workers=0, progress=False)


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path / "yard")


def add_mask_of_other_colors(yard: Yard, name: str) -> None:
    Image.fromarray(photo(90)).save(yard.mask("train", name))


def exif(orientation: int) -> Image.Exif:
    data = Image.Exif()
    data[0x0112] = orientation
    return data


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def claim(path: Path) -> None:
    """A PNG whose header says 60,000 × 60,000 pixels."""
    import struct  # noqa: PLC0415
    import zlib  # noqa: PLC0415

    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    path.write_bytes(bytes(data))


# What is planted, which file the finding must name, and how it is called.
FAULTS: dict[str, tuple[Callable[[Yard], object], str, str]] = {
    "an image without a mask": (lambda y: y.put("train", "x", photo(50), None), "images/train/x.png", "files"),
    "a mask without an image": (lambda y: y.put("train", "x", None, labels(50)), "masks/train/x.png", "files"),
    "a value that nothing names": (lambda y: y.put("train", "x", photo(50), labels(50) // 2 * 9), "masks/train/x.png",
                                   "cannot be read"),
    "a mask of another size": (lambda y: y.put("train", "x", photo(50), labels(50, (96, 120))), "masks/train/x.png",
                               "cannot be read"),
    "a damaged image": (lambda y: [y.put("train", "x", photo(50), labels(50)), cut(y.image("train", "x"))],
                        "images/train/x.png", "cannot be read"),
    "a damaged JPEG": (lambda y: [y.put("train", "x", photo(50), labels(50), suffix=".jpg"),
                                  cut(y.image("train", "x", ".jpg"))], "images/train/x.jpg", "cannot be read"),
    "an empty file": (lambda y: [y.put("train", "x", photo(50), labels(50)), y.image("train", "x").write_bytes(b"")],
                      "images/train/x.png", "cannot be read"),
    "text for an image": (lambda y: [y.put("val", "x", photo(50), labels(50)), y.image("val", "x").write_text("hi")],
                          "images/val/x.png", "cannot be read"),
    "a damaged mask": (lambda y: [y.put("train", "x", photo(50), labels(50)), cut(y.mask("train", "x"))],
                       "masks/train/x.png", "cannot be read"),
    "a mask as JPEG": (lambda y: [y.put("train", "x", photo(50), None),
                                  Image.fromarray(labels(50)).save(y.mask("train", "x", ".jpg"))],
                       "masks/train/x.jpg", "cannot be read"),
    "a photo for a mask": (lambda y: [y.put("train", "x", photo(50), None), add_mask_of_other_colors(y, "x")],
                           "masks/train/x.png", "cannot be read"),
    "a giant": (lambda y: [y.put("train", "x", photo(50), labels(50)), claim(y.image("train", "x"))],
                "images/train/x.png", "cannot be read"),
    "16 bits": (lambda y: [y.put("train", "x", None, labels(50)),
                           cv2.imwrite(str(y.image("train", "x")), photo(50).astype(np.uint16) * 200)],
                "images/train/x.png", "cannot be read"),
    "a turned photo that does not tell": (
        lambda y: y.put("train", "x", photo(50, (96, 96)), labels(50, (96, 96)), suffix=".jpg", exif=exif(6)),
        "images/train/x.jpg", "cannot be read"),
    "a turned photo": (lambda y: y.put("train", "x", photo(50), labels(50, (WIDTH, HEIGHT)), suffix=".jpg",
                                       exif=exif(6)), "images/train/x.jpg", "turned photos"),
    "the same picture twice": (lambda y: y.put("train", "x", photo(3), labels(3)), "images/train/x.png", "duplicate"),
    "the same picture with other labels": (lambda y: y.put("train", "x", photo(3), labels(50)), "images/train/x.png",
                                           "duplicate"),
    "a picture of train in val": (lambda y: y.put("val", "x", photo(3), labels(3)), "images/val/x.png", "leak"),
    "a copy of lower quality": (lambda y: y.put("train", "x", photo(3), labels(50), suffix=".jpg", quality=60),
                                "images/train/x.jpg", "near duplicate"),
    "a smaller copy in val": (
        lambda y: y.put("val", "x", cv2.resize(photo(5), (96, 72), interpolation=cv2.INTER_AREA), labels(50, (72, 96))),
        "images/val/x.png", "near leak"),
    "one mask for two photos": (lambda y: y.put("train", "x", photo(50), labels(3)), "images/train/x.png",
                                "one mask for several images"),
    "a blank image": (lambda y: y.put("train", "x", np.full((HEIGHT, WIDTH, 3), 80, np.uint8), labels(50)),
                      "images/train/x.png", "blank image"),
    "nothing labelled": (lambda y: y.put("train", "x", photo(50), np.full((HEIGHT, WIDTH), 255, np.uint8)),
                         "masks/train/x.png", "nothing labelled"),
    "a class in val alone": (lambda y: y.put("val", "x", photo(50), labels(50).clip(max=1) * np.uint8(4)),
                             "masks/val/x.png", "class not in train"),
    "a tiny image": (lambda y: y.put("train", "x", photo(50, (20, 24)), labels(50, (20, 24))), "images/train/x.png",
                     "unusual size"),
    "a strip": (lambda y: y.put("train", "x", photo(50, (40, 400)), labels(50, (40, 400))), "images/train/x.png",
                "unusual shape"),
    "another suffix": (lambda y: y.image("train", "x", ".txt").write_text("note"), "images/train/x.txt", "left out"),
    "a link to nothing": (lambda y: y.image("train", "x").symlink_to(y.root / "gone.png"), "images/train/x.png",
                          "left out"),
}  # fmt: skip


def told(diagnosis: Diagnosis) -> list[Finding]:
    """Without what the sound set says of itself: a class that nothing has."""
    return [f for f in diagnosis.findings if f.kind != "class without pixels"]


def test_a_sound_set_has_nothing_but_a_class_without_pixels(yard: Yard) -> None:
    diagnosis = yard.look()
    assert told(diagnosis) == [] and not diagnosis.problems
    (finding,) = diagnosis.findings
    assert "2 of 5 classes have no pixel anywhere: ghost, cat" in finding.sentence
    counts = diagnosis.splits[0].counts(5)
    masks = [labels(n) for n in range(12)]
    assert counts.tolist() == [sum(int((m == v).sum()) for m in masks) for v in (0, 1, 2, 3, 4, 255)]


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found_alone(fault: str, yard: Yard) -> None:
    plant, file, kind = FAULTS[fault]
    plant(yard)
    found = told(yard.look())
    assert [f.kind for f in found] == [kind], [f.sentence for f in found]
    assert str(yard.root / file) in found[0].sentence and "\n" not in found[0].sentence


def test_all_together(yard: Yard) -> None:
    for number, (fault, (plant, _, _)) in enumerate(FAULTS.items()):
        if fault in ("the same picture with other labels", "a picture of train in val", "one mask for two photos"):
            continue  # of pictures and masks that others use too
        plant(Renamed(yard, f"x{number}"))
    kinds = [f.kind for f in told(yard.look())]
    expected = {kind for _, _, kind in FAULTS.values()} - {"leak", "one mask for several images"}
    assert expected <= set(kinds)
    assert kinds.count("cannot be read") == sum(kind == "cannot be read" for _, _, kind in FAULTS.values())


class Renamed(Yard):
    """A yard in which each fault gets a name and a photo of its own."""

    def __init__(self, yard: Yard, name: str) -> None:
        self.root, self.alias = yard.root, name
        self.offset = int(name[1:])

    def image(self, split: str, name: str, suffix: str = ".png") -> Path:
        return super().image(split, self.alias, suffix)

    def mask(self, split: str, name: str, suffix: str = ".png") -> Path:
        return super().mask(split, self.alias, suffix)

    def put(self, split: str, name: str, pixels: Array | None, mask: Array | None, **options: Any) -> None:
        if pixels is not None and np.array_equal(pixels, photo(50)):
            pixels = photo(200 + self.offset)
        super().put(split, name, pixels, mask, **options)


def test_instances(yard: Yard) -> None:
    for split, numbers in (("train", range(12)), ("val", range(12, 18))):
        for n in numbers:
            path = yard.root / "instances" / split / f"p{n:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((labels(n) == 2).astype(np.uint8)).save(path)
    assert told(yard.look()) == []
    (yard.root / "instances/train/p03.png").unlink()
    two = np.zeros((HEIGHT, WIDTH), np.uint8)
    two[-4:] = 7  # of the wall, which is stuff
    Image.fromarray(two).save(yard.root / "instances/train/p04.png")
    tiny = (labels(5) == 2).astype(np.uint8)
    row, column = np.argwhere(tiny)[0]
    tiny[row, column] = 2
    Image.fromarray(tiny).save(yard.root / "instances/train/p05.png")
    found = {f.kind: f.sentence for f in told(yard.look())}
    assert set(found) == {"files", "cannot be read", "tiny thing"}
    assert "p03.png: image of split 'train' that has no map of instance ids" in found["files"]
    assert (
        "p04.png: instance 7" in found["cannot be read"] and "p05.png: holds a thing of 1 pixel" in found["tiny thing"]
    )


def test_the_command_writes_page_and_numbers(yard: Yard, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    yard.put("val", "x", photo(3), labels(3))
    page, numbers = tmp_path / "data.html", tmp_path / "data.json"
    assert main(["data", "check", str(yard.root), "--page", str(page), "--json", str(numbers)]) == 2
    said = capsys.readouterr().out
    assert "in train and val, so scores are too good" in said and "all splits: 1 problem" in said
    assert "ghost, cat" in said and "person" in said and "19 images from 128×96 to 128×96 pixels" in said
    data = json.loads(numbers.read_text())
    assert data["layout"] == "folder" and data["splits"]["train"]["images"] == 12
    assert [f["kind"] for f in data["findings"] if f["severity"] == "problem"] == ["leak"]
    html = page.read_text()
    assert html.count("data:image/jpeg") >= 3 * 3 + 2 and "<script" not in html and "val/x" in html


def test_masks_without_labels_yaml_get_one_proposed(yard: Yard, capsys: pytest.CaptureFixture[str]) -> None:
    (yard.root / "labels.yaml").unlink()
    assert main(["data", "check", str(yard.root)]) == 0
    said = capsys.readouterr().out
    proposed = said[said.index("classes:") : said.index("ignore: [255]")]
    assert proposed.count("value:") == 3 and "{name: class_2, value: 2}" in proposed and "in 18 masks" in proposed
    (yard.root / "labels.yaml").write_text(proposed + "ignore: [255]\n")
    assert main(["data", "check", str(yard.root)]) == 0


def test_near_copies_are_compared_by_more_than_their_signs(yard: Yard) -> None:
    """Two pictures with the same gradients, one much brighter: no copies."""
    ramp = np.linspace(0, 60, WIDTH)[None, :, None] + np.zeros((HEIGHT, 1, 3))
    yard.put("train", "dark", ramp.astype(np.uint8), labels(60))
    yard.put("train", "light", (ramp + 150).astype(np.uint8), labels(61))
    assert told(yard.look()) == []


def test_dark_pictures_with_small_spots_are_no_copies(yard: Yard) -> None:
    for number in range(6):
        generator, dark = np.random.default_rng(70 + number), np.zeros((256, 256, 3), np.uint8)
        for x, y in generator.integers(4, 252, (14, 2)).tolist():
            cv2.circle(dark, (x, y), 2, (30, 30, 30), -1)
        yard.put("train", f"dark{number}", dark, labels(70 + number, (256, 256)))
    assert told(yard.look()) == []


def test_a_copy_with_its_own_mask_is_one_finding(yard: Yard) -> None:
    yard.put("train", "x", photo(3), labels(3), suffix=".jpg", quality=70)
    assert [f.kind for f in told(yard.look())] == ["near duplicate"]


def test_splits_with_other_classes_are_counted_by_name(tmp_path: Path) -> None:
    for split, names in (("train", ("washer",)), ("val", ("bolt", "washer"))):
        pictures = photos(4, first=len(split))
        for picture in pictures:
            picture.things = [t for t in picture.things if t.name in names]
        write_coco(tmp_path, split, pictures)
        file = tmp_path / "annotations" / f"instances_{split}.json"
        data = json.loads(file.read_text())
        data["categories"] = [c for c in data["categories"] if c["name"] in names]
        file.write_text(json.dumps(data))
    diagnosis = diagnose("coco", tmp_path, ("train", "val"), progress=False)
    assert "label tables" in [f.kind for f in diagnosis.problems]
    counts = {r.split: dict(zip(diagnosis.table.names, r.counts(3), strict=False)) for r in diagnosis.splits}
    assert set(diagnosis.table.names) == {"background", "bolt", "washer"}
    assert counts["train"]["bolt"] == 0 and counts["val"]["bolt"] > 0 and counts["val"]["washer"] > 0


def test_what_is_left_out_is_counted_once(tmp_path: Path) -> None:
    """Where a split is opened twice, as it tells no things apart."""
    write_voc(tmp_path, "train", photos(3))
    for path in (tmp_path / "SegmentationObject").iterdir():
        path.unlink()
    (tmp_path / "SegmentationObject").rmdir()
    (tmp_path / "JPEGImages" / "notes.txt").write_text("x")
    diagnosis = diagnose("voc", tmp_path, ("train",), progress=False)
    assert diagnosis.splits[0].left_out.counts == {"no image (.txt)": 1}
