"""Training that ends with its time. In: what steps and validations took. Out: the plan, a part of the run's state.

A plan is kept while the end that it leads to is near enough, and is saved with the checkpoint when it changes. So a run
that goes on from a checkpoint is a function of it.
"""

import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

OPEN = 1 << 40  # steps of a run whose plan is not made yet
_MEASURED = 0.03  # share of the time after which the first plan is made
_FEWEST = 8  # steps that a pace is measured on
_LATEST = 0.1  # share of the time after which a plan is made of fewer
_UNLIKE = 2  # first steps, which are slower than others: kernels are chosen, workers start
_LOOKS = 0.02  # share of the time between two looks at the pace
_GUESSED = 0.25  # share of the time that validations may take before one was seen
_NEAR = 0.025  # share of the time by which the end may be missed before the plan changes
_RECENT = 0.3  # weight of the time since the last look in the pace


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
        return min(1.0, self.done + (1 - self.done) * (step - self.first) / left)  # a rounding above 1 has no power


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


def fitting(step: int, seconds: float, pace: Pace, val_every: int) -> int:
    """How many steps after `step` fit into `seconds`, with the validations that are due at it, on the way and last."""

    def taken(steps: int) -> float:
        validations = 1 + (step + steps - 1) // val_every - max(0, step - 1) // val_every
        return steps * pace.step + max(1, validations) * pace.validation

    return max(0, bisect_right(range(int(seconds / pace.step) + 1), seconds, key=taken) - 1) if seconds > 0 else 0


def replanned(step: int, pace: Pace, minutes: float, val_every: int) -> Plan:
    """The plan of a run that goes on with another time: a schedule from the beginning to its end."""
    return Plan(steps=max(step + 1, step + fitting(step, 60 * minutes - pace.spent, pace, val_every)))


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
        self.late = 0.0  # seconds of the first validation for which no time is kept, as its length is but a guess
        self._start: int | None = None  # the first step that is looked at
        self._since, self._first, self._apart = clock(), 0, 0.0  # of the steps that are measured

    @property
    def spent(self) -> float:
        """Seconds of work so far, over all restarts."""
        return self._clock() - self._begun

    @property
    def left(self) -> float:
        """Seconds of the time that are not spent."""
        return 60 * self.minutes - self.spent

    @contextmanager
    def validating(self) -> Iterator[None]:
        """Around a validation with all that it writes."""
        before = self._clock()
        yield
        self.pace, self.late = replace(self.pace, validation=self._clock() - before), 0.0
        self._apart += self.pace.validation

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Around what is no step, and comes but once."""
        before = self._clock()
        yield
        self._apart += self._clock() - before

    def look(self, step: int, plan: Plan) -> Plan:
        """The plan after `step` steps: the same one, or another where it would miss the end."""
        whole, first = 60 * self.minutes, plan.steps == OPEN
        if self._start is None:
            self._start = step
        if step < self._start + _UNLIKE:
            self._measure_from(step)
            return plan
        passed, steps = self._clock() - self._since - self._apart, step - self._first
        late = first and self.spent > _LATEST * whole
        if not steps or not (late or (steps >= _FEWEST and passed >= (_MEASURED if first else _LOOKS) * whole)):
            return plan
        now, known = max(1e-9, passed / steps), self.pace.step  # a coarse clock may stand still
        self.pace = replace(self.pace, step=_RECENT * now + (1 - _RECENT) * known if known else now)
        if not self.pace.validation:
            with self.apart():
                most, guess = _GUESSED * max(0.0, self.left), self._estimate()
            self.pace, self.late = replace(self.pace, validation=min(guess, most)), max(0.0, guess - most)
        self._measure_from(step)
        wanted = step + fitting(step, self.left, self.pace, self.val_every)
        if first:
            return Plan(steps=wanted)
        if abs(plan.steps - wanted) * self.pace.step <= _NEAR * whole:
            return plan
        return Plan(steps=wanted, first=step, done=plan.share(step))

    def _measure_from(self, step: int) -> None:
        self._since, self._first, self._apart = self._clock(), step, 0.0

    def measured(self) -> Pace:
        """For the checkpoint."""
        return replace(self.pace, spent=self.spent)
