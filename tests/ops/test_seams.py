import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from panfpn.ops import upsample_argmax
from panfpn.ops.seams import Cuts, Seams

SIZES = [(333, 517, 192, 64, 4), (100, 1000, 192, 32, 4), (64, 64, 192, 64, 4), (700, 701, 192, 64, 8),
         (193, 193, 192, 64, 4), (385, 257, 96, 32, 4), (500, 90, 128, 32, 16)]  # fmt: skip


def labels(seams: Seams, windows: list[list[torch.Tensor | None]]) -> torch.Tensor:
    """What comes out, put together; every pixel must come out once."""
    rows, columns = seams.rows, seams.columns
    whole = torch.full((rows.length, columns.length), 255, dtype=torch.uint8)
    for i, band in enumerate(windows):
        for j, logits in enumerate(band):
            place = (slice(*rows.pixels(i)), slice(*columns.pixels(j)))
            assert (whole[place] == 255).all()
            found = seams.add(i, j, logits)
            assert found.shape == whole[place].shape
            whole[place] = found
    assert (whole != 255).all()
    return whole


def split(logits: torch.Tensor, rows: Cuts, columns: Cuts) -> list[list[torch.Tensor | None]]:
    stride = rows.stride
    return [[logits[:, top // stride : -(-bottom // stride), left // stride : -(-right // stride)]
             for left, right in columns.windows] for top, bottom in rows.windows]  # fmt: skip


@pytest.mark.parametrize("height, width, window, overlap, stride", SIZES)
def test_windows_of_the_same_logits_give_the_labels_of_the_whole(
    height: int, width: int, window: int, overlap: int, stride: int
) -> None:
    rows, columns = (Cuts.of(side, window, overlap, stride=stride) for side in (height, width))
    logits = torch.randn(7, rows.cells, columns.cells, generator=torch.Generator().manual_seed(0))
    whole, _ = upsample_argmax(logits[None], (rows.cells * stride, columns.cells * stride))
    found = labels(Seams(rows, columns, 7, torch.device("cpu")), split(logits, rows, columns))
    assert torch.equal(found, whole[0, :height, :width])


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 5000), st.integers(1, 12), st.integers(3, 6), st.sampled_from([4, 8, 16]), st.sampled_from([32, 224])
)
def test_cuts_cover_a_side_once(length: int, zone: int, share: int, stride: int, align: int) -> None:
    overlap = zone * align
    cuts = Cuts.of(length, share * overlap, overlap, stride=stride, align=align)
    count = len(cuts.windows)
    assert cuts.windows[0][0] == 0 and cuts.windows[-1][1] == length
    assert all(start % align == 0 and stop - start <= share * overlap for start, stop in cuts.windows)
    assert all(a[1] - b[0] >= overlap for a, b in pairwise(cuts.windows))
    for parts, end in ((cuts.own, cuts.cells), (cuts.pixels, length), (cuts.middle, length)):
        edges = [parts(i) for i in range(count)]
        assert edges[0][0] == 0 and edges[-1][1] == end
        assert all(a[1] == b[0] and a[0] < a[1] for a, b in pairwise(edges))
    for i, (start, stop) in enumerate(cuts.windows):  # what counts of a window lies in it
        first, last = cuts.used(i)
        assert start // stride <= first and last <= -(-stop // stride)


def test_a_seam_fades_from_one_window_to_the_other() -> None:
    rows, columns = Cuts.of(32, 96, 32, stride=4), Cuts.of(160, 96, 32, stride=4)
    left, right = torch.zeros(2, 8, 24), torch.zeros(2, 8, 24)
    left[0], right[1] = 1.0, 3.0  # class 1 wins where its window has more than a quarter of the weight
    found = labels(Seams(rows, columns, 2, torch.device("cpu")), [[left, right]])
    first = int((found[0] == 1).float().argmax())
    assert first == 64 + 32 // 4 and (found[:, first:] == 1).all()


def test_where_windows_agree_nothing_is_added_to_them() -> None:
    """Weights that add up to one in words do not in floats: equal logits must stay equal to the bit."""
    seams = Seams(Cuts.of(32, 96, 32, stride=4), Cuts.of(160, 96, 32, stride=4), 1, torch.device("cpu"))
    values = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(1)) * 1e-3
    assert torch.equal(seams._blended(values, values.clone(), across=True), values)


@pytest.mark.parametrize("gap", [(0, 0), (0, 1), (1, 1), (2, 0), (1, 2)])
def test_beside_a_window_without_data_its_neighbours_stand_for_themselves(gap: tuple[int, int]) -> None:
    rows, columns = Cuts.of(224, 96, 32, stride=4), Cuts.of(224, 96, 32, stride=4)
    logits = torch.randn(5, rows.cells, columns.cells, generator=torch.Generator().manual_seed(0))
    windows = split(logits, rows, columns)
    windows[gap[0]][gap[1]] = None
    found = labels(Seams(rows, columns, 5, torch.device("cpu")), windows)
    whole, _ = upsample_argmax(logits[None], (224, 224))
    inside = torch.ones(224, 224, dtype=torch.bool)
    (top, bottom), (left, right) = rows.windows[gap[0]], columns.windows[gap[1]]
    inside[top:bottom, left:right] = False
    assert torch.equal(found[inside], whole[0][inside])


def test_state_carries_a_band_over() -> None:
    rows, columns = Cuts.of(300, 96, 32, stride=4), Cuts.of(300, 96, 32, stride=4)
    logits = torch.randn(3, rows.cells, columns.cells, generator=torch.Generator().manual_seed(0))
    windows = split(logits, rows, columns)
    first = Seams(rows, columns, 3, torch.device("cpu"))
    for i in range(2):
        for j, window in enumerate(windows[i]):
            first.add(i, j, window)
    second = Seams(rows, columns, 3, torch.device("cpu"))
    second.restore({name: tensor.clone() for name, tensor in first.state().items()})
    for j, window in enumerate(windows[2]):
        assert torch.equal(first.add(2, j, window), second.add(2, j, window))
    assert not math.isnan(float(second._above.sum()))  # type: ignore[union-attr]
