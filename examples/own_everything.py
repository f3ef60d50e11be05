"""Data set, backbone and loss of your own: trains, is stopped and resumed, evaluates, predicts. Argument: a folder."""

import itertools
import signal
import sys
from typing import ClassVar

import numpy as np
import torch
from torch import nn

import panfpn


class Discs:
    classes: ClassVar = [{"name": "ground", "value": 0}, {"name": "disc", "value": 1}]
    table = panfpn.LabelTable.from_dict({"name": "discs", "classes": classes, "ignore": [255]})

    def __init__(self, first: int, count: int) -> None:
        self.seeds = range(first, first + count)

    def __len__(self) -> int:
        return len(self.seeds)

    def name(self, index: int) -> str:
        return f"disc{self.seeds[index]}"

    def read(self, index: int) -> panfpn.Sample:
        rng, (y, x) = np.random.default_rng(self.seeds[index]), np.mgrid[:64, :96]
        target = ((y - rng.integers(64)) ** 2 + (x - rng.integers(96)) ** 2 < 300).astype(np.int16)  # [H, W] train ids
        image = (np.float32([[60, 120, 80], [220, 60, 40]])[target] + rng.normal(0, 20, (64, 96, 3))).clip(0, 255)
        return panfpn.Sample(image=image.astype(np.uint8), target=target, name=self.name(index))


class Pyramid(nn.Sequential):  # c2…c5 at strides 4, 8, 16, 32; images arrive normalised by mean and std
    channels, mean, std = (16, 24, 32, 48), (127.5,) * 3, (64.0,) * 3

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        maps = [images]
        for layer in self:
            maps.append(layer(maps[-1]).relu())
        return maps[2:]


def loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:  # [B, K, h, w] and train ids [B, H, W]
    if next(calls) == 20:
        signal.raise_signal(signal.SIGINT)  # Ctrl-C: the step is finished, the run saved
    return nn.functional.cross_entropy(logits, target[:, ::4, ::4], ignore_index=-1)


folder, calls = sys.argv[1], itertools.count()
layers = [nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in ((3, 16), (16, 16), (16, 24), (24, 32), (32, 48))]
network = panfpn.SemanticFPN(Pyramid(*layers), 2, fpn_channels=32, head_channels=32)
objects = {"train_data": Discs(0, 40), "val_data": Discs(100, 8), "model": network, "loss": loss}
config = panfpn.recipes.scenes(data__crop=(64, 96), data__num_workers=0, train__steps=60, run__dir=folder)
assert panfpn.train(config, **objects).interrupted
print("mIoU", panfpn.train(resume=folder, **objects).value)
predictor = panfpn.Predictor.from_file(folder, model=network)
print("mIoU of 20 others", panfpn.evaluate(predictor, Discs(200, 20)).miou)
print(predictor(Discs(300, 1).read(0).image).shares())
