import ast
import json
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from panfpn import build
from panfpn.labels import IGNORE, LabelClass, LabelTable
from panfpn.models import PanopticFPN, SemanticFPN
from panfpn.models.instance import candidates, propose
from panfpn.models.panoptic import DenseMaps
from panfpn.tasks.detect import DenseView
from panfpn.tasks.panoptic import PanopticTask
from panfpn.weights.interop.detectron2 import read_detectron2
from small_backbone import OneConvolutionALevel

STUFF = LabelClass(name="sky", color=(0, 0, 1), values=(0,))
THING = LabelClass(name="cat", color=(0, 1, 0), thing=True, values=(1,))
GROUND = LabelClass(name="ground", color=(1, 0, 0), values=(2,))
TABLE = LabelTable(name="t", classes=(STUFF, THING, GROUND))


def small(backbone: str | nn.Module = "test_resnet", **settings: object) -> PanopticFPN:
    return PanopticFPN(backbone, TABLE, fpn_channels=32, head_channels=32, box_channels=16, mask_channels=16,
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


def test_arguments_mean_what_they_mean_for_semantic_fpn() -> None:
    """The same names with the same defaults; a backbone of one's own is taken."""
    ours, theirs = (signature(network).parameters for network in (PanopticFPN, SemanticFPN))
    shared = [name for name in theirs if name in ours and name != "backbone"]
    expected = {"in_channels", "pretrained_backbone", "pyramid", "fpn_channels", "head_channels", "norm", "dropout"}
    assert expected == set(shared)
    assert [ours[n].default for n in shared] == [theirs[n].default for n in shared]
    maps = small(backbone=OneConvolutionALevel()).eval()(torch.randn(1, 3, 64, 64))
    assert maps.semantic.shape == (1, 3, 16, 16)


def test_channels_and_classes_of_train_ids() -> None:
    assert small().semantic_index.tolist() == [1, 0, 2, IGNORE] and small().thing_index.tolist() == [1, 0, 1, 1]
    assert small(semantic_things="all").semantic_index.tolist() == [0, 1, 2, IGNORE]
    assert not {"semantic_index", "thing_index"} & set(small().state_dict())  # the label table's, not the weights'


def leaves(maps: DenseMaps) -> list[torch.Tensor]:
    return [maps.semantic, *maps.pyramid, *maps.objectness, *maps.deltas]


def test_the_dense_part_exports_with_any_batch_height_and_width() -> None:
    """p6 is an image's side by 64, and more than 1, so a side is at least 96."""
    torch.manual_seed(0)
    model = small(backbone=OneConvolutionALevel()).eval()
    sides = {2: 32 * torch.export.Dim("rows", min=3, max=64), 3: 32 * torch.export.Dim("columns", min=3, max=64)}
    exported = torch.export.export(
        model, (torch.randn(2, 3, 128, 192),), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=16), **sides},)
    ).module()
    for size in ((1, 3, 96, 128), (3, 3, 160, 96)):
        images = torch.randn(size)
        with torch.no_grad():
            torch.testing.assert_close(leaves(exported(images)), leaves(model(images)), rtol=1e-5, atol=1e-6)


def test_the_dense_part_compiles_into_few_graphs() -> None:
    torch.manual_seed(0)
    model, graphs = small(backbone=OneConvolutionALevel()).train(), []

    def count(module: torch.fx.GraphModule, _: object) -> Callable[..., object]:
        graphs.append(module)
        return module.forward

    torch._dynamo.reset()
    compiled = torch.compile(model, backend=count, fullgraph=True)
    for size in ((64, 96), (96, 64), (128, 160), (64, 64), (160, 224), (97, 131)):
        images = torch.randn(2, 3, *size)
        torch.manual_seed(1)
        maps = compiled(images)
        sum(leaf.square().mean() for leaf in leaves(maps)).backward()
        torch.manual_seed(1)
        torch.testing.assert_close(leaves(maps), leaves(model(images)), rtol=1e-4, atol=1e-5)
    assert 1 <= len(graphs) <= 4


def test_a_table_without_things_asks_for_semantic_fpn() -> None:
    with pytest.raises(ValueError, match=r"label table 'flat' has no things.*Semantic FPN"):
        PanopticFPN("resnet18", LabelTable(name="flat", classes=(STUFF,)))


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
