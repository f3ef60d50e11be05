"""Panoptic Quality: panopticapi's own figures, the definition written out, and sums that merge in any order."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panfpn.data.images import read_mask
from panfpn.labels import IGNORE, LabelTable
from panfpn.metrics import AveragePrecision, ConfusionMatrix, PanopticQuality, PanopticScores
from panfpn.types import Segments

Pair = tuple[Segments, Segments]  # found, truth
NAMES = ("dog", "cat", "grass", "sky")
THINGS = (True, True, False, False)


def segments_of(ids: np.ndarray, records: Sequence[Mapping[str, Any]], places: Mapping[int, int]) -> Segments:
    """The segments of an id map [H, W] (0 is void), whose list is COCO's; `places` of its categories."""
    index = np.full(ids.shape, IGNORE, np.int16)
    for k, record in enumerate(records):
        index[ids == record["id"]] = k
    return Segments(
        index=index,
        classes=np.array([places[r["category_id"]] for r in records], np.int16),
        crowd=np.array([bool(r.get("iscrowd", 0)) for r in records], bool),
        ids=np.array([r["id"] for r in records], np.int64),
    )


def row_of(text: str, classes: Sequence[int], crowd: Sequence[int] = ()) -> Segments:
    """Segments of one row of pixels: "aab-" are two pixels of the first, one of the second, one void."""
    index = np.array([[ord(c) - ord("a") if c != "-" else IGNORE for c in text]], np.int16)
    flags = np.isin(np.arange(len(classes)), crowd)
    return Segments(index=index, classes=np.array(classes, np.int16), crowd=flags, ids=np.arange(len(classes)) + 1)


def sums_of(pairs: Sequence[Pair], num_classes: int = 4) -> PanopticQuality:
    quality = PanopticQuality(num_classes)
    for found, truth in pairs:
        quality.update(found, truth)
    return quality


def counts(quality: PanopticQuality) -> list[list[float]]:
    return [array.tolist() for array in quality.sums]


def draw_pair(rng: np.random.Generator, classes: int = 4) -> Pair:
    """Few coarse blocks on both sides, so that matches, misses, void and crowds all occur."""
    shape = rng.integers(1, 4, 2) * 4
    drawn = []
    truth = rng.integers(IGNORE, 6, (4, 4))
    for ids in (np.where(rng.random((4, 4)) < 0.7, truth, rng.integers(IGNORE, 6, (4, 4))), truth):
        whole = np.kron(ids, np.ones(shape // 4, int))
        whole[rng.random(whole.shape) < 0.05] = IGNORE
        kept, index = np.unique(whole, return_inverse=True)
        index = index.reshape(whole.shape) - (kept[0] == IGNORE)
        count = len(kept) - (kept[0] == IGNORE)
        drawn.append(
            Segments(
                index=index.astype(np.int16),
                classes=rng.integers(0, classes, 6).astype(np.int16)[kept[kept >= 0]],
                crowd=rng.random(count) < 0.25,
                ids=np.arange(count) + 7,
            )
        )
    found, true = drawn
    if rng.random() < 0.8:  # else nothing has the class of what lies there
        agreed = rng.integers(0, classes, 6).astype(np.int16)
        found, true = (
            replace(s, classes=agreed[[truth_value(s, m) for m in range(len(s.classes))]]) for s in (found, true)
        )
    return found, true


def truth_value(segments: Segments, k: int) -> int:
    """A number that a segment of the prediction and one of the truth share where they lie in the same place."""
    return int(np.flatnonzero(segments.index == k)[0]) % 6


def slow_sums(pairs: Sequence[Pair], num_classes: int) -> list[list[float]]:
    """What docs/facts.md, E1 says of panopticapi, segment by segment with sets of pixels."""
    sums: list[list[float]] = [[0] * num_classes for _ in range(4)]
    for found, truth in pairs:
        pixels = [
            [set(np.flatnonzero(s.index.ravel() == k).tolist()) for k in range(len(s.classes))] for s in (found, truth)
        ]
        void = set(np.flatnonzero(truth.index.ravel() == IGNORE).tolist())
        found_hit, true_hit = set(), set()
        for t, true_pixels in enumerate(pixels[1]):
            for p, found_pixels in enumerate(pixels[0]):
                if truth.crowd[t] or truth.classes[t] != found.classes[p]:
                    continue
                shared = len(true_pixels & found_pixels)
                union = len(true_pixels) + len(found_pixels) - shared - len(void & found_pixels)
                if union and shared / union > 0.5:
                    sums[0][truth.classes[t]] += shared / union
                    sums[1][truth.classes[t]] += 1
                    found_hit.add(p)
                    true_hit.add(t)
        crowds = {}
        for t in range(len(pixels[1])):
            if truth.crowd[t]:
                crowds[int(truth.classes[t])] = t
            elif t not in true_hit:
                sums[3][truth.classes[t]] += 1
        for p, found_pixels in enumerate(pixels[0]):
            if p in found_hit:
                continue
            inside = len(void & found_pixels)
            if int(found.classes[p]) in crowds:
                inside += len(pixels[1][crowds[int(found.classes[p])]] & found_pixels)
            if inside / len(found_pixels) <= 0.5:
                sums[2][found.classes[p]] += 1
    return sums


@pytest.fixture(scope="module")
def golden(golden_files: Path) -> tuple[dict[str, Any], list[Pair]]:
    """The cases of tests/golden/make_pq.py and what panopticapi said of them."""
    cases = json.loads((golden_files / "pq_cases.json").read_text())
    places = {c["id"]: k for k, c in enumerate(cases["categories"])}
    with np.load(golden_files / "pq_cases.npz") as maps:
        pairs = [
            (
                segments_of(maps[f"pred{i}"], cases["pred"][i]["segments_info"], places),
                segments_of(maps[f"gt{i}"], cases["gt"][i]["segments_info"], places),
            )
            for i in range(len(cases["images"]))
        ]
    return cases, pairs


def golden_scores(cases: Mapping[str, Any], pairs: Sequence[Pair]) -> PanopticScores:
    categories = cases["categories"]
    quality = sums_of(pairs, len(categories))
    return quality.scores([c["name"] for c in categories], [c["isthing"] for c in categories])


def test_panopticapis_figures(golden: tuple[dict[str, Any], list[Pair]]) -> None:
    cases, pairs = golden
    scores, wanted = golden_scores(cases, pairs), cases["result"]
    for group, key in (("all", "All"), ("things", "Things"), ("stuff", "Stuff")):
        found = scores.mean(group)._asdict()
        for name, value in wanted[key].items():
            assert found[name] == pytest.approx(value, abs=1e-12), (group, name)
    present = ~np.isnan(scores.pq)
    assert present.sum() >= 8
    for k, category in enumerate(cases["categories"]):
        own = wanted["per_class"][str(category["id"])]
        for name in ("pq", "sq", "rq"):
            # panopticapi writes 0 for a class that does not occur
            assert np.nan_to_num(getattr(scores, name)[k]) == pytest.approx(own[name], abs=1e-12), (k, name)


def test_truth_against_itself_is_perfect(golden: tuple[dict[str, Any], list[Pair]]) -> None:
    cases, pairs = golden
    # Of two crowds of a class the first does not excuse itself, in panopticapi either.
    truths = [truth if np.unique(truth.classes[truth.crowd]).size == truth.crowd.sum()
              else replace(truth, crowd=np.zeros_like(truth.crowd)) for _, truth in pairs]  # fmt: skip
    scores = golden_scores(cases, [(truth, truth) for truth in truths])
    present = ~np.isnan(scores.pq)
    assert present.any() and (scores.pq[present] == 1).all()
    assert scores.mean()[:3] == (1, 1, 1) and not scores.false_positives.any() and not scores.false_negatives.any()
    assert any(truth.crowd.any() for truth in truths)


def test_real_truth_against_itself_is_perfect(shared: Path) -> None:
    folder = shared / "data" / "coco_panoptic" / "annotations"
    annotations = json.loads((folder / "panoptic_val2017.json").read_text())
    categories = annotations["categories"]
    places = {c["id"]: k for k, c in enumerate(categories)}
    quality = PanopticQuality(len(places))
    for entry in annotations["annotations"]:
        pixels = read_mask(folder / "panoptic_val2017" / entry["file_name"]).astype(np.int64)  # [H, W, 3]
        truth = segments_of(pixels @ (1, 256, 65536), entry["segments_info"], places)
        assert np.bincount(truth.index[truth.index >= 0]).tolist() == [r["area"] for r in entry["segments_info"]]
        assert quality.update(truth, truth) == 1
    scores = quality.scores(
        [c["name"] for c in annotations["categories"]], [c["isthing"] for c in annotations["categories"]]
    )
    present = ~np.isnan(scores.pq)
    assert present.sum() > 60 and (scores.pq[present] == 1).all()


def test_halves_add_up_to_the_whole(golden: tuple[dict[str, Any], list[Pair]]) -> None:
    _, pairs = golden
    whole, first, second = sums_of(pairs, 9), sums_of(pairs[:3], 9), sums_of(pairs[3:], 9)
    for total, part in zip(first.sums, second.sums, strict=True):
        total += part  # as evaluation adds up ranks
    np.testing.assert_allclose(first.iou_sum, whole.iou_sum, rtol=1e-15)
    assert counts(first)[1:] == counts(whole)[1:]


def test_counts_by_hand() -> None:
    truth = row_of("aaaabbbbcccc", [0, 1, 2])
    found = row_of("aaabbbbbcc--", [0, 0, 2])  # a: 3 / 4; b: of another class; c: 2 / 4 is no match
    quality = PanopticQuality(4)
    own = quality.update(found, truth)
    assert counts(quality) == [[0.75, 0, 0, 0], [1, 0, 0, 0], [1, 0, 1, 0], [0, 1, 1, 0]]
    scores = quality.scores(NAMES, THINGS)
    np.testing.assert_allclose(scores.pq, [0.5, 0, 0, np.nan])
    np.testing.assert_allclose(scores.sq, [0.75, 0, 0, np.nan])
    np.testing.assert_allclose(scores.rq, [2 / 3, 0, 0, np.nan])
    assert own == scores.value == pytest.approx(0.5 / 3)
    assert scores.mean("things") == pytest.approx((0.25, 0.375, 1 / 3, 2))
    assert scores.mean("stuff") == (0, 0, 0, 1)


@pytest.mark.parametrize(("text", "match"), [("aaa-", 0.75), ("aa--", None)])
def test_half_an_overlap_is_no_match(text: str, match: float | None) -> None:
    quality = sums_of([(row_of(text, [0]), row_of("aaaa", [0]))])
    assert quality.iou_sum[0] == (match or 0) and quality.false_negatives[0] == (match is None)


def test_void_pixels_leave_the_union_and_excuse_what_mostly_lies_there() -> None:
    truth = row_of("aa------", [0])
    assert counts(sums_of([(row_of("aaaaaaaa", [0]), truth)]))[0] == [1, 0, 0, 0]  # 2 / (8 - 6)
    assert counts(sums_of([(row_of("aaaaaaaa", [1]), truth)]))[2] == [0, 0, 0, 0]  # 6 of 8 pixels in void
    assert counts(sums_of([(row_of("aaaa----", [1]), truth)]))[2] == [0, 1, 0, 0]  # half is not over half
    assert counts(sums_of([(row_of("aa------", [1]), truth)]))[2] == [0, 1, 0, 0]


def test_crowd_is_neither_matched_nor_missed_and_excuses_its_class() -> None:
    truth = row_of("aaaaaa--", [0], crowd=[0])
    assert counts(sums_of([(row_of("aaaaaa--", [0]), truth)])) == [[0] * 4] * 4
    assert counts(sums_of([(row_of("--------", []), truth)])) == [[0] * 4] * 4
    assert counts(sums_of([(row_of("aaaaaa--", [1]), truth)]))[2] == [0, 1, 0, 0]  # of another class
    # two pixels in the crowd and two in void count together
    assert counts(sums_of([(row_of("----aaaa", [0]), truth)])) == [[0] * 4] * 4


def test_the_last_crowd_of_a_class_counts() -> None:
    truth = row_of("aaaabbbb", [0, 0], crowd=[0, 1])
    assert counts(sums_of([(row_of("aaaa----", [0]), truth)]))[2] == [1, 0, 0, 0]
    assert counts(sums_of([(row_of("----aaaa", [0]), truth)]))[2] == [0, 0, 0, 0]


def test_crowd_of_a_prediction_means_nothing() -> None:
    truth = row_of("aabb", [0, 1])
    assert counts(sums_of([(row_of("aabb", [0, 1], crowd=[0, 1]), truth)]))[1] == [1, 1, 0, 0]


def test_nothing_predicted_nothing_true_nothing_at_all() -> None:
    empty, full = row_of("----", []), row_of("aabb", [0, 3])
    assert counts(sums_of([(empty, full)])) == [[0] * 4, [0] * 4, [0] * 4, [1, 0, 0, 1]]
    assert counts(sums_of([(full, empty)])) == [[0] * 4] * 4  # all in void
    lost = replace(empty, classes=full.classes, crowd=full.crowd, ids=full.ids)  # lists without pixels
    assert counts(sums_of([(lost, full)])) == counts(sums_of([(empty, full)]))
    assert counts(sums_of([(full, lost)]))[3] == [1, 0, 0, 1]  # panopticapi misses what a JSON lists too
    quality = PanopticQuality(4)
    assert math.isnan(quality.update(empty, empty))
    assert math.isnan(quality.update(*[replace(empty, index=np.zeros((0, 5), np.int16))] * 2))
    scores = quality.scores(NAMES, THINGS)
    assert np.isnan(scores.pq).all() and np.isnan(scores.sq).all() and math.isnan(scores.value)
    assert scores.mean("stuff").n == 0
    assert json.dumps(scores.to_dict(), allow_nan=False)


def test_what_cannot_be_counted_is_refused() -> None:
    quality = PanopticQuality(2)
    with pytest.raises(ValueError, match=r"prediction \(1, 3\) and truth \(1, 4\) have different sizes"):
        quality.update(row_of("aaa", [0]), row_of("aaaa", [0]))
    with pytest.raises(ValueError, match="true segment 2 has class 2, which is not one of the 2 classes"):
        quality.update(row_of("aab", [0, 1]), row_of("aab", [0, 2]))
    with pytest.raises(ValueError, match="predicted segment 1 has class -1"):
        quality.update(row_of("aab", [-1, 1]), row_of("aab", [0, 1]))
    assert counts(quality) == [[0, 0]] * 4
    with pytest.raises(ValueError, match="no group 'thing' of classes; choose from all, things, stuff"):
        quality.scores("ab", [True, False]).mean("thing")


@settings(deadline=None, max_examples=150)
@given(seed=st.integers(0, 2**32 - 1))
def test_sums_are_those_of_the_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pairs = [draw_pair(rng) for _ in range(3)]
    found = sums_of(pairs)
    wanted = slow_sums(pairs, 4)
    np.testing.assert_allclose(found.iou_sum, wanted[0], rtol=1e-14)
    assert counts(found)[1:] == wanted[1:]


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1))
def test_order_of_segments_means_nothing_without_crowds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found, truth = draw_pair(rng)
    truth = replace(truth, crowd=np.zeros_like(truth.crowd))
    order = rng.permutation(len(found.classes))
    back = np.append(np.argsort(order), IGNORE).astype(np.int16)
    shuffled = Segments(
        index=back[found.index], classes=found.classes[order], crowd=found.crowd[order], ids=found.ids[order]
    )
    np.testing.assert_allclose(sums_of([(shuffled, truth)]).sums, sums_of([(found, truth)]).sums)


def test_the_reference_is_not_trivial() -> None:
    rng = np.random.default_rng(0)
    total = np.array(slow_sums([draw_pair(rng) for _ in range(40)], 4)).sum(1)
    assert (total > 15).all()  # matches, wrong and missed segments all occur


def test_thousands_of_segments() -> None:
    index = np.arange(9000, dtype=np.int16).reshape(90, 100)
    many = Segments(
        index=index, classes=(np.arange(9000) % 3).astype(np.int16), crowd=np.zeros(9000, bool), ids=np.arange(9000)
    )
    few = row_of("a" * 100, [0])
    quality = sums_of([(replace(few, index=np.zeros((90, 100), np.int16)), many)], 3)
    assert counts(quality) == [[0] * 3, [0] * 3, [1, 0, 0], [3000] * 3]


@pytest.fixture
def table() -> LabelTable:
    classes = [{"name": n, "value": k, "thing": t} for k, (n, t) in enumerate(zip(NAMES, THINGS, strict=True))]
    return LabelTable.from_dict({"name": "pets", "classes": classes})


@pytest.fixture
def scores() -> PanopticScores:
    rng = np.random.default_rng(1)
    pairs = [draw_pair(rng, 3) for _ in range(5)]
    matrix = ConfusionMatrix(4)
    for found, truth in pairs:
        matrix.update(found.labels, truth.labels)
    ap = AveragePrecision(0.3, 0.5, 0.25, 0.1, 0.2, math.nan, {"cat": 0.3, "dog": math.nan})
    other = ConfusionMatrix(3).scores(("things", "grass", "sky"))
    return replace(sums_of(pairs).scores(NAMES, THINGS), merged=matrix.scores(NAMES), branch=other, mask_ap=ap)


def test_plain_data_come_back(scores: PanopticScores) -> None:
    data = scores.to_dict()
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert data["pq"] == scores.value and data["groups"]["things"]["n"] == 2 and data["groups"]["stuff"]["n"] == 1
    assert data["classes"]["sky"] == {
        "thing": False, "pq": None, "sq": None, "rq": None, "iou_sum": 0, "true_positives": 0, "false_positives": 0,
        "false_negatives": 0,
    }  # fmt: skip
    back = PanopticScores.from_dict(data)
    assert back.names == NAMES and back.things.tolist() == list(THINGS) and back.to_dict() == data
    assert back.merged is not None and back.box_ap is None and back.mask_ap is not None
    assert back.merged.counts.tolist() == (scores.merged and scores.merged.counts.tolist())
    header = json.loads(json.dumps(data, sort_keys=True))  # as in a release file
    assert PanopticScores.from_dict(header, NAMES).to_dict() == data


def test_plain_data_that_are_no_scores_are_refused(scores: PanopticScores) -> None:
    data = scores.to_dict()
    with pytest.raises(ValueError, match="file: has no key 'classes'"):
        PanopticScores.from_dict({}, source="file")
    del data["classes"]["dog"]["false_positives"]
    with pytest.raises(ValueError, match=r"file: key 'classes' does not hold the counts of 4 classes.*false_positives"):
        PanopticScores.from_dict(data, source="file")
    with pytest.raises(ValueError, match="file: mask: holds no AP"):
        PanopticScores.from_dict(scores.to_dict() | {"mask": {"ap": 1}}, source="file")


def test_a_line_and_a_row_for_the_log(scores: PanopticScores) -> None:
    whole, things = scores.mean(), scores.mean("things")
    assert scores.merged is not None
    line = scores.summary()
    assert line.startswith(f"PQ {whole.pq:.4f} (things {things.pq:.4f} stuff ")
    assert f"SQ {whole.sq:.4f}  RQ {whole.rq:.4f}  mIoU nan  mIoU merged {scores.merged.miou:.4f}" in line
    assert line.endswith("  mask AP 0.3000") and "\n" not in line
    row = scores.row()
    assert json.loads(json.dumps(row, allow_nan=False)) == row
    assert row["pq"] == scores.value == whole.pq and row["pq_things"] == things.pq and row["mask_ap"] == 0.3
    assert row["miou"] is None and row["class_pq"]["sky"] is None
    assert (PanopticScores.headline, scores.headline) == ("PQ", "PQ")
