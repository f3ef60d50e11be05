"""Writes detectron2_*.npz/.json: what detectron2's PanopticFPN R-50 computes for the weights and inputs of fill.py.

Needs an environment in which `import detectron2` works (its Python sources suffice: nothing here calls its compiled
ops) and its configs folder in DETECTRON2_CONFIGS. SCALE keeps the activations near 1 and makes some instances confident.
"""

import json
import os
from pathlib import Path

import numpy as np
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model

from fill import image, values

SCALE = {
    "backbone.bottom_up.stem.conv1.weight": 1 / 60,
    "roi_heads.box_predictor.cls_score.weight": 4.0,
    "roi_heads.box_predictor.bbox_pred.weight": 0.3,
    "proposal_generator.rpn_head.anchor_deltas.weight": 0.3,
    **{f"backbone.fpn_lateral{level}.weight": 0.3 for level in (2, 3, 4, 5)},
}


def build(seed: int = 0):
    cfg = get_cfg()
    cfg.merge_from_file(
        str(Path(os.environ["DETECTRON2_CONFIGS"]) / "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml")
    )
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = "cpu", ""
    model = build_model(cfg).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if "pixel_" in name or "anchor_generator" in name:
                continue
            tensor.copy_(torch.from_numpy(values(name, tuple(tensor.shape), seed) * np.float32(SCALE.get(name, 1.0))))
    return model


def main() -> None:
    here = Path(__file__).parent
    model = build()
    (here / "detectron2_keys_r50.tsv").write_text(
        "".join(f"{k}\t{tuple(v.shape)}\t{v.dtype}\n" for k, v in model.state_dict().items())
    )
    for height, width, out_height, out_width in ((192, 256, 192, 256), (210, 300, 173, 251)):
        rgb = image(height, width, seed=11)
        bgr = torch.from_numpy(rgb[:, :, ::-1].transpose(2, 0, 1).copy()).float()
        record = [{"image": bgr, "height": out_height, "width": out_width}]
        arrays = {}
        with torch.inference_mode():
            images = model.preprocess_image(record)
            features = model.backbone(images.tensor)
            for name, tensor in features.items():
                arrays[f"features/{name}/mean_abs"] = np.float64(tensor.abs().mean().item())
            proposals, _ = model.proposal_generator(images, features)
            arrays["proposals/boxes"] = proposals[0].proposal_boxes.tensor.numpy()[:100]
            arrays["proposals/logits"] = proposals[0].objectness_logits.numpy()[:100]
            arrays["sem_seg/stride4_logits"] = model.sem_seg_head.layers(features).numpy().astype(np.float32)
            out = model(record)[0]
        inst = out["instances"]
        arrays["instances/boxes"] = inst.pred_boxes.tensor.numpy()
        arrays["instances/scores"] = inst.scores.numpy()
        arrays["instances/classes"] = inst.pred_classes.numpy()
        arrays["instances/mask_areas"] = inst.pred_masks.flatten(1).sum(1).numpy()
        arrays["instances/masks_packed"] = np.packbits(inst.pred_masks.numpy(), axis=None)
        arrays["sem_seg/labels"] = out["sem_seg"].argmax(0).numpy().astype(np.uint8)
        segments, info = out["panoptic_seg"]
        arrays["panoptic/segments"] = segments.numpy().astype(np.uint8)
        tag = f"{height}x{width}_to_{out_height}x{out_width}"
        np.savez_compressed(here / f"detectron2_r50_{tag}.npz", **arrays)
        (here / f"detectron2_r50_{tag}.json").write_text(json.dumps(info, indent=0, default=float))
        print(tag, {k: v.shape for k, v in arrays.items()}, inst.scores[:8], info)


if __name__ == "__main__":
    main()
