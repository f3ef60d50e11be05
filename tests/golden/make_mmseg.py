"""Writes mmseg_*.npz: what mmsegmentation 1.2.2 computes for the weights and inputs of fill.py.

Needs, in an environment of its own: pip install torch mmengine mmcv-lite mmsegmentation ftfy regex
"""

import json
import sys
import types
from pathlib import Path

import numpy as np
import torch

import mmcv

mmcv.__version__ = "2.1.0"  # mmsegmentation 1.2.2 refuses a newer mmcv, which it works with


class _Missing(types.ModuleType):  # mmcv-lite has no compiled ops; Semantic FPN uses none
    __path__ = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return None


sys.modules["mmcv.ops"] = _Missing("mmcv.ops")
for sub in ("point_sample",):
    sys.modules[f"mmcv.ops.{sub}"] = _Missing(f"mmcv.ops.{sub}")

import mmseg  # noqa: E402
import mmseg.datasets  # noqa: E402, F401
import mmseg.models  # noqa: E402, F401
from mmengine.config import Config  # noqa: E402
from mmengine.model.utils import revert_sync_batchnorm  # noqa: E402
from mmengine.registry import init_default_scope  # noqa: E402
from mmseg.apis import inference_model  # noqa: E402
from mmseg.registry import MODELS  # noqa: E402

from fill import image, labels, values  # noqa: E402

CONFIGS = Path(mmseg.__file__).parent / ".mim/configs/sem_fpn"


def build(config: str, depth: int, seed: int = 0):
    init_default_scope("mmseg")
    cfg = Config.fromfile(CONFIGS / config)
    cfg.model.pretrained = None
    cfg.model.backbone.depth = depth  # the shipped R-101 ADE20K config loses its depth: docs/facts.md, B1
    if "ade20k" in config:
        cfg.model.decode_head.num_classes = 150
    model = revert_sync_batchnorm(MODELS.build(cfg.model)).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.dtype == torch.float32:
                tensor.copy_(torch.from_numpy(values(name, tuple(tensor.shape), seed)))
    model.cfg = cfg
    model.dataset_meta = {"classes": ("x",) * model.decode_head.num_classes}
    return model


def normalised(rgb: np.ndarray) -> torch.Tensor:
    mean, std = np.float32([123.675, 116.28, 103.53]), np.float32([58.395, 57.12, 57.375])
    return torch.from_numpy(((rgb.astype(np.float32) - mean) / std).transpose(2, 0, 1)[None].copy())


def golden(model, sizes, photo_size, seed: int) -> dict[str, np.ndarray]:
    """Logits at stride 4, losses and gradient norms at each size, and a photo's label map through the test pipeline."""
    classes = model.decode_head.num_classes
    out: dict[str, np.ndarray] = {}
    for height, width in sizes:
        x = normalised(image(height, width, seed))
        y = torch.from_numpy(labels(height, width, classes, seed)).long()[None]
        model.zero_grad()
        logits = model(x)
        up = torch.nn.functional.interpolate(logits, size=(height, width), mode="bilinear", align_corners=False)
        total = torch.nn.functional.cross_entropy(up, y, ignore_index=255, reduction="sum")
        loss = total / y.numel()
        loss.backward()
        tag = f"{height}x{width}"
        out[f"{tag}/logits"] = logits.detach().numpy()
        out[f"{tag}/loss_all_pixels"] = np.float64(loss.item())
        out[f"{tag}/loss_labelled_pixels"] = np.float64(total.item() / (y != 255).sum().item())
        for name in (
            "backbone.stem.0.weight",
            "backbone.layer3.2.conv2.weight",
            "neck.lateral_convs.1.conv.weight",
            "neck.fpn_convs.0.conv.bias",
            "decode_head.scale_heads.3.4.bn.weight",
            "decode_head.conv_seg.weight",
        ):
            out[f"{tag}/grad_norm/{name}"] = np.float64(dict(model.named_parameters())[name].grad.norm().item())
    photo = image(*photo_size, seed + 1)
    result = inference_model(model, photo[:, :, ::-1].copy())  # mmsegmentation takes BGR
    out["photo/labels"] = result.pred_sem_seg.data[0].numpy().astype(np.uint8)
    out["photo/top2_margin"] = np.diff(result.seg_logits.data.topk(2, dim=0).values.flip(0), axis=0)[0].astype(
        np.float16
    )
    return out


def main() -> None:
    here = Path(__file__).parent
    for key, config, depth in (
        ("r50_cityscapes", "fpn_r50_4xb2-80k_cityscapes-512x1024.py", 50),
        ("r50_ade20k", "fpn_r50_4xb4-160k_ade20k-512x512.py", 50),
    ):
        model = build(config, depth)
        arrays = golden(model, sizes=((64, 128), (97, 131)), photo_size=(150, 211), seed=7)
        np.savez_compressed(here / f"mmseg_{key}.npz", **arrays)
        print(key, {k: v.shape for k, v in arrays.items()})
    from mmseg.evaluation.metrics import IoUMetric

    cases = {}
    for seed in range(3):
        gt, pred = labels(90, 120, 19, seed), labels(90, 120, 19, seed + 100, ignore=0)
        pred = np.where(np.random.RandomState(seed).uniform(size=gt.shape) < 0.6, np.where(gt == 255, 3, gt), pred)
        gt[gt == 5] = 6  # a class that is never labelled
        metric = IoUMetric(iou_metrics=["mIoU", "mFscore"], ignore_index=255)
        metric.dataset_meta = {"classes": [str(c) for c in range(19)]}
        metric.process(
            {},
            [
                {
                    "pred_sem_seg": {"data": torch.from_numpy(pred)[None].long()},
                    "gt_sem_seg": {"data": torch.from_numpy(gt)[None].long()},
                }
            ],
        )
        cases[str(seed)] = {k: float(v) for k, v in metric.compute_metrics(metric.results).items()}
    (here / "mmseg_metrics.json").write_text(json.dumps(cases, indent=1))


if __name__ == "__main__":
    main()
