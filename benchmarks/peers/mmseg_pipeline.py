"""mmsegmentation's half of `benchmarks/input_pipeline.py`: its published Cityscapes training pipeline, on request.

usage: python mmseg_pipeline.py ROOT      (reads numbers of samples from stdin, answers each with the seconds it took)
"""

import itertools
import sys
import time
from pathlib import Path

import cv2
import torch
from mmseg_shim import pretend_operators


def build(root: Path) -> object:
    pretend_operators()
    import mmseg
    import mmseg.datasets
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    init_default_scope("mmseg")
    config = Config.fromfile(Path(mmseg.__file__).parent / ".mim/configs/_base_/datasets/cityscapes.py")
    prefix = {"img_path": "leftImg8bit/train", "seg_map_path": "gtFine/train"}
    return mmseg.datasets.CityscapesDataset(
        data_root=str(root), data_prefix=prefix, pipeline=config.train_pipeline, lazy_init=False
    )


def main(root: Path) -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever else prints
    dataset = build(root)
    steps = [type(step).__name__ for step in dataset.pipeline.transforms]
    print(len(dataset), *steps, file=answers, flush=True)
    indices = itertools.cycle(range(len(dataset)))
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            sample = dataset[next(indices)]
        seconds = time.perf_counter() - start
        assert sample["inputs"].shape == (3, 512, 1024)
        print(seconds, file=answers, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
