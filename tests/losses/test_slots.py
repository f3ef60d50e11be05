from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fake_cuda import CUDA, FakeCuda, on_cpu
from panfpn.losses.slots import Slots, _draw_on_cpu, _draw_on_device, draw

FORMS = [_draw_on_cpu, _draw_on_device]
Draw = Callable[[torch.Tensor, torch.Tensor, int, int], Slots]
labels = st.lists(st.sampled_from([1, 0, -1]), max_size=40).map(lambda values: torch.tensor(values, dtype=torch.int8))


@pytest.mark.parametrize("form", FORMS)
@given(labels=labels, count=st.integers(0, 20), share=st.floats(0, 1), seed=st.integers(0, 99))
@settings(deadline=None)
def test_what_is_drawn(form: Draw, labels: torch.Tensor, count: int, share: float, seed: int) -> None:
    torch.manual_seed(seed)
    most = int(count * share)
    slots = form(labels == 1, labels == 0, count, most)
    index, positive = slots.members[slots.valid], slots.positive[slots.valid]
    assert len(index.unique()) == len(index)
    assert (labels[index[positive]] == 1).all() and (labels[index[~positive]] == 0).all()
    num_positive = min(most, int((labels == 1).sum()))
    assert int(positive.sum()) == num_positive
    assert int((~positive).sum()) == min(count - num_positive, int((labels == 0).sum()))
    assert not slots.positive[slots.num_first :].any() and not (slots.positive & ~slots.valid).any()
    assert len(slots.members) == len(slots.positive) == len(slots.valid) <= count


@pytest.mark.parametrize("form", FORMS)
def test_every_member_is_drawn_as_often_as_another(form: Draw) -> None:
    torch.manual_seed(0)
    positive = torch.arange(20) < 10
    counts = torch.zeros(20)
    for _ in range(1000):
        slots = form(positive, ~positive, 8, 4)
        counts[slots.members[slots.valid]] += 1
    assert counts.min() > 330 and counts.max() < 470  # 400, give or take 15


def test_on_a_cpu_every_slot_is_filled() -> None:
    labels = torch.tensor([1, 0, 0, -1, 1])
    slots = draw(labels == 1, labels == 0, 8, 4)
    assert slots.members.tolist() == [0, 4, 1, 2] and slots.valid.all() and slots.num_first == 2


def test_on_a_device_shapes_do_not_depend_on_values(fake_cuda: FakeCuda) -> None:
    for labels in (torch.ones(30), torch.zeros(30), -torch.ones(30)):
        moved = labels.to(CUDA)
        fake_cuda.reset()
        slots = draw(moved == 1, moved == 0, 8, 4)
        assert not fake_cuda.waits, fake_cuda.report()
        assert len(slots.members) == 8 and slots.num_first == 4
        assert int(on_cpu(slots.valid).sum()) == {1: 4, 0: 8, -1: 0}[int(labels[0])]
