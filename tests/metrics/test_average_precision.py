"""Box and mask AP: cases that can be worked out by hand, and masks that come back from their run lengths."""

import json
import math
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panfpn.labels import IGNORE, LabelTable
from panfpn.metrics import AveragePrecision, InstanceRecords
from panfpn.metrics.average_precision import run_lengths
from panfpn.types import Detections, Segments

coco = pytest.importorskip("faster_coco_eval", reason="extra `coco` is not installed")

TABLE = LabelTable.from_dict({
    "classes": [{"name": "sky", "value": 0}, {"name": "cat", "value": 1, "thing": True},
                {"name": "dog", "value": 2, "thing": True}],
})  # fmt: skip
Box = tuple[int, int, int, int]  # left, top, right, bottom


def truth_of(*segments: tuple[int, Box], crowd: Sequence[int] = (), size: int = 100) -> Segments:
    """Rectangles (class, box) on sky."""
    index = np.zeros((size, size), np.int16)
    for k, (_, (left, top, right, bottom)) in enumerate(segments):
        index[top:bottom, left:right] = k + 1
    index[-1] = IGNORE
    count = len(segments) + 1
    classes = np.array([0, *(k for k, _ in segments)], np.int16)
    return Segments(index=index, classes=classes, crowd=np.isin(np.arange(count), crowd), ids=np.arange(count))


def found_of(*instances: tuple[int, float, Box]) -> Detections:
    """Rectangles (class, score, box) with masks that fill them."""
    boxes = np.array([box for *_, box in instances], np.float32).reshape(-1, 4)
    masks = tuple(
        (top, left, np.ones((bottom - top, right - left), bool)) for *_, (left, top, right, bottom) in instances
    )
    classes = np.array([k for k, *_ in instances], np.int16)
    return Detections(boxes=boxes, scores=np.array([s for _, s, _ in instances], np.float32), classes=classes,
                      masks=masks)  # fmt: skip


def score(*images: tuple[Detections, Segments]) -> tuple[AveragePrecision, AveragePrecision]:
    records = InstanceRecords()
    for i, (found, truth) in enumerate(images):
        records.update(i, found, truth, TABLE)
    return records.scores(TABLE)


CAT, DOG = (10, 10, 30, 30), (50, 20, 90, 70)
TRUTH = truth_of((1, CAT), (2, DOG))


def test_what_is_found_exactly_scores_one() -> None:
    for ap in score((found_of((1, 0.9, CAT), (2, 0.4, DOG)), TRUTH)):
        assert (ap.ap, ap.ap50, ap.ap75, ap.small, ap.medium) == (1, 1, 1, 1, 1)
        assert math.isnan(ap.large)  # 96² pixels: there is none
        assert ap.classes == {"cat": 1, "dog": 1}


def test_a_better_scored_mistake_halves_the_precision() -> None:
    beside = (60, 75, 80, 95)
    box, mask = score((found_of((1, 0.9, beside), (1, 0.8, CAT), (2, 0.7, DOG)), TRUTH))
    for ap in (box, mask):
        assert ap.classes == pytest.approx({"cat": 0.5, "dog": 1}) and ap.ap == pytest.approx(0.75)
    for ap in score((found_of((1, 0.8, CAT), (2, 0.7, DOG), (1, 0.1, beside)), TRUTH)):
        assert ap.ap == 1  # a worse scored one costs nothing: all recall is there before it


def test_a_missed_instance_costs_its_recall() -> None:
    two = truth_of((1, CAT), (1, DOG))
    for ap in score((found_of((1, 0.9, CAT)), two)):
        assert ap.ap == pytest.approx(51 / 101)  # recall 0, 0.01, …, 0.50 of 101
        assert math.isnan(ap.classes["dog"])


def test_thresholds_go_from_a_half_to_0_95() -> None:
    wide = (10, 10, 40, 30)  # IoU 400 / 600 = 0.67: four of ten thresholds
    for ap in score((found_of((1, 0.9, wide)), truth_of((1, CAT)))):
        assert (ap.ap, ap.ap50, ap.ap75) == pytest.approx((0.4, 1, 0))


def test_boxes_and_masks_are_scored_apart() -> None:
    found = found_of((1, 0.9, CAT))
    half = (10, 10, np.arange(400).reshape(20, 20) % 20 < 11)  # IoU 0.55: the first two thresholds
    mixed = Detections(boxes=found.boxes, scores=found.scores, classes=found.classes, masks=(half,))
    box, mask = score((mixed, truth_of((1, CAT))))
    assert (box.ap, mask.ap) == pytest.approx((1, 0.2))


def test_what_lies_in_a_crowd_is_no_mistake() -> None:
    truth = truth_of((1, DOG), (1, CAT), crowd=[1])
    for ap in score((found_of((1, 0.9, (52, 22, 60, 30)), (1, 0.8, (60, 30, 80, 50)), (1, 0.7, CAT)), truth)):
        assert ap.ap == 1
    for ap in score((found_of((1, 0.9, DOG)), truth_of((1, DOG), crowd=[1]))):
        assert math.isnan(ap.ap)  # a crowd need not be found either


def test_sizes_are_those_of_the_masks() -> None:
    """A detection whose box has 33² pixels and whose mask half of them is a small one."""
    mask = np.tri(33, dtype=bool)
    index = np.full((100, 100), IGNORE, np.int16)
    index[5:38, 5:38][mask] = 0
    truth = Segments(index=index, classes=np.ones(1, np.int16), crowd=np.zeros(1, bool), ids=np.ones(1, np.int64))
    found = found_of((1, 0.9, (5, 5, 38, 38)))
    found = Detections(boxes=found.boxes, scores=found.scores, classes=found.classes, masks=((5, 5, mask),))
    box, segm = score((found, truth))
    assert (segm.ap, segm.small, box.ap, box.small) == (1, 1, 1, 1)
    assert math.isnan(segm.medium) and math.isnan(box.medium)


def test_ranks_add_up_in_any_order() -> None:
    images = [(found_of((1, 0.9, (10, 10, 30 + 3 * i, 30)), (2, 0.3 + i / 10, DOG)), TRUTH) for i in range(4)]
    whole = score(*images)
    ranks = [InstanceRecords() for _ in range(2)]
    for i, (found, truth) in enumerate(images):
        ranks[i % 2].update(i, found, truth, TABLE)
    ranks[1].extend([ranks[0]])
    for _ in range(2):  # asking changes nothing
        assert [ap.to_dict() for ap in ranks[1].scores(TABLE)] == [ap.to_dict() for ap in whole]
    assert whole[0].ap < 1


def test_nothing_found_nothing_true_nothing_at_all() -> None:
    nothing = found_of()
    for ap in score((nothing, TRUTH)):
        assert (ap.ap, ap.classes) == (0, {"cat": 0, "dog": 0})
    for ap in (*score((found_of((1, 0.9, CAT)), truth_of())), *score((nothing, truth_of())), *score()):
        assert math.isnan(ap.ap) and math.isnan(ap.small)


def test_detections_without_masks_are_refused() -> None:
    found = found_of((1, 0.9, CAT), (1, 0.01, DOG))
    found = Detections(boxes=found.boxes, scores=found.scores, classes=found.classes, masks=found.masks[:1])
    with pytest.raises(ValueError, match="image 7: 1 of 2 detections have no mask, which mask AP needs"):
        InstanceRecords().update(7, found, TRUTH, TABLE)


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(ImportError, match=r"need faster-coco-eval; install it with pip install 'panfpn\[coco\]'"):
        InstanceRecords()


def test_plain_data_come_back() -> None:
    ap = score((found_of((1, 0.9, CAT)), truth_of((1, CAT))))[0]
    data = ap.to_dict()
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert data["classes"] == {"cat": 1, "dog": None} and data["large"] is None
    assert AveragePrecision.from_dict(data).to_dict() == data
    with pytest.raises(ValueError, match="file: holds no AP"):
        AveragePrecision.from_dict({"ap": 1.0}, "file")


@settings(deadline=None, max_examples=150)
@given(seed=st.integers(0, 2**32 - 1), full=st.booleans())
def test_masks_come_back_from_their_run_lengths(seed: int, full: bool) -> None:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 9, 2)
    top, left = (0, 0) if full else rng.integers(0, 4, 2)
    below, right = (0, 0) if full else rng.integers(0, 4, 2)
    mask = rng.random((height, width)) < rng.choice([0, 0.2, 0.8, 1])
    whole = np.zeros((top + height + below, left + width + right), np.uint8)
    whole[top : top + height, left : left + width] = mask
    packed = run_lengths(mask, int(top), int(left), whole.shape)
    np.testing.assert_array_equal(coco.mask.decode(packed), whole)
    assert packed == coco.mask.encode(np.asfortranarray(whole))


@pytest.mark.parametrize("side", [5, 14])
def test_every_instance_counts_however_many_there_are(side: int) -> None:
    """COCO's evaluator looks at the 100 best of an image: of 196 perfect ones, AP was 0.51."""
    boxes = [(12 * x, 12 * y, 12 * x + 8, 12 * y + 8) for y in range(side) for x in range(side)]
    truth = truth_of(*((1, box) for box in boxes), size=12 * side + 1)
    found = found_of(*((1, 0.99 - 0.001 * i, box) for i, box in enumerate(boxes)))
    records = InstanceRecords()
    records.update(1, found, truth, TABLE)
    for ap in records.scores(TABLE):
        assert ap.ap == pytest.approx(1.0) and ap.detections == side * side
        assert AveragePrecision.from_dict(ap.to_dict()).detections == side * side
    few = records.scores(TABLE, max_detections=10)[1]
    assert few.detections == 10 and few.ap < 10 / side**2 + 0.02
