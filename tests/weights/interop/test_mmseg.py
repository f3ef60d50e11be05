"""mmsegmentation's checkpoints: every container and network that is read gives its results, the rest says why not.

The containers imitate, object by object, files that mmengine 0.10 and mmcv 1.x write.
"""

import os
import pickle
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from panfpn import Predictor
from panfpn.config import Inference, Model
from panfpn.labels import LabelClass, LabelTable
from panfpn.weights import convert_model
from panfpn.weights.foreign import read_foreign
from panfpn.weights.interop import Imported, read_foreign_model
from panfpn.weights.interop.imported import semantic_shapes
from panfpn.weights.interop.mmseg import is_mmseg, mmseg_name, read_mmseg

State = dict[str, torch.Tensor]

# What mmsegmentation's configs/sem_fpn write, cut to what matters: 0.x as of July 2020, and 1.x.
CONFIG_0X = """
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    pretrained='open-mmlab://resnet50_v1c',
    backbone=dict(
        type='ResNetV1c', depth=50, num_stages=4, out_indices=(0, 1, 2, 3), dilations=(1, 1, 1, 1),
        strides=(1, 2, 2, 2), norm_cfg=dict(type='SyncBN', requires_grad=True), norm_eval=False, style='pytorch',
        contract_dilation=True),
    neck=dict(type='FPN', in_channels=[256, 512, 1024, 2048], out_channels=256, num_outs=4),
    decode_head=dict(
        type='FPNHead', in_channels=[256, 256, 256, 256], in_index=[0, 1, 2, 3], feature_strides=[4, 8, 16, 32],
        channels=128, dropout_ratio=0.1, num_classes=19, norm_cfg=dict(type='SyncBN', requires_grad=True),
        align_corners=False, loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)))
train_cfg = dict()
test_cfg = dict(mode='whole')
img_norm_cfg = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
train_pipeline = [
    dict(type='Resize', img_scale=(4096, 4096), ratio_range=(0.5, 2.0)),
    dict(type='Normalize', mean=[1.0, 1.0, 1.0], std=[2.0, 2.0, 2.0], to_rgb=True),
    dict(type='Pad', size=(512, 1024), pad_val=0, seg_pad_val=255)]
data = dict(
    samples_per_gpu=2,
    test=dict(
        type='CityscapesDataset',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(
                type='MultiScaleFlipAug', img_scale=(2048, 1024), flip=False,
                transforms=[
                    dict(type='Resize', keep_ratio=True),
                    dict(type='RandomFlip'),
                    dict(type='Normalize', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True),
                    dict(type='ImageToTensor', keys=['img']),
                    dict(type='Collect', keys=['img'])])]))
optimizer = dict(type='SGD', lr=0.01, paramwise_cfg=dict(custom_keys=dict({'head.x': dict(lr_mult=10.0)})))
work_dir = PosixPath('/work_dirs/fpn')
"""
CONFIG_1X = """
model = dict(
    backbone=dict(
        contract_dilation=True, depth=50, dilations=(1, 1, 1, 1,), norm_cfg=dict(requires_grad=True, type='SyncBN'),
        norm_eval=False, num_stages=4, out_indices=(0, 1, 2, 3,), strides=(1, 2, 2, 2,), style='pytorch',
        type='ResNetV1c'),
    data_preprocessor=dict(
        bgr_to_rgb=True, mean=[123.675, 116.28, 103.53,], pad_val=0, seg_pad_val=255, size=(512, 512,),
        std=[58.395, 57.12, 57.375,], type='SegDataPreProcessor'),
    decode_head=dict(
        align_corners=False, channels=128, dropout_ratio=0.1, feature_strides=[4, 8, 16, 32,],
        in_channels=[256, 256, 256, 256,], in_index=[0, 1, 2, 3,],
        loss_decode=dict(loss_weight=1.0, type='CrossEntropyLoss', use_sigmoid=False),
        norm_cfg=dict(requires_grad=True, type='SyncBN'), num_classes=150, type='FPNHead'),
    neck=dict(in_channels=[256, 512, 1024, 2048,], num_outs=4, out_channels=256, type='FPN'),
    pretrained='open-mmlab://resnet50_v1c', test_cfg=dict(mode='whole'), train_cfg=dict(), type='EncoderDecoder')
resume = False
test_cfg = dict(type='TestLoop')
test_dataloader = dict(
    batch_size=1,
    dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(keep_ratio=True, scale=(2048, 512,), type='Resize'),
            dict(reduce_zero_label=True, type='LoadAnnotations'),
            dict(type='PackSegInputs'),
        ],
        type='ADE20KDataset'))
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(keep_ratio=True, scale=(2048, 512,), type='Resize'),
    dict(type='PackSegInputs'),
]
"""


@pytest.fixture
def history_buffer(monkeypatch: pytest.MonkeyPatch) -> type:
    """A class that pickles as mmengine's HistoryBuffer does, its methods included."""

    class HistoryBuffer:
        def __init__(self, values: list[float]) -> None:
            self._log_history, self._count_history = np.array(values), np.ones(len(values), np.int64)
            self._max_length = 1_000_000

        def mean(self) -> None: ...

        def __getstate__(self) -> dict[str, Any]:
            return {**self.__dict__, "statistics_methods": {"mean": HistoryBuffer.mean}}

    HistoryBuffer.__module__ = "mmengine.logging.history_buffer"
    HistoryBuffer.__qualname__ = "HistoryBuffer"
    HistoryBuffer.mean.__qualname__ = "HistoryBuffer.mean"
    HistoryBuffer.mean.__module__ = HistoryBuffer.__module__
    module = ModuleType(HistoryBuffer.__module__)
    module.HistoryBuffer = HistoryBuffer  # type: ignore[attr-defined]
    for name in ("mmengine", "mmengine.logging"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, HistoryBuffer.__module__, module)
    return HistoryBuffer


def optimizer_state() -> dict[str, Any]:
    group = {"lr": 0.01, "momentum": 0.9, "params": [0, 1]}
    return {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [group]}


def container_0x(state: State, table: LabelTable, config: str = CONFIG_0X, **meta: Any) -> dict[str, Any]:
    return {
        "meta": {
            "mmseg_version": "0.5.0+b57fb2b", "config": config, "CLASSES": table.names,
            "PALETTE": table.palette.tolist(), "epoch": 1, "iter": 80000, "time": "Fri Jul 17 02:14:37 2020",
            "hook_msgs": {"best_score": np.float64(0.7452)}, **meta,
        },
        "state_dict": OrderedDict(state), "optimizer": optimizer_state(),
    }  # fmt: skip


def container_1x(state: State, table: LabelTable, buffer: type, config: str = CONFIG_1X) -> dict[str, Any]:
    described = {"classes": table.names, "palette": table.palette.tolist()}
    info = OrderedDict(cfg=config, seed=3, eta=np.float64(0.5), iter=160000, dataset_meta=described, last_ckpt=None)
    scalars = OrderedDict({"train/lr": buffer([0.01, 0.009]), "train/loss": buffer([2.9, 2.8])})
    return {
        "meta": {
            "epoch": 0, "iter": 160000, "cfg": config, "seed": 3, "experiment_name": "fpn", "time": "20230101_000000",
            "mmengine_version": "0.10.7", "dataset_meta": described,
        },
        "state_dict": OrderedDict(state),
        "message_hub": {"log_scalars": scalars, "runtime_info": info, "resumed_keys": OrderedDict(iter=True)},
        "optimizer": optimizer_state(), "param_schedulers": [{"eta_min": 1e-4, "last_step": 2, "_last_value": [0.01]}],
    }  # fmt: skip


def classes(count: int) -> LabelTable:
    return LabelTable(
        name="toy", classes=tuple(LabelClass(name=f"c{k}", color=(k, 0, 0), values=(k,)) for k in range(count))
    )


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def written(data: object, name: str = "x.pth", **options: Any) -> Path:
        torch.save(data, tmp_path / name, **options)
        return tmp_path / name

    return written


def golden_keys(golden_files: Path, num_classes: int) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Names, shapes and dtypes of the peer's tensors, in its order."""
    keys = {}
    for line in filter(None, (golden_files / "mmseg_keys_r50.tsv").read_text().splitlines()):
        name, shape, dtype = line.split("\t")
        sizes = tuple(int(size) for size in shape.strip("()").split(",") if size.strip())
        if name.startswith("decode_head.conv_seg."):
            sizes = (num_classes, *sizes[1:])
        keys[name] = (sizes, getattr(torch, dtype.removeprefix("torch.")))
    assert len(keys) == 390
    return keys


@pytest.mark.parametrize(
    ("data", "num_classes", "scale"), [("cityscapes", 19, (2048, 1024)), ("ade20k", 150, (2048, 512))]
)
def test_labels_of_the_peer_and_back_again(
    data: str, num_classes: int, scale: tuple[int, int], fill: ModuleType, golden_files: Path, tmp_path: Path,
    history_buffer: type,
) -> None:  # fmt: skip
    keys = golden_keys(golden_files, num_classes)
    state = {
        name: torch.from_numpy(fill.values(name, shape)) if dtype == torch.float32 else torch.tensor(80000)
        for name, (shape, dtype) in keys.items()
    }
    table = LabelTable.named(data)
    theirs = tmp_path / "theirs.pth"
    if data == "cityscapes":  # torch's format of July 2020, DDP's prefix
        prefixed = {f"module.{name}": t for name, t in state.items()}
        torch.save(container_0x(prefixed, table), theirs, _use_new_zipfile_serialization=False)
    else:
        torch.save(container_1x(state, table, history_buffer), theirs)
    ours, notes = convert_model(str(theirs), tmp_path / "ours.safetensors")
    assert notes == ("the optimiser's state was left out",)

    predictor = Predictor.from_file(ours, device="cpu", precision="float32")
    assert predictor.table == table
    assert predictor.task.preprocess.scale == scale and predictor.task.preprocess.size_divisor == 1
    golden = np.load(golden_files / f"mmseg_r50_{data}.npz")
    sure = golden["photo/top2_margin"] > 1e-3
    assert sure.mean() > 0.95
    labels = predictor(fill.image(150, 211, 8)).labels
    assert np.array_equal(labels[sure], golden["photo/labels"][sure])

    back, _ = convert_model(str(ours), tmp_path / "back.pth")
    again = torch.load(back, weights_only=True)
    assert list(again["state_dict"]) == list(keys)
    for name, (shape, dtype) in keys.items():
        tensor = again["state_dict"][name]
        assert (tuple(tensor.shape), tensor.dtype) == (shape, dtype), name
        assert torch.equal(tensor, state[name]), name
    assert tuple(again["meta"]["CLASSES"]) == table.names == tuple(again["meta"]["dataset_meta"]["classes"])
    assert again["meta"]["PALETTE"] == table.palette.tolist()


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("stem", ["", "c", "d"])
@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_the_network_is_read_from_its_tensors(depth: int, stem: str, norm: Any) -> None:
    count = 2 + depth % 7
    model = Model(backbone=f"resnet{depth}{stem}", num_classes=count, fpn_channels=24, head_channels=16, norm=norm)
    shapes = semantic_shapes(model)
    state = {mmseg_name(name, model): torch.empty(shape, device="meta") for name, shape in shapes.items()}
    assert len(state) == len(shapes)
    found = read_mmseg(state, {}, Path("x.pth"), labels=classes(count), ema=False, scale=None)
    read = found.config.model
    assert (read.backbone, read.num_classes, read.norm) == (model.backbone, count, norm)
    assert (read.fpn_channels, read.head_channels) == (24, 16)
    assert {name: t.shape for name, t in found.weights.items()} == shapes


def read(state: State, table: LabelTable | None = None, **options: Any) -> Imported:
    data = options.pop("data", {})
    arguments = {"labels": table or classes(3), "ema": False, "scale": None} | options
    return read_mmseg(state, data, Path("x.pth"), **arguments)


def test_tensors_that_do_not_fit_are_listed(small_mmseg: State) -> None:
    state = dict(small_mmseg)
    del state["neck.fpn_convs.2.conv.bias"]
    state["decode_head.more.weight"] = torch.zeros(1)
    state["backbone.layer1.0.conv1.weight"] = torch.zeros(64, 64, 1, 1)
    with pytest.raises(ValueError) as caught:
        read(state)
    text = str(caught.value)
    assert text.startswith("x.pth: its tensors do not fit; ")
    assert "1 missing: neck.fpn_convs.2.conv.bias" in text
    assert "1 unexpected: decode_head.more.weight" in text
    assert "1 of another shape: backbone.layer1.0.conv1.weight is (64, 64, 1, 1) instead of (64, 64, 3, 3)" in text


def test_a_long_list_is_cut(small_mmseg: State) -> None:
    state = {name: t for name, t in small_mmseg.items() if not name.startswith("neck.lateral")}
    state |= {f"decode_head.extra.{i:02d}": torch.zeros(1) for i in range(9)}
    with pytest.raises(ValueError, match=r"8 missing: .*bias; 9 unexpected: .*extra\.07, …$"):
        read(state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda name, t: (name.replace("layer4.1", "layer4.2"), t), r"missing: backbone\.layer4\.1\.conv1\.weight"),
        (lambda name, t: (name, t) if "layer4.1" not in name else None, r"blocks per stage \[2, 2, 2, 1\]"),
        (lambda name, t: (name, t) if "neck" not in name else None, r"it holds .*decode_head\.conv_seg"),
        (lambda name, t: (name, t.flatten()), "not a Semantic FPN on ResNet"),
        (lambda name, t: (name, t) if "conv_seg" not in name else None, r"it holds .*decode_head\.scale_heads"),
    ],
)
def test_other_networks_are_refused(change: Callable[..., Any], message: str, small_mmseg: State) -> None:
    state = dict(filter(None, (change(name, t) for name, t in small_mmseg.items())))
    with pytest.raises(ValueError, match=rf"^x\.pth: .*{message}"):
        read(state)


def test_average_pooling_without_deep_stem_is_refused(small_mmseg: State) -> None:
    state = dict(small_mmseg)
    state["backbone.layer2.0.downsample.1.weight"] = torch.zeros(128, 64, 1, 1)
    with pytest.raises(ValueError, match="avg_down"):
        read(state)


def test_missing_counts_are_zero(small_mmseg: State) -> None:
    state = {name: t for name, t in small_mmseg.items() if not name.endswith("num_batches_tracked")}
    weights = read(state).weights
    counts = [t for name, t in weights.items() if name.endswith("num_batches_tracked")]
    assert len(counts) == 27 and all(t.dtype == torch.int64 and t.item() == 0 for t in counts)


def test_the_auxiliary_head_is_left_out_and_said(small_mmseg: State) -> None:
    state = small_mmseg | {"auxiliary_head.conv_seg.weight": torch.zeros(3, 4, 1, 1), "auxiliary_head.x": torch.ones(1)}
    found = read(state)
    assert any(note.startswith("auxiliary_head (2 tensors)") for note in found.notes)
    assert found.weights.keys() == read(small_mmseg).weights.keys()
    assert not any("auxiliary" in note for note in read(small_mmseg).notes)


def test_both_copies_of_mmcvs_ema_hook(small_mmseg: State, write: Callable[..., Path]) -> None:
    parameters = [n for n in small_mmseg if "running" not in n and "num_batches" not in n]
    copies = {"ema_" + n.replace(".", "_"): small_mmseg[n] + 1 for n in parameters}
    file = write(container_0x({f"module.{n}": t for n, t in (small_mmseg | copies).items()}, classes(3)))
    first, second = (read_foreign_model(file, ema=ema) for ema in (False, True))
    assert any("two copies" in n and "the first (--ema takes the second)" in n for n in first.notes)
    assert any("two copies" in n and "the second (--ema)" in n for n in second.notes)
    for name, t in first.weights.items():
        theirs = mmseg_name(name, Model(backbone="resnet18"))
        assert torch.equal(t, small_mmseg[theirs])
        assert torch.equal(second.weights[name], t + 1 if theirs in parameters else t)


def test_both_copies_of_mmengines_ema_hook(
    small_mmseg: State, history_buffer: type, write: Callable[..., Path]
) -> None:
    data = container_1x(small_mmseg, classes(3), history_buffer, config="")
    raw = {f"module.{n}": t + 1 for n, t in small_mmseg.items()}
    data["ema_state_dict"] = OrderedDict(steps=torch.tensor(2), **raw)
    first, second = (read_foreign_model(write(data), ema=ema) for ema in (False, True))
    assert any("mmengine saves the averaged ones first" in n for n in first.notes)
    assert all(torch.equal(t + 1, second.weights[name]) for name, t in first.weights.items())


def test_no_second_copy(small_mmseg: State) -> None:
    with pytest.raises(ValueError, match="holds one copy of the weights only"):
        read(small_mmseg, ema=True)
    assert not any("copies" in note for note in read(small_mmseg).notes)


def test_classes_are_asked_for(small_mmseg: State, write: Callable[..., Path]) -> None:
    file = write(dict(small_mmseg))
    with pytest.raises(ValueError, match=r"x\.pth: names no classes; say what its 3 classes are.*--labels"):
        read_foreign_model(file)
    assert read_foreign_model(file, labels=classes(3)).table == classes(3)


def test_own_classes_with_and_without_colours(small_mmseg: State, write: Callable[..., Path]) -> None:
    names = ("road ", "sky", "tree")
    palette = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]])  # custom classes have an array here in 0.x
    file = write(container_0x(small_mmseg, classes(3), CLASSES=names, PALETTE=palette), "trees.pth")
    table = read_foreign_model(file).table
    assert (table.name, table.names) == ("trees", ("road", "sky", "tree"))
    assert table.palette.tolist() == palette.tolist()
    assert [c.values for c in table.classes] == [(0,), (1,), (2,)] and table.ignore == (255,)
    file = write(container_0x(small_mmseg, classes(3), CLASSES=names, PALETTE=None), "trees.pth")
    assert len({c.color for c in read_foreign_model(file).table.classes}) == 3


@pytest.mark.parametrize(
    "text",
    ["data = dict(test=dict(reduce_zero_label=True))",
     "test_pipeline = [dict(type='LoadAnnotations', reduce_zero_label=True)]"],
)  # fmt: skip
def test_masks_whose_zero_is_ignored(text: str, small_mmseg: State, write: Callable[..., Path]) -> None:
    meta = {"CLASSES": ("a", "b", "c"), "config": text}
    table = read_foreign_model(write({"meta": meta, "state_dict": small_mmseg})).table
    assert [c.values for c in table.classes] == [(1,), (2,), (3,)] and table.ignore == (0, 255)


def test_where_the_test_size_comes_from(small_mmseg: State) -> None:
    said = {"meta": {"config": CONFIG_0X}}
    assert read(small_mmseg, data=said).config.data.scale == (2048, 1024)
    asked = read(small_mmseg, data=said, scale=(640, 480))
    assert asked.config.data.scale == (640, 480)  # never ignored
    assert not any("size" in note for note in asked.notes)
    guessed = read(small_mmseg)
    assert guessed.config.data.scale is None
    assert any("fitted into their own size" in note for note in guessed.notes)


def test_the_published_size_where_the_file_says_none() -> None:
    model = Model(backbone="resnet18", num_classes=19, fpn_channels=8, head_channels=8)
    shapes = semantic_shapes(model)
    state = {mmseg_name(name, model): torch.zeros(shape) for name, shape in shapes.items()}
    found = read(state, LabelTable.named("cityscapes"))
    assert found.config.data.scale == (2048, 1024)
    assert any("without --scale, they are fitted into 2048×1024" in note for note in found.notes)


def test_settings_reach_the_network(small_mmseg: State) -> None:
    text = CONFIG_0X.replace("[123.675, 116.28, 103.53]", "[1, 2, 3]").replace("dropout_ratio=0.1", "dropout_ratio=0")
    text = text.replace("mode='whole'", "mode='slide', crop_size=(512, 1024), stride=(341, 683)")
    found = read(small_mmseg, data={"meta": {"config": text}})
    assert found.config.model.mean == (1.0, 2.0, 3.0) and found.config.model.dropout == 0
    assert found.config.inference == Inference(mode="slide", window=(512, 1024), stride=(341, 683))
    assert found.format == "mmsegmentation 0.x"


@pytest.mark.parametrize(
    "text", ["not Python at all (", "/configs/fpn.py\nmodel = dict()", "x = " + "-" * 100_000 + "1"]
)
def test_a_text_that_is_not_python_is_said(text: str, small_mmseg: State) -> None:
    found = read(small_mmseg, data={"meta": {"config": text}})
    assert any("configuration text is not Python" in note for note in found.notes)


def test_refusals_name_the_file(small_mmseg: State) -> None:
    text = CONFIG_0X.replace("style='pytorch'", "style='caffe'")
    with pytest.raises(ValueError, match=r"^x\.pth: .*backbone\.style is 'caffe' there and 'pytorch' here"):
        read(small_mmseg, data={"meta": {"config": text}})


@pytest.mark.parametrize("meta", [None, 5, {}, {"config": 7}, {"config": {"model": 1}}])
def test_odd_meta_data(meta: object, small_mmseg: State) -> None:
    assert read(small_mmseg, data={"meta": meta}).config.model.backbone == "resnet18"


class _Runs:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_in_a_file_is_run(zipped: bool, small_mmseg: State, tmp_path: Path, write: Callable[..., Path]) -> None:
    ran = tmp_path / "ran"
    wanted = {os.system: "(posix|nt|os).system", exec: "exec", pickle.loads: "_?pickle.loads"}
    for function, name in wanted.items():
        argument: Any = f"touch {ran}" if function is os.system else f"open({str(ran)!r}, 'w')"
        evil = _Runs(function, argument.encode() if function is pickle.loads else argument)
        file = write({"state_dict": {}, "meta": evil}, _use_new_zipfile_serialization=zipped)
        with pytest.raises(ValueError, match=rf"x\.pth: not loaded: to unpickle it, {name} would have to run"):
            read_foreign_model(file)
    # Through the one name that is let in and that could reach others, nothing is reached.
    evil = _Runs(getattr, str, "upper")
    with pytest.raises(ValueError, match=r"x\.pth: not loaded: to unpickle it, str would"):
        read_foreign_model(write({"state_dict": {}, "meta": evil}, _use_new_zipfile_serialization=zipped))
    evil = _Runs(getattr, np.ndarray, "tofile")
    data = {"state_dict": small_mmseg, "meta": {"CLASSES": ["a", "b", "c"], "x": evil}}
    file = write(data, _use_new_zipfile_serialization=zipped)
    assert read_foreign(file)["meta"]["x"] is not np.ndarray.tofile
    assert read_foreign_model(file).table.names == ("a", "b", "c")
    assert not ran.exists()


def test_a_class_of_somebodys_project_is_named(
    small_mmseg: State, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("my_project")
    exec("class Config:\n    pass", module.__dict__)
    monkeypatch.setitem(sys.modules, "my_project", module)
    file = write({"state_dict": small_mmseg, "meta": module.Config()})
    monkeypatch.delitem(sys.modules, "my_project")
    with pytest.raises(ValueError, match=r"to unpickle it, my_project\.Config would have to run.*save its state dict"):
        read_foreign_model(file)


def test_smp_is_refused_with_the_difference(small_mmseg: State, write: Callable[..., Path]) -> None:
    state = {n.replace("backbone.", "encoder."): t for n, t in small_mmseg.items() if n.startswith("backbone.")}
    state |= {"decoder.p5.weight": torch.zeros(8, 512, 1, 1), "segmentation_head.0.weight": torch.zeros(3, 8, 1, 1)}
    with pytest.raises(ValueError, match=r"x\.pth: smp\.FPN is another network.*align_corners=True.*backbone-weights"):
        read_foreign_model(write(state))
    del state["decoder.p5.weight"]
    with pytest.raises(ValueError, match=r"segmentation_models_pytorch network, but not its FPN"):
        read_foreign_model(write(state))


def test_a_backbone_alone_gets_a_hint(small_mmseg: State, write: Callable[..., Path]) -> None:
    state = {n.removeprefix("backbone."): t for n, t in small_mmseg.items() if n.startswith("backbone.")}
    assert not is_mmseg(state)
    with pytest.raises(ValueError, match=r"begin with bn1, conv1, layer1.*backbone alone.*--model\.backbone-weights"):
        read_foreign_model(write(state))
    with pytest.raises(ValueError, match=r"begin with no tensors\)$"):
        read_foreign_model(write({"epoch": 3, 4: "four"}))
    with pytest.raises(ValueError, match=r"begin with 0\)$"):
        read_foreign_model(write({0: torch.zeros(1)}))
