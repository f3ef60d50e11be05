"""A folder and a time into settings. In: paths, minutes, what the user sets. Out: a TrainingPlan."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from panfpn.choices import DRAWN
from panfpn.config import Data, TrainConfig
from panfpn.config.training import keys_of
from panfpn.device import resolve_device
from panfpn.engine.loggers import LoggedRun
from panfpn.files import read_json, write_json
from panfpn.parsing import parse, plain
from panfpn.planning.fingerprint import located, look_at
from panfpn.planning.measurement import USUAL, measure, weights_at_hand
from panfpn.recipes.automatic import DEVICES, FEW, FOLDS, num_val, rhythm, settled, structure, validation_seconds
from panfpn.recipes.observed import Choice, Fingerprint, Machine
from panfpn.recipes.sizes import alike, enlarged, seconds_to_try
from panfpn.weights import load

FILE = "plan.json"  # in the run folder
_SPARE = 0.08  # of the minutes, at most, for trying larger sizes for prediction
_FOLDS_FROM = 10.0  # minutes, from which on few images are divided into folds unasked
_FEW_A_CLASS = 10  # images
_SIZED = {"data.scale", "inference.ratios", "inference.mode", "inference.stretch"}  # what settles it otherwise
_ABOUT_DATA = ("model.in_channels", "model.architecture")  # that settings of the data are checked with


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """Settings, and where they come from."""

    config: TrainConfig
    choices: tuple[Choice, ...]
    given: dict[str, Any]
    fingerprint: Fingerprint
    machine: Machine
    minutes: float  # of all runs, and all else
    notes: tuple[str, ...] = ()
    spare: float = 0.0  # seconds after the training, in which larger sizes for prediction are tried
    folds: int = 1  # runs whose images validate in turn, before one on all images; 1: one run alone

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
            "choices": [asdict(choice) for choice in self.choices], "notes": list(self.notes), "folds": self.folds,
            "spare_seconds": self.spare,
        })  # fmt: skip
        return data


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def plan_training(
    data: str | Path | None, *, minutes: float = 60.0, device: str = "auto", weights: str | Path | None = None,
    machine: Machine | None = None, given: Mapping[str, Any] = {}, folds: int | None = 1, suits: bool = False,
) -> TrainingPlan:  # fmt: skip
    """Settings for the data in a folder; see `panfpn.recipes.auto`. `given` are settings by key, which win.

    `folds` divide the training images, each part of which validates in a run of its own, and `minutes` are for all
    runs; None: as many as few images need that have no split for validation, else 1. With `suits` some of the minutes
    are kept for `suit_scale`.

    Raises:
        ValueError: data or settings that cannot be used.
    """
    given = {key.replace("__", "."): value for key, value in given.items()}
    if data is not None:
        given["data.root"] = Path(data)
    minutes, device = given.get("train.minutes", minutes), given.get("run.device", device)
    given |= {"train.minutes": minutes, "run.device": device}
    _check_given(given, weights)
    of_data = {key: value for key, value in given.items() if key.startswith("data.") or key in _ABOUT_DATA}
    if keys_of("PanopticFPN") & set(given):
        of_data = {"model.architecture": "PanopticFPN", **of_data}
    where, validates = located(TrainConfig().changed(**of_data).data, named="data.dataset" in given,
                               val_named="data.val_split" in given)  # fmt: skip
    if where.root is not None:
        given["data.root"] = where.root.expanduser().resolve()  # the folder of a file that was named
    fingerprint, notes = _looked_at(where, validates, given)
    folds = _folds(folds, fingerprint, where, given)
    if given.get("model.architecture") == "PanopticFPN" and not fingerprint.segments:
        raise ValueError(f"{where.root}: tells no things apart, which Panoptic FPN learns from; use Semantic FPN "
                         "(model.architecture SemanticFPN)")  # fmt: skip
    if start := given.get("model.start_from"):
        given = {**_model_of(str(start)), **given}
    kind = resolve_device(device).type
    if kind not in DEVICES:
        raise ValueError(f"device {device!r}: train auto knows {', '.join(DEVICES)}; train a recipe there")
    at_hand = _weights_for(given, None if weights is None else Path(weights), kind)
    first = structure(fingerprint, kind, at_hand, given)
    draft = settled(first, given)
    if machine is None:
        machine = measure(draft, len(fingerprint.shares))
    elif (measured := (machine.architecture, machine.network, machine.device)) != (
        wanted := (draft.model.architecture, draft.model.backbone, kind)
    ):
        raise ValueError("the machine's profile is of {} with {} on {}, but {} with {} on {} is to be trained; measure "
                         "again".format(*measured, *wanted))  # fmt: skip
    sized = _SIZED & set(given) or fingerprint.dataset == "raster" or not (draft.data.scale or alike(fingerprint))
    tried = suits and folds == 1 and not sized
    spare = seconds_to_try(num_val(fingerprint), validation_seconds(fingerprint, machine, draft.data)) if tried else 0.0
    spare = spare if spare <= 60 * minutes * _SPARE else 0.0
    runs = _of_runs(folds, minutes, spare)
    ours = {choice.key: choice.value for choice in runs}
    given |= ours
    if draft.model.architecture == "SemanticFPN" and draft.data.scale is None:
        larger = enlarged(fingerprint, machine, given["train.minutes"], given)
        first = [*(choice for choice in first if choice.key not in {c.key for c in larger}), *larger]
        draft = settled(first, given)
    seen = replace(fingerprint, num_val=fingerprint.num_train // folds) if folds > 1 else fingerprint
    choices = [*first, *rhythm(seen, machine, given["train.minutes"], draft.data, given)]
    choices = [*(choice for choice in choices if choice.key not in ours), *runs]
    return TrainingPlan(
        config=settled(choices, given), choices=tuple(choices), fingerprint=fingerprint,
        given={key: value for key, value in given.items() if key not in ours},
        machine=machine, minutes=minutes, notes=(*notes, *_notes(fingerprint, minutes, folds)), folds=folds,
        spare=spare,
    )  # fmt: skip


def _looked_at(where: Data, validates: bool, given: Mapping[str, Any]) -> tuple[Fingerprint, list[str]]:
    """What the data are, without things where those cannot be read (and nobody asked for them): then with a note."""
    channels, architecture = given.get("model.in_channels", 3), given.get("model.architecture")
    try:
        return look_at(where, validates=validates, channels=channels, semantic=architecture == "SemanticFPN"), []
    except ValueError as error:
        if architecture is not None:
            raise
        try:
            found = look_at(where, validates=validates, channels=channels, semantic=True)
        except ValueError:
            raise error from None
        return found, [f"note: things are not told apart, as their maps cannot be used: {error}"]


def _folds(wanted: int | None, data: Fingerprint, where: Data, given: Mapping[str, Any]) -> int:
    """How many folds there are; ValueError for as many as these data do not have."""
    divided = {"data.split", "data.fold"} & set(given)
    whole = where.pack is not None or where.pack_url is not None or where.dataset in DRAWN
    if wanted is None:
        few = data.val_split is None and 2 * FOLDS <= data.num_train < FEW
        return FOLDS if few and not divided and not whole and given["train.minutes"] >= _FOLDS_FROM else 1
    if wanted > 1 and divided:
        raise ValueError(f"folds divide the training images, and so does {min(divided)}; give one of them")
    if wanted > 1 and whole:
        raise ValueError("folds divide the files of a folder; a pack, or scenes that are drawn, have none to divide")
    if not 1 <= wanted <= data.num_train:
        raise ValueError(f"folds is {wanted}; it must be from 1 to the number of training images, {data.num_train}")
    return wanted


def _of_runs(folds: int, minutes: float, spare: float) -> list[Choice]:
    """What is settled where there are folds, or seconds to `spare` at the end."""
    if folds > 1:
        return [
            Choice(key="data.split", value=round(1 / folds, 6), reason=f"{folds} folds"),
            Choice(key="train.minutes", value=round(minutes / (2 * folds), 6), reason=f"half of {minutes:g} for "
                   f"{folds} folds, the other half for a last run on all images"),
        ]  # fmt: skip
    if spare:
        why = f"of {minutes:g}; the rest is for trying larger sizes for prediction"
        return [Choice(key="train.minutes", value=round(minutes - spare / 60, 6), reason=why)]
    return []


def _check_given(given: Mapping[str, Any], weights: Any) -> None:
    """ValueError for what a plan cannot be made with."""
    if given["train.minutes"] is None:
        raise ValueError("train.minutes is none, but train auto plans for a time; give one, or train a recipe")
    if "train.steps" in given:
        raise ValueError("train.steps does nothing beside train.minutes, which train auto plans for; leave it out")
    if given.get("data.crop", ()) is None:
        raise ValueError("data.crop is none, but train auto reckons with samples of one size; give a height and width")
    if weights is not None and given.get("model.start_from"):
        raise ValueError("weights and model.start_from are two beginnings of one network; give one of them")
    TrainConfig().changed(**{"train.minutes": given["train.minutes"]})


def _weights_for(given: Mapping[str, Any], weights: Path | None, kind: str) -> dict[str, str]:
    """Backbones whose weights are at hand, or are named by settings; without a word, those of the hub are for GPUs."""
    if given.get("model.start_from"):
        return {}
    named = weights or given.get("model.backbone_weights")
    backbone = given.get("model.backbone")
    if named is not None and backbone is not None and Path(named).is_file():
        return {backbone: str(named)}  # whatever the file is called
    if named is None and "model.pretrained" in given:
        return {backbone or USUAL[0]: "hub"} if given["model.pretrained"] else {}
    if named is None and backbone is None and kind != "cuda":
        return {}
    return weights_at_hand(None if named is None else Path(named), backbone)


def _model_of(name: str) -> dict[str, Any]:
    """The settings of a model that is gone on with, by which its weights fit."""
    model = load(name).with_weights().config.model
    return {f"model.{key}": getattr(model, key) for key in ("backbone", "fpn_channels", "head_channels")}


def _notes(data: Fingerprint, minutes: float, folds: int) -> Iterator[str]:
    classes = len(data.shares)
    if folds > 1:
        yield (f"note: {folds} folds of the {data.num_train} training images validate in turn, and then all are learnt "
               f"from, in {minutes:g} minutes altogether; the mean of the folds is the score")  # fmt: skip
    there = [name for name, share in data.shares.items() if share > 0]
    if len(there) < 2:
        yield (f"note: of {classes} classes only {', '.join(there) or 'none'} has pixels, read as {data.dataset} "
               "(data.dataset): if that is not what the masks mean, see panfpn data check")  # fmt: skip
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
