"""mmsegmentation 0.30's half of `benchmarks/mmseg_fidelity.py`: the form of multi-scale + flip that made the published
numbers (ratios of the image fitted into the test size). Runs in an environment of its own, without panfpn.

usage: python mmseg0_side.py infer FOLDER      (FOLDER as in mmseg_side.py)
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from mmseg_shim import pretend_operators
from mmseg_side import margin

RATIOS = [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]


def build(folder: Path, task: dict) -> torch.nn.Module:
    pretend_operators()
    import mmseg
    from mmcv import Config
    from mmcv.cnn.utils import revert_sync_batchnorm
    from mmseg.models import build_segmentor

    config = Config.fromfile(Path(mmseg.__file__).parent / ".mim/configs/sem_fpn" / task["config0"])
    config.model.pretrained = None
    model = revert_sync_batchnorm(build_segmentor(config.model)).eval()
    model.load_state_dict(torch.load(folder / "model.pth", weights_only=True)["state_dict"])
    model.cfg = config
    return model


def infer(folder: Path, task: dict) -> dict[str, np.ndarray]:
    model = build(folder, task)
    from mmcv.parallel import collate
    from mmseg.datasets.pipelines import Compose

    steps = model.cfg.data.test.pipeline[1:]
    steps[0].update(img_ratios=RATIOS, flip=True)
    out = {}
    with np.load(folder / "input.npz") as images, torch.no_grad():
        for name in images.files:
            bgr = images[name][:, :, ::-1].copy()
            fields = {
                "img": bgr,
                "filename": None,
                "ori_filename": None,
                "img_shape": bgr.shape,
                "ori_shape": bgr.shape,
            }
            data = collate([Compose(steps)(fields)], samples_per_gpu=1)
            metas = [[meta] for meta in (m.data[0][0] for m in data["img_metas"])]
            views = zip(data["img"], metas, strict=True)
            mean = torch.stack([model.inference(image, meta, True)[0] for image, meta in views]).mean(0)
            out[f"{name}/flip0/labels"] = model.aug_test(data["img"], metas)[0]
            out[f"{name}/flip0/margin"] = margin(mean)
    return out


if __name__ == "__main__":
    place = Path(sys.argv[2])
    np.savez(place / "output.npz", **infer(place, json.loads((place / "task.json").read_text())))
