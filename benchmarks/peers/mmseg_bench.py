"""mmsegmentation's side of the comparisons (see side.py): predict, train, count; without panfpn."""

from pathlib import Path

import numpy as np
import torch
from mmseg_side import build, import_mmseg
from side import seconds, serve

import_mmseg()  # counts as the program, not as the model
from mmengine.optim import build_optim_wrapper  # noqa: E402
from mmengine.structures import PixelData  # noqa: E402
from mmseg.apis import inference_model  # noqa: E402
from mmseg.evaluation.metrics.iou_metric import IoUMetric  # noqa: E402
from mmseg.structures import SegDataSample  # noqa: E402

STATE: dict = {}


def load(
    folder: str, config: str, num_classes: int, depth: int = 50, device: str = "cpu",
    scale: tuple[int, int] | None = None, training: bool = False, crop: tuple[int, int] = (512, 512), batch: int = 4,
) -> None:  # fmt: skip
    """The checkpoint in `folder` under its own configuration; `scale` is the test size, as (longer, shorter)."""
    model = (
        build(Path(folder), {"config": config, "num_classes": num_classes, "depth": depth}).to(device).train(training)
    )
    STATE.update(model=model, device=device)
    if scale:
        resize = next(step for step in model.cfg.test_pipeline if step["type"] == "Resize")
        resize["scale"] = tuple(scale)
    if not training:
        return
    random = np.random.default_rng(0)
    height, width = crop
    model.data_preprocessor.size = (height, width)
    STATE["optimizer"] = build_optim_wrapper(model, model.cfg.optim_wrapper)
    STATE["images"] = [torch.from_numpy(random.integers(0, 256, (3, height, width), np.uint8)) for _ in range(batch)]
    targets = [torch.from_numpy(random.integers(0, num_classes, (1, height, width))) for _ in range(batch)]
    STATE["samples"] = [
        SegDataSample(gt_sem_seg=PixelData(data=t), metainfo={"img_shape": (height, width)}) for t in targets
    ]


@torch.no_grad()
def predict(image: str, save: str | None = None) -> float:
    pixels = np.load(image)[:, :, ::-1].copy()  # BGR, in which it takes images
    found = []
    taken = seconds(lambda: found.append(inference_model(STATE["model"], pixels)), STATE["device"])
    if save:
        np.save(save, found[0].pred_sem_seg.data[0].cpu().numpy())
    return taken


def train(steps: int = 1) -> float:
    """Seconds of the last of some of mmengine's own steps: preprocess, forward, loss, backward, SGD."""
    data = {"inputs": STATE["images"], "data_samples": STATE["samples"]}
    step = STATE["model"].train_step
    return [seconds(lambda: step(data, STATE["optimizer"]), STATE["device"]) for _ in range(steps)][-1]


def count(found: str, true: str, num_classes: int, save: str | None = None) -> float:
    metric = IoUMetric(ignore_index=255, iou_metrics=["mIoU"])
    metric.dataset_meta = {"classes": [str(k) for k in range(num_classes)]}
    maps = ({"data": torch.from_numpy(np.load(path).astype(np.int64))[None]} for path in (found, true))
    sample = dict(zip(("pred_sem_seg", "gt_sem_seg"), maps, strict=True))
    taken = seconds(lambda: metric.process({}, [sample]))
    if save:
        areas = [sum(area) for area in zip(*metric.results, strict=True)]
        np.save(save, (areas[0] / areas[1]).numpy())
    return taken


if __name__ == "__main__":
    serve({"load": load, "predict": predict, "train": train, "count": count})
