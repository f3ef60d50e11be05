"""Training that ends with its time. In: what steps and validations took. Out: the plan, a part of the run's state.

A plan is kept while the end that it leads to is near enough, and is saved with the checkpoint when it changes. So a run
that goes on from a checkpoint is a function of it.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

OPEN = 1 << 40  # steps of a run whose plan is not made yet
_MEASURED = 0.03  # share of the time after which the first plan is made
_FEWEST = 8  # steps that are measured for it
_UNLIKE = 3  # first steps, which are slower than others: kernels are chosen, workers start
_LOOKS = 0.02  # share of the time between two looks at the pace
_NEAR = 0.025  # share of the time by which the end may be missed before the plan changes
_RECENT = 0.5  # weight of the time since the last look in the pace


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How many `steps` a run has; from step `first` on, when `done` (0 … 1) of the schedule was over, evenly."""

    steps: int = OPEN
    first: int = 0
    done: float = 0.0

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "Plan":
        """The inverse of `asdict`; ValueError for what no run has written."""
        plan = Plan(**_numbers(values, Plan, "plan"))
        if plan.first > plan.steps or plan.done > 1:
            raise ValueError(f"plan is {values!r}")
        return plan

    def share(self, step: int, *, beyond: bool = False) -> float:
        """How much of the schedule is over at `step`: 1 at the last, or with `beyond` one step after it."""
        left = max(1, self.steps - self.first - (not beyond))
        return self.done + (1 - self.done) * (step - self.first) / left


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What was measured: seconds of a step, of a validation (with report and release), and of the work so far."""

    minutes: float  # that the run was given when this was measured
    step: float = 0.0
    validation: float = 0.0
    spent: float = 0.0

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "Pace":
        """The inverse of `asdict`; ValueError for what no run has written."""
        return Pace(**_numbers(values, Pace, "pace"))


def _numbers(values: Any, kind: type, name: str) -> dict[str, Any]:
    """What makes a `kind`, all of it a number that is not negative."""
    wanted = {entry.name for entry in fields(kind)}
    good = isinstance(values, Mapping) and set(values) == wanted
    if not good or not all(type(value) in (int, float) and value >= 0 for value in values.values()):
        raise ValueError(f"{name} is {values!r}")
    return dict(values)


class Stopwatch:
    """The time of a run since `begun`, and the plan that follows from it; on the first rank alone.

    `estimate` gives the seconds of a validation before the first one.
    """

    def __init__(
        self, minutes: float, *, val_every: int, begun: float, estimate: Callable[[], float],
        pace: Pace | None = None, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.minutes, self.val_every, self._estimate, self._clock = minutes, val_every, estimate, clock
        self.pace = pace or Pace(minutes=minutes)
        self._begun = begun - self.pace.spent
        self._since, self._first, self._apart = 0.0, -1, 0.0  # of the steps that are measured
        self._skip = _UNLIKE

    @property
    def spent(self) -> float:
        """Seconds of work so far, over all restarts."""
        return self._clock() - self._begun

    @contextmanager
    def validating(self) -> Iterator[None]:
        """Around a validation with all that it writes."""
        before = self._clock()
        yield
        self.pace = replace(self.pace, validation=self._clock() - before)
        self._apart += self.pace.validation

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Around what is no step, and comes seldom."""
        before = self._clock()
        yield
        self._apart += self._clock() - before

    def look(self, step: int, plan: Plan) -> Plan:
        """The plan after `step` steps: the same one, or another where it would miss the end."""
        if self._skip:
            self._skip -= 1
            self._since, self._first, self._apart = self._clock(), step, 0.0
            return plan
        passed, steps = self._clock() - self._since, step - self._first
        whole = 60 * self.minutes
        first = plan.steps == OPEN or self.pace.minutes != self.minutes
        if passed < (_MEASURED if first else _LOOKS) * whole or steps < (_FEWEST if first else 1):
            return plan
        now = (passed - self._apart) / steps
        known = self.pace.step
        self.pace = replace(self.pace, step=now if first or not known else _RECENT * now + (1 - _RECENT) * known)
        self._since, self._first, self._apart = self._clock(), step, 0.0
        if not self.pace.validation:
            with self.saving():
                self.pace = replace(self.pace, validation=self._estimate())
        wanted = step + self._fitting(step, whole - self.spent)
        if first:
            self.pace = replace(self.pace, minutes=self.minutes)
            return Plan(steps=max(wanted, 1))
        miss = (plan.steps - wanted) * self.pace.step
        if abs(miss) <= _NEAR * whole:
            return plan
        return Plan(steps=wanted, first=step, done=plan.share(step))

    def _fitting(self, step: int, seconds: float) -> int:
        """How many steps more fit into `seconds`, with the validations that come with them."""
        steps, validations = 0, 1
        for _ in range(3):  # it settles: fewer steps have fewer validations
            steps = max(0, int((seconds - validations * self.pace.validation) / self.pace.step))
            validations = 1 + max(0, (step + steps - 1) // self.val_every - step // self.val_every)
        return steps

    def measured(self) -> Pace:
        """For the checkpoint."""
        return replace(self.pace, spent=self.spent)
