"""What every test needs: few threads, real data where it is, and small data sets where it is not."""

import importlib.util
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch

from panfpn.config import Model
from panfpn.interop.mmseg import mmseg_name
from panfpn.models import SemanticFPN

torch.set_num_threads(1)  # pytest-xdist runs one process a core
cv2.setNumThreads(1)

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and golden values beside the repository; tests that need it are skipped without it."""
    if not SHARED.is_dir():
        pytest.skip("real data lie in ../shared, which is not here")
    return SHARED


@pytest.fixture(scope="session")
def fill(shared: Path) -> ModuleType:
    """`../shared/golden/fill.py`: weights, images and labels that the peers were given too."""
    spec = importlib.util.spec_from_file_location("golden_fill", shared / "golden" / "fill.py")
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
