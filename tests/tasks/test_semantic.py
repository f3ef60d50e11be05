"""How a network is asked for labels: padding, sizes, windows, several scales and the mirror image."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from panfpn import build
from panfpn.config import Data, Inference, Model, Train, TrainConfig
from panfpn.data.layouts.scenes import scenes_table
from panfpn.tasks import view_sizes, window_starts
from panfpn.tasks.semantic import SemanticTask
from panfpn.types import Preprocess

MODEL = Model(
    backbone="resnet18", fpn_channels=16, head_channels=16, num_classes=9, mean=(120.0, 110.0, 100.0), std=(60.0,) * 3
)


@pytest.fixture(scope="module")
def task() -> SemanticTask:
    torch.manual_seed(0)
    config = TrainConfig(model=MODEL, data=Data(size_divisor=1), train=Train(precision="float32"))
    task = build.build_task(config, scenes_table()).eval()
    assert isinstance(task, SemanticTask)
    with torch.no_grad():
        task.model.head.classifier.weight.mul_(100)  # labels that do not hang on rounding
    return task


@pytest.fixture
def image() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (11, 15, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(noise, (150, 110), interpolation=cv2.INTER_CUBIC))


def configure(
    task: SemanticTask, inference: Inference, scale: tuple[int, int] | None = None, size_divisor: int = 1
) -> SemanticTask:
    task.set_inference(scale=scale, size_divisor=size_divisor, inference=inference)
    return task


def resized(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


def network_logits(task: SemanticTask, image: np.ndarray, divisor: int = 1) -> torch.Tensor:
    """At the size of `image`, by the plain definition: pad, run, upsample what was padded, cut."""
    height, width = image.shape[:2]
    x = (torch.from_numpy(image).permute(2, 0, 1)[None].float() - task.pixels.mean) / task.pixels.std
    x = F.pad(x, (0, -width % divisor, 0, -height % divisor))
    with torch.no_grad():
        return resized(task.model(x), x.shape[2:])[:, :, :height, :width]


def assert_same(found: np.ndarray, scores: torch.Tensor) -> None:
    best = scores.topk(2, 1).values
    clear = (best[:, 0] - best[:, 1] > 1e-4)[0].numpy()
    assert clear.mean() > 0.95 and len(np.unique(found)) > 1
    np.testing.assert_array_equal(found[clear], scores.argmax(1)[0].numpy()[clear])


def test_two_resizes_and_padding(task: SemanticTask, image: np.ndarray) -> None:
    configure(task, Inference(), scale=(97, 71), size_divisor=32)
    seen = cv2.resize(image, (97, 71), interpolation=cv2.INTER_LINEAR)
    assert_same(task.predict([image])[0].labels, resized(network_logits(task, seen, 32), (110, 150)))


def test_images_are_padded_to_the_divisor(task: SemanticTask) -> None:
    configure(task, Inference(), size_divisor=32)
    pixels = torch.randint(0, 256, (1, 50, 90, 3), dtype=torch.uint8)
    images = (pixels.permute(0, 3, 1, 2) - task.pixels.mean) / task.pixels.std
    with torch.no_grad():
        assert torch.equal(task.pixels(pixels), task.model(F.pad(images, (0, 6, 0, 14))))


def test_stretching_instead_of_padding(task: SemanticTask, image: np.ndarray) -> None:
    configure(task, Inference(stretch=True), size_divisor=32)
    seen = cv2.resize(image, (160, 128), interpolation=cv2.INTER_LINEAR)
    assert_same(task.predict([image])[0].labels, resized(network_logits(task, seen), (110, 150)))


@pytest.mark.parametrize(
    ("window", "stride", "divisor"), [((64, 64), (40, 41), 1), ((50, 200), (50, 13), 32), ((300, 70), (9, 60), 32)]
)
def test_windows_are_averaged(
    task: SemanticTask, image: np.ndarray, window: tuple[int, int], stride: tuple[int, int], divisor: int
) -> None:
    configure(task, Inference(mode="slide", window=window, stride=stride), scale=(130, 95), size_divisor=divisor)
    seen = cv2.resize(image, (130, 95), interpolation=cv2.INTER_LINEAR)
    total, count = torch.zeros(1, 9, 95, 130), torch.zeros(95, 130)
    height, width = min(window[0], 95), min(window[1], 130)
    for top in range(0, max(95 - height + stride[0], 1), stride[0]):
        for left in range(0, max(130 - width + stride[1], 1), stride[1]):
            y, x = min(top, 95 - height), min(left, 130 - width)
            total[:, :, y : y + height, x : x + width] += network_logits(
                task, seen[y : y + height, x : x + width], divisor
            )
            count[y : y + height, x : x + width] += 1
    assert count.min() > 0
    assert_same(task.predict([image])[0].labels, resized(total / count, (110, 150)))


@pytest.mark.parametrize("ratios_of", ["resized", "original"])
def test_several_scales_and_the_mirror_image(task: SemanticTask, image: np.ndarray, ratios_of: str) -> None:
    inference = Inference(ratios=(0.5, 1.0, 1.25), flip=True, ratios_of=ratios_of)  # type: ignore[arg-type]
    configure(task, inference, scale=(120, 70))
    total = torch.zeros(1, 9, 110, 150)
    for size in {"resized": [(35, 48), (70, 95), (87, 119)], "original": [(55, 75), (110, 150), (138, 188)]}[ratios_of]:
        seen = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
        total += resized(network_logits(task, seen), (110, 150)).softmax(1)
        mirrored = network_logits(task, np.ascontiguousarray(seen[:, ::-1])).flip(-1)
        total += resized(mirrored, (110, 150)).softmax(1)
    result = task.predict([image], confidence=True)[0]
    assert_same(result.labels, total / 6)
    assert result.confidence is not None
    np.testing.assert_allclose(result.confidence, (total / 6).max(1).values[0].numpy(), atol=1e-5)


def test_sizes_are_rounded_as_the_peer_does() -> None:
    plain = Preprocess(mean=(0.0,), std=(1.0,), scale=(2048, 512))
    assert view_sizes(683, 1024, plain, Inference()) == [(512, 768)]
    six = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
    assert view_sizes(150, 211, plain, Inference(ratios=six)) == [
        (256, 360), (384, 540), (512, 720), (640, 900), (768, 1080), (896, 1260),
    ]  # fmt: skip
    original = Inference(ratios=six, ratios_of="original")
    assert view_sizes(151, 211, plain, original) == [
        (76, 106),
        (113, 158),
        (151, 211),
        (189, 264),
        (227, 317),
        (264, 369),
    ]
    alone = Inference(ratios_of="original")  # without scales and mirror there is only the image as it is tested
    assert view_sizes(683, 1024, plain, alone) == [(512, 768)]
    assert view_sizes(683, 1024, plain, replace(alone, flip=True)) == [(683, 1024)]


@pytest.mark.parametrize(
    ("length", "window", "stride", "starts"),
    [
        (10, 10, 3, (0,)),
        (11, 10, 3, (0, 1)),
        (20, 10, 5, (0, 5, 10)),
        (21, 10, 5, (0, 5, 10, 11)),
        (7, 3, 3, (0, 3, 4)),
    ],
)
def test_windows_cover_the_side(length: int, window: int, stride: int, starts: tuple[int, ...]) -> None:
    assert window_starts(length, window, stride) == starts


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (33, 3)])
@pytest.mark.parametrize(
    "inference",
    [
        Inference(),
        Inference(mode="slide", window=(32, 32), stride=(20, 20)),
        Inference(ratios=(0.5, 1.75), flip=True, mode="slide", window=(40, 40), stride=(40, 40), ratios_of="original"),
        Inference(stretch=True, flip=True),
    ],
)
def test_tiny_images(task: SemanticTask, size: tuple[int, int], inference: Inference) -> None:
    configure(task, inference, size_divisor=32)
    result = task.predict([np.zeros((*size, 3), np.uint8)], confidence=True)[0]
    assert result.labels.shape == size and result.confidence is not None
    assert result.confidence.min() > 0 and result.confidence.max() <= 1 + 1e-6


@pytest.mark.parametrize(
    ("scale", "divisor", "inference", "message"),
    [
        ((0, 0), 1, {}, r"data\.scale is \(0, 0\)"),
        (None, 0, {}, r"data\.size_divisor is 0"),
        (None, 1, {"ratios": ()}, r"inference\.ratios is \(\)"),
        (None, 1, {"ratios": (1.0, float("nan"))}, r"inference\.ratios is \(1\.0, nan\)"),
        (None, 1, {"mode": "slide", "window": (16, 16), "stride": (16, 40)}, r"inference\.stride is \(16, 40\)"),
    ],
)
def test_impossible_settings_are_refused(
    task: SemanticTask, scale: tuple[int, int] | None, divisor: int, inference: dict[str, Any], message: str
) -> None:
    before = task.preprocess, task.inference
    with pytest.raises(ValueError, match=message):
        task.set_inference(scale=scale, size_divisor=divisor, inference=Inference(**inference))
    with pytest.raises(ValueError, match=r"inference\.nms is 0\.7; it must be left at 0\.5: it is Panoptic FPN's"):
        task.set_inference(scale=None, size_divisor=1, inference=Inference(nms=0.7))
    assert (task.preprocess, task.inference) == before
