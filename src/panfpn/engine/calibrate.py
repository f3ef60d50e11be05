"""Probabilities that can be trusted. In: a model and labelled images. Out: a temperature, and what it changes.

A network trained to the end is surer than it is right. Its logits divided by one temperature, fitted on images that it
was not trained on, keep their order, so that no label changes, and become probabilities (Guo et al. 2017). The
temperature goes into the weights of the classifier, so that whatever runs them, exported files too, gives the same.
"""

import hashlib
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from panfpn.data import Dataset, evaluation_loader
from panfpn.labels import IGNORE
from panfpn.metrics.calibration import Calibration, calibration_error, classwise_error, reliability, thresholds
from panfpn.progress import progress_bar
from panfpn.tasks import Task
from panfpn.tasks.semantic import SemanticTask
from panfpn.weights.files import read_checkpoint, write_checkpoint

_MOST = 1 << 26  # bytes of logits that are kept
_LEAST = 1000  # labelled pixels
_COLDEST = 0.1  # a temperature below it, or above its inverse, is no calibration
_STEPS = 100  # of the solver


def fitted(logits: torch.Tensor, labels: torch.Tensor, *, bias: bool = False) -> tuple[float, tuple[float, ...]]:
    """The temperature (and a bias of each class) with which logits [N, K] make labels [N] most likely.

    A class without a label gets no bias, as less of it is always likelier. ValueError where no temperature does:
    labels that are all right, or random.
    """
    values = logits.double()
    there = torch.bincount(labels, minlength=values.shape[1]) > 0
    scale = torch.zeros((), dtype=torch.float64, requires_grad=True)  # minus the temperature's logarithm
    shift = torch.zeros(values.shape[1], dtype=torch.float64, requires_grad=bias)
    solver = torch.optim.LBFGS([scale, shift] if bias else [scale], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def centred() -> torch.Tensor:
        return (shift - shift[there].mean()) * there

    def loss() -> torch.Tensor:
        solver.zero_grad()
        total = F.cross_entropy(values * scale.exp() + centred(), labels)
        total.backward()  # type: ignore[no-untyped-call]
        return total

    with torch.enable_grad():
        solver.step(loss)  # type: ignore[no-untyped-call]
    temperature = float((-scale.detach()).exp())
    if not _COLDEST < temperature < 1 / _COLDEST:
        raise ValueError(f"no temperature fits these labels (it would be {temperature:.3g}): the model is right, or "
                         "wrong, nearly everywhere; take other images")  # fmt: skip
    return temperature, tuple(centred().detach().tolist())


def calibrate(
    task: Task, dataset: Dataset, *, pixels: int = 10_000, bias: bool = False, num_workers: int = 0,
    progress: bool = True,
) -> Calibration:  # fmt: skip
    """Fit a Semantic FPN's temperature on a data set that it was not trained on.

    Of each image, `pixels` labelled ones are drawn (by its name), fewer where there are so many images that their
    logits would take more than 64 MB.

    Raises:
        ValueError: another network, several views or an exported graph, other classes, too few labelled pixels.
    """
    drawn = _drawn(task, dataset, pixels, num_workers, progress)
    logits, labels = (t.clone() for t in drawn)  # tensors of inference mode know no gradients
    temperature, shift = fitted(logits, labels, bias=bias)
    truth = labels.numpy()
    seen = []
    for values in (logits, logits / temperature + torch.tensor(shift)):
        probabilities = values.softmax(1).numpy()
        confidence, correct = probabilities.max(1), probabilities.argmax(1) == truth
        seen.append((calibration_error(confidence, correct), classwise_error(probabilities, truth),
                     reliability(confidence, correct), thresholds(confidence, correct)))  # fmt: skip
    (before, classes_before, first, _), (after, classes_after, second, curve) = seen
    return Calibration(
        temperature=temperature, bias=shift, pixels=len(labels), images=len(dataset), error=(before, after),
        class_error=(classes_before, classes_after), diagram=(first, second), thresholds=curve,
        absent=tuple(name for k, name in enumerate(task.table.names) if not (truth == k).any()),
    )  # fmt: skip


@torch.inference_mode()
def _drawn(
    task: Task, dataset: Dataset, pixels: int, num_workers: int, progress: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [N, K] float32 and labels [N] of drawn pixels."""
    if not isinstance(task, SemanticTask) or task.program is not None:
        raise ValueError("calibrate takes a Semantic FPN's release file: its temperature goes into the weights")
    if task.table.names != dataset.table.names:
        pairs = zip_longest(task.table.names, dataset.table.names)
        k, (ours, theirs) = next((k, pair) for k, pair in enumerate(pairs) if len({*pair}) > 1)
        raise ValueError(f"train id {k} is {ours!r} in the model and {theirs!r} in the data; calibrate on data of the "
                         "model's classes")  # fmt: skip
    each = max(1, min(pixels, _MOST // (4 * task.table.num_classes * max(1, len(dataset)))))
    loader = evaluation_loader(dataset, range(len(dataset)), batch_size=1, num_workers=num_workers,
                               channels=task.preprocess.reading.channels)  # fmt: skip
    found: list[tuple[torch.Tensor, torch.Tensor]] = []
    with progress_bar("calibrating", len(dataset), show=progress) as advance:
        for (sample,) in loader:
            seed = int.from_bytes(hashlib.sha256(sample.name.encode()).digest()[:8], "little")
            places = np.flatnonzero(sample.target.ravel() != IGNORE)
            chosen = np.random.default_rng(seed).permutation(places)[:each]
            chosen.sort()
            found.append((task.logits_at(sample.image, chosen), torch.from_numpy(sample.target.ravel()[chosen]).long()))
            advance(len(found))
    logits, labels = (torch.cat(parts) for parts in zip(*found, strict=True)) if found else (torch.zeros(0),) * 2
    if len(labels) < _LEAST:
        raise ValueError(f"{len(labels)} labelled pixels are too few to calibrate on; {_LEAST} are needed")
    return logits, labels


def write_calibrated(path: Path, release: Path, calibration: Calibration, data: Mapping[str, Any]) -> None:
    """A copy of a release file whose classifier has the temperature in it; its header keeps what was found."""
    tensors, header = read_checkpoint(release, role="release")
    weight, offset = (tensors[f"head.classifier.{name}"].float() for name in ("weight", "bias"))
    tensors["head.classifier.weight"] = weight / calibration.temperature
    tensors["head.classifier.bias"] = offset / calibration.temperature + torch.tensor(calibration.bias)
    if any(calibration.bias):
        header = {**header, "scores": {}}  # which were those of other labels
    about = {"data": dict(data), **calibration.to_dict()}
    write_checkpoint(path, tensors, {**header, "calibration": about}, role="release")
