"""Evaluation's peak memory over 50 and over 400 images, and its counts for batch 1, batch 4 and a shuffled set.

usage: python benchmarks/evaluation_memory.py

Each size is measured in a process of its own (peak resident set). Exit code 1 if the peaks differ by more than 5 % or a
count differs at all.
"""

import hashlib
import subprocess
import sys

import numpy as np
import torch

from panfpn.build import build_task
from panfpn.config import Data, Model, Train, TrainConfig
from panfpn.data.layouts.scenes import SceneDataset, scenes_table
from panfpn.engine.evaluate import score_dataset
from panfpn.engine.run_log import peak_memory_gb
from panfpn.types import Sample


class Shuffled:
    """The same samples in another order."""

    def __init__(self, data: SceneDataset) -> None:
        self.table, self.data = data.table, data
        self.order = np.random.default_rng(0).permutation(len(data))

    def __len__(self) -> int:
        return len(self.data)

    def name(self, index: int) -> str:
        return self.data.name(int(self.order[index]))

    def read(self, index: int) -> Sample:
        return self.data.read(int(self.order[index]))


def measure(images: int, batch_size: int, shuffled: bool) -> None:
    torch.manual_seed(0)
    table = scenes_table()
    grey = (127.5,) * 3
    model = Model(backbone="resnet18", fpn_channels=64, num_classes=table.num_classes, mean=grey, std=grey)
    config = TrainConfig(model=model, data=Data(size_divisor=1), train=Train(precision="float32"))
    task = build_task(config, table)
    data = SceneDataset(table, "val", images, (192, 256))
    scores, _ = score_dataset(task, Shuffled(data) if shuffled else data, batch_size=batch_size)
    print(peak_memory_gb(torch.device("cpu")), hashlib.sha256(scores.counts.tobytes()).hexdigest()[:16])


def run(images: int, batch_size: int, shuffled: bool) -> tuple[float, str]:
    words = [sys.executable, __file__, str(images), str(batch_size), str(int(shuffled))]
    peak, counts = subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()[-2:]
    order = ", shuffled" if shuffled else ""
    print(
        f"{images:4d} images, batch {batch_size}{order}: peak {float(peak) * 1000:.0f} MB, counts {counts}", flush=True
    )
    return float(peak), counts


def main() -> int:
    small, one = run(50, 1, False)
    _, four = run(50, 4, False)
    _, mixed = run(50, 4, True)
    large, _ = run(400, 1, False)
    verdict = "EQUAL" if one == four == mixed else "DIFFERENT"
    print(f"400 against 50 images: {large / small:.3f} × the memory; counts {verdict}")
    return int(abs(large / small - 1) > 0.05 or not one == four == mixed)


if __name__ == "__main__":
    if len(sys.argv) == 4:
        measure(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "1")
    else:
        sys.exit(main())
