import copy
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from panfpn import build
from panfpn.choices import ENGINES
from panfpn.config import Data, Inference, Model, Train, TrainConfig
from panfpn.data.layouts.scenes import scenes_table
from panfpn.deploy.folder import predict_to_folder
from panfpn.deploy.predictor import Predictor, use_engine
from panfpn.deploy.runtime import make_runtime
from panfpn.tasks import Task
from pixel_networks import network, pixels

SIZES = [(1, 64, 96), (1, 71, 45), (2, 33, 80), (1, 128, 32)]


def assert_equal_logits(
    runtime: Callable[[torch.Tensor], torch.Tensor], plain: nn.Module, shape: Sequence[int]
) -> None:
    with torch.no_grad():
        expected = plain(pixels(shape))
    found = runtime(pixels(shape))
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("backbone", "divisor"), [("resnet18", 1), ("test_resnet", 32), ("tf_efficientnet_lite0", 1)])
def test_engines_give_the_logits_of_the_plain_network(engine: str, backbone: str, divisor: int) -> None:
    pytest.importorskip(engine)
    plain = network(backbone, divisor)
    runtime = make_runtime(engine, plain, torch.float32)
    for shape in SIZES:
        assert_equal_logits(runtime, plain, shape)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("backbone", ["test_vit", "vit_small_patch8_224", "vit_small_patch14_reg4_dinov2"])
def test_engines_give_the_logits_of_plain_transformers(engine: str, backbone: str) -> None:
    """At five odd sizes: positions are resized, patches of 14 pixels see a smaller image."""
    pytest.importorskip(engine, reason="extra `export` is not installed")
    plain = network(backbone)
    runtime = make_runtime(engine, plain, torch.float32)
    for height, width in [(97, 131), (64, 96), (33, 300), (129, 65), (80, 48)]:
        assert_equal_logits(runtime, plain, (1, height, width))


def test_networks_in_windows_are_for_engine_torch() -> None:
    pytest.importorskip("onnxruntime", reason="extra `export` is not installed")
    with pytest.raises(ValueError, match=r"'efficientformer_l1' takes images of one size .* take engine torch"):
        make_runtime("onnxruntime", network("efficientformer_l1"), torch.float32)


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_engines_crop_what_a_padded_backbone_gives(engine: str) -> None:
    """The maps of a network that wants a multiple are cropped to ceil(H / stride), also in a graph."""
    pytest.importorskip(engine)
    plain = network("hrnet_w18_small")
    assert plain.network.backbone.multiple > 1
    runtime = make_runtime(engine, plain, torch.float32)
    for shape in SIZES:
        assert_equal_logits(runtime, plain, shape)


def test_openvino_has_a_graph_for_the_first_size_and_one_for_all_others_of_a_kind() -> None:
    pytest.importorskip("openvino")
    plain = network()
    runtime = make_runtime("openvino", plain, torch.float32)
    for shape in [(1, 64, 96), (1, 71, 45), (1, 64, 96), (1, 33, 80), (2, 64, 96), (1, 32, 32)]:
        assert_equal_logits(runtime, plain, shape)
    assert list(runtime.programs) == [torch.Size((1, 64, 96, 3)), False, True]


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_bfloat16_is_near(engine: str) -> None:
    pytest.importorskip(engine)
    plain = network()
    with torch.no_grad():
        expected = plain(pixels(SIZES[0]))
    found = make_runtime(engine, plain, torch.bfloat16)(pixels(SIZES[0])).float()
    difference = float((found - expected).abs().max() / expected.abs().max())
    assert difference < 0.05


@pytest.mark.parametrize(
    ("engine", "precision", "why"),
    [
        ("tensorrt", torch.float32, "engine is 'tensorrt'; .*torch, openvino, onnxruntime"),
        ("openvino", torch.float16, "float32 or bfloat16 here, not in float16"),
        ("onnxruntime", torch.bfloat16, "float32 here, not in bfloat16"),
    ],
)
def test_what_an_engine_cannot_do(engine: str, precision: torch.dtype, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        make_runtime(engine, network(), precision)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_called_from_many_threads_gives_what_it_gives_alone(engine: str) -> None:
    """Its first calls too: each graph is made once, and no two calls share what they compute in."""
    pytest.importorskip(engine)
    plain = network()
    batches = [pixels(SIZES[k % 3]) * (k + 1) for k in range(12)]  # uint8 wraps: all are different
    alone = make_runtime(engine, plain, torch.float32)
    expected = [alone(batch) for batch in batches]
    runtime = make_runtime(engine, plain, torch.float32)
    for _ in range(3):
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(runtime, batches))
        for result, wanted in zip(results, expected, strict=True):
            torch.testing.assert_close(result, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("used", [False, True])
def test_an_engine_can_be_pickled_and_copied(engine: str, used: bool) -> None:
    pytest.importorskip(engine)
    runtime = make_runtime(engine, network(), torch.float32)
    expected = make_runtime(engine, network(), torch.float32)(pixels(SIZES[0]))
    if used:
        runtime(pixels(SIZES[0]))
    for twin in (pickle.loads(pickle.dumps(runtime)), copy.deepcopy(runtime)):  # noqa: S301 - our own
        assert type(twin) is type(runtime) and twin.precision == torch.float32
        assert torch.equal(twin(pixels(SIZES[0])), expected)


_PROCESSES = """
import multiprocessing, sys
import torch
from pixel_networks import network, pixels
from panfpn.deploy.runtime import make_runtime

SHAPE = (1, 256, 256)  # large enough for torch to compute in several threads
RUNTIMES = []

def work(runtimes, results):
    for runtime in runtimes or RUNTIMES:
        results.put(runtime(pixels(SHAPE)).numpy())

def main(method, *engines):
    torch.set_num_threads(2)
    runtimes = [make_runtime(engine, network(), torch.float32) for engine in engines]
    expected = [runtime(pixels(SHAPE)) for runtime in runtimes]
    RUNTIMES.extend(runtimes)
    context = multiprocessing.get_context(method)
    results = context.Queue()
    child = context.Process(target=work, args=(runtimes if method == "spawn" else None, results))
    child.start()
    for engine, one in zip(engines, expected, strict=True):
        result = torch.from_numpy(results.get(timeout=240))
        torch.testing.assert_close(result, one, rtol=0, atol=2e-5 * float(one.abs().max()))
        print(engine, "is equal")
    child.join()

if __name__ == "__main__":
    main(*sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_engines_compute_in_other_processes(method: str, tmp_path: Path) -> None:
    """A forked one has none of its parent's threads: who waited for them would wait for ever."""
    for engine in ENGINES:
        pytest.importorskip(engine)
    script = tmp_path / "script.py"
    script.write_text(_PROCESSES)
    path = ":".join([str(Path(__file__).parents[1]), *sys.path])
    result = subprocess.run(
        [sys.executable, script, method, *ENGINES], capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert result.stdout == "".join(f"{engine} is equal\n" for engine in ENGINES), result.stderr
    for engine in ENGINES:
        told = f"engine {engine} does not survive a fork" in result.stderr
        assert told == (method == "fork" and engine != "torch")


def test_an_engine_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(
        ImportError, match=r"engine openvino needs openvino; install it with pip install 'panfpn\[export\]'"
    ):
        make_runtime("openvino", network(), torch.float32)


def small_task() -> Task:
    torch.manual_seed(0)
    model = Model(backbone="test_resnet", fpn_channels=32, head_channels=32)
    settings = TrainConfig(model=model, data=Data(size_divisor=1), train=Train(precision="float32"))
    task = build.build_task(build.resolve(settings, scenes_table()), scenes_table()).eval()
    nn.init.normal_(task.model.head.classifier.weight)
    return task


def images(*shapes: tuple[int, int]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*shape, 3)).astype(np.uint8) for shape in shapes]


def test_the_task_predicts_through_its_engine_until_it_is_trained_again() -> None:
    task = small_task()
    photos = images((40, 56), (64, 64))
    plain = [m.labels for m in task.predict(photos)]
    use_engine(task, "torch")
    task.model.head.classifier.bias = nn.Parameter(torch.tensor([100.0] + [0.0] * (task.table.num_classes - 1)))
    for labels, found in zip(plain, task.predict(photos), strict=True):
        assert (labels == found.labels).mean() > 0.999
    task.train().eval()
    assert task.engine is None
    assert all((found.labels == 0).all() for found in task.predict(photos))


def test_another_padding_reaches_the_engine() -> None:
    task, other = small_task(), small_task()
    use_engine(task, "torch")
    task.set_inference(scale=None, size_divisor=32, inference=Inference())
    other.set_inference(scale=None, size_divisor=32, inference=Inference())
    photo = images((45, 70))
    assert (task.predict(photo)[0].labels == other.predict(photo)[0].labels).mean() > 0.999


def test_neighbours_of_one_size_share_a_run() -> None:
    task = small_task()
    shapes: list[tuple[int, ...]] = []
    task.model.register_forward_pre_hook(lambda _, args: shapes.append(tuple(args[0].shape)))
    photos = images((40, 56), (40, 56), (40, 56), (64, 64), (40, 56))
    single = task.predict(photos)
    assert [s[0] for s in shapes] == [1] * 5
    shapes.clear()
    together = task.predict(photos, names=list("abcde"), batch_size=2)
    assert shapes == [(2, 3, 40, 56), (1, 3, 40, 56), (1, 3, 64, 64), (1, 3, 40, 56)]
    assert [m.name for m in together] == list("abcde")
    for one, other, photo in zip(single, together, photos, strict=True):
        assert other.image is photo and (one.labels == other.labels).mean() > 0.999


def test_a_stream_in_batches_keeps_the_order_and_finds_the_bad_one() -> None:
    class Given:
        def __init__(self, name: str, image: np.ndarray | None) -> None:
            self.name, self.image = name, image

        def read(self) -> np.ndarray:
            if self.image is None:
                raise ValueError("unreadable")
            return self.image

    photos = images((40, 56), (64, 64), (40, 56), (0, 5), (64, 64), (40, 56))
    sources = [Given(f"n{i}", photo) for i, photo in enumerate(photos)]
    sources.insert(2, Given("broken", None))
    predictor = Predictor(small_task())
    alone = list(predictor.stream(sources))
    together = list(predictor.stream(sources, batch_size=2))
    assert [m.name for m in together] == ["n0", "n1", "broken", "n2", "n3", "n4", "n5"]
    for one, other in zip(alone, together, strict=True):
        assert type(one) is type(other)
        if hasattr(one, "labels"):
            assert (one.labels == other.labels).mean() > 0.999
    assert [m.name for m in together if not hasattr(m, "labels")] == ["broken", "n3"]


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_of_nothing_is_refused(batch_size: int, tmp_path: Path) -> None:
    predictor, photo = Predictor(small_task()), images((8, 8))[0]
    message = f"batch_size is {batch_size}; it must be at least 1"
    with pytest.raises(ValueError, match=message):
        predictor.task.predict([photo], batch_size=batch_size)
    with pytest.raises(ValueError, match=message):
        list(predictor.stream([], batch_size=batch_size))
    cv2.imwrite(str(tmp_path / "photo.png"), photo)
    with pytest.raises(ValueError, match=message):
        predict_to_folder([tmp_path / "photo.png"], tmp_path / "out", predictor=predictor, batch_size=batch_size)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("engine", ENGINES)
def test_windows_scales_and_mirror_images_go_through_the_engine(engine: str) -> None:
    pytest.importorskip(engine)
    task, plain = small_task(), small_task()
    asked = Inference(mode="slide", window=(40, 48), stride=(24, 32), ratios=(0.75, 1.25), flip=True)
    for one in (task, plain):
        one.set_inference(scale=None, size_divisor=1, inference=asked)
    use_engine(task, engine)
    for found, expected in zip(
        task.predict(images((70, 90), (33, 64))), plain.predict(images((70, 90), (33, 64))), strict=True
    ):
        assert len(np.unique(expected.labels)) > 1
        assert (found.labels == expected.labels).mean() > 0.999
