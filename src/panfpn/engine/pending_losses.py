"""Losses that are still on the device. In: those of each step. Out: their means, once all are known to be finite."""

from collections.abc import Mapping
from pathlib import Path

import torch

from panfpn.engine.distributed import Ranks
from panfpn.files import write_json


class PendingLosses:
    """The losses of the steps since they were last read, for which the host waits then, and only then."""

    def __init__(self, ranks: Ranks, device: torch.device, folder: Path) -> None:
        self.ranks, self.device, self.folder = ranks, device, folder
        self._steps: list[tuple[tuple[str, ...], Mapping[str, torch.Tensor]]] = []

    def add(self, samples: tuple[str, ...], losses: Mapping[str, torch.Tensor]) -> None:
        """Of one step: the names of its samples, and scalars by name."""
        self._steps.append((samples, losses))

    def means(self, step: int) -> dict[str, float] | None:
        """Over ranks and all steps since the last call, of which `step` would be the next; None without any.

        Raises:
            FloatingPointError: a loss that is not finite; the ranks that had it write the names of its samples.
        """
        if not self._steps:
            return None
        names = list(self._steps[0][1])
        table = torch.stack([torch.stack([losses[name].float() for name in names]) for _, losses in self._steps])
        bad = table.isfinite().all(1).logical_not().tolist()  # of [steps, terms]
        here = bad.index(True) if any(bad) else len(bad)
        first = self.ranks.least(here, self.device)
        if first < len(bad):
            raise self._non_finite(first, step - len(bad) + first, mine=here == first)
        means = (self.ranks.total(table) / self.ranks.world).mean(0).tolist()
        self._steps.clear()
        return dict(zip(names, means, strict=True))

    def _non_finite(self, index: int, step: int, *, mine: bool) -> FloatingPointError:
        """What to say of the first bad step of all ranks; those that held it save the names of its samples."""
        if not mine:
            return FloatingPointError(f"the loss at step {step} is not finite on another rank")
        file = self.folder / ("non_finite.json" if self.ranks.world == 1 else f"non_finite_rank{self.ranks.rank}.json")
        self.folder.mkdir(parents=True, exist_ok=True)  # on this rank's host
        samples, values = self._steps[index]
        losses = {name: str(float(value)) for name, value in values.items()}
        write_json(file, {"step": step, "samples": samples, "losses": losses})
        return FloatingPointError(
            f"the loss at step {step} is not finite ({losses}); the names of its samples are in {file}; look at them, "
            "or lower optim.lr, or set optim.clip_norm"
        )
