"""What every test needs: few threads, real data where it is, and small data sets where it is not."""

import importlib.util
import os
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from fake_cuda import FakeCuda
from panfpn.config import Inference, Model, TrainConfig
from panfpn.engine import train
from panfpn.engine.trainer import Trainer
from panfpn.labels import IGNORE, LabelTable
from panfpn.models import SemanticFPN
from panfpn.models.pixels import PixelNetwork
from panfpn.tasks.panoptic import PanopticTask
from panfpn.types import Detections, PanopticMap, Preprocess, Segment, Segments
from panfpn.weights.interop.mmseg import mmseg_name

torch.set_num_threads(1)  # pytest-xdist runs one process a core
cv2.setNumThreads(1)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background by a script: tests press Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)

GOLDEN = Path(__file__).parent / "golden"
SHARED = Path(__file__).parents[2] / "shared"  # real data, on machines of the developers: none of it is needed

SLOW = Path(__file__).parent / "slow.txt"  # what `make test-fast` leaves out; `pytest -n 0 --measure-slow` writes it
SLOW_SECONDS = 1.0


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--measure-slow", action="store_true", help=f"measure every test and write {SLOW.name}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks the tests of slow.txt; a line that names no test is an error where the whole file was collected."""
    listed = set(SLOW.read_text().split()) if SLOW.is_file() else set()
    for item in items:
        if _function(item) in listed:
            item.add_marker("slow")
    whole = not any("::" in argument for argument in config.args)
    files = {item.nodeid.partition("::")[0] for item in items} if whole else set()
    gone = {line for line in listed if line.partition("::")[0] in files} - {_function(item) for item in items}
    if gone:
        raise pytest.UsageError(f"{SLOW.name} names tests that do not exist: {', '.join(sorted(gone))}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Seconds of computing, those of its child processes too, so that other programs do not count."""
    start = os.times()
    try:
        return (yield)
    finally:
        seconds = sum(after - before for after, before in zip(os.times()[:4], start[:4], strict=True))
        if seconds > SLOW_SECONDS:
            item.config.stash.setdefault(_MEASURED, set()).add(_function(item))


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.option.measure_slow:
        SLOW.write_text("".join(f"{name}\n" for name in sorted(session.config.stash.get(_MEASURED, set()))))


def _function(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[0]


_MEASURED = pytest.StashKey[set[str]]()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the repository; tests that look at it are skipped without it."""
    if not SHARED.is_dir():
        pytest.skip("the folder of real data is not here")
    return SHARED


@pytest.fixture(scope="session")
def golden_files() -> Path:
    """tests/golden: what peers computed, and the scripts that made them compute it."""
    return GOLDEN


@pytest.fixture(scope="session")
def fill() -> ModuleType:
    """`tests/golden/fill.py`: weights, images and labels that the peers were given too."""
    spec = importlib.util.spec_from_file_location("golden_fill", GOLDEN / "fill.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder_data(tmp_path: Path) -> Path:
    """A `folder` data set of 6 training and 3 validation images of two sizes, 3 classes and an ignored value."""
    root = tmp_path / "data"
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3)):
        for i in range(count):
            height, width = ((48, 64), (40, 56))[i % 2]
            mask = np.zeros((height, width), np.uint8)
            mask[height // 2 :] = 10
            mask[5 : 15 + i, 8:30] = 20
            mask[:3] = 255
            image = np.stack([mask * 3 % 251, 200 - mask // 2, mask], -1).astype(np.int64)
            image = np.clip(image + rng.integers(-20, 20, image.shape), 0, 255).astype(np.uint8)
            for kind, pixels in (("images", image), ("masks", mask)):
                path = root / kind / split / f"photo_{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), pixels)
    (root / "labels.yaml").write_text(
        "name: toy\nclasses:\n- {name: sky, value: 0}\n- {name: ground, value: 10}\n"
        "- {name: box, value: 20, thing: true}\nignore: [255]\n"
    )
    return root


@pytest.fixture(scope="session")
def small_mmseg() -> dict[str, torch.Tensor]:
    """The state dict of a narrow Semantic FPN on ResNet-18, 3 classes, under mmsegmentation's names."""
    torch.manual_seed(0)
    network = SemanticFPN("resnet18", 3, fpn_channels=8, head_channels=8)
    torch.nn.init.normal_(network.head.classifier.weight)
    return {mmseg_name(name, Model(backbone="resnet18")): t for name, t in network.state_dict().items()}


def random_map(table: LabelTable, image: np.ndarray, name: str = "image", seed: int = 0) -> PanopticMap:
    """A panoptic map of the image: stripes of stuff and void, and on them rectangles that are things."""
    rng = np.random.default_rng([seed, *image.shape])
    height, width = image.shape[:2]
    stuff = [k for k, c in enumerate(table.classes) if not c.thing]
    things = [k for k, c in enumerate(table.classes) if c.thing]
    owner = np.repeat(rng.choice([-1, *stuff], height)[:, None], width, 1)  # train ids; things are -2, -3, …
    classes = {}
    for number in range(-2, -2 - int(rng.integers(1, 6)), -1):
        top, left = rng.integers(0, height), rng.integers(0, width)
        owner[top : top + height // 2 + 1, left : left + width // 2 + 1] = number
        classes[number] = int(rng.choice(things))
    segments, info = np.zeros((height, width), np.int32), []
    found = np.unique(owner).tolist()
    for place in [n for n in classes if n in found] + [k for k in found if k >= 0]:
        mask = owner == place
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        k, thing = classes.get(place, place), place < 0
        box = (columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1)
        segments[mask] = len(info) + 1
        info.append(Segment(
            id=len(info) + 1, train_id=k, name=table.names[k], thing=thing, area=int(mask.sum()),
            box=tuple(map(int, box)), score=0.9 - 0.05 * len(info) if thing else None,
        ))  # fmt: skip
    none = Detections(
        boxes=np.zeros((0, 4), np.float32), scores=np.zeros(0, np.float32), classes=np.zeros(0, np.int16), masks=()
    )
    return PanopticMap(segments=segments, info=tuple(info), table=table, semantic=np.zeros((height, width), np.int16),
                       detections=none, image=image, name=name)  # fmt: skip


class FakePanopticTask(PanopticTask):
    """A task without a network, whose maps are `random_map`s; `before` is called with the name of each image."""

    def __init__(self, table: LabelTable, before: Callable[[str], Any] = str) -> None:
        torch.nn.Module.__init__(self)
        self.table, self.before, self.engine = table, before, None
        self.preprocess, self.inference = Preprocess(mean=(0.0,) * 3, std=(1.0,) * 3), Inference()
        self.pixels = PixelNetwork(torch.nn.Identity(), (0.0,) * 3, (1.0,) * 3)

    def predict(
        self, images: Sequence[np.ndarray], *, names: Sequence[str] | None = None, **options: Any
    ) -> list[PanopticMap]:
        """Maps of the images."""
        self.check_outputs(confidence=options.get("confidence", False))
        maps = []
        for image, name in zip(images, names or ["image"] * len(images), strict=True):
            self.before(name)
            maps.append(random_map(self.table, image, name))
        return maps


@pytest.fixture(scope="session")
def panoptic_map() -> Callable[..., PanopticMap]:
    """`random_map`."""
    return random_map


@pytest.fixture(scope="session")
def fake_panoptic_task() -> type[FakePanopticTask]:
    """`FakePanopticTask`."""
    return FakePanopticTask


@pytest.fixture
def fake_cuda() -> Iterator[FakeCuda]:
    """A CUDA device that is not there (see tests/fake_cuda), for the time of the test."""
    with FakeCuda() as gpu:
        yield gpu


@pytest.fixture
def cut_power(monkeypatch: pytest.MonkeyPatch) -> Callable[[TrainConfig, int], None]:
    """Trains until a step at which the power is cut."""

    def train_and_cut(config: TrainConfig, at: int) -> None:
        step = Trainer.step

        def crash(self: Trainer, batches: Any) -> None:
            if self.state.step == at:
                raise RuntimeError("power cut")
            step(self, batches)

        with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
            patch.setattr(Trainer, "step", crash)
            train(config)

    return train_and_cut


@pytest.fixture
def toy_segments() -> tuple[Segments, Segments]:
    """Two balls and sky on floor, predicted; truth: three balls (the last a crowd) on floor, void below.

    Train ids: 0 floor, 1 ball (a thing), 2 sky. The second predicted ball is half too small.
    """
    index = np.zeros((60, 80), np.int16)
    index[10:30, 5:25], index[10:30, 25:45], index[40:50, 50:70], index[55:] = 1, 2, 3, IGNORE
    crowd = np.array([False, False, False, True])
    target = Segments(index=index, classes=np.array([0, 1, 1, 1], np.int16), crowd=crowd, ids=np.arange(4))
    changed = index.copy()
    changed[10:30, 33:45] = 0
    changed[0:4] = 3
    order = np.array([2, 0, 1, 3, IGNORE], np.int16)  # numbered otherwise than the truth
    prediction = Segments(
        index=order[changed], classes=np.array([1, 1, 0, 2], np.int16), crowd=np.zeros(4, bool), ids=np.arange(4)
    )
    return prediction, target
