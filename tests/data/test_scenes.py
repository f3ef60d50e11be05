"""Procedural scenes: repeatable, exactly labelled, balanced, and not solvable by colour alone."""

import numpy as np
import pytest

from panfpn.data.scenes import CLASSES, Scene, draw_scene

NUM_STUFF = 5


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(11, index) for index in range(60)]


def test_is_a_function_of_its_arguments() -> None:
    first, again = draw_scene(3, 5), draw_scene(3, 5)
    assert first.image.tobytes() == again.image.tobytes()
    assert first.segments.tobytes() == again.segments.tobytes()
    assert first.categories.tobytes() == again.categories.tobytes()


@pytest.mark.parametrize(("seed", "index"), [(3, 6), (4, 5), (5, 3)])
def test_other_arguments_give_another_scene(seed: int, index: int) -> None:
    assert (draw_scene(3, 5).segments != draw_scene(seed, index).segments).mean() > 0.1


@pytest.mark.parametrize(("height", "width"), [(64, 64), (97, 131), (192, 256), (256, 191), (65, 512), (512, 1024)])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_shapes_and_types(height: int, width: int, index: int) -> None:
    scene = draw_scene(0, index, height=height, width=width)
    assert scene.image.shape == (height, width, 3) and scene.image.dtype == np.uint8
    assert scene.segments.shape == (height, width) and scene.segments.dtype == np.int32
    assert scene.categories.ndim == 1 and scene.categories.dtype == np.uint8
    assert scene.labels.shape == (height, width) and scene.labels.dtype == np.int16


def test_size_scales_the_same_street() -> None:
    """A picture twice as large shows the same scene: labels agree but for outlines."""
    for index in range(8):
        small, large = draw_scene(1, index, height=96, width=128), draw_scene(1, index, height=192, width=256)
        assert (small.labels == large.labels[::2, ::2]).mean() > 0.9


def test_segment_ids_are_contiguous_and_have_categories(scenes: list[Scene]) -> None:
    for scene in scenes:
        ids, counts = np.unique(scene.segments[scene.segments > 0], return_counts=True)
        assert ids.tolist() == list(range(1, len(scene.categories)))
        assert counts.min() >= 12
        assert scene.categories.max() < len(CLASSES)


def test_a_stuff_class_is_one_segment_and_things_are_several(scenes: list[Scene]) -> None:
    for scene in scenes:
        stuff = [category for category in scene.categories[1:].tolist() if category < NUM_STUFF]
        assert len(stuff) == len(set(stuff))
    cars = [int((scene.categories[1:] == CLASSES.index("car")).sum()) for scene in scenes]
    assert max(cars) >= 3


def test_labels_follow_segments(scenes: list[Scene]) -> None:
    for scene in scenes[:10]:
        labels = scene.labels
        assert ((labels == -1) == (scene.segments == 0)).all()
        for segment, category in enumerate(scene.categories.tolist()):
            if segment:
                assert (labels[scene.segments == segment] == category).all()


def test_classes_are_in_a_good_share_of_scenes_and_pixels(scenes: list[Scene]) -> None:
    share = np.mean([np.bincount(scene.labels.ravel() + 1, minlength=10) / scene.labels.size for scene in scenes], 0)
    seen = np.mean([np.isin(np.arange(len(CLASSES)), scene.labels) for scene in scenes], 0)
    assert share[0] < 0.03, "void"
    assert dict(zip(CLASSES, share[1:].tolist(), strict=True)) == {
        name: pytest.approx(0.2, abs=0.19) for name in CLASSES
    }
    assert seen[:NUM_STUFF].min() > 0.7
    assert seen[NUM_STUFF:].min() >= 0.35


def test_picture_and_labels_line_up(scenes: list[Scene]) -> None:
    """Colour steps are larger across segment borders than elsewhere, and largest exactly there."""
    at = {shift: [] for shift in (-3, 0, 3)}
    for scene in scenes[:20]:
        step = np.abs(np.diff(scene.image.astype(np.int16), axis=1)).sum(2)
        border = np.diff(scene.segments, axis=1) != 0
        for shift, values in at.items():
            values.append(np.roll(step, shift, axis=1)[border].mean())
    assert np.mean(at[0]) > 2 * max(np.mean(at[-3]), np.mean(at[3]))


def test_colour_alone_does_not_tell_the_class(scenes: list[Scene]) -> None:
    """The nearest class-mean colour reaches no useful mIoU, even on the pictures it was fitted on."""
    pixels = np.concatenate([scene.image[::3, ::3].reshape(-1, 3) for scene in scenes]).astype(np.float32)
    labels = np.concatenate([scene.labels[::3, ::3].ravel() for scene in scenes])
    pixels, labels = pixels[labels >= 0], labels[labels >= 0]
    means = np.stack([pixels[labels == k].mean(0) for k in range(len(CLASSES))])
    guess = ((pixels[:, None] - means) ** 2).sum(2).argmin(1)
    matrix = np.bincount(labels * len(CLASSES) + guess, minlength=len(CLASSES) ** 2).reshape(len(CLASSES), -1)
    hits = np.diag(matrix)
    assert (hits / (matrix.sum(0) + matrix.sum(1) - hits)).mean() < 0.35
