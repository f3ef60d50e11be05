"""detectron2's checkpoints: every tensor lands under our name and goes back, and the network computes the same."""

import ast
import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from panfpn.config import Data, Inference, Model, TrainConfig
from panfpn.labels import LabelClass, LabelTable
from panfpn.models import PanopticFPN
from panfpn.weights import convert_model, write_release
from panfpn.weights.files import read_header
from panfpn.weights.interop import Imported, read_detectron2, read_foreign_model, write_detectron2
from panfpn.weights.interop.detectron2 import detectron2_name
from panfpn.weights.interop.detectron2_config import read_settings
from panfpn.weights.interop.imported import panoptic_shapes

State = dict[str, torch.Tensor]
FIRST, THEIR_FIRST = "backbone.body.conv1.weight", "backbone.bottom_up.stem.conv1.weight"
# Stuff between things: the order of classes is not that of detectron2.
TABLE = LabelTable(
    name="toy",
    classes=tuple(
        LabelClass(name=name, color=(k, 0, 0), thing=name in "ab", values=(k + 1,)) for k, name in enumerate("axbyz")
    ),
)
NARROW = Model(
    architecture="PanopticFPN", backbone="resnet50_msra", num_classes=5, fpn_channels=8, head_channels=32, norm="group",
    dropout=0.0, anchor_scale=4.0, box_channels=6, mask_channels=4, mean=(1.5, 120.0, 130.0), std=(60.0, 61.0, 62.5),
)  # fmt: skip
CONFIG = TrainConfig(
    model=NARROW, data=Data(scale=(96, 64), size_divisor=32),
    inference=Inference(box_score=0.1, nms=0.4, detections=7, confidence=0.3, overlap=0.6, stuff_area=9),
)  # fmt: skip
SCALE = {
    THEIR_FIRST: 1 / 60, "roi_heads.box_predictor.cls_score.weight": 4.0,
    "roi_heads.box_predictor.bbox_pred.weight": 0.3, "proposal_generator.rpn_head.anchor_deltas.weight": 0.3,
    **{f"backbone.fpn_lateral{level}.weight": 0.3 for level in (2, 3, 4, 5)},
}  # fmt: skip  # of the golden weights, as make_detectron2.py has it


@pytest.fixture(scope="module")
def golden(golden_files: Path, fill: ModuleType) -> State:
    lines = (golden_files / "detectron2_keys_r50.tsv").read_text().splitlines()
    shapes = {name: ast.literal_eval(shape) for name, shape, _ in (line.split("\t") for line in lines)}
    return {n: torch.from_numpy(fill.values(n, s) * np.float32(SCALE.get(n, 1.0))) for n, s in shapes.items()}


@pytest.fixture(scope="module")
def imported(golden: State) -> Imported:
    return read_detectron2(golden, Path("x.pkl"))


@pytest.fixture(scope="module")
def narrow() -> State:
    """Our weights of a narrow network, each drawn."""
    torch.manual_seed(0)
    network = PanopticFPN(
        NARROW.backbone, TABLE, fpn_channels=8, head_channels=32, norm="group", anchor_scale=4.0, box_channels=6,
        mask_channels=4,
    )  # fmt: skip
    return {name: torch.rand_like(t) + 0.5 if t.is_floating_point() else t for name, t in network.state_dict().items()}


@pytest.fixture
def theirs(narrow: State) -> State:
    """The same under detectron2's names, as it keeps them."""
    frozen = ("num_batches_tracked",)
    return {detectron2_name(name): t for name, t in narrow.items() if not name.endswith(frozen)}


def release(path: Path, weights: State, config: TrainConfig = CONFIG, table: LabelTable = TABLE) -> Path:
    write_release(path, weights, config, table, scores={}, source={})
    return path


def test_every_tensor_lands(golden: State, imported: Imported) -> None:
    model = imported.config.model
    names = {name: detectron2_name(name) for name in panoptic_shapes(model, imported.table)}
    counts = {name for name in names if name.endswith("num_batches_tracked")}
    assert len(golden) == 330 and {names[name] for name in names.keys() - counts} == golden.keys()
    assert imported.weights.keys() == names.keys()
    for name, tensor in imported.weights.items():
        if name != FIRST:
            assert torch.equal(tensor, torch.tensor(0) if name in counts else golden[names[name]]), name
    assert model == Model(
        architecture="PanopticFPN", backbone="resnet50_msra", num_classes=133, norm="group", dropout=0.0,
        mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375),
    )  # fmt: skip
    assert imported.config.data == Data(scale=(1333, 800), size_divisor=32)
    assert imported.config.inference == Inference()
    assert imported.table == LabelTable.named("coco_panoptic")
    assert len(imported.notes) == 1 and "STRIDE_IN_1X1 True" in imported.notes[0]


def test_colours_are_folded(golden: State, imported: Imported) -> None:
    bgr = torch.rand(1, 3, 37, 41, dtype=torch.float64) * 255
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (imported.config.model.mean, (1.0,) * 3))
    expected = F.conv2d((bgr - mean.flip(0)) / std, golden[THEIR_FIRST].double(), stride=2, padding=3)
    ours = torch.tensor(imported.config.model.std, dtype=torch.float64).view(3, 1, 1)
    found = F.conv2d((bgr.flip(1) - mean) / ours, imported.weights[FIRST].double(), stride=2, padding=3)
    assert (found - expected).abs().max() < 1e-6 * expected.abs().max()  # a rounding to float32


def test_the_semantic_branch_gives_detectron2s_logits(imported: Imported, golden_files: Path, fill: ModuleType) -> None:
    network = PanopticFPN("resnet50_msra", imported.table, norm="group").eval()
    network.load_state_dict(imported.weights)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (imported.config.model.mean, imported.config.model.std))
    image = torch.from_numpy(fill.image(192, 256, seed=11).transpose(2, 0, 1).copy()).float()
    expected = np.load(golden_files / "detectron2_r50_192x256_to_192x256.npz")["sem_seg/stride4_logits"]
    with torch.no_grad():
        found = network(((image - mean) / std)[None]).semantic.numpy()
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def test_out_and_in(golden: State, imported: Imported, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    write_detectron2(path, imported.weights, imported.config, imported.table)
    data = torch.load(path, weights_only=True)
    assert data["model"].keys() == golden.keys() and "matching_heuristics" not in data
    for name, tensor in data["model"].items():
        exact = name != THEIR_FIRST
        torch.testing.assert_close(tensor, golden[name], rtol=0 if exact else 2e-7, atol=0)
    again = read_foreign_model(path)
    assert (again.config, again.table, again.notes) == (imported.config, imported.table, ())
    for name, tensor in again.weights.items():
        torch.testing.assert_close(tensor, imported.weights[name], rtol=0 if name != FIRST else 2e-7, atol=0)


def arrays(state: State, **more: Any) -> dict[str, Any]:
    """As detectron2's model zoo stores it."""
    return {"model": {n: t.numpy() for n, t in state.items()}, "__author__": "Detectron2 Model Zoo", **more}


@pytest.mark.parametrize(
    "save",
    [
        lambda path, state: path.write_bytes(pickle.dumps(arrays(state), 2)),
        lambda path, state: path.write_bytes(pickle.dumps(arrays(state, matching_heuristics=True), 5)),
        lambda path, state: torch.save({"model": state, "optimizer": {}, "iteration": 9}, path),
        lambda path, state: torch.save({f"module.{n}": t for n, t in state.items()}, path),
    ],
)
def test_containers(save: Callable[[Path, State], None], theirs: State, narrow: State, tmp_path: Path) -> None:
    old = {"pixel_mean": torch.rand(3, 1, 1), "pixel_std": torch.ones(3, 1, 1)}
    cells = {f"proposal_generator.anchor_generator.cell_anchors.{k}": torch.rand(3, 4) for k in range(5)}
    save(tmp_path / "x.pkl", theirs | old | cells)
    found = read_foreign_model(tmp_path / "x.pkl", labels=TABLE)
    assert found.weights.keys() == narrow.keys() and found.format == "detectron2"
    assert all(torch.equal(found.weights[n], t) for n, t in narrow.items() if n != FIRST)
    assert found.config.model.box_channels == 6 and found.config.model.mask_channels == 4


def test_a_release_goes_there_and_back(narrow: State, tmp_path: Path) -> None:
    own = release(tmp_path / "own.safetensors", narrow)
    peers, notes = convert_model(own, tmp_path / "peers.pth")
    assert notes == ()
    again, notes = convert_model(peers, tmp_path / "again.safetensors")
    assert notes == ()
    before, after = read_header(own), read_header(again)
    assert after["model"].pop("std") == [58.395, 57.12, 57.375] and before["model"].pop("std") == [60.0, 61.0, 62.5]
    for name in ("architecture", "model", "scale", "size_divisor", "inference", "table"):
        assert after[name] == before[name], name
    weights = read_foreign_model(peers).weights
    image = torch.rand(1, 3, 20, 20) * 255 - 128
    rgb = F.conv2d(image / torch.tensor(NARROW.std).view(3, 1, 1), narrow[FIRST])
    torch.testing.assert_close(
        F.conv2d(image / torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1), weights[FIRST]), rgb
    )
    assert all(torch.equal(weights[n], t) for n, t in narrow.items() if n != FIRST)


INSTANCES = {"anchor_scale": 8.0, "box_channels": 1024, "mask_channels": 256}  # as Semantic FPN must leave them


def test_what_detectron2_has_no_place_for(narrow: State, tmp_path: Path) -> None:
    config = CONFIG.changed(inference=Inference(nms_over_classes=True, flip=True))
    _, notes = convert_model(release(tmp_path / "x.safetensors", narrow, config), tmp_path / "x.pth")
    assert len(notes) == 2 and "inference.flip" in notes[0].replace(".ratios, ", ".ratios, inference")
    assert "nms_over_classes" in notes[1]
    for changes, message in (
        ({"backbone": "resnet18"}, "detectron2 has no PanopticFPN on 'resnet18'"),
        ({"backbone": "resnet50c"}, "detectron2 has no PanopticFPN on 'resnet50c'"),
        ({"architecture": "SemanticFPN"} | INSTANCES, "detectron2 has no SemanticFPN"),
        ({"semantic_things": "all"}, "model.semantic_things all"),
        ({"head_channels": 16}, "32 groups"),
        ({"in_channels": 4}, "not 4"),
    ):
        inference = Inference() if "architecture" in changes else CONFIG.inference
        changed = replace(CONFIG, model=replace(NARROW, **changes), inference=inference)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=rf"y\.pth: .*{re.escape(message)}"):
            write_detectron2(tmp_path / "y.pth", narrow, changed, TABLE)


CONFIGURATION = """
MODEL:
  PIXEL_MEAN: [123.675, 116.280, 103.530]
  PIXEL_STD: [58.395, 57.12, 57.375]
  RESNETS: {STRIDE_IN_1X1: false, DEPTH: 50}
  ANCHOR_GENERATOR: {SIZES: [[16], [32], [64], [128], [256]]}
  ROI_HEADS: {SCORE_THRESH_TEST: 0.2}
INPUT: {FORMAT: RGB, MIN_SIZE_TEST: 640, MAX_SIZE_TEST: 999}
"""


def test_the_configuration_beside_the_file(theirs: State, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"model": theirs}, path)
    path.with_suffix(".yaml").write_text(CONFIGURATION)
    found = read_foreign_model(path, labels=TABLE)
    assert found.notes == ("x.yaml was read as detectron2's configuration of the network",)
    assert found.config.model.backbone == "resnet50" and found.config.model.anchor_scale == 4
    assert found.config.data.scale == (999, 640) and found.config.inference == Inference(box_score=0.2)
    assert found.config.model.mean == (123.675, 116.28, 103.53)
    assert torch.equal(found.weights[FIRST], theirs[THEIR_FIRST])
    assert read_foreign_model(path, labels=TABLE, scale=(64, 32)).config.data.scale == (64, 32)
    for old, new, message in (
        (
            "DEPTH: 50",
            "NUM_GROUPS: 32",
            "differs from panfpn's: MODEL.RESNETS.NUM_GROUPS is 32 there and 1",
        ),
        ("[16], [32]", "[16], [33]", "MODEL.ANCHOR_GENERATOR.SIZES is"),
        ("[[16], [32], [64], [128], [256]]", "[[32, 64]]", "MODEL.ANCHOR_GENERATOR.SIZES is"),
        ("[58.395, 57.12, 57.375]", "[58.395]", "its MODEL.PIXEL_STD is [58.395]; three numbers above 0 are wanted"),
        ("[58.395, 57.12, 57.375]", "[0, 1, 1]", "its MODEL.PIXEL_STD is [0, 1, 1]; three numbers above 0 are wanted"),
        ("0.2", "often", "often"),
        ("640", "many", "many"),
        ("640", "0", "INPUT.MIN_SIZE_TEST is 0"),
        (CONFIGURATION, "a: [", "its configuration cannot be read as YAML"),
        (CONFIGURATION, "!!python/object/apply:os.system [ls]", "its configuration cannot be read as YAML"),
        (CONFIGURATION, "- 3", "its configuration is not a mapping"),
    ):
        path.with_suffix(".yaml").write_text(CONFIGURATION.replace(old, new))
        with pytest.raises(ValueError, match=rf"x\.(yaml|pth): .*{re.escape(message)}") as caught:
            read_foreign_model(path, labels=TABLE)
        assert "\n" not in str(caught.value)


def test_what_does_not_fit_is_listed(theirs: State) -> None:
    path = Path("x.pkl")
    lost = {n: t for n, t in theirs.items() if n != "roi_heads.mask_head.deconv.bias"}
    for state, message in (
        (lost, "its tensors do not fit; 1 missing: roi_heads.mask_head.deconv.bias"),
        (theirs | {"roi_heads.box_head.fc3.bias": torch.ones(1)}, "1 unexpected: roi_heads.box_head.fc3.bias"),
        (theirs | {"backbone.fpn_output3.bias": torch.ones(9)}, "backbone.fpn_output3.bias is (9,) instead of (8,)"),
        ({n: t for n, t in theirs.items() if "sem_seg" not in n}, "a network of detectron2, but not its Panoptic FPN"),
        ({n: t for n, t in theirs.items() if "fc1" not in n}, "it has no roi_heads.box_head.fc1.weight"),
        ({n: t for n, t in theirs.items() if ".res3.3." not in n}, "blocks per stage [3, 3, 6, 3]"),
    ):
        with pytest.raises(ValueError, match=rf"^x\.pkl: .*{re.escape(message)}"):
            read_detectron2(state, path, TABLE)


def test_old_files_keep_no_statistics(theirs: State) -> None:
    old = {n: t for n, t in theirs.items() if "running_" not in n}
    found = read_detectron2(old, Path("x.pkl"), TABLE)
    assert found.weights["backbone.body.layer2.0.downsample.1.running_var"].tolist() == [1.0] * 512
    assert found.weights["backbone.body.bn1.running_mean"].tolist() == [0.0] * 64
    assert any("no statistics" in note for note in found.notes)
    kept = {n: t for n, t in theirs.items() if not n.endswith("res2.0.conv1.norm.running_var")}
    with pytest.raises(ValueError, match=r"1 missing: backbone\.bottom_up\.res2\.0\.conv1\.norm\.running_var"):
        read_detectron2(kept, Path("x.pkl"), TABLE)


def test_classes_must_be_known(theirs: State) -> None:
    with pytest.raises(ValueError, match=r"x\.pkl: has 2 classes of things and 4 semantic channels; say what they are"):
        read_detectron2(theirs, Path("x.pkl"))
    with pytest.raises(ValueError, match="but label table 'cityscapes' has 8 things and 11 stuff classes"):
        read_detectron2(theirs, Path("x.pkl"), LabelTable.named("cityscapes"))


def test_a_semantic_network_alone(imported: Imported, golden: State) -> None:
    parts = ("backbone.", "sem_seg_head.")
    found = read_detectron2({n: t for n, t in golden.items() if n.startswith(parts)}, Path("x.pkl"))
    assert found.config.model.architecture == "SemanticFPN" and found.config.model.num_classes == 54
    assert found.table.names[:3] == ("things", "banner", "blanket") and found.table.num_classes == 54
    assert found.table.encode(np.array([[1, 90, 92, 200, 0]])).tolist() == [[0, 0, 1, 53, -1]]
    assert all(torch.equal(t, imported.weights[n]) for n, t in found.weights.items())


@pytest.mark.parametrize("backbone", ["resnet101_msra", "resnet101", "resnet50"])
def test_other_backbones_there_and_back(backbone: str, tmp_path: Path) -> None:
    config = replace(CONFIG, model=replace(NARROW, backbone=f"{backbone}"))
    weights = {n: torch.ones(()).expand(shape) for n, shape in panoptic_shapes(config.model, TABLE).items()}
    write_detectron2(tmp_path / "x.pth", weights, config, TABLE)
    assert read_foreign_model(tmp_path / "x.pth").config.model.backbone == backbone


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("INPUT: {MAX_SIZE_TEST: [1333]}", r"INPUT.MAX_SIZE_TEST is \[1333\]; it must be a number of pixels"),
        ("INPUT: {MIN_SIZE_TEST: null}", "INPUT.MIN_SIZE_TEST is None; it must be a number of pixels"),
        ("INPUT: 3", "its section is 3"),
    ],
)
def test_damaged_settings_are_named(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_settings(text)
