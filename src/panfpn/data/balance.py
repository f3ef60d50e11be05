"""What can be done about rare classes. In: pixels of each class in each image. Out: loss weights, and crops of them.

Both come from the counts of the training images, and are drawn, where they are drawn, from (seed, draw).
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from panfpn.data.checked import open_sample
from panfpn.data.dataset import Dataset, FileDataset
from panfpn.data.segments import PanopticDataset
from panfpn.progress import progress_bar
from panfpn.types import Segments

COUNTED = 2000  # images that tell the weights of classes
_THREADS = 2
_MOST = 10.0  # times the weight of the median class that a weight reaches
_SHARPNESS = 0.01  # share of the pixels within which a class is drawn e times less often (Hoyer et al. 2022)
_SMALLEST = 64  # pixels of a class in an image that is drawn for it, unless no image has as many

Counts = npt.NDArray[np.int64]


def count_classes(dataset: Dataset, *, channels: int = 3, most: int | None = None) -> Counts:
    """Pixels of each class in each image [N, K], or in `most` of them, spread over all; of files the masks are read."""
    read: Callable[[int], npt.NDArray[np.int16]] | None = None
    if isinstance(dataset, FileDataset | PanopticDataset):
        read = dataset.labels
    k = dataset.table.num_classes

    def one(index: int) -> Counts:
        if read is not None:
            labels = read(index)
        else:
            target = open_sample(dataset, index, channels=channels)[1]
            labels = target.labels if isinstance(target, Segments) else target[:, :]
        return np.bincount(labels.ravel().astype(np.int32) + 1, minlength=k + 1)[1:]

    chosen = range(len(dataset))
    if most is not None and most < len(dataset):
        chosen = range(len(dataset))[:: -(-len(dataset) // most)]
    counts = np.zeros((len(chosen), k), np.int64)
    with ThreadPoolExecutor(_THREADS) as pool, progress_bar("counting classes", len(chosen)) as advance:
        for done, found in enumerate(pool.map(one, chosen)):
            counts[done] = found
            advance(done + 1)
    return counts


def median_frequency(counts: Counts) -> tuple[float, ...]:
    """A weight for each class [K]: the median frequency over its own (Eigen and Fergus 2015).

    A class's frequency is its share of the labelled pixels of the images that have it. Weights are at most ten times
    the median class's, and on average over all labelled pixels 1, so that the learning rate need not change; classes
    without a pixel weigh 1.
    """
    return _normalised(_over_frequency(counts), counts)


def root_frequency(counts: Counts) -> tuple[float, ...]:
    """A weight for each class [K]: the root of its `median_frequency`, half way between that and none."""
    return _normalised(np.sqrt(np.minimum(_over_frequency(counts), _MOST)), counts)


def _over_frequency(counts: Counts) -> npt.NDArray[np.float64]:
    there = counts > 0
    having = (there * counts.sum(1, keepdims=True)).sum(0)  # [K]
    frequency = counts.sum(0) / np.maximum(having, 1)
    return np.asarray(np.median(frequency[frequency > 0]) / np.maximum(frequency, 1e-12))


def effective_number(counts: Counts) -> tuple[float, ...]:
    """A weight for each class [K]: one over its effective number of samples (Cui et al. 2019).

    That is (1 − βⁿ) / (1 − β) for n images that have it, β = 1 − 1 / N of N images: how many images were needed to see
    as much of it, if they were drawn at random. Bounded and normalised as `median_frequency`.
    """
    n, beta = (counts > 0).sum(0), 1 - 1 / max(2, len(counts))
    number = (1 - beta**n) / (1 - beta)
    there = number > 0
    return _normalised(np.median(number[there]) / np.maximum(number, 1e-12), counts)


def _normalised(weights: npt.NDArray[np.float64], counts: Counts) -> tuple[float, ...]:
    pixels = counts.sum(0)
    weights = np.where(pixels > 0, np.minimum(weights, _MOST), 0)
    mean = (weights * pixels).sum() / max(1, pixels.sum())
    return tuple(np.where(pixels > 0, weights / max(mean, 1e-12), 1).round(4).tolist())


WEIGHINGS = {
    "auto": median_frequency, "median": median_frequency, "root": root_frequency, "effective": effective_number,
}  # fmt: skip


def grouped(counts: Counts, names: Sequence[str], groups: Sequence[str], rest: int) -> Counts:
    """Counts of the classes `groups` [N, G] from those of `names` [N, K]; what is none of them is added to `rest`."""
    result = np.zeros((len(counts), len(groups)), np.int64)
    for k, name in enumerate(names):
        result[:, groups.index(name) if name in groups else rest] += counts[:, k]
    return result


class RareCrops:
    """Now and then another image and a class that its crop must show, the rarer the class the oftener.

    With probability `share` a draw is of a class, drawn with a probability that falls as exp(−f / 0.01) with its share
    f of the pixels (Hoyer et al. 2022, DAFormer), and of an image that has it.
    """

    def __init__(self, counts: Counts, share: float, seed: int) -> None:
        self.share, self.seed = share, seed
        frequency = counts.sum(0) / max(1, counts.sum())
        weight = np.where(frequency > 0, np.exp(-frequency / _SHARPNESS), 0)
        self.probabilities = weight / weight.sum() if weight.any() else weight
        enough = [counts[:, k] >= min(_SMALLEST, counts[:, k].max(initial=1)) for k in range(counts.shape[1])]
        self.images = [np.flatnonzero(e) for e in enough]

    def __call__(self, draw: int, index: int) -> tuple[int, int | None]:
        """The image of a draw, in place of the `index` that the permutation has, and the class that it must show."""
        rng = np.random.default_rng((self.seed, 4, draw))
        if rng.random() >= self.share or not self.probabilities.any():
            return index, None
        train_id = int(rng.choice(len(self.probabilities), p=self.probabilities))
        return int(rng.choice(self.images[train_id])), train_id
