"""Writes mmseg_feature2pyramid.npz: what mmsegmentation 1.2.2's Feature2Pyramid gives for the values of fill.py.

Needs, in an environment of its own: pip install torch mmengine mmcv-lite mmsegmentation ftfy regex
"""

from pathlib import Path

import numpy as np
import torch
from fill import values
from make_mmseg import MODELS, init_default_scope, revert_sync_batchnorm

WIDTH, SIZE = 6, (5, 7)


def main() -> None:
    init_default_scope("mmseg")
    arrays: dict[str, np.ndarray] = {}
    for patch, rescales in ((16, [4, 2, 1, 0.5]), (8, [2, 1, 0.5, 0.25])):
        module = MODELS.build({"type": "Feature2Pyramid", "embed_dim": WIDTH, "rescales": rescales})
        module = revert_sync_batchnorm(module).eval()
        with torch.no_grad():
            for name, tensor in module.state_dict().items():
                if tensor.dtype == torch.float32:
                    tensor.copy_(torch.from_numpy(values(name, tuple(tensor.shape))))
            inputs = [torch.from_numpy(values(f"map{i}", (2, WIDTH, *SIZE))) for i in range(4)]
            for i, level in enumerate(module(inputs)):
                arrays[f"{patch}/{i}"] = level.numpy()
        arrays[f"{patch}/names"] = np.array([f"{n} {tuple(t.shape)}" for n, t in module.state_dict().items()])
    np.savez_compressed(Path(__file__).parent / "mmseg_feature2pyramid.npz", **arrays)
    print({key: array.shape for key, array in arrays.items()})


if __name__ == "__main__":
    main()
