"""Intervals and comparisons: the slow definition, known truths, errors."""

from dataclasses import replace

import numpy as np
import pytest

from panfpn.metrics import (
    ConfusionMatrix,
    ImageRows,
    PanopticScores,
    SegmentRows,
    SemanticScores,
    bootstrap,
)
from panfpn.metrics.bootstrap import compare, miou_interval

NAMES = ("a", "b", "c")


def make(right: float, seed: int = 0, count: int = 30) -> SemanticScores:
    """Scores of `count` images, of whose pixels a share of about `right` is right; the truth is always the same."""
    truth, noise = np.random.default_rng(7), np.random.default_rng(seed)
    matrix = ConfusionMatrix(3, count)
    for i in range(count):
        true = truth.integers(-1, 3, (8, 9))
        share = right * truth.uniform(0.7, 1.3)
        matrix.update(
            np.where(noise.random(true.shape) < share, true.clip(0), noise.integers(0, 3, true.shape)), true, i
        )
    images = ImageRows(tuple(f"image {i}" for i in range(count)), matrix.rows)
    return replace(matrix.scores(NAMES), images=images)


def rows(scores: SemanticScores) -> ImageRows:
    assert scores.images is not None
    return scores.images


def test_interval_is_the_slow_one() -> None:
    images = rows(make(0.6))
    found = miou_interval(images, resamples=50, seed=3)
    rng, values = np.random.default_rng(3), []
    for times in rng.multinomial(30, [1 / 30] * 30, 50):
        drawn = np.repeat(np.arange(30), times)
        hits, predicted, true = (part[drawn].sum(0) for part in images.areas)
        values.append(np.mean(hits / (predicted + true - hits)))
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(values, (2.5, 97.5))))
    assert found.value == pytest.approx(make(0.6).miou)
    assert found.low < found.value < found.high


def test_memory_bound_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    images = rows(make(0.6))
    whole = miou_interval(images, resamples=40)
    monkeypatch.setattr(bootstrap, "_CELLS", 100)  # three resamples at a time
    assert miou_interval(images, resamples=40) == whole
    assert miou_interval(images, resamples=40, seed=1) != whole


def test_interval_covers_the_truth() -> None:
    """Of 100 sets of 40 images, about 95 intervals hold the mIoU of the many images they came from."""
    rng = np.random.default_rng(0)
    everything = rows(make(0.6, count=2000))
    truth = miou_interval(everything, resamples=1).value
    held = 0
    for _ in range(100):
        drawn = rng.integers(0, 2000, 40)
        some = miou_interval(ImageRows(tuple(map(str, drawn)), everything.rows[drawn]), resamples=200)
        held += some.low <= truth <= some.high
    assert 85 <= held <= 100


def test_equal_images_leave_nothing_to_chance() -> None:
    images = rows(make(0.6))
    same = ImageRows(images.names, np.repeat(images.rows[:1], 30, 0))
    found = miou_interval(same)
    assert found.low == pytest.approx(found.value) == pytest.approx(found.high) == pytest.approx(images.miou[0])


def test_nothing_labelled_has_no_interval() -> None:
    empty = ImageRows(("x",), np.zeros((1, 10), np.int64))
    for images in (empty, ImageRows((), np.zeros((0, 10), np.int64))):
        found = miou_interval(images)
        assert np.isnan([found.value, found.low, found.high]).all()
    with pytest.raises(ValueError, match="resamples is 0"):
        miou_interval(empty, resamples=0)


def test_one_image_tells_nothing_apart() -> None:
    found = compare(make(0.5, seed=1, count=1), make(0.7, seed=2, count=1))
    assert found.difference.value > 0
    assert np.isnan([found.difference.low, found.difference.high, found.detectable, found.b_better]).all()


def test_better_model_is_better() -> None:
    a, b = make(0.5, seed=1), make(0.7, seed=2)
    found = compare(a, b)
    assert found.difference.value == pytest.approx(b.miou - a.miou) and found.difference.low > 0
    assert found.b_better == 1
    back = compare(b, a)
    assert back.difference.low == pytest.approx(-found.difference.high) and back.b_better == 0
    assert (back.a, back.b) == (found.b, found.a)


def test_pairing_narrows_the_interval() -> None:
    a, b = make(0.6, seed=1), make(0.62, seed=1)  # the same noise: what varies between images is common to both
    found = compare(a, b)
    assert found.difference.high - found.difference.low < 0.5 * (found.a.high - found.a.low)


def test_a_model_equals_itself() -> None:
    a = make(0.6)
    found = compare(a, a)
    assert (found.difference.value, found.difference.low, found.difference.high, found.b_better) == (0, 0, 0, 0)
    assert found.moved == ()


def test_images_that_moved_most() -> None:
    a, b = make(0.6, seed=1), make(0.6, seed=2)
    found = compare(a, b)
    changes = [abs(other - own) for _, own, other in found.moved]
    assert changes == sorted(changes, reverse=True) and len(changes) >= 25
    name, own, other = found.moved[0]
    place = rows(a).names.index(name)
    assert (own, other) == (rows(a).miou[place], rows(b).miou[place])


def test_images_are_paired_by_name() -> None:
    a, b = make(0.5, seed=1), make(0.6, seed=2)
    order = np.random.default_rng(0).permutation(30)
    shuffled = ImageRows(tuple(rows(b).names[i] for i in order), rows(b).rows[order])
    assert compare(a, replace(b, images=shuffled)) == compare(a, b)


def test_seeds_of_a_model_are_compared_by_their_mean_and_widen_the_interval() -> None:
    seeds = [make(0.6, seed=k) for k in (1, 2, 3)]
    others = [make(0.6, seed=k) for k in (4, 5, 6)]
    found = compare(seeds, others)
    means = [np.mean([s.miou for s in side]) for side in (seeds, others)]
    assert (found.a.value, found.b.value) == pytest.approx(tuple(means))
    assert found.difference.value == pytest.approx(means[1] - means[0])
    assert len(found.moved) > 0
    assert compare(seeds[:1], others[:1]) == compare(seeds[0], others[0])
    # Three seeds that differ by 6 points say less of the model than three copies of one that is as good.
    apart = [make(p, seed=1) for p in (0.54, 0.60, 0.66)]
    same = [apart[1]] * 3
    wide, narrow = (compare(side, others).difference for side in (apart, same))
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_what_cannot_be_compared_is_named() -> None:
    a = make(0.6)
    images = rows(a)
    others = {
        r"two: has no key 'images'": replace(a, images=None),
        r"one and two: the classes differ \('c' and 'd'\)": replace(a, names=("a", "b", "d")),
        r"one and two: the classes differ \(3 and 2 of them\)": replace(a, names=("a", "b")),
        r"one and two: the images differ \('image 0' is only in one\)": replace(
            a, images=ImageRows(("other", *images.names[1:]), images.rows)
        ),
        r"one and two: the images differ \('image 29' is only in one\)": make(0.6, count=29),
        r"one and two: the images differ \(a name stands twice\)": replace(
            a, images=ImageRows((*images.names, "image 3"), np.concatenate([images.rows, images.rows[3:4]]))
        ),
        r"one and two: the truth of image 'image 4' differs": replace(
            a, images=ImageRows(images.names, images.rows + (np.arange(30) == 4)[:, None])
        ),
    }
    for message, other in others.items():
        with pytest.raises(ValueError, match=message):
            compare(a, other, sources=("one", "two"))


def segments(found: float, seed: int, count: int = 60) -> PanopticScores:
    """Scores of `count` images of 0 to 4 true segments of two classes, of which a share of about `found` is matched."""
    truth, noise = np.random.default_rng(3), np.random.default_rng(seed)
    table = np.zeros((count, 4, 2))
    for i in range(count):
        for k in range(2):
            true = truth.integers(0, 5)
            hits = noise.binomial(true, found)
            table[i, :, k] = noise.uniform(0.5, 1, hits).sum(), hits, noise.integers(0, 3), true - hits
    sums = table.sum(0)
    return PanopticScores(
        names=("a", "b"), things=np.array([True, False]), iou_sum=sums[0], true_positives=sums[1].astype(int),
        false_positives=sums[2].astype(int), false_negatives=sums[3].astype(int),
        images=SegmentRows(tuple(f"image {i}" for i in range(count)), table.reshape(count, -1)),
    )  # fmt: skip


def test_panoptic_scores_are_compared_by_pq() -> None:
    a, b = segments(0.5, 0), segments(0.8, 1)
    found = compare(a, b)
    assert found.headline == "PQ" and found.b_better > 0.99
    assert (found.a.value, found.b.value) == pytest.approx((a.value, b.value))
    assert found.difference.low > 0 and 0 < found.detectable < found.difference.value
    again = compare(*(PanopticScores.from_dict(s.to_json("mmseg"), source="a.json") for s in (a, b)))
    assert again == found
    assert compare(a, a).detectable == 0
    rng, values = np.random.default_rng(0), []
    rows = a.images
    assert rows is not None
    for times in rng.multinomial(60, [1 / 60] * 60, 1000):
        iou_sum, hits, wrong, missed = rows.sums[np.repeat(np.arange(60), times)].sum(0).reshape(4, 2)
        values.append((iou_sum / (hits + wrong / 2 + missed / 2)).mean())
    assert (found.a.low, found.a.high) == pytest.approx(tuple(np.percentile(values, (2.5, 97.5))))


def test_panoptic_comparisons_that_mean_nothing() -> None:
    a = segments(0.5, 0)
    with pytest.raises(ValueError, match="A holds PQ and B mIoU"):
        compare(a, make(0.6))
    with pytest.raises(ValueError, match="the truth of image 'image 0' differs"):
        other = segments(0.5, 0)
        assert other.images is not None
        other.images.sums[0, 6] += 1  # a missed segment more
        compare(a, other)
    with pytest.raises(ValueError, match=r"x.json: images\[0\] is not an image's segments"):
        SegmentRows.from_list([{"name": "a", "classes": [[0, 2.5, 1, 0, 0]]}], 2, "x.json")
