"""The size at which a trained network scores best. In: a run that has ended. Out: its release, which brings it."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from panfpn.build import build_datasets, load_task
from panfpn.config import TrainConfig
from panfpn.data import Dataset
from panfpn.engine.evaluate import score_dataset
from panfpn.files import read_json
from panfpn.heap import kept_heap
from panfpn.metrics import Scores
from panfpn.parsing import parse
from panfpn.planning.plan import FILE
from panfpn.recipes.observed import Fingerprint
from panfpn.recipes.sizes import FACTORS, FEWEST
from panfpn.tasks import Task
from panfpn.weights.files import read_checkpoint, write_checkpoint

_WORTH = 0.003  # of the score, that a larger size must gain


def suit_scale(folder: Path, seconds: float | None, *, say: Callable[[str], Any]) -> Scores | None:
    """Score a run's release on validation images at larger sizes; where that is better, write the best into it.

    Returns the scores of the whole split then; None where the size stays, or the run's plan has no time for this. Takes
    about `seconds` at most (None: those that the plan has for it).
    """
    start = time.monotonic()
    file, plan = folder / "model.safetensors", read_json(folder / FILE) if (folder / FILE).is_file() else {}
    if not plan.get("spare_seconds"):
        return None
    config = TrainConfig.from_yaml(folder / "config.yaml")
    task, release = load_task(file, device=config.run.device, precision=config.train.precision)
    if release.config.data.scale != config.data.scale:  # it was done
        return None
    dataset = build_datasets(config.data, segments=task.needs_segments, channels=config.model.in_channels)[1]
    workers = config.data.num_workers
    side = max(parse(Fingerprint, plan["fingerprint"]).size)
    usual = config.data.scale or (side, side)
    sizes = {factor: (round(usual[0] * factor), round(usual[1] * factor)) for factor in FACTORS}

    def scored(factor: float, count: int) -> Scores:
        scale = config.data.scale if factor == 1 else sizes[factor]
        task.set_inference(scale=scale, size_divisor=config.data.size_divisor, inference=config.inference)
        return score_dataset(task, dataset, num_workers=workers, most=count)[0]

    with kept_heap():
        seconds = plan["spare_seconds"] if seconds is None else seconds
        count = _affordable(task, dataset, seconds - (time.monotonic() - start))
        if count < FEWEST:
            say(f"the size for prediction stays: {seconds:.0f} s are too short to try others")
            return None
        found = {1.0: scored(1.0, count)}
        for factor in FACTORS[1:]:
            found[factor] = scored(factor, count)
            if found[factor].value <= max(scores.value for scores in list(found.values())[:-1]):
                break  # larger ones are not better either
        best = max(found, key=lambda factor: found[factor].value)
        told = ", ".join(f"{100 * scores.value:.2f} at ×{factor:g}" for factor, scores in found.items())
        if best == 1 or not found[best].value >= found[1.0].value + _WORTH:  # nan is no gain either
            say(f"the size for prediction stays: {told} ({count} images)")
            return None
        scores = found[best] if count == len(dataset) else scored(best, len(dataset))
    tensors, header = read_checkpoint(file, role="release")
    changed = {**header, "scale": sizes[best], "scores": scores.to_dict()}
    write_checkpoint(file, tensors, changed, role="release")
    say(f"images are predicted at {sizes[best][0]}×{sizes[best][1]} (data.scale): {told} ({count} images)")
    return scores


def _affordable(task: Task, dataset: Dataset, seconds: float) -> int:
    """Images on which all factors can be tried, and then the whole split be scored at the largest."""
    tried = min(8, len(dataset))
    score_dataset(task, dataset, most=1)  # kernels are chosen, files come into memory
    before = time.monotonic()
    score_dataset(task, dataset, most=tried)
    each = (time.monotonic() - before) / tried
    areas = sum(factor**2 for factor in FACTORS)
    if each * len(dataset) * areas <= seconds:
        return len(dataset)
    return max(0, int((seconds / each - len(dataset) * FACTORS[-1] ** 2) / areas))
