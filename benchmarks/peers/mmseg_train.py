"""mmsegmentation's side of benchmarks/curve_peers.py: it trains for some minutes, without panfpn.

usage: python mmseg_train.py SETTINGS.json

SETTINGS: root (of CamVid), out, minutes, batch, crop, scale, points, depth, optimizer (of mmengine's kind; none: the
configuration's), classes, every (of the validation images, each so many-th). CURVE.json in `out` gets rows of minutes
(of training, without validations) and mIoU. The pace is taken first, so that the polynomial ends with the time.
"""

import json
import sys
import time
from pathlib import Path

import torch
from mmseg_side import import_mmseg

mmseg = import_mmseg()
from mmengine.config import Config  # noqa: E402
from mmengine.hooks import Hook  # noqa: E402
from mmengine.registry import HOOKS  # noqa: E402
from mmengine.runner import Runner  # noqa: E402

TRIED, WARM = 12, 4
NORM = {"type": "BN", "requires_grad": True}  # one process: BN in place of SyncBN


@HOOKS.register_module()
class Clock(Hook):
    """Minutes of training so far; a validation's time is not counted."""

    def __init__(self) -> None:
        self.seconds, self.marks, self.rows = 0.0, [], []

    def before_train(self, runner) -> None:
        self.since = time.monotonic()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        now = time.monotonic()
        self.seconds += now - self.since
        self.marks.append(self.seconds)
        self.since = now

    def before_val(self, runner) -> None:
        self.before = time.monotonic()

    def after_val_epoch(self, runner, metrics=None) -> None:
        self.rows.append({"minutes": self.seconds / 60, "step": len(self.marks), "miou": float(metrics["mIoU"]) / 100})
        (Path(runner.work_dir) / "curve.json").write_text(json.dumps(self.rows))
        self.since = time.monotonic()


def configured(task: dict, steps: int, every: int) -> Config:
    folder = Path(mmseg.__file__).parent / ".mim/configs/sem_fpn"
    config = Config.fromfile(folder / "fpn_r50_4xb4-160k_ade20k-512x512.py")
    height, width = task["crop"]
    model = config.model
    model.pretrained = None
    model.data_preprocessor.update(size=(height, width), test_cfg={"size_divisor": 32})
    model.backbone.update(type="ResNet", depth=task["depth"], norm_cfg=NORM, pretrained=None)
    model.neck.in_channels = [64, 128, 256, 512] if task["depth"] < 50 else model.neck.in_channels
    model.decode_head.update(num_classes=len(task["classes"]), norm_cfg=NORM)
    load = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations", "reduce_zero_label": False}]
    scale = tuple(task["scale"])
    train = [
        *load, {"type": "RandomResize", "scale": scale, "ratio_range": (0.5, 2.0), "keep_ratio": True},
        {"type": "RandomCrop", "crop_size": (height, width), "cat_max_ratio": 0.75},
        {"type": "RandomFlip", "prob": 0.5}, {"type": "PhotoMetricDistortion"}, {"type": "PackSegInputs"},
    ]  # fmt: skip
    test = [load[0], {"type": "Resize", "scale": scale, "keep_ratio": True}, load[1], {"type": "PackSegInputs"}]
    common = {
        "type": "BaseSegDataset", "data_root": task["root"], "img_suffix": ".png", "seg_map_suffix": ".png",
        "metainfo": {"classes": task["classes"], "palette": [[k, k, k] for k in range(len(task["classes"]))]},
        "ignore_index": 11,
    }  # fmt: skip

    def data(split: str, pipeline: list) -> dict:
        return {**common, "data_prefix": {"img_path": split, "seg_map_path": f"{split}annot"}, "pipeline": pipeline}

    model.decode_head.ignore_index = 11  # as CamVid's masks have it
    model.decode_head.loss_decode.avg_non_ignore = False
    loader = {"num_workers": 1, "persistent_workers": True}
    val = data("val", test) | {"indices": list(range(0, task["num_val"], task["every"]))}
    config.update(
        train_dataloader={**loader, "batch_size": task["batch"], "dataset": data("train", train),
                          "sampler": {"type": "InfiniteSampler", "shuffle": True}},
        val_dataloader={**loader, "batch_size": 1, "dataset": val,
                        "sampler": {"type": "DefaultSampler", "shuffle": False}},
        test_dataloader=None, test_cfg=None, test_evaluator=None,
        val_evaluator={"type": "IoUMetric", "iou_metrics": ["mIoU"], "ignore_index": 11},
        train_cfg={"type": "IterBasedTrainLoop", "max_iters": steps, "val_interval": every},
        custom_hooks=[{"type": "Clock", "priority": "VERY_LOW"}], work_dir=task["out"], launcher="none",
        randomness={"seed": task["seed"]}, log_level="WARNING",
    )  # fmt: skip
    config.param_scheduler[-1].update(begin=0, end=steps)
    if task.get("optimizer"):
        config.optim_wrapper.optimizer = task["optimizer"]
    config.default_hooks.checkpoint.interval = 10**9
    config.default_hooks.visualization = {"type": "SegVisualizationHook"}
    config.vis_backends = []
    config.visualizer = {"type": "SegLocalVisualizer", "vis_backends": [], "name": "none"}
    return config


def run(task: dict, steps: int, every: int) -> Clock:
    runner = Runner.from_cfg(configured(task, steps, every))
    clock = next(hook for hook in runner.hooks if isinstance(hook, Clock))
    runner.train()
    return clock


def main() -> None:
    task = json.loads(Path(sys.argv[1]).read_text())
    torch.manual_seed(task["seed"])
    marks = run(task, TRIED, 10**9).marks
    pace = (marks[-1] - marks[WARM]) / (len(marks) - 1 - WARM)
    steps = max(task["points"], int(60 * task["minutes"] / pace))
    run(task, steps, -(-steps // task["points"]))


if __name__ == "__main__":
    main()
