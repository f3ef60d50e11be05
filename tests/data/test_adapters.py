"""Data sets of pairs and of torch: whatever holds the pixels, the samples are those of the files."""

import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import panfpn
from panfpn.data import as_dataset, from_pairs, from_torch, open_dataset, train_loader
from panfpn.data.loader import DrawSampler
from panfpn.labels import IGNORE, LabelClass, LabelTable
from transforming import train_transform

TABLE = LabelTable(
    name="toy", ignore=(255,),
    classes=(LabelClass(name="sky", color=(0, 0, 255), values=(0,)),
             LabelClass(name="box", color=(255, 0, 0), values=(20, 300)),
             LabelClass(name="far", color=(255, 255, 0), values=(70_000,))),
)  # fmt: skip
COLORS = LabelTable(
    name="colours", masks="colors",
    classes=(LabelClass(name="red", color=(255, 0, 0), values=(255,)),
             LabelClass(name="black", color=(0, 0, 0), values=(0,))),
)  # fmt: skip
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
MASK = np.random.default_rng(1).choice(np.array([0, 20, 255], np.uint8), (5, 7))
TARGET = np.array([0, 1, -1], np.int16)[np.searchsorted([0, 20, 255], MASK)]


class Torch(torch.utils.data.Dataset[Any]):
    """Items as they are given."""

    def __init__(self, *items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


def palette(mask: np.ndarray) -> Image.Image:
    picture = Image.fromarray(mask).copy()
    picture.putpalette([(37 * k + 11) % 256 for k in range(768)])
    return picture


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.copy())


IMAGES = {
    "array": PIXELS,
    "turned": np.ascontiguousarray(PIXELS[:, :, ::-1])[:, :, ::-1],
    "PIL": Image.fromarray(PIXELS),
    "tensor": tensor(PIXELS).permute(2, 0, 1),
}
MASKS = {
    "uint8": MASK, "int64": MASK.astype(np.int64), "uint16": MASK.astype(np.uint16), "one channel": MASK[:, :, None],
    "PIL": Image.fromarray(MASK), "palette": palette(MASK), "PIL 32 bits": Image.fromarray(MASK.astype(np.int32)),
    "grey as RGB": np.stack([MASK] * 3, -1), "tensor": tensor(MASK).long(), "tensor [1, H, W]": tensor(MASK)[None],
    "grey and alpha": Image.fromarray(np.stack([MASK, MASK // 2], -1), mode="LA"),
}  # fmt: skip


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("mask", MASKS)
def test_any_form_gives_the_same_sample(image: str, mask: str) -> None:
    for data in (
        from_pairs([(IMAGES[image], MASKS[mask])], TABLE),
        from_torch(Torch((IMAGES[image], MASKS[mask])), TABLE),
    ):
        sample = data.read(0)
        assert sample.name == data.name(0) == "000000"
        assert np.array_equal(sample.image, PIXELS) and sample.image.flags.c_contiguous
        assert np.array_equal(sample.target, TARGET) and sample.target.dtype == np.int16
        pixels, raw = data.open(0)
        assert np.array_equal(pixels, PIXELS) and np.array_equal(raw[1:3, 2:5], TARGET[1:3, 2:5])


def test_values_of_many_bits_colours_bits_and_grey() -> None:
    large = np.array([[0, 300, 70_000]], np.int32)
    grey = np.array([[1, 2, 3]], np.uint8)
    sample = from_pairs([(grey, large)], TABLE).read(0)
    assert sample.target.tolist() == [[0, 1, 2]] and sample.image.tolist() == [[[1] * 3, [2] * 3, [3] * 3]]
    rgb = np.zeros((5, 7, 3), np.uint8)
    rgb[2:, :, 0] = 255
    for mask in (rgb, Image.fromarray(rgb), Image.fromarray(np.dstack([rgb, rgb[:, :, :1]]))):  # with an alpha channel
        assert from_pairs([(PIXELS, mask)], COLORS).read(0).target[:, 0].tolist() == [1, 1, 0, 0, 0]
    two = LabelTable(name="two", classes=tuple(LabelClass(name=str(v), color=(v, v, v), values=(v,)) for v in (0, 1)))
    bits = MASK == 20
    for mask in (bits, tensor(bits), Image.fromarray(bits)):
        assert np.array_equal(from_pairs([(PIXELS, mask)], two).read(0).target, bits.astype(np.int16))


def test_files_as_pairs_are_the_folder(folder_data: Path) -> None:
    files = open_dataset("folder", folder_data, "train")
    pairs = [
        (str(folder_data / f"images/train/photo_{i}.png"), folder_data / f"masks/train/photo_{i}.png") for i in range(6)
    ]
    data = from_pairs(pairs, files.table)
    transform, found = train_transform(crop=(32, 40)), []
    for source in (files, data):
        sampler = DrawSampler(steps=range(3), batch_size=4)
        found.append(list(train_loader(source, transform, sampler, seed=3, num_workers=1)))
    for one, other in zip(*found, strict=True):
        assert one.names == other.names
        assert torch.equal(one.images, other.images) and torch.equal(one.targets, other.targets)
    (folder_data / "masks/train/photo_2.png").unlink()
    with pytest.raises(ValueError, match=r"photo_2.png: cannot be read"):
        data.read(2)
    cv2.imwrite(str(folder_data / "masks/train/photo_1.png"), np.full((40, 56), 77, np.uint8))
    with pytest.raises(ValueError, match=r"^\S*masks/train/photo_1.png: value 77 .* not in label table 'toy'"):
        data.read(1)


def test_exif_of_a_pil_image_is_applied() -> None:
    picture = Image.fromarray(PIXELS)
    picture.getexif()[0x0112] = 6  # to be turned by 90°
    sample = from_pairs([(picture, np.rot90(MASK, -1))], TABLE).read(0)
    assert np.array_equal(sample.image, np.rot90(PIXELS, -1)) and np.array_equal(sample.target, np.rot90(TARGET, -1))


def test_names() -> None:
    pair = (PIXELS, MASK)
    assert from_pairs([pair, pair], TABLE, ["a", "b/c"]).names == ("a", "b/c")
    assert from_pairs([("x/a.png", MASK), ("x/b.png", MASK)], TABLE).names == ("a", "b")
    assert from_pairs([("x/a.png", MASK), ("y/a.png", MASK), pair], TABLE).names == ("000000_a", "000001_a", "000002")
    with pytest.raises(ValueError, match="there are 1 names for 2 pairs"):
        from_pairs([pair, pair], TABLE, ["a"])
    with pytest.raises(ValueError, match="2 samples are named 'a'; a name is unique"):
        from_pairs([pair, pair], TABLE, ["a", "a"])


@pytest.mark.parametrize(
    ("image", "mask", "sentence"),
    [
        (PIXELS.astype(np.float32) / 255, MASK, "000000: the image has float32 pixels; an image is RGB uint8"),
        (tensor(PIXELS).permute(2, 0, 1) / 255, MASK,
         r"000000: the image is a Tensor of torch.float32 and shape \(3, 5, 7\); a tensor holds uint8 \[3, H, W\]"),
        (tensor(PIXELS), MASK, r"000000: the image is a Tensor of torch.uint8 and shape \(5, 7, 3\)"),
        (PIXELS.transpose(2, 0, 1), MASK, r"transpose this one: image.transpose\(1, 2, 0\)"),
        (np.zeros((5, 7, 4), np.uint8), MASK, "leave out the fourth channel"),
        (None, MASK, "000000: the image is a NoneType"),
        (PIXELS, None, "000000: the mask is NoneType; give a path, an array"),
        (PIXELS, MASK.T, "000000: the image is 7×5 pixels, but its mask 5×7; they must agree"),
        (PIXELS, MASK.astype(np.float32), "mask of 000000: float32 mask of shape .5, 7., but label table 'toy' reads"),
        (PIXELS, np.where(MASK == 20, 21, MASK), r"mask of 000000: value 21 \(\d+ pixels\) not in label table 'toy'"),
        (PIXELS, np.where(MASK == 20, -1, MASK.astype(np.int64)), r"mask of 000000: value -1 "),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_named(image: Any, mask: Any, sentence: str) -> None:
    for data in (from_pairs([(image, mask)], TABLE), from_torch(Torch((image, mask)), TABLE)):
        with pytest.raises(ValueError, match=sentence):
            data.read(0)


def test_what_is_no_data_set_of_pairs() -> None:
    for items, sentence in (
        ([], "there are no pairs of images and masks"),
        ([PIXELS], r"pairs\[0\]: expected a pair .image, mask., but there is ndarray of uint8"),
        ([(PIXELS, MASK), (PIXELS, MASK, 1)], r"pairs\[1\]: expected a pair .* tuple of length 3"),
    ):
        with pytest.raises(ValueError, match=sentence):
            from_pairs(items, TABLE)
    with pytest.raises(ValueError, match=r"table is list of length 1; give a panfpn\.LabelTable"):
        from_pairs([(PIXELS, MASK)], ["sky"])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"000000: expected a pair .image, mask., but there is dict of length 1"):
        from_torch(Torch({"image": 0}), TABLE).read(0)
    with pytest.raises(ValueError, match="Torch has no items"):
        from_torch(Torch(), TABLE)
    with pytest.raises(ValueError, match="generator has no __len__"):
        from_torch((x for x in range(3)), TABLE)


@pytest.mark.parametrize("make", [from_pairs, lambda pairs, table: from_torch(Torch(*pairs), table)])
def test_adapters_reach_workers(make: Any) -> None:
    data = pickle.loads(pickle.dumps(make([(PIXELS, MASK), (Image.fromarray(PIXELS), tensor(MASK))], TABLE)))  # noqa: S301
    for i in range(2):
        assert np.array_equal(data.read(i).target, TARGET) and np.array_equal(data.read(i).image, PIXELS)


class Minimal:
    """The four members, and no more."""

    def __init__(self, table: LabelTable = TABLE, count: int = 1) -> None:
        self.table, self.count = table, count

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return f"m{index}"

    def read(self, index: int) -> panfpn.types.Sample:
        return panfpn.types.Sample(PIXELS, TARGET, self.name(index))


def test_as_dataset() -> None:
    minimal, pairs = Minimal(), from_pairs([(PIXELS, MASK)], TABLE)
    assert as_dataset(minimal) is minimal and as_dataset(minimal, TABLE) is minimal and as_dataset(pairs) is pairs
    for data in ([(PIXELS, MASK)], Torch((PIXELS, MASK))):
        assert np.array_equal(as_dataset(data, TABLE).read(0).target, TARGET)
    assert (as_dataset(minimal).read(0).target == IGNORE).any()


class Half:
    def read(self, index: int) -> None: ...
    def __getitem__(self, index: int) -> None: ...
    def __len__(self) -> int:
        return 3


@pytest.mark.parametrize(
    ("data", "table", "sentence"),
    [
        (Torch((PIXELS, MASK)), None, r"Torch has no `table`; pass panfpn.from_torch\(dataset, table\)"),
        ([(PIXELS, MASK)], None, r"a list has no `table`; pass panfpn.from_pairs\(pairs, table\)"),
        ("data/images", None, "'data/images' is a path; open what lies there with panfpn.data.open_dataset"),
        (Path("x"), TABLE, "'x' is a path"),
        (Half(), TABLE, r"Half has no name; a data set has __len__, name\(i\), read\(i\) and table"),
        (None, None, "NoneType has no __len__, name, read; a data set has"),
        (Minimal(table=None), None, "Minimal has no `table`, the panfpn.LabelTable of its train ids"),
        (Minimal(), COLORS, "Minimal has a label table of its own .'toy'., so no other can be given"),
        (Minimal(count=0), None, "Minimal has no samples"),
        (7, None, "int has no __len__, name, read"),
    ],
)  # fmt: skip
def test_what_is_missing_is_said(data: Any, table: LabelTable | None, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        as_dataset(data, table)
