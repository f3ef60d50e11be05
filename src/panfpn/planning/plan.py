"""A folder and a time into settings. In: paths, minutes, what the user sets. Out: a TrainingPlan."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from panfpn.config import TrainConfig
from panfpn.device import resolve_device
from panfpn.engine.loggers import LoggedRun
from panfpn.files import read_json, write_json
from panfpn.parsing import parse, plain
from panfpn.planning.fingerprint import fingerprint, located
from panfpn.planning.measurement import measured, weights_at_hand
from panfpn.recipes.automatic import DEVICES, Choice, Fingerprint, Machine, rhythm, settled, structure
from panfpn.weights import load

FILE = "plan.json"  # in the run folder
_FEW_A_CLASS = 10  # images
_ABOUT_DATA = ("model.in_channels", "model.architecture")  # that settings of the data are checked with


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """Settings, and where they come from."""

    config: TrainConfig
    choices: tuple[Choice, ...]
    given: dict[str, Any]
    fingerprint: Fingerprint
    machine: Machine
    notes: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        """A line for each choice: key, value, reason; then what the user should know."""
        width = max(len(c.key) for c in self.choices)
        final = self.config.to_dict()
        for choice in self.choices:
            section, _, name = choice.key.partition(".")
            value = final[section][name]
            reason = "given" if choice.key in self.given else choice.reason
            yield f"{choice.key:<{width}}  {_shown(value)}  ({reason})"
        yield from self.notes

    def to_dict(self) -> dict[str, Any]:
        """Plain data: data, machine, choices with their reasons, what was given."""
        data: dict[str, Any] = plain({
            "fingerprint": asdict(self.fingerprint), "machine": asdict(self.machine), "given": self.given,
            "choices": [asdict(choice) for choice in self.choices], "notes": list(self.notes),
        })  # fmt: skip
        return data


def _shown(value: Any) -> str:
    return "×".join(map(str, value)) if isinstance(value, list) else str(value)


def plan_training(
    data: str | Path | None, *, minutes: float = 60.0, device: str = "auto", weights: str | Path | None = None,
    machine: Machine | None = None, given: Mapping[str, Any] = {},
) -> TrainingPlan:  # fmt: skip
    """Settings for the data in a folder; see `panfpn.recipes.auto`. `given` are settings by key, which win.

    Raises:
        ValueError: data or settings that cannot be used.
    """
    given = {key.replace("__", "."): value for key, value in given.items()}
    if data is not None:
        given["data.root"] = Path(data)
    minutes, device = given.get("train.minutes", minutes), given.get("run.device", device)
    given |= {"train.minutes": minutes, "run.device": device}
    if minutes is None:
        raise ValueError("train.minutes is none, but train auto plans for a time; give one, or train a recipe")
    if given.get("data.crop", ()) is None:
        raise ValueError("data.crop is none, but train auto reckons with samples of one size; give a height and width")
    of_data = {key: value for key, value in given.items() if key.startswith("data.") or key in _ABOUT_DATA}
    asked = TrainConfig().changed(**of_data, **{"train.minutes": minutes}).data
    where, validates = located(asked, named="data.dataset" in given)
    seen = fingerprint(where, validates=validates, channels=given.get("model.in_channels", 3),
                       semantic=given.get("model.architecture") == "SemanticFPN")  # fmt: skip
    if given.get("model.architecture") == "PanopticFPN" and not seen.segments:
        raise ValueError(f"{where.root}: tells no things apart, which Panoptic FPN learns from; use Semantic FPN "
                         "(model.architecture SemanticFPN)")  # fmt: skip
    if start := given.get("model.start_from"):
        given = {**_model_of(str(start)), **given}
    at_hand = {} if start else weights_at_hand(None if weights is None else Path(weights), given.get("model.backbone"))
    kind = resolve_device(device).type
    if kind not in DEVICES:
        raise ValueError(f"device {device!r}: train auto knows {', '.join(DEVICES)}; train a recipe there")
    first = structure(seen, kind, at_hand, given)
    draft = settled(first, given)
    if machine is None:
        machine = measured(draft, len(seen.shares))
    elif (machine.device, machine.network) != (kind, draft.model.backbone):
        raise ValueError(f"the machine's profile is of {machine.network} on {machine.device}, but "
                         f"{draft.model.backbone} on {kind} is to be trained; measure again")  # fmt: skip
    assert draft.data.crop is not None
    choices = [*first, *rhythm(seen, machine, minutes, draft.data.crop, given)]
    return TrainingPlan(
        config=settled(choices, given), choices=tuple(choices), given=given, fingerprint=seen, machine=machine,
        notes=tuple(_notes(seen)),
    )  # fmt: skip


def _model_of(name: str) -> dict[str, Any]:
    """The settings of a model that is gone on with, by which its weights fit."""
    model = load(name).with_weights().config.model
    return {f"model.{key}": getattr(model, key) for key in ("backbone", "fpn_channels", "head_channels")}


def _notes(data: Fingerprint) -> Iterator[str]:
    classes = len(data.shares)
    if data.num_train < _FEW_A_CLASS * classes:
        yield (f"note: {data.num_train} training images for {classes} classes are few; expect classes that are seen "
               "seldom to be missed, and scores that another choice of images would change")  # fmt: skip


def read_machine(file: Path) -> Machine:
    """The machine of an earlier plan; ValueError for a file that holds none."""
    if not file.is_file():
        raise ValueError(f"{file}: no such file")
    try:
        return parse(Machine, read_json(file)["machine"])
    except (KeyError, TypeError) as error:  # a profile, or a part of it, is missing
        raise ValueError(f"{file}: holds no machine's profile; give the {FILE} of a run of train auto") from error
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


class PlanLogger:
    """Puts a plan into the folder of its run."""

    def __init__(self, plan: TrainingPlan) -> None:
        self.plan = plan

    def start(self, run: LoggedRun) -> None:
        """Write `plan.json`."""
        write_json(run.folder / FILE, self.plan.to_dict())

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Nothing."""

    def image(self, step: int, name: str, picture: npt.NDArray[np.uint8]) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""
