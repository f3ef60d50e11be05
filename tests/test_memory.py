import copy

import torch
from torch import nn

from panfpn.memory import peak_of_shapes, resident


def test_what_is_alive_at_once_is_counted_and_what_is_gone_is_not() -> None:
    with torch.device("meta"):
        image = torch.zeros(1, 8, 100, 100)  # 320,000 bytes, which were there before
        once, twice = nn.Conv2d(8, 8, 1, bias=False), nn.Conv2d(8, 16, 1, bias=False)
    one = 4 * 8 * 100 * 100
    assert peak_of_shapes(lambda: once(image)) == one
    assert peak_of_shapes(lambda: twice(once(image))) == 3 * one

    def chain() -> None:
        x = once(image)
        for _ in range(10):
            x = once(x)  # two are alive at a time

    assert peak_of_shapes(chain) == 2 * one
    assert peak_of_shapes(lambda: once(image).relu_()) == one


def test_a_copy_without_values_takes_no_memory() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    shadow = copy.deepcopy(network).to("meta")
    before = resident()
    assert peak_of_shapes(lambda: shadow(torch.zeros(1, 3, 20_000, 20_000, device="meta"))) > 1e10
    assert resident() - before < 1e8
