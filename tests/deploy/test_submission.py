"""Submission files: names and values as the servers want them, and the check that reads them again."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from panfpn import build
from panfpn.cli import main
from panfpn.config import Model, TrainConfig
from panfpn.data.images import decode_ids, read_image, read_mask
from panfpn.deploy.folder import Outcome, predict_to_folder
from panfpn.deploy.predictor import Predictor
from panfpn.deploy.submission import submission_for
from panfpn.deploy.submission.label_files import LabelFiles
from panfpn.deploy.submission.segment_files import SegmentFiles
from panfpn.files import read_bytes, read_json, write_json
from panfpn.labels import LabelTable
from panfpn.listing import LeftOut
from panfpn.types import PanopticMap
from panfpn.weights.release import write_release

CITIES = ("bonn_000001_000019", "berlin_000000_000020")


@pytest.fixture(scope="module")
def model_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    files = {}
    for name in ("cityscapes", "ade20k"):
        torch.manual_seed(0)
        table = LabelTable.named(name)
        config = build.resolve(
            TrainConfig(model=Model(backbone="resnet18", fpn_channels=8, head_channels=8)).changed(run__device="cpu"),
            table,
        )
        task = build.build_task(config, table)
        files[name] = tmp_path_factory.mktemp(name) / "m.safetensors"
        write_release(files[name], task.model.state_dict(), config, table, scores={}, source={})
    return files


def cityscapes(root: Path) -> Path:
    """Two images in the benchmark's layout; returns the folder of images."""
    rng = np.random.default_rng(0)
    for name in CITIES:
        city = name.split("_")[0]
        for kind, values in (
            ("leftImg8bit", rng.integers(0, 256, (40, 70, 3))),
            ("gtFine", rng.integers(0, 34, (40, 70))),
        ):
            suffix = {"leftImg8bit": "leftImg8bit", "gtFine": "gtFine_labelIds"}[kind]
            path = root / kind / "val" / city / f"{name}_{suffix}.png"
            path.parent.mkdir(parents=True)
            cv2.imwrite(str(path), values.astype(np.uint8))
    return root / "leftImg8bit" / "val"


def test_cityscapes_files(model_files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, out = cityscapes(tmp_path / "cityscapes"), tmp_path / "out"
    options = ["--model", str(model_files["cityscapes"]), "--format", "cityscapes", "--check", "True"]
    assert main(["predict", str(images), "--out", str(out), *options]) == 0
    assert sorted(p.name for p in out.iterdir()) == sorted(f"{name}_pred.png" for name in CITIES)
    for file in out.iterdir():  # what cityscapesScripts looks for: CITY_SEQ_FRAME*.png, regular ids, the image's size
        assert re.fullmatch(r"[a-z]+_\d{6}_\d{6}.*\.png", file.name)
        mask = read_mask(file)
        assert mask.shape == (40, 70) and mask.dtype == np.uint8
        assert set(np.unique(mask)) <= {c.values[0] for c in LabelTable.named("cityscapes").classes}
        assert mask.min() >= 7  # road is 7 there, not 0
    printed = capsys.readouterr().out
    assert "2 files are as cityscapes wants them" in printed and "averageScoreClasses" in printed


def test_ade20k_files_without_ground_truth(
    model_files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "testing").mkdir()
    cv2.imwrite(str(tmp_path / "testing/ADE_test_00000001.jpg"), np.full((30, 50, 3), 90, np.uint8))
    options = ["--model", str(model_files["ade20k"]), "--format", "ade20k", "--check", "True"]
    assert main(["predict", str(tmp_path / "testing"), "--out", str(tmp_path / "out"), *options]) == 0
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["ADE_test_00000001.png"]
    mask = read_mask(tmp_path / "out/ADE_test_00000001.png")
    assert mask.min() >= 1 and mask.max() <= 150
    assert "no ground truth beside the images, so they were not scored" in capsys.readouterr().out


def check_of(tmp_path: Path, values: np.ndarray) -> tuple[int, float]:
    """Check `values` as the prediction of the first image, whose ground truth stays as it is."""
    images = cityscapes(tmp_path / "cityscapes")
    submission = submission_for("cityscapes", LabelTable.named("cityscapes"))
    image = next(images.rglob(f"{CITIES[0]}*.png"))
    cv2.imwrite(str(tmp_path / f"{CITIES[0]}_pred.png"), values)
    count, scores = submission.check([image], tmp_path)
    assert scores is not None
    return count, scores.miou


def test_the_ground_truth_itself_is_perfect(tmp_path: Path) -> None:
    images = cityscapes(tmp_path / "cityscapes")
    truth = read_mask(
        submission_for("cityscapes", LabelTable.named("cityscapes")).ground_truth(next(images.rglob("bonn_*.png")))
    )
    scored = [c.values[0] for c in LabelTable.named("cityscapes").classes]
    written = np.where(np.isin(truth, scored), truth, 7).astype(np.uint8)  # unscored pixels must say something
    (tmp_path / "b").mkdir()
    assert check_of(tmp_path / "b", written) == (1, 1.0)
    (tmp_path / "c").mkdir()
    assert check_of(tmp_path / "c", np.full_like(written, 7))[1] < 0.1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((40, 70), 3, np.uint8), "holds the value 3, which is not scored"),
        (np.full((40, 70), 99, np.uint8), "value 99 (2800 pixels) not in label table 'cityscapes'"),
        (np.full((40, 71), 7, np.uint8), "is uint8 of shape (40, 71), but the image"),
        (np.full((40, 70), 7, np.uint16), "is uint16 of shape (40, 70)"),
    ],
)
def test_what_the_server_would_refuse_is_named(values: np.ndarray, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        check_of(tmp_path, values)
    assert f"{CITIES[0]}_pred.png" in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    images = cityscapes(tmp_path)
    submission = submission_for("cityscapes", LabelTable.named("cityscapes"))
    with pytest.raises(ValueError, match=r"berlin_000000_000020_pred\.png: missing; it is the prediction of"):
        submission.check(sorted(images.rglob("*.png")), tmp_path)


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"format is 'voc'; did you mean coco.*cityscapes, ade20k, coco-panoptic, city"
    ):
        submission_for("voc", LabelTable.named("cityscapes"))
    with pytest.raises(ValueError, match=r"label table 'camvid' \(11 classes\) is not that of cityscapes"):
        submission_for("cityscapes", LabelTable.named("camvid"))
    submission = LabelFiles(format="cityscapes", table=LabelTable.named("cityscapes"))
    with pytest.raises(ValueError, match=r"photo\.jpg: its name is not CITY_SEQ_FRAME_leftImg8bit"):
        submission.names([Path("photo.jpg")])
    with pytest.raises(ValueError, match=r"would be written as a\.png, and a submission is one flat folder"):
        LabelFiles(format="ade20k", table=LabelTable.named("ade20k")).names([Path("x/a.jpg"), Path("y/a.jpg")])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--check", "True"], "--check goes with --format"),
        (["--format", "cityscapes", "--save", "overlay"], "--format cityscapes writes labels only"),
        (["--format", "cityscapes"], "label table 'camvid' (11 classes) is not that of cityscapes"),
    ],
)
def test_options_that_do_not_go_together(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((32, 32, 3), np.uint8))
    assert main(["predict", str(tmp_path / "a.png"), "--out", str(tmp_path / "out"), *options]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_neither_an_image_nor_a_prediction_is_taken_for_ground_truth(tmp_path: Path) -> None:
    submission = submission_for("ade20k", LabelTable.named("ade20k"))
    cv2.imwrite(str(tmp_path / "a.jpg"), np.zeros((20, 20, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "a.png"), np.ones((20, 20), np.uint8))  # the prediction, beside the image
    assert submission.check([tmp_path / "a.jpg"], tmp_path) == (1, None)


def test_ground_truth_is_never_overwritten(model_files: dict[str, Path], tmp_path: Path) -> None:
    truth = tmp_path / "annotations" / "validation" / "a.png"
    for path in (tmp_path / "images" / "validation" / "a.jpg", truth):
        path.parent.mkdir(parents=True)
        cv2.imwrite(str(path), np.zeros((32, 32, 3), np.uint8))
    before = truth.read_bytes()
    predictor = Predictor.from_file(model_files["ade20k"], device="cpu")
    submission = submission_for("ade20k", predictor.table)
    with pytest.raises(ValueError, match=r"would overwrite .*annotations/validation/a\.png; choose another folder"):
        predict_to_folder(
            [tmp_path / "images"], truth.parent, predictor=predictor, what=("labels",), submission=submission
        )  # names below the folder given are flat in a submission
    assert truth.read_bytes() == before


def test_results_beside_the_images_are_checked(model_files: dict[str, Path], tmp_path: Path) -> None:
    images = next(cityscapes(tmp_path).iterdir())
    options = ["--model", str(model_files["cityscapes"]), "--format", "cityscapes", "--check", "True"]
    assert main(["predict", str(images), "--out", str(images), *options]) == 0


COCO = LabelTable.named("coco_panoptic")


def predicted(
    fake: Any, images: list[Path], out: Path, format: str, table: LabelTable = COCO, **options: Any
) -> SegmentFiles:
    """Write a submission of random maps of the images."""
    submission = submission_for(format, table, maps=PanopticMap, **options)
    predictor, what = Predictor(fake(table)), ("panoptic",)
    done = predict_to_folder(images, out, predictor=predictor, what=what, submission=submission, progress=False)
    assert done == Outcome(len(images), (), LeftOut())
    return submission


def coco(root: Path, numbers: Sequence[int] = (285, 632, 9)) -> list[Path]:
    """Images in COCO's layout."""
    paths = [root / "val2017" / f"{number:012d}.jpg" for number in numbers]
    paths[0].parent.mkdir(parents=True)
    for i, path in enumerate(paths):
        cv2.imwrite(str(path), np.random.default_rng(i).integers(0, 256, (40 + i, 70, 3)).astype(np.uint8))
    return paths


def test_coco_panoptic_files(fake_panoptic_task: Any, panoptic_map: Any, tmp_path: Path) -> None:
    images, out = coco(tmp_path), tmp_path / "out"
    submission = predicted(fake_panoptic_task, images, out, "coco-panoptic")
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*.*")) == sorted(
        ["panoptic.json", *(f"panoptic/{p.stem}.png" for p in images)]
    )
    data = read_json(out / "panoptic.json")
    assert [a["image_id"] for a in data["annotations"]] == [285, 632, 9]
    assert data["images"][1] == {"id": 632, "file_name": "000000000632.jpg", "height": 41, "width": 70}
    assert len(data["categories"]) == 133
    assert {c["id"]: c["isthing"] for c in data["categories"]}.items() >= {1: 1, 90: 1, 92: 0, 200: 0}.items()
    category = {c["id"]: c["name"] for c in data["categories"]}
    for image, annotation in zip(images, data["annotations"], strict=True):
        found = panoptic_map(COCO, read_image(image))
        assert annotation["file_name"] == f"{image.stem}.png"
        ids = decode_ids(read_bytes(out / "panoptic" / annotation["file_name"]), rgb=True)
        np.testing.assert_array_equal(ids, found.segments)
        assert [(s["id"], category[s["category_id"]]) for s in annotation["segments_info"]] == [
            (s.id, s.name) for s in found.info
        ]
    assert submission.check(images, out) == (3, None)  # no ground truth here


def test_cityscapes_panoptic_files(fake_panoptic_task: Any, panoptic_map: Any, tmp_path: Path) -> None:
    images, out = sorted(cityscapes(tmp_path).rglob("*.png")), tmp_path / "out"
    table = LabelTable.named("cityscapes")
    predicted(fake_panoptic_task, images, out, "cityscapes-panoptic", table)
    data = read_json(out / "panoptic.json")
    assert [a["image_id"] for a in data["annotations"]] == sorted(CITIES)
    assert [a["file_name"] for a in data["annotations"]] == [f"{c}_gtFine_panoptic.png" for c in sorted(CITIES)]
    for image, annotation in zip(images, data["annotations"], strict=True):
        found = panoptic_map(table, read_image(image))
        ids = decode_ids(read_bytes(out / "panoptic" / annotation["file_name"]), rgb=True)
        for record, segment in zip(annotation["segments_info"], found.info, strict=True):
            value = table.classes[segment.train_id].values[0]
            assert record["category_id"] == value
            assert (record["id"] // 1000 if segment.thing else record["id"]) == value  # 26003: the fourth car
            np.testing.assert_array_equal(ids == record["id"], found.segments == segment.id)
        assert len({record["id"] for record in annotation["segments_info"]}) == len(found.info)


def test_real_coco_against_itself_and_by_chance(shared: Path, fake_panoptic_task: Any, tmp_path: Path) -> None:
    """The check scores against the data set's own annotations, which it finds from the images or is told."""
    root = shared / "data" / "coco_panoptic"
    images = sorted((root / "val2017").glob("*.jpg"))[:4]
    file = root / "annotations" / "panoptic_val2017.json"
    submission = predicted(fake_panoptic_task, images, tmp_path / "out", "coco-panoptic", annotations=file)
    count, scores = submission.check(images, tmp_path / "out")
    assert count == 4 and scores is not None and 0 <= scores.mean().pq < 0.2
    truth, out = read_json(file), tmp_path / "truth"
    own = {image["id"] for image in truth["images"] if image["file_name"] in {p.name for p in images}}
    assert own == {submission.image_id(p) for p in images}
    truth["images"] = [image for image in truth["images"] if image["id"] in own]
    truth["annotations"] = [a for a in truth["annotations"] if a["image_id"] in own]
    write_json(out / "panoptic.json", truth)
    (out / "panoptic").symlink_to(file.with_suffix(""))
    again = submission_for("coco-panoptic", COCO, maps=PanopticMap)
    count, scores = again.check(images, out)
    assert count == 4 and scores is not None
    assert scores.mean().pq == 1.0


def test_cityscapes_is_scored_against_instance_ids(fake_panoptic_task: Any, panoptic_map: Any, tmp_path: Path) -> None:
    images, table = sorted(cityscapes(tmp_path).rglob("*.png")), LabelTable.named("cityscapes")
    for image, frame in zip(images, sorted(CITIES), strict=True):  # what will be predicted, as the ground truth
        found = panoptic_map(table, read_image(image))
        counts: Counter[int] = Counter()
        ids = np.zeros(found.segments.shape, np.uint16)
        for segment in found.info:
            value = table.classes[segment.train_id].values[0]
            ids[found.segments == segment.id] = 1000 * value + counts[value] if segment.thing else value
            counts[value] += 1
        city = frame.split("_")[0]
        cv2.imwrite(str(tmp_path / "gtFine" / "val" / city / f"{frame}_gtFine_instanceIds.png"), ids)
    submission = predicted(fake_panoptic_task, images, tmp_path / "out", "cityscapes-panoptic", table)
    count, scores = submission.check(images, tmp_path / "out")
    assert count == 2 and scores is not None and scores.mean().pq == 1.0
    assert submission.ground_truth(images[0]).name == f"{sorted(CITIES)[0]}_gtFine_instanceIds.png"


def break_json(out: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = read_json(out / "panoptic.json")
    change(data)
    write_json(out / "panoptic.json", data)


@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        (lambda out: (out / "panoptic.json").unlink(), r"panoptic\.json: missing; it is written when all images"),
        (lambda out: (out / "panoptic" / "000000000632.png").unlink(), r"000632\.png: cannot be read \(No such file"),
        (lambda out: cv2.imwrite(str(out / "panoptic/000000000285.png"), np.zeros((40, 70), np.uint8)),
         r"000000000285\.png: uint8 pixels of one channel; a panoptic PNG is 8-bit RGB"),
        (lambda out: cv2.imwrite(str(out / "panoptic/000000000285.png"), np.zeros((40, 70, 3), np.uint8)),
         r"000000000285\.png: .*panoptic\.json lists segment 1, which has no pixel"),
        (lambda out: break_json(out, lambda d: d["annotations"][0]["segments_info"].pop()),
         r"000000000285\.png: segment id \d+ .* not in .*panoptic\.json"),
        (lambda out: break_json(out, lambda d: d["annotations"][0]["segments_info"][0].update(category_id=12)),
         r"285\.png: segment 1 has the unknown category 12 in .*panoptic\.json"),
        *((lambda out, number=number: break_json(
            out, lambda d: d["annotations"][0]["segments_info"][0].update(id=number)),
           rf"285\.png: .*panoptic\.json lists .* id {re.escape(repr(number))}")
          for number in (2**70, -5, "x", 5.5, 2)),
        (lambda out: break_json(out, lambda d: (d["annotations"].pop(0), d["images"].pop(0))),
         r"panoptic\.json: lists no '000000000285\.jpg'"),
        (lambda out: cv2.imwrite(str(out.parent / "val2017/000000000285.jpg"), np.zeros((9, 9, 3), np.uint8)),
         r"000000000285\.png: has shape \(40, 70\), but the image .*285\.jpg has \(9, 9\)"),
    ],
)  # fmt: skip
def test_the_check_names_what_is_wrong(
    fake_panoptic_task: Any, tmp_path: Path, breakage: Callable[[Path], object], message: str
) -> None:
    images, out = coco(tmp_path), tmp_path / "out"
    submission = predicted(fake_panoptic_task, images, out, "coco-panoptic")
    breakage(out)
    with pytest.raises(ValueError, match=message):
        submission.check(images, out)


def test_an_interrupted_submission_leaves_no_json(fake_panoptic_task: Any, tmp_path: Path) -> None:
    images, out = coco(tmp_path), tmp_path / "out"
    submission = predicted(fake_panoptic_task, images, out, "coco-panoptic")
    assert (out / "panoptic.json").is_file()

    def press(name: str) -> None:
        if name == "panoptic/000000000632":
            raise KeyboardInterrupt

    predictor = Predictor(fake_panoptic_task(COCO, press))
    options: dict[str, Any] = {"what": ("panoptic",), "submission": submission, "progress": False}
    with pytest.raises(KeyboardInterrupt, match=r"interrupted: 1 of 3 .*; panoptic\.json, which is written last"):
        predict_to_folder(images, out, predictor=predictor, **options)
    assert not (out / "panoptic.json").exists() and not list(out.rglob(".*"))
    predictor = Predictor(fake_panoptic_task(COCO))
    assert predict_to_folder(images, out, predictor=predictor, **options) == Outcome(3, (), LeftOut())
    assert submission.check(images, out) == (3, None)


def test_image_ids_of_annotations(fake_panoptic_task: Any, tmp_path: Path) -> None:
    images, file = coco(tmp_path), tmp_path / "info.json"
    write_json(file, {"images": [{"file_name": image.name, "id": 70 + i} for i, image in enumerate(images)]})
    predicted(fake_panoptic_task, images, tmp_path / "out", "coco-panoptic", annotations=file)
    assert [a["image_id"] for a in read_json(tmp_path / "out/panoptic.json")["annotations"]] == [70, 71, 72]
    write_json(file, {"images": [{"file_name": image.name, "id": 70} for image in images[:2]]})
    submission = submission_for("coco-panoptic", COCO, maps=PanopticMap, annotations=file)
    with pytest.raises(ValueError, match=r"000000000009\.jpg: .*info\.json lists no image '000000000009\.jpg'"):
        submission.names(images)
    with pytest.raises(ValueError, match="two images have the image_id 70, by which"):
        submission.names(images[:2])
    write_json(tmp_path / "panoptic.json", {"images": [{"file_name": image.name, "id": 70} for image in images]})
    with pytest.raises(ValueError, match=r"panoptic\.json: the results would overwrite the annotations"):
        predicted(fake_panoptic_task, images[:1], tmp_path, "coco-panoptic", annotations=tmp_path / "panoptic.json")
    assert (tmp_path / "panoptic.json").is_file()
    write_json(file, {"images": [3]})
    with pytest.raises(ValueError, match=r"info\.json: has no `images` with file_name and id"):
        submission_for("coco-panoptic", COCO, maps=PanopticMap, annotations=file)
    assert submission_for("coco-panoptic", COCO, maps=PanopticMap).image_id(Path("street.jpg")) == "street"


def test_formats_and_models_that_do_not_go_together() -> None:
    cityscapes = LabelTable.named("cityscapes")
    with pytest.raises(ValueError, match=r"coco-panoptic is not for the semantic maps .* use cityscapes or ade20k"):
        submission_for("coco-panoptic", COCO)
    with pytest.raises(ValueError, match=r"ade20k is not for the panoptic maps .* use coco-panoptic or cityscapes-pan"):
        submission_for("ade20k", LabelTable.named("ade20k"), maps=PanopticMap)
    with pytest.raises(ValueError, match=r"'coco_panoptic' \(133 classes\) is not that of cityscapes"):
        submission_for("cityscapes-panoptic", COCO, maps=PanopticMap)
    with pytest.raises(ValueError, match="--annotations gives COCO's image ids; --format cityscapes-panoptic takes"):
        submission_for("cityscapes-panoptic", cityscapes, maps=PanopticMap, annotations=Path("a.json"))


def test_panoptic_submission_through_the_command_line(
    fake_panoptic_task: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images = coco(tmp_path)
    monkeypatch.setattr(Predictor, "from_file", lambda *_, **__: Predictor(fake_panoptic_task(COCO)))
    base = ["predict", str(images[0].parent), "--out", str(tmp_path / "out")]
    assert main([*base, "--format", "coco-panoptic", "--check", "True"]) == 0
    printed = capsys.readouterr().out
    assert "3 of 3 images labelled" in printed and "3 files are as coco-panoptic wants them" in printed
    for options, message in (
        (["--format", "cityscapes"], "--format cityscapes is not for the panoptic maps of this model"),
        (["--format", "coco-panoptic", "--save", "overlay"], "--format coco-panoptic writes panoptic only"),
        (["--annotations", "a.json"], "--annotations goes with --format"),
        (["--save", "confidence"], "a panoptic map has no confidence of each pixel"),
    ):
        assert main([*base, *options]) == 2
        assert message in capsys.readouterr().err


def test_a_real_panoptic_model_through_the_command_line(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A release file of random weights: maps, pictures, labels, and a scored submission of COCO images."""
    torch.manual_seed(0)
    model = Model(
        architecture="PanopticFPN", backbone="resnet18", fpn_channels=16, head_channels=16, box_channels=16,
        mask_channels=8, norm="group",
    )  # fmt: skip
    config = build.resolve(TrainConfig(model=model).changed(run__device="cpu"), COCO)
    config = config.changed(inference__confidence=0.0, inference__stuff_area=1)
    task, file = build.build_task(config, COCO), tmp_path / "m.safetensors"
    torch.nn.init.normal_(task.model.box_head.classifier.weight)  # so that some of it is sure of something
    write_release(file, task.model.state_dict(), config, COCO, scores={}, source={})
    image, out = shared / "data/coco_panoptic/val2017", tmp_path / "out"
    image = sorted(image.glob("*.jpg"))[0]
    options = ["--model", str(file), "--device", "cpu", "--precision", "float32", "--scale", "96", "64"]
    base = ["predict", str(image), "--out", str(out), *options]
    assert main([*base, "--save", "panoptic,overlay,labels,instances"]) == 0
    endings = (".json", ".png", "_instances.png", "_labels.png", "_overlay.jpg")
    assert {p.name for p in out.iterdir()} == {f"{image.stem}{end}" for end in endings} | {"predictions.json"}
    ids, data = decode_ids(read_bytes(out / f"{image.stem}.png"), rgb=True), read_json(out / f"{image.stem}.json")
    assert ids.shape == (data["height"], data["width"]) == read_image(image).shape[:2]
    assert {s["id"]: s["area"] for s in data["segments_info"]} == {
        int(i): int(n) for i, n in zip(*np.unique(ids[ids > 0], return_counts=True), strict=True)
    }
    things = read_mask(out / f"{image.stem}_instances.png")
    assert set(np.unique(things)) - {0} == {s["id"] for s in data["segments_info"] if s["isthing"]} != set()
    capsys.readouterr()
    assert main([*base, "--format", "coco-panoptic", "--check", "True"]) == 0
    printed = capsys.readouterr().out
    assert "1 file is as coco-panoptic wants them" in printed and "PQ 0.0" in printed
    np.testing.assert_array_equal(decode_ids(read_bytes(out / "panoptic" / f"{image.stem}.png"), rgb=True), ids)
