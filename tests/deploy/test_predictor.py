import copy
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from panfpn import Predictor, SemanticMap
from panfpn.build import build_task
from panfpn.cli import main
from panfpn.config import Model, Train, TrainConfig
from panfpn.data.images import decode_ids, read_mask
from panfpn.data.layouts.scenes import scenes_table
from panfpn.deploy.folder import predict_to_folder
from panfpn.deploy.inputs import Inputs, Source
from panfpn.deploy.predictor import Failure
from panfpn.deploy.streams import Video
from panfpn.deploy.video_file import VideoFile
from panfpn.files import read_bytes, read_json
from panfpn.types import PanopticMap
from panfpn.weights import write_release
from panfpn.weights.zoo import shipped_model

CONFIG = TrainConfig(
    model=Model(
        backbone="test_resnet", num_classes=9, fpn_channels=16, head_channels=16, mean=(127.5,) * 3, std=(60.0,) * 3
    ),
    train=Train(precision="float32"),
)


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    task = build_task(CONFIG, scenes_table())
    torch.nn.init.normal_(task.model.head.classifier.weight)
    file = tmp_path_factory.mktemp("model") / "model.safetensors"
    write_release(file, task.model.state_dict(), CONFIG, scenes_table(), scores={"miou": 0.5}, source={"run": "toy"})
    return file


@pytest.fixture(scope="session")
def predictor(model_file: Path) -> Predictor:
    return Predictor.from_file(model_file, device="cpu", precision="float32")


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (50, 71, 3)).astype(np.uint8)


def test_every_kind_of_input_gives_the_same_labels(predictor: Predictor, image: np.ndarray, tmp_path: Path) -> None:
    file = tmp_path / "photo.png"
    cv2.imwrite(str(file), image[:, :, ::-1])
    expected = predictor(image)
    assert expected.labels.shape == (50, 71) and expected.labels.dtype == np.uint8
    assert len(np.unique(expected.labels)) > 1
    with_alpha = np.dstack([image, np.full((50, 71), 9, np.uint8)])
    for same in (file, str(file), file.read_bytes(), Image.fromarray(image), with_alpha, image[:, ::-1][:, ::-1]):
        assert np.array_equal(predictor(same).labels, expected.labels)
    grey = predictor(image[:, :, 0])
    assert np.array_equal(grey.labels, predictor(np.repeat(image[:, :, :1], 3, 2)).labels)


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (33, 31), (64, 64), (97, 131)])
def test_labels_have_the_input_size(predictor: Predictor, size: tuple[int, int]) -> None:
    assert predictor(np.zeros((*size, 3), np.uint8)).labels.shape == size


def test_confidence_is_the_probability_of_the_winner(predictor: Predictor, image: np.ndarray) -> None:
    found = predictor(image, confidence=True)
    assert found.confidence is not None and found.confidence.shape == (50, 71)
    assert found.confidence.min() >= 1 / 9 and found.confidence.max() <= 1
    assert predictor(image).confidence is None


@pytest.mark.parametrize(
    ("bad", "message"),
    [(np.zeros((4, 4, 3), np.float32), "float32 pixels from .* data.range"),
     (np.zeros((4, 4, 2), np.uint8), "has 2 bands, and the network sees 3"),
     (np.zeros((0, 4, 3), np.uint8), r"\[0, 4, 3\]"), (b"nothing", "not a readable image"), (7, "cannot predict a int"),
     (Path("/nowhere/x.png"), r"/nowhere/x\.png: cannot be read")],
)  # fmt: skip
def test_what_is_no_image(predictor: Predictor, bad: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predictor(bad)


def test_scale_of_the_release_is_applied(image: np.ndarray, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = CONFIG.changed(**{"data.scale": (32, 32)})
    task = build_task(config, scenes_table())
    write_release(tmp_path / "m.safetensors", task.model.state_dict(), config, scenes_table(), scores={}, source={})
    loaded = Predictor.from_file(tmp_path / "m.safetensors", "cpu", "float32")
    seen: list[tuple[int, ...]] = []
    network = loaded.task.engine.network
    network.network.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape)))
    assert loaded(image).labels.shape == (50, 71)
    assert seen == [(1, 3, 32, 32)]  # 50×71 fitted into 32×32 is 23×32, padded to a multiple of 32


def test_half_precision_release(predictor: Predictor, image: np.ndarray, model_file: Path, tmp_path: Path) -> None:
    weights = predictor.model.state_dict()
    write_release(tmp_path / "half.safetensors", weights, CONFIG, scenes_table(), scores={}, source={}, half=True)
    assert (tmp_path / "half.safetensors").stat().st_size < 0.55 * model_file.stat().st_size
    half = Predictor.from_file(tmp_path / "half.safetensors", "cpu", "float32")
    assert (half(image).labels == predictor(image).labels).mean() > 0.98


def photos(root: Path) -> None:
    for name in ("a.png", "sub/b.jpg", "sub/a.png", "a.jpg", ".hidden/c.png"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.random.default_rng(len(name)).integers(0, 256, (20, 30, 3)).astype(np.uint8))


def test_folders_globs_and_names(tmp_path: Path) -> None:
    photos(tmp_path)
    assert sorted(s.name for s in Inputs([tmp_path])) == ["a_jpg", "a_png", "sub/a", "sub/b"]
    root = tmp_path.name
    assert sorted(s.name for s in Inputs([f"{tmp_path}/**/*.png"])) == ["sub/a", f"{root}/a"]
    twice = Inputs([tmp_path / "sub/b.jpg", tmp_path / "sub/b.jpg"])
    assert [s.name for s in twice] == ["b"] and "1 named twice" in str(twice.left_out)
    for nothing in (tmp_path / "none", f"{tmp_path}/*.tif"):
        with pytest.raises(ValueError, match="no such file or folder"):
            Inputs([nothing])


def test_a_damaged_file_does_not_cost_the_others(predictor: Predictor, tmp_path: Path) -> None:
    photos(tmp_path / "in")
    (tmp_path / "in/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    outcome = predict_to_folder(
        [tmp_path / "in"], tmp_path / "out", predictor=predictor, what=("labels", "overlay", "confidence")
    )
    assert outcome.done == 4 and [f.name for f in outcome.failures] == ["broken"]
    assert "broken.png: not a readable image" in outcome.failures[0].reason
    written = sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file())
    stems = ("a_jpg", "a_png", "sub/a", "sub/b")
    wanted = {f"{s}{e}" for s in stems for e in (".png", "_overlay.jpg", "_confidence.png")}
    assert set(written) == wanted | {"predictions.json"}
    assert set(np.unique(read_mask(tmp_path / "out/sub/a.png"))) <= set(range(9))


def test_inputs_are_never_overwritten(predictor: Predictor, tmp_path: Path) -> None:
    photos(tmp_path)
    before = (tmp_path / "sub/a.png").read_bytes()
    with pytest.raises(ValueError, match=r"would overwrite .*a\.png; choose another folder"):
        predict_to_folder([tmp_path / "sub"], tmp_path / "sub", predictor=predictor)
    assert (tmp_path / "sub/a.png").read_bytes() == before
    for _ in range(2):  # results inside the input folder are not labelled the second time
        assert predict_to_folder([tmp_path], tmp_path / "out", predictor=predictor).done == 4
    with pytest.raises(ValueError, match="cannot save masks; choose from labels, overlay, confidence"):
        predict_to_folder([tmp_path], tmp_path / "out", predictor=predictor, what=("masks",))


def clip(path: Path, size: tuple[int, int] = (48, 64), rate: float = 12.5, frames: int = 3) -> Path:
    """A video of grey frames, each brighter than the one before."""
    writer = cv2.VideoWriter(str(path), cv2.CAP_OPENCV_MJPEG, cv2.VideoWriter.fourcc(*"MJPG"), rate, size[::-1])
    for i in range(frames):
        writer.write(np.full((*size, 3), 60 * i % 251, np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize(("size", "suffix", "rate"), [((48, 64), ".mp4", 12.0), ((47, 63), ".avi", 12.0)])
def test_a_video_becomes_one(
    predictor: Predictor, tmp_path: Path, size: tuple[int, int], suffix: str, rate: float
) -> None:
    path = clip(tmp_path / "clip.avi", size, rate)
    outcome = predict_to_folder([path], tmp_path / "out", predictor=predictor)
    assert (outcome.failures, outcome.done) == ((), 3)
    files = {p.name for p in (tmp_path / "out").iterdir()}
    assert files == {f"clip_overlay{suffix}", "predictions.json"}
    made = Video(str(tmp_path / f"out/clip_overlay{suffix}"))
    assert made.rate() == rate
    for frame, original in zip(made.frames(), Video(str(path)).frames(), strict=True):
        assert frame.shape == (*size, 3)
        difference = np.abs(frame.astype(int) - predictor(original).overlay())
        assert np.median(difference) <= 12  # the codec's
    assert [str(one) for one in Inputs([tmp_path]).inputs if "overlay" in one.name] == []  # a result is no input


def test_frames_on_request(predictor: Predictor, tmp_path: Path) -> None:
    paths = [clip(tmp_path / name) for name in ("one.avi", "two.avi")]
    outcome = predict_to_folder(paths, tmp_path / "out", predictor=predictor, what=("labels", "overlay"), max_frames=2)
    assert (outcome.failures, outcome.done) == ((), 4)
    for name in ("one", "two"):
        assert sorted(p.name for p in (tmp_path / "out" / name).iterdir()) == ["000000.png", "000001.png"]
        assert Video(str(tmp_path / f"out/{name}_overlay.mp4")).count() == 2
    predict_to_folder(paths[:1], tmp_path / "only", predictor=predictor, what=("confidence",))
    assert not list((tmp_path / "only").glob("*.mp4")) and len(list((tmp_path / "only/one").iterdir())) == 3


def test_a_frame_that_fails_leaves_the_others_in_their_places(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict = predictor.task.predict

    def failing(images: Any, **options: Any) -> Any:
        if options["names"][0].endswith(("000000", "000003")):
            raise RuntimeError("no luck")
        return predict(images, **options)

    monkeypatch.setattr(predictor.task, "predict", failing)
    path = clip(tmp_path / "clip.avi", frames=6)
    outcome = predict_to_folder([path], tmp_path / "out", predictor=predictor)
    assert (outcome.done, len(outcome.failures)) == (4, 2)
    frames = list(Video(str(tmp_path / "out/clip_overlay.mp4")).frames())
    assert len(frames) == 6
    for number, shown in ((0, 1), (1, 1), (2, 2), (3, 2), (5, 5)):
        wanted = predictor.task.predict([list(Video(str(path)).frames())[shown]], names=["x"])[0].overlay()
        assert np.median(np.abs(frames[number].astype(int) - wanted)) <= 12


@pytest.mark.parametrize("rate", [66.667, 119.9213, 237.813, 29.97, 1000.0])
def test_uneven_rates(tmp_path: Path, rate: float) -> None:
    file = VideoFile(tmp_path / "x_overlay", rate)
    for number in range(3):
        file.add(np.zeros((32, 48, 3), np.uint8), number)
    file.close()
    made = Video(str(tmp_path / "x_overlay.mp4"))
    assert (made.count() == 3 and made.rate() == pytest.approx(min(rate, 1000), rel=1e-3)) or rate == 1000


def test_a_video_that_is_none(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "clip.avi").write_bytes(b"no video")
    outcome = predict_to_folder([tmp_path / "clip.avi"], tmp_path / "out", predictor=predictor)
    assert outcome.done == 0 and "no frame could be decoded" in outcome.failures[0].reason
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["predictions.json"]


def test_an_interrupted_video_is_whole(predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, predict, count = clip(tmp_path / "clip.avi", frames=40), predictor.task.predict, 0

    def interrupting(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count == 10:
            raise KeyboardInterrupt
        return predict(*arguments, **options)

    monkeypatch.setattr(predictor.task, "predict", interrupting)
    with pytest.raises(KeyboardInterrupt, match="of 40 inputs are done, their files"):
        predict_to_folder([path], tmp_path / "out", predictor=predictor)
    assert 3 <= Video(str(tmp_path / "out/clip_overlay.mp4")).count() <= 9


def test_a_video_beside_the_results_is_not_overwritten(predictor: Predictor, tmp_path: Path) -> None:
    mine = tmp_path / "clip_overlay.mp4"
    mine.write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"clip_overlay\.mp4 is there, and no result of an earlier call"):
        predict_to_folder([clip(tmp_path / "clip.avi")], tmp_path, predictor=predictor)
    assert mine.read_bytes() == b"mine"


def test_stream_keeps_order_and_reads_only_a_little_ahead(predictor: Predictor, image: np.ndarray) -> None:
    read: list[int] = []

    def source(i: int) -> Source:
        def decode() -> np.ndarray:
            read.append(i)
            return image

        return Source(str(i), decode)

    results = predictor.stream(source(i) for i in range(40))
    first = next(results)
    assert isinstance(first, SemanticMap) and first.name == "0" and len(read) < 16
    assert [r.name for r in results] == [str(i) for i in range(1, 40)]


def test_errors_while_saving_are_failures(predictor: Predictor, image: np.ndarray) -> None:
    def refuse(_: SemanticMap) -> None:
        raise OSError(28, "No space left on device")

    results = list(predictor.stream([Source("x", lambda: image)], then=refuse))
    assert len(results) == 1 and isinstance(results[0], Failure) and "No space left" in results[0].reason


def test_files_of_another_kind_are_refused(model_file: Path, tmp_path: Path) -> None:
    data = model_file.read_bytes()
    (tmp_path / "short.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"short\.safetensors: not a whole safetensors file"):
        Predictor.from_file(tmp_path / "short.safetensors")
    changed = bytearray(data)
    changed[-1000] ^= 1
    (tmp_path / "changed.safetensors").write_bytes(changed)
    with pytest.raises(ValueError, match=r"changed\.safetensors: its content does not match the SHA-256"):
        Predictor.from_file(tmp_path / "changed.safetensors")
    torch.manual_seed(0)
    other = build_task(CONFIG.changed(**{"model.fpn_channels": 32}), scenes_table())
    write_release(
        tmp_path / "other.safetensors", other.model.state_dict(), CONFIG, scenes_table(), scores={}, source={}
    )
    with pytest.raises(
        ValueError, match=r"other\.safetensors: of another architecture; tensor fpn\.lateral\.0\.weight"
    ):
        Predictor.from_file(tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="device 'tpu' is not available"):
        Predictor.from_file(model_file, device="tpu")


def test_the_shipped_model_needs_no_file() -> None:
    assert shipped_model().stat().st_size <= 16_000_000
    shipped = Predictor.from_file(device="cpu")
    assert shipped.table.names[:4] == ("sky", "building", "pole", "road")
    scores = pytest.importorskip("sklearn.datasets", reason="scikit-learn ships the photo").load_sample_image(
        "china.jpg"
    )
    shares = shipped(scores).shares()
    assert sum(shares.values()) == pytest.approx(1) and {"sky", "building", "tree"} & set(list(shares)[:4])


def panoptic_predictor(fake_panoptic_task: Any, before: Callable[[str], Any] = str) -> Predictor:
    return Predictor(fake_panoptic_task(scenes_table(), before))


def test_panoptic_maps_to_a_folder(fake_panoptic_task: Any, tmp_path: Path) -> None:
    photos(tmp_path / "in")
    (tmp_path / "in/broken.png").write_bytes(b"no image")
    predictor = panoptic_predictor(fake_panoptic_task)
    outcome = predict_to_folder([tmp_path / "in"], tmp_path / "out", predictor=predictor)
    assert outcome.done == 4 and [f.name for f in outcome.failures] == ["broken"]
    written = sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file())
    stems = ("a_jpg", "a_png", "sub/a", "sub/b")
    wanted = {f"{s}{e}" for s in stems for e in (".png", ".json", "_overlay.jpg")}
    assert set(written) == wanted | {"predictions.json"}
    found = predictor(tmp_path / "in/sub/a.png")
    ids = decode_ids(read_bytes(tmp_path / "out/sub/a.png"), rgb=True)
    assert isinstance(found, PanopticMap) and found.name == "a"
    assert np.array_equal(ids, found.segments)


def test_a_panoptic_map_has_no_confidence(fake_panoptic_task: Any, image: np.ndarray, tmp_path: Path) -> None:
    photos(tmp_path)
    predictor = panoptic_predictor(fake_panoptic_task)
    for ask in (
        lambda: predictor(image, confidence=True),
        lambda: next(predictor.stream([], confidence=True)),
        lambda: predict_to_folder([tmp_path], tmp_path / "out", predictor=predictor, what=("confidence",)),
    ):
        with pytest.raises(ValueError, match="a panoptic map has no confidence of each pixel; its things have scores"):
            ask()
    with pytest.raises(ValueError, match="cannot save depth; choose from panoptic, overlay, labels, instances"):
        predict_to_folder([tmp_path], tmp_path / "out", predictor=predictor, what=("depth",))
    assert not (tmp_path / "out").exists()


def test_no_two_results_of_a_panoptic_model_are_one_file(fake_panoptic_task: Any, tmp_path: Path) -> None:
    for name in ("a.png", "a_labels.png", "a_instances.jpg", "a_overlay.jpg"):
        cv2.imwrite(str(tmp_path / name), np.zeros((20, 30, 3), np.uint8))
    paths: list[Path] = []

    def save(found: PanopticMap) -> None:
        paths.extend(found.save(tmp_path / "out", what=found.outputs))

    results = list(panoptic_predictor(fake_panoptic_task).stream(Inputs([tmp_path]), then=save))
    assert all(isinstance(result, PanopticMap) for result in results)
    assert len(paths) == len(set(paths)) == 4 * 5


def test_ctrl_c_keeps_what_is_done(
    fake_panoptic_task: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(30):
        path = tmp_path / "in" / f"{i:03d}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), np.full((20, 30, 3), i, np.uint8))

    def press(name: str) -> None:
        if name == "007":
            signal.raise_signal(signal.SIGINT)

    predictor = panoptic_predictor(fake_panoptic_task, press)
    monkeypatch.setattr(Predictor, "from_file", lambda *_, **__: predictor)
    threads = threading.active_count()
    assert main(["predict", str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 130
    assert threading.active_count() == threads
    out = capsys.readouterr()
    assert f"panfpn: interrupted: 7 of 30 inputs are done, their files in {tmp_path / 'out'} are whole\n" in out.err
    assert "Traceback" not in out.err
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert set(names) == {f"00{i}{e}" for i in range(7) for e in (".png", ".json", "_overlay.jpg")} | {
        "predictions.json"
    }
    for i in range(7):
        ids = decode_ids(read_bytes(tmp_path / f"out/00{i}.png"), rgb=True)
        assert {s["id"] for s in read_json(tmp_path / f"out/00{i}.json")["segments_info"]} == set(np.unique(ids)) - {0}


def test_copies_predict_the_same(predictor: Predictor, image: np.ndarray) -> None:
    labels = predictor(image).labels
    for twin in (pickle.loads(pickle.dumps(predictor)), copy.deepcopy(predictor)):  # noqa: S301 - our own bytes
        assert np.array_equal(twin(image).labels, labels) and twin.about == predictor.about
    assert b"torch.channels_last" not in pickle.dumps(predictor)  # found in no module where a script imports torch


_FORKED = """
import os, signal, sys
import numpy as np
import panfpn
predictor = panfpn.Predictor.from_file(sys.argv[1], "cpu", "float32", engine=None)
image = np.random.default_rng(0).integers(0, 256, (64, 96, 3)).astype(np.uint8)
labels = predictor(image).labels
child = os.fork()
if not child:
    signal.alarm(100)  # it would wait for ever for threads that are not there
    os._exit(0 if np.array_equal(predictor(image).labels, labels) else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_the_plain_network_predicts_after_a_fork(model_file: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _FORKED, str(model_file)], check=False, timeout=300)
    assert done.returncode == 0


def test_a_list_of_images_gives_a_list_of_maps(predictor: Predictor, image: np.ndarray, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "photo.png"), image[:, :, ::-1])
    maps = predictor([image, tmp_path / "photo.png", image[:20]], batch_size=2)
    assert [m.name for m in maps] == ["image", "photo", "image"]
    assert np.array_equal(maps[0].labels, maps[1].labels) and maps[2].labels.shape == (20, 71)
    assert predictor([]) == []
