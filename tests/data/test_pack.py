"""A pack gives the data set's own samples bit by bit, or says what is wrong with it; it is never stale in silence."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from panfpn.build import build_dataset, build_datasets
from panfpn.cli import main
from panfpn.config import Data, TrainConfig
from panfpn.data import Dataset, check_pack, open_dataset, open_pack, pack, train_loader, write_pack
from panfpn.data.images import read_image
from panfpn.data.loader import DrawSampler
from panfpn.files import write_json
from transforming import train_transform

SPLITS = ("train", "val")


@pytest.fixture
def packed(folder_data: Path, tmp_path: Path) -> Path:
    """The pack of `folder_data`."""
    write_pack("folder", folder_data, tmp_path / "pack", SPLITS)
    return tmp_path / "pack"


def assert_same(first: Dataset, second: Dataset) -> None:
    assert len(first) == len(second) > 0 and first.table == second.table
    for i in range(len(first)):
        a, b = first.read(i), second.read(i)
        assert a.name == b.name == second.name(i)
        assert np.array_equal(a.image, b.image) and np.array_equal(a.target, b.target)
        assert b.image.flags.writeable and b.image.dtype == np.uint8 and b.target.dtype == np.int16


def pixel_files(folder: Path) -> dict[str, int]:
    """Each pixel file and the time when it was written."""
    return {p.relative_to(folder).as_posix(): p.stat().st_mtime_ns for p in folder.rglob("*.raw")}


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    index = json.loads((folder / "pack.json").read_text())
    change(index)
    write_json(folder / "pack.json", index)


def test_the_same_samples_as_from_the_files(folder_data: Path, packed: Path) -> None:
    for split in SPLITS:
        files = open_dataset("folder", folder_data, split)
        assert_same(files, open_pack(packed, "folder", split, folder_data))
        assert_same(files, open_pack(packed, "folder", split))


@pytest.mark.parametrize("workers", [0, 1])
def test_the_same_training_batches_as_from_the_files(folder_data: Path, packed: Path, workers: int) -> None:
    batches = []
    for data in (open_dataset("folder", folder_data, "train"), open_pack(packed, "folder", "train")):
        sampler = DrawSampler(steps=range(6), batch_size=4)
        transform = train_transform(crop=(32, 40), ratio=(0.5, 1.5))
        batches.append(list(train_loader(data, transform, sampler, seed=5, num_workers=workers)))
    assert len(batches[0]) == len(batches[1]) == 6
    for a, b in zip(*batches, strict=True):
        assert a.names == b.names and a.sizes == b.sizes
        assert torch.equal(a.images, b.images) and torch.equal(a.targets, b.targets)


def test_only_the_window_is_copied(packed: Path) -> None:
    image, mask = open_pack(packed, "folder", "train").open(0)
    assert isinstance(image.base.base, np.memmap) and not image.flags.owndata
    assert not mask.values.flags.owndata and mask.shape == image.shape[:2] == (48, 64)


MASKS = {
    "palette": (lambda m, p: Image.fromarray(m).convert("P").save(p), ".png", "values", "uint8"),
    "16 bit": (lambda m, p: cv2.imwrite(str(p), m.astype(np.uint16) * 200), ".png", "values", "uint16"),
    "32 bit": (lambda m, p: Image.fromarray(m.astype(np.int32) * 70_000).save(p), ".tif", "values", "int32"),
    "grey as RGB": (lambda m, p: Image.fromarray(m).convert("RGB").save(p), ".png", "values", "uint8"),
    "colours": (lambda m, p: Image.fromarray(np.stack([m, m * 0, 255 - m], -1)).save(p), ".png", "colors", "uint8"),
}


@pytest.mark.parametrize("kind", MASKS)
def test_every_kind_of_mask(kind: str, tmp_path: Path) -> None:
    """Two images of odd sizes, so that 16 and 32 bits have to be aligned."""
    save, suffix, masks, dtype = MASKS[kind]
    root, rng = tmp_path / "data", np.random.default_rng(0)
    for folder in ("images", "masks"):
        (root / folder / "train" / "sub").mkdir(parents=True)
    for name, shape in (("a", (7, 9)), ("sub/b", (5, 11))):
        cv2.imwrite(str(root / f"images/train/{name}.png"), rng.integers(0, 256, (*shape, 3)).astype(np.uint8))
        save(rng.choice(np.array([1, 2, 250], np.uint8), shape), root / f"masks/train/{name}{suffix}")
    factor = {"16 bit": 200, "32 bit": 70_000}.get(kind, 1)
    values = [f"'#{v:02x}00{255 - v:02x}'" if masks == "colors" else v * factor for v in (1, 2, 250)]
    (root / "labels.yaml").write_text(
        f"masks: {masks}\nignore: [{values[2]}]\n"
        f"classes:\n- {{name: one, value: {values[0]}}}\n- {{name: two, value: {values[1]}}}\n"
    )
    write_pack("folder", root, tmp_path / "pack", ["train"])
    data = open_pack(tmp_path / "pack", "folder", "train", root)
    assert_same(open_dataset("folder", root, "train"), data)
    assert data.name(1) == "sub/b" and {np.unique(data.read(i).target).tolist()[0] for i in (0, 1)} == {-1}
    channels = {True: (3,), False: ()}[masks == "colors"]
    assert [data.open(i)[1].values.shape[2:] for i in (0, 1)] == [channels, channels]
    assert {data.open(i)[1].values.dtype for i in (0, 1)} == {np.dtype(dtype)}


def test_cityscapes_with_train_ids_in_one_split(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for split, kind, values in (("train", "labelTrainIds", (13, 255)), ("val", "labelIds", (26, 4))):
        for i in range(2):
            mask = np.full((8, 8 + i), values[0], np.uint8)
            mask[:2] = values[1]
            for path, pixels in ((f"leftImg8bit/{split}/ulm/ulm_{i}_leftImg8bit.png", np.stack([mask] * 3, -1)),
                                 (f"gtFine/{split}/ulm/ulm_{i}_gtFine_{kind}.png", mask)):  # fmt: skip
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(root / path), pixels)
    write_pack("cityscapes", root, tmp_path / "pack", SPLITS)
    for split in SPLITS:
        data = open_pack(tmp_path / "pack", "cityscapes", split)
        assert_same(open_dataset("cityscapes", root, split), data)
        assert data.read(1).target.max() == 13 and data.table.decode(data.read(1).target).max() == 26


def test_a_stopped_pack_goes_on_where_it_stopped(
    folder_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, own, calls = tmp_path / "pack", pack._write_item, []

    def failing(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return own(*arguments)

    monkeypatch.setattr(pack, "_write_item", failing)
    with pytest.raises(KeyboardInterrupt):
        write_pack("folder", folder_data, folder, SPLITS)
    before = pixel_files(folder)
    assert len(before) == 4 and not list(folder.rglob(".*"))
    with pytest.raises(ValueError, match=r"split 'train' is not packed to its end; go on with `panfpn data pack "):
        open_pack(folder, "folder", "train")
    train, val = write_pack("folder", folder_data, folder, SPLITS)
    assert (train.packed, train.kept, val.packed, val.kept) == (2, 4, 3, 0) and len(calls) == 5 + 2 + 3
    assert before.items() < pixel_files(folder).items()
    assert_same(open_dataset("folder", folder_data, "train"), open_pack(folder, "folder", "train", folder_data))
    assert [(r.packed, r.kept, r.removed) for r in write_pack("folder", folder_data, folder, SPLITS)] == [
        (0, 6, 0), (0, 3, 0),
    ]  # fmt: skip
    assert len(calls) == 10


def test_killed_without_a_word_it_has_saved_what_it_did(
    folder_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL leaves the last state that was saved: here, that after each item."""
    monkeypatch.setattr(pack, "_SAVE_EVERY", -1.0)
    states: list[Path] = []
    own = pack._write_item

    def watched(folder: Path, *arguments: Any) -> Any:
        states.append(Path(shutil.copytree(folder, tmp_path / f"state{len(states)}")))
        return own(folder, *arguments)

    monkeypatch.setattr(pack, "_write_item", watched)
    write_pack("folder", folder_data, tmp_path / "pack", ["train"])
    monkeypatch.setattr(pack, "_write_item", own)
    assert len(states) == 6
    for done, state in enumerate(states):
        (state / "train").mkdir(exist_ok=True)
        (state / "train/.photo_5.raw.1a2b_c3.raw").write_bytes(b"half")  # what a kill leaves of `files.replacing`
        assert write_pack("folder", folder_data, state, ["train"])[0].kept == done
        assert check_pack(state, folder_data) == 6
        assert sorted(p.name for p in (state / "train").iterdir()) == [f"photo_{i}.raw" for i in range(6)]


def touch_later(path: Path) -> None:
    later = path.stat().st_mtime_ns + 10**9
    os.utime(path, ns=(later, later))


def change_pixel(path: Path) -> None:
    image = read_image(path)
    cv2.imwrite(str(path), 255 - image[:, :, ::-1])


def test_a_touched_file_is_judged_by_its_hash(folder_data: Path, packed: Path) -> None:
    image = folder_data / "images/train/photo_2.png"
    touch_later(image)
    assert len(open_pack(packed, "folder", "train", folder_data)) == 6
    before = pixel_files(packed)
    assert write_pack("folder", folder_data, packed, SPLITS)[0].packed == 0  # which takes over the new time
    index = json.loads((packed / "pack.json").read_text())
    assert index["splits"]["train"]["items"][2]["image"]["mtime_ns"] == image.stat().st_mtime_ns
    assert pixel_files(packed) == before
    data = bytearray(image.read_bytes())
    data[-20] ^= 1  # the same size
    image.write_bytes(data)
    touch_later(image)
    with pytest.raises(ValueError, match=r"images/train/photo_2\.png: has changed since"):
        open_pack(packed, "folder", "train", folder_data)


CHANGES: dict[str, tuple[Callable[[Path], object], str, tuple[int, int, int]]] = {
    "image": (lambda r: change_pixel(r / "images/train/photo_3.png"), r"photo_3\.png: has changed", (1, 5, 0)),
    "mask": (lambda r: shutil.copy(r / "masks/train/photo_1.png", r / "masks/train/photo_3.png"),
             r"masks/train/photo_3\.png: has changed", (1, 5, 0)),
    "missing": (lambda r: [(r / d / "train/photo_4.png").unlink() for d in ("images", "masks")],
                r"images/train/photo_4\.png: no longer there", (0, 5, 1)),
    "new": (lambda r: [shutil.copy(p, p.with_name("another.png")) for p in r.glob("*/train/photo_0.png")],
            r"images/train/another\.png: not in", (1, 6, 0)),
    "other suffix": (lambda r: (r / "images/train/photo_0.png").rename(r / "images/train/photo_0.bmp"),
                     r"photo_0\.bmp: not in", (1, 5, 0)),
    "labels": (lambda r: (r / "labels.yaml").write_text((r / "labels.yaml").read_text().replace("sky", "cloud")),
               r"its label table is not the one in", (0, 6, 0)),
}  # fmt: skip


@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_is_named_with_its_cure_which_packs_only_that(
    kind: str, folder_data: Path, packed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, message, counts = CHANGES[kind]
    change(folder_data)
    cure = rf"bring it up to date: `panfpn (data pack {folder_data} -o {packed} --dataset folder --splits train)`$"
    with pytest.raises(ValueError, match=rf"{message}[^\n]*the pack {packed}; {cure}") as error:
        open_pack(packed, "folder", "train", folder_data)
    before = pixel_files(packed)
    assert main(str(error.value).split("`panfpn ")[1].rstrip("`").split()) == 0
    assert "{} packed, {} already there, {} removed".format(*counts) in capsys.readouterr().out
    after = pixel_files(packed)
    assert len(before.items() - after.items()) == (counts[0] if kind != "new" else 0) + counts[2]
    assert_same(open_dataset("folder", folder_data, "train"), open_pack(packed, "folder", "train", folder_data))
    assert check_pack(packed) == sum(counts[:2]) + 3


def test_numbers_that_become_colours_are_packed_again(folder_data: Path, packed: Path) -> None:
    """Grey stored as RGB is packed as one channel for a table of numbers, and as three for one of colours."""
    for path in (folder_data / "masks").rglob("*.png"):
        cv2.imwrite(str(path), cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), cv2.COLOR_GRAY2BGR))
    write_pack("folder", folder_data, packed, SPLITS)
    (folder_data / "labels.yaml").write_text(
        "masks: colors\nignore: ['#ffffff']\nclasses:\n"
        "- {name: sky, value: '#000000'}\n- {name: ground, value: '#0a0a0a'}\n- {name: box, value: '#141414'}\n"
    )
    assert [result.packed for result in write_pack("folder", folder_data, packed, SPLITS)] == [6, 3]
    assert_same(open_dataset("folder", folder_data, "val"), open_pack(packed, "folder", "val", folder_data))


def test_a_damaged_pixel_file_is_named_and_mended(folder_data: Path, packed: Path) -> None:
    files = [packed / f"train/photo_{i}.raw" for i in range(3)]
    files[0].write_bytes(files[0].read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"photo_0\.raw: damaged pack: the file has 12287 bytes instead of 12288"):
        open_pack(packed, "folder", "train")
    write_pack("folder", folder_data, packed, SPLITS)
    data = open_pack(packed, "folder", "train", folder_data)
    files[1].unlink()
    with pytest.raises(ValueError, match=r"photo_1\.raw: damaged pack: the file is missing"):
        data.read(1)
    write_pack("folder", folder_data, packed, SPLITS)
    pixels = bytearray(files[2].read_bytes())
    pixels[100] ^= 1
    files[2].write_bytes(pixels)
    with pytest.raises(ValueError, match=r"photo_2\.raw: damaged pack: not the bytes that were packed"):
        check_pack(packed)
    files[2].unlink()
    write_pack("folder", folder_data, packed, SPLITS)
    assert check_pack(packed, folder_data) == 9


def test_check_finds_a_change_that_kept_size_and_time(folder_data: Path, packed: Path) -> None:
    image = folder_data / "images/val/photo_1.png"
    time, data = image.stat().st_mtime_ns, bytearray(image.read_bytes())
    data[-20] ^= 1
    image.write_bytes(data)
    os.utime(image, ns=(time, time))
    assert len(open_pack(packed, "folder", "val", folder_data)) == 3 and check_pack(packed) == 9
    with pytest.raises(ValueError, match=r"val/photo_1\.png: has changed .* but kept its size and time"):
        check_pack(packed, folder_data)


def item(index: dict[str, Any]) -> dict[str, Any]:
    return index["splits"]["train"]["items"][1]  # type: ignore[no-any-return]


DAMAGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "up": (lambda x: item(x).update(name="../photo"), r"items\.1: .*'\.\./photo' is not a path below a folder"),
    "absolute": (lambda x: item(x)["image"].update(path="/etc/x"), r"items\.1\.image: .*'/etc/x' is not a path"),
    "drive": (lambda x: item(x)["mask"].update(path="C:x"), r"'C:x' is not a path"),
    "split": (lambda x: x["splits"].update({"../x": x["splits"]["val"]}), r"split '\.\./x' cannot be packed"),
    "negative": (lambda x: item(x).update(height=-1), r"-1 rows of 56 pixels"),
    "type": (lambda x: item(x).update(mask_type="object"), r"a mask of 1 × object"),
    "channels": (lambda x: item(x).update(mask_channels=2), r"a mask of 2 × uint8"),
    "text": (lambda x: item(x).update(width="64"), r"splits\.train\.items\.1\.width: Input should be a valid integer"),
    "no hash": (lambda x: item(x).update(sha256="abc"), r"'abc' is not a SHA-256"),
    "lacking": (lambda x: item(x).pop("mask"), r"items\.1\.mask: Field required"),
    "twice": (lambda x: item(x).update(name="photo_0"), r"two items are named 'photo_0'"),
    "table": (lambda x: x["splits"]["train"].update(table={"classes": []}), r"`classes` must be a list"),
    "version": (lambda x: x.update(format="panfpn pack 9"), r"its format is 'panfpn pack 9'; this version reads"),
    "huge": (lambda x: item(x).update(height=10**6), r"photo_1\.raw: damaged pack: the file has .* instead of"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_index_is_one_sentence(kind: str, packed: Path) -> None:
    change, message = DAMAGES[kind]
    edit(packed, change)
    with pytest.raises(ValueError, match=rf"^{packed}/[^\n]*{message}[^\n]*$"):
        open_pack(packed, "folder", "train")


def test_what_is_no_pack(folder_data: Path, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (packed / "pack.json").write_bytes((packed / "pack.json").read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"pack\.json: the file: Invalid JSON"):
        open_pack(packed, "folder", "train")
    with pytest.raises(ValueError, match=r"nowhere: holds no pack .*make one: `panfpn data pack ROOT -o .*nowhere`"):
        open_pack(tmp_path / "nowhere", "folder", "train")
    for folder in (folder_data, folder_data / "labels.yaml"):
        with pytest.raises(ValueError, match=r"is not a pack, and not empty"):
            write_pack("folder", folder_data, folder, SPLITS)
    with pytest.raises(ValueError, match=r"at least one split"):
        write_pack("folder", folder_data, tmp_path / "new", [])
    monkeypatch.setattr(pack.shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(ValueError, match=r"0\.0 GB are needed there, and 0\.0 GB are free; nothing was written"):
        write_pack("folder", folder_data, tmp_path / "new", SPLITS)
    assert not (tmp_path / "new").exists()


def test_space_is_asked_for_what_is_written(folder_data: Path, tmp_path: Path) -> None:
    pairs = [(image, mask) for split in SPLITS for _, image, mask in open_dataset("folder", folder_data, split).items]
    asked = sum(pack._raw_bytes(image, 3) + pack._raw_bytes(mask) for image, mask in pairs)
    results = write_pack("folder", folder_data, tmp_path / "pack", SPLITS)
    assert asked == sum(r.num_bytes for r in results)
    assert asked == sum(p.stat().st_size for p in (tmp_path / "pack").rglob("*.raw"))


def test_a_wrong_mask_value_stops_the_packing_with_its_pixel(folder_data: Path, tmp_path: Path) -> None:
    path = folder_data / "masks/train/photo_1.png"
    mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    mask[4, 7] = 77
    cv2.imwrite(str(path), mask)
    with pytest.raises(ValueError, match=r"masks/train/photo_1\.png: value 77 \(1 pixels\).* row 4, column 7"):
        write_pack("folder", folder_data, tmp_path / "pack", SPLITS)


def test_settings(folder_data: Path, packed: Path) -> None:
    data = Data(root=folder_data, pack=packed)
    train, val = build_datasets(data)
    assert_same(open_dataset("folder", folder_data, "train"), train)
    assert_same(open_dataset("folder", folder_data, "val"), val)
    shutil.move(packed, packed.with_name("moved"))
    shutil.rmtree(folder_data)
    assert build_dataset(Data(pack=packed.with_name("moved")), "val").read(0).image.shape == (48, 64, 3)
    with pytest.raises(ValueError, match=r"packs a data set 'folder', but data\.dataset is 'camvid'"):
        build_dataset(Data(dataset="camvid", pack=packed.with_name("moved")), "val")
    with pytest.raises(ValueError, match=r"split 'test' is not in the pack; go on with `.*--splits test`"):
        build_dataset(Data(pack=packed.with_name("moved")), "test")
    with pytest.raises(ValueError, match=r"data\.pack is .* it must be none for procedural scenes"):
        TrainConfig(data=Data(dataset="scenes", pack=packed))


def test_command_line(folder_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, folder = str(folder_data), str(tmp_path / "pack")
    assert main(["data", "pack", root, "-o", folder]) == 0
    assert "train: 6 packed, 0 already there, 0 removed; 0.00 GB\n" in capsys.readouterr().out
    assert main(["data", "check", folder, "--root", root]) == 0
    assert "all 9 items are as they were packed" in capsys.readouterr().out
    tiny = ["--train.steps", "2", "--train.batch-size", "2", "--model.fpn-channels", "16", "--data.crop", "32", "32",
            "--model.backbone", "test_resnet", "--model.start-from", "None", "--optim.warmup-steps", "0",
            "--data.num-workers", "0"]  # fmt: skip
    for name, more in (("run_files", ["--data.root", root]), ("run_pack", ["--data.pack", folder])):
        run = tmp_path / name
        assert main(["train", "folder", *tiny, *more, "--run.dir", str(run)]) == 0
        assert main(["eval", str(run), "--json", str(run / "scores.json")]) == 0
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("run_files", "run_pack")]
    assert weights[0].keys() == weights[1].keys() and all(torch.equal(t, weights[1][k]) for k, t in weights[0].items())
    scores = [json.loads((tmp_path / name / "scores.json").read_text()) for name in ("run_files", "run_pack")]
    assert scores[0]["confusion"] == scores[1]["confusion"]
    assert yaml.safe_load((tmp_path / "run_pack/config.yaml").read_text())["data"]["pack"] == folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data", "pak"], "'pak' is not a verb of data; choose from import, pack, shard, check"),
        (["data", "pack"], "panfpn data pack --help"),
        (["data", "pack", "/nowhere", "-o", "x"], "/nowhere: no such folder"),
        (
            ["data", "pack", "/nowhere", "-o", "x", "--dataset", "scenes"],
            "data set 'scenes' under /nowhere cannot be packed",
        ),
        (["data", "pack", "/nowhere", "-o", "x", "--splits", "../up"], "split '../up' cannot be packed"),
        (["data", "check", "/nowhere"], "/nowhere: no such file or folder"),
        (
            ["eval", "camvid_lite0", "--data.pack", "/nowhere", "--data.dataset", "camvid"],
            "/nowhere: holds no pack",
        ),
    ],
)
def test_errors_are_one_sentence_and_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert message in err and err.startswith("panfpn: ") and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_kill_before_the_first_index_and_a_link_for_a_split(folder_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    (folder / ".pack.json.abc.json").write_text("{")  # what a kill leaves
    write_pack("folder", folder_data, folder, ["train"], progress=False)
    assert check_pack(folder, folder_data, progress=False) == 6
    linked, target = tmp_path / "linked", tmp_path / "target"
    target.mkdir()
    write_pack("folder", folder_data, linked, ["train"], progress=False)
    (linked / "val").symlink_to(target)
    with pytest.raises(ValueError, match=r"linked/val: is a link; a pack's split is a folder of its own"):
        write_pack("folder", folder_data, linked, ["val"], progress=False)
    assert not list(target.iterdir())
