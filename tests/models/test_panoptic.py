import ast
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from panfpn import build
from panfpn.labels import IGNORE, LabelClass, LabelTable
from panfpn.models import PanopticFPN
from panfpn.models.instance import MaskHead, candidates, choose_boxes, propose
from panfpn.models.panoptic import DenseMaps
from panfpn.tasks.detect import DenseView
from panfpn.tasks.panoptic import PanopticTask
from panfpn.weights.interop.detectron2 import read_detectron2

STUFF = LabelClass(name="sky", color=(0, 0, 1), values=(0,))
THING = LabelClass(name="cat", color=(0, 1, 0), thing=True, values=(1,))
GROUND = LabelClass(name="ground", color=(1, 0, 0), values=(2,))
TABLE = LabelTable(name="t", classes=(STUFF, THING, GROUND))


def small(**settings: object) -> PanopticFPN:
    return PanopticFPN("resnet18", TABLE, fpn_channels=32, head_channels=32, box_channels=16, mask_channels=16,
                       **settings)  # type: ignore[arg-type] # fmt: skip


@pytest.mark.parametrize("training", [True, False])
def test_dense_maps(training: bool) -> None:
    model = small().train(training)
    with torch.no_grad():
        maps: DenseMaps = model(torch.randn(2, 3, 64, 96))
    assert maps.semantic.shape == (2, 3, 16, 24)  # other, sky, ground
    assert [tuple(m.shape[1:]) for m in maps.pyramid] == [(32, 16, 24), (32, 8, 12), (32, 4, 6), (32, 2, 3)]
    assert [tuple(m.shape[1:]) for m in maps.objectness] == [(3, 16, 24), (3, 8, 12), (3, 4, 6), (3, 2, 3), (3, 1, 2)]
    assert [m.shape[1] for m in maps.deltas] == [12] * 5


def test_semantic_channels() -> None:
    assert small().semantic_ids == (IGNORE, 0, 2) and small().thing_ids == (1,)
    assert small(semantic_things="all").semantic_ids == (0, 1, 2)


def test_masks_of_one_class_each() -> None:
    head = MaskHead(8, 3, 16)
    pooled, classes = torch.randn(4, 8, 14, 14), torch.tensor([2, 0, 0, 1])
    hidden = pooled
    for conv in head.convs:
        hidden = conv(hidden).relu()
    every = head.classifier(head.deconv(hidden).relu())  # [4, 3, 28, 28]
    torch.testing.assert_close(head(pooled, classes), every[torch.arange(4), classes])
    assert head(pooled[:0], classes[:0]).shape == (0, 28, 28)


def test_a_table_without_things_asks_for_semantic_fpn() -> None:
    with pytest.raises(ValueError, match=r"label table 'flat' has no things.*Semantic FPN"):
        PanopticFPN("resnet18", LabelTable(name="flat", classes=(STUFF,)))


def test_candidates_keep_deltas_with_their_anchors() -> None:
    """The anchor of ratio 1 at row 1, column 2 of p2 is moved; nothing else is."""
    objectness = [torch.zeros(1, 3, 4, 4)] + [torch.zeros(1, 3, 1, 1)] * 4
    deltas = [torch.zeros(1, 12, 4, 4)] + [torch.zeros(1, 12, 1, 1)] * 4
    objectness[0][0, 1, 1, 2] = 9
    deltas[0][0, 4 + 0, 1, 2] = 0.25  # dx
    found = candidates(objectness, deltas, 2.0)
    boxes, logits = propose(found, 0, (100, 100))
    assert logits[0] == 9
    assert boxes[0].tolist() == [8 + 2 - 4, 0, 8 + 2 + 4, 8]  # centre (8, 4), side 8, moved by 2


def test_boxes_are_chosen_by_class() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60]])[:, None].repeat(1, 2, 1)
    scores = torch.tensor([[0.9, 0.3], [0.8, 0.7], [0.04, 0.6]])
    settings = {"score": 0.05, "nms": 0.5, "most": 10}
    _, score, label = choose_boxes(boxes, scores, nms_over_classes=False, **settings)
    assert list(zip(score.tolist(), label.tolist(), strict=True)) == [
        (pytest.approx(0.9), 0), (pytest.approx(0.7), 1), (pytest.approx(0.6), 1)]  # fmt: skip
    _, score, _ = choose_boxes(boxes, scores, nms_over_classes=True, **settings)
    assert score.tolist() == pytest.approx([0.9, 0.6])
    assert len(choose_boxes(boxes, scores, nms_over_classes=False, **settings | {"most": 1})[0]) == 1


@pytest.fixture(scope="module")
def detectron2(golden_files: Path, fill: ModuleType) -> PanopticTask:
    """detectron2's network with the weights of fill.py, through the converter."""
    folder = golden_files
    text = (folder / "make_detectron2.py").read_text()
    tree = next(n for n in ast.parse(text).body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "SCALE")
    scale = eval(ast.unparse(tree.value))  # noqa: S307 - a table of numbers beside the golden arrays
    tensors = {}
    for line in (folder / "detectron2_keys_r50.tsv").read_text().splitlines():
        name, shape, _ = line.split("\t")
        if "pixel_" not in name and "anchor_generator" not in name:
            values = fill.values(name, ast.literal_eval(shape)) * np.float32(scale.get(name, 1.0))
            tensors[name] = torch.from_numpy(values)
    found = read_detectron2(tensors, Path("golden.pkl"))
    config = found.config.changed(train__precision="float32", data__size_divisor=32)
    task = build.build_task(config, found.table, load_weights=False)
    build.load_state(task.model, found.weights, Path("golden.pkl"))
    assert isinstance(task, PanopticTask)
    return task.eval()


@pytest.mark.parametrize(("size", "out"), [((192, 256), (192, 256)), ((210, 300), (173, 251))])
def test_detectron2s_figures(
    detectron2: PanopticTask, golden_files: Path, fill: ModuleType, size: tuple[int, int], out: tuple[int, int]
) -> None:
    """Features, proposals, instances and the map of detectron2 itself (tests/golden/make_detectron2.py)."""
    stem = golden_files / f"detectron2_r50_{size[0]}x{size[1]}_to_{out[0]}x{out[1]}"
    golden, info = np.load(f"{stem}.npz"), json.loads(Path(f"{stem}.json").read_text())
    with torch.inference_mode():
        maps: DenseMaps = detectron2.pixels(torch.from_numpy(fill.image(*size, seed=11))[None])
        boxes, logits = propose(candidates(maps.objectness, maps.deltas, 8.0), 0, size)
        found = detectron2._merged([DenseView(maps, size)], np.zeros((*out, 3), np.uint8), "golden", every_mask=True)
    for level, values in zip(("p2", "p3", "p4", "p5"), maps.pyramid, strict=True):
        assert values.abs().mean().item() == pytest.approx(golden[f"features/{level}/mean_abs"], rel=1e-5)
    semantic = golden["sem_seg/stride4_logits"]
    assert np.abs(maps.semantic.numpy() - semantic).max() <= 1e-4 * np.abs(semantic).max()
    np.testing.assert_allclose(boxes[:100].numpy(), golden["proposals/boxes"], atol=1e-2)
    np.testing.assert_allclose(logits[:100].numpy(), golden["proposals/logits"], atol=1e-4)
    detections = found.detections
    np.testing.assert_allclose(detections.scores, golden["instances/scores"], atol=1e-4)
    np.testing.assert_allclose(detections.boxes, golden["instances/boxes"], atol=1e-2)
    np.testing.assert_array_equal(detections.classes, golden["instances/classes"])
    areas = [np.count_nonzero(mask) for *_, mask in detections.masks]
    np.testing.assert_allclose(areas, golden["instances/mask_areas"], rtol=5e-3)
    assert (found.segments == golden["panoptic/segments"]).mean() >= 0.999
    assert [(s.id, s.train_id, s.thing) for s in found.info] == [
        (i["id"], i["category_id"], i["isthing"]) for i in info
    ]
    channels = np.where(found.semantic < 0, 0, found.semantic - 79)
    assert (channels == golden["sem_seg/labels"]).mean() >= 0.999
