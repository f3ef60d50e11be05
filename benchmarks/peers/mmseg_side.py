"""mmsegmentation's half of `benchmarks/mmseg_fidelity.py`; runs in an environment of its own, without panfpn.

usage: python mmseg_side.py infer|train FOLDER

FOLDER holds `model.pth` (an mmsegmentation checkpoint that panfpn wrote), `task.json` and `input.npz`; `output.npz` is
written into it. Everything that is compared is computed by mmsegmentation's own classes from its own configuration.
"""

import json
import sys
import types
from pathlib import Path

import numpy as np
import torch
from mmseg_shim import pretend_operators


def import_mmseg() -> types.ModuleType:
    pretend_operators()
    import mmseg
    import mmseg.datasets
    import mmseg.models
    from mmengine.registry import init_default_scope

    init_default_scope("mmseg")
    return mmseg


def build(folder: Path, task: dict) -> torch.nn.Module:
    mmseg = import_mmseg()
    from mmengine.config import Config
    from mmengine.model.utils import revert_sync_batchnorm
    from mmseg.registry import MODELS

    config = Config.fromfile(Path(mmseg.__file__).parent / ".mim/configs/sem_fpn" / task["config"])
    config.model.pretrained = None
    if "depth" in task:
        config.model.backbone.depth = task["depth"]
    config.model.decode_head.num_classes = task["num_classes"]
    config.model.decode_head.dropout_ratio = task.get("dropout", 0.1)
    model = revert_sync_batchnorm(MODELS.build(config.model))
    checkpoint = torch.load(folder / "model.pth", weights_only=True)
    model.load_state_dict(checkpoint["state_dict"])  # strict: key for key
    model.cfg, model.dataset_meta = config, checkpoint["meta"]["dataset_meta"]
    return model


def infer(folder: Path, task: dict) -> dict[str, np.ndarray]:
    """Labels and margins (gap between the two best scores) of each image: whole, slide, multi-scale + flip (1.x)."""
    model = build(folder, task).eval()
    from mmengine.dataset import Compose, pseudo_collate
    from mmseg.apis import inference_model
    from mmseg.models.segmentors import SegTTAModel

    class Tested(SegTTAModel):
        def merge_preds(self, samples):
            merged = super().merge_preds(samples)
            mean = torch.stack([sample.seg_logits.data.softmax(0) for sample in samples[0]]).mean(0)
            merged[0].margin = margin(mean)
            return merged

    out = {}
    with np.load(folder / "input.npz") as images, torch.no_grad():
        for name in images.files:
            bgr = images[name][:, :, ::-1].copy()
            for mode in ("whole", "slide"):
                model.test_cfg = type(model.cfg.model.test_cfg)(
                    mode=mode, crop_size=tuple(task["window"]), stride=tuple(task["stride"])
                )
                result = inference_model(model, bgr)
                out[f"{name}/{mode}/labels"] = result.pred_sem_seg.data[0].numpy()
                out[f"{name}/{mode}/margin"] = margin(result.seg_logits.data)
            model.test_cfg = type(model.cfg.model.test_cfg)(mode="whole")
            pipeline = [{"type": "LoadImageFromNDArray"}, *model.cfg.tta_pipeline[1:]]
            pipeline[1].transforms = [step for step in pipeline[1].transforms if step[0]["type"] != "LoadAnnotations"]
            data = pseudo_collate([Compose(pipeline)({"img": bgr})])
            result = Tested(module=model).test_step(data)[0]
            out[f"{name}/flip/labels"] = result.pred_sem_seg.data.numpy()
            out[f"{name}/flip/margin"] = result.margin
    return out


def margin(scores: torch.Tensor) -> np.ndarray:
    best = scores.topk(2, dim=0).values
    return (best[0] - best[1]).numpy()


def train(folder: Path, task: dict) -> dict[str, np.ndarray]:
    """The loss of every step, by mmengine's optimiser wrapper and PolyLR as in the published configuration."""
    model = build(folder, task).train().to(getattr(torch, task["dtype"]))
    from mmengine.optim import PolyLR, build_optim_wrapper
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    optimizer = build_optim_wrapper(model, model.cfg.optim_wrapper)
    optimizer.param_groups[0].update(lr=task["lr"], initial_lr=task["lr"])
    settings = {k: v for k, v in model.cfg.param_scheduler[0].items() if k != "type"} | {"end": task["steps"]}
    schedule = PolyLR(optimizer, **settings)
    height, width = task["crop"]
    model.data_preprocessor.size = (height, width)
    losses, rates = [], []
    with np.load(folder / "input.npz") as batches:
        for step in range(task["steps"]):
            inputs, samples = [], []
            for image, target, (h, w) in zip(
                *(batches[f"{step}/{k}"] for k in ("images", "targets", "sizes")), strict=True
            ):
                inputs.append(torch.from_numpy(image[::-1, :h, :w].copy()))  # BGR, without the padding
                labels = torch.from_numpy(np.where(target < 0, 255, target)[None, :h, :w].astype(np.int64))
                samples.append(SegDataSample(gt_sem_seg=PixelData(data=labels), metainfo={"img_shape": (h, w)}))
            data = model.data_preprocessor({"inputs": inputs, "data_samples": samples}, training=True)
            terms = model(**data, mode="loss")
            loss, _ = model.parse_losses(terms)
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.update_params(loss)
            schedule.step()
            losses.append(loss.item())
            print(f"mmsegmentation step {step}: loss {loss.item():.6f}", flush=True)
    return {"losses": np.array(losses), "rates": np.array(rates)}


if __name__ == "__main__":
    place = Path(sys.argv[2])
    result = {"infer": infer, "train": train}[sys.argv[1]](place, json.loads((place / "task.json").read_text()))
    np.savez(place / "output.npz", **result)
