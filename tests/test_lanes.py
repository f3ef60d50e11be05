import threading
import time
from collections.abc import Iterator

import pytest
import torch

from panfpn import lanes
from panfpn.lanes import in_lanes


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    assert torch.get_num_threads() == before  # whatever a lane has set


class Work:
    """Remembers how many calls there were at once, and with how many threads each."""

    def __init__(self, seconds: float = 0.002) -> None:
        self.seconds, self.now, self.most, self.threads = seconds, 0, 0, set[int]()
        self.lock = threading.Lock()

    def __call__(self, item: int) -> int:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
            self.threads.add(torch.get_num_threads())
        time.sleep(self.seconds * (1 + item % 3))  # some take longer
        with self.lock:
            self.now -= 1
        return -item


@pytest.mark.parametrize("count, cores", [(1, 4), (2, 4), (3, 4), (4, 4), (5, 4), (None, 4), (None, 1), (None, None)])
def test_results_come_in_order(count: int | None, cores: int | None) -> None:
    assert list(in_lanes(Work(), range(60), count=count, cores=cores)) == [-i for i in range(60)]
    assert list(in_lanes(Work(), range(3), count=count, cores=cores)) == [0, -1, -2]
    assert list(in_lanes(Work(), [], count=count, cores=cores)) == []


@pytest.mark.parametrize("count, each", [(1, 4), (2, 2), (4, 1)])
def test_lanes_share_the_cores(count: int, each: int) -> None:
    work = Work()
    list(in_lanes(work, range(40), count=count, cores=4))
    assert work.most == count and work.threads == {each}


def test_what_is_faster_is_chosen() -> None:
    """Sleeping calls are faster together, calls under one lock are not slower one by one."""
    work = Work()
    list(in_lanes(work, range(200), cores=3))
    first = 2 * 3 * (1 + lanes._TRIED)
    work.most = 0
    list(in_lanes(work, range(first), cores=3))
    assert work.most == 3
    gate = threading.Lock()
    seen: list[int] = []

    def alone(item: int) -> int:
        with gate:
            seen.append(torch.get_num_threads())
            time.sleep(0.004 if torch.get_num_threads() == 1 else 0.001)
        return item

    list(in_lanes(alone, range(120), cores=3))
    assert seen[-20:] == [3] * 20


def test_results_that_nobody_fetches_stop_the_work() -> None:
    work, taken = Work(0), []

    def items() -> Iterator[int]:
        for i in range(1000):
            taken.append(i)
            yield i

    results = in_lanes(work, items(), count=2, cores=2)
    assert next(results) == 0
    time.sleep(0.05)
    assert len(taken) <= 6
    results.close()
    assert len(taken) <= 6


def test_an_error_comes_at_its_turn() -> None:
    def work(item: int) -> int:
        if item == 5:
            raise ValueError("five")
        return item

    got = []
    with pytest.raises(ValueError, match="five"):
        for result in in_lanes(work, range(20), count=4, cores=4):
            got.append(result)
    assert got == [0, 1, 2, 3, 4]


def test_memory_bounds_how_many_there_are_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "free_memory", lambda device: 2 * 600.0 * 1000 * 2)  # of two items of 1000 pixels
    work = Work()
    list(in_lanes(work, range(40), count=4, cores=4, size=lambda item: 1000.0))
    assert work.most <= 2
    monkeypatch.setattr(lanes, "free_memory", lambda device: float("nan"))  # where the system does not say
    work.most = 0
    assert len(list(in_lanes(work, range(40), count=4, cores=4))) == 40
    assert work.most == 4


def test_what_came_before_a_source_failed_is_not_lost() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise ValueError("cable")

    for count in (1, 4):
        got = []
        with pytest.raises(ValueError, match="cable"):
            for result in in_lanes(Work(), items(), count=count, cores=4):
                got.append(result)
        assert got == [0, -1, -2, -3, -4]
    with pytest.raises(ValueError, match="lanes is 0"):
        list(in_lanes(Work(), [1], count=0))


def test_the_first_call_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs are made at the first image, which must not speak against the way that is tried first."""
    gate, seen = threading.Lock(), []

    def work(item: int) -> int:
        with gate:  # several at once bring nothing
            seen.append(torch.get_num_threads())
            time.sleep(0.3 if item == 0 else 0.002 * (1 + (torch.get_num_threads() == 1)))
        return item

    list(in_lanes(work, range(80), cores=3))
    assert seen[-20:] == [3] * 20
