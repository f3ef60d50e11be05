"""`panfpn demo`, `recipes`, `train`."""

import inspect
import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from panfpn import recipes
from panfpn.config import TrainConfig
from panfpn.config.training import keys_of
from panfpn.verbs.options import Out, parse_options

if TYPE_CHECKING:
    from panfpn.engine import RunResult
    from panfpn.planning import Folds


def run_recipes(arguments: list[str]) -> int:
    """List the recipes, or show one."""
    if arguments[:1] == ["auto"]:
        sys.stdout.write(f"{inspect.getdoc(recipes.auto)}\n")
        return 0
    if arguments and arguments[0] not in ("-h", "--help"):
        sys.stdout.write(f"{recipes.describe(arguments[0])}\n")
        return 0
    sys.stdout.write("usage: panfpn recipes [NAME]      (a recipe's command, hardware, score and settings)\n\n")
    width = max(map(len, recipes.NAMES))
    for name in recipes.NAMES:
        sys.stdout.write(f"  {name:<{width}}  {recipes.summary(name)}\n")
    about = (recipes.auto.__doc__ or "").splitlines()[0]
    sys.stdout.write(f"  {'auto':<{width}}  {about} See panfpn train auto --help.\n")
    return 0


_STOPPED = 143  # what a launcher that starts again must not take for the end: as of a process that SIGTERM ended
_TRAIN_HELP = """panfpn train RECIPE|FILE.yaml [options], or panfpn train --resume DIR [options]

Train a recipe (see `panfpn recipes`) or a YAML file; `panfpn train auto` chooses the settings for your data. Every
setting is an option; its default here is the recipe's. A run that is resumed goes on with its settings and data:
another --data.root, --run.device, --data.num-workers (where they lie now), and more --train.steps or --train.minutes
are possible."""


def run_train(arguments: list[str]) -> int:
    """Train, or go on with a run."""
    begun = time.monotonic()  # what is imported, looked at and measured is a part of train.minutes
    arguments = [part for a in arguments for part in (a.split("=", 1) if a.startswith("--resume=") else [a])]
    from_start = [a for a in arguments[:1] if not a.startswith("-")]
    if "--resume" in arguments:
        return _resume(arguments)
    if not from_start and not {"-h", "--help"} & set(arguments):
        raise ValueError("train needs a recipe (`panfpn recipes` lists them), a YAML file, or --resume DIR")
    name = from_start[0] if from_start else None
    if name == "auto":
        return _auto(arguments[1:], begun)
    if name is None:
        start = TrainConfig()
    elif name.endswith((".yaml", ".yml")):
        start = TrainConfig.from_yaml(Path(name))
    else:
        start = recipes.find(name)()
    words = arguments[len(from_start) :]
    config = parse_options(TrainConfig, f"train {name or 'RECIPE'}", words, _TRAIN_HELP, start)
    if config.train.minutes is not None and any(word.partition("=")[0] == "--train.steps" for word in words):
        raise ValueError("train.steps does nothing beside train.minutes; leave one of them out")
    from panfpn.engine import train

    return _finished(train(config, begun=begun))


@dataclass(frozen=True, kw_only=True)
class _Auto:
    config: Annotated[TrainConfig, tyro.conf.arg(name="")]
    weights: Path | None = None
    """File, or folder of files NAME.safetensors, with ImageNet weights of timm's backbones. Without: on GPUs, or of a
    model.backbone that is named, those of the hub or of its cache; else what fits of the model that ships."""
    machine: Path | None = None
    """The plan.json of an earlier run, of which the measurement of this machine is taken over."""
    write: Path | None = None
    """Write the settings to this YAML file, and train nothing."""
    folds: int | None = None
    """Divide the training images into so many parts, each of which validates in a run of its own, and then train on
    all; the minutes are for all runs. Without: 3 where fewer than 64 images have no split for validation, else 1."""


_AUTO_HELP = """panfpn train auto --data.root DIR [--minutes 60] [--device cpu] [options]

Train on a folder of photos for so many minutes. What the data are like and how quickly this machine trains is looked at
first; each setting that follows is printed with its reason (and goes into plan.json). Every setting is an option, and
one that is given is kept."""
_SHORT = {"--minutes": "--train.minutes", "--device": "--run.device"}


def _auto(arguments: list[str], begun: float) -> int:
    """Settle what is not given, and train."""
    words = [_SHORT.get(name, name) + equals + value for name, equals, value in (a.partition("=") for a in arguments)]
    names = [word[2:].partition("=")[0].replace("-", "_") for word in words if word.startswith("--")]
    keys = [name for name in names if "." in name]
    start = TrainConfig()
    if keys_of("PanopticFPN") & set(keys) and "model.architecture" not in keys:
        start = start.changed(model__architecture="PanopticFPN")  # without it they could not be given
    parsed = parse_options(_Auto, "train auto", words, _AUTO_HELP, _Auto(config=start))
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("train auto plans on one process; write its settings first (--write FILE.yaml), and train "
                         "them on several")  # fmt: skip
    given = {key: getattr(getattr(parsed.config, section), name)
             for key in keys for section, _, name in [key.partition(".")]}  # fmt: skip
    from panfpn.engine import train
    from panfpn.engine.distributed import starts_again
    from panfpn.files import write_text
    from panfpn.planning import PlanLogger, plan_training, train_folds
    from panfpn.planning.folds import check_no_folds, holds_plan
    from panfpn.planning.plan import read_machine

    folder = parsed.config.run.dir
    if parsed.write is None and starts_again() and holds_plan(folder, given):
        return _resume(["--resume", str(folder)])
    if parsed.write is None:
        check_no_folds(folder)
    machine = read_machine(parsed.machine) if parsed.machine else None
    folds = 1 if parsed.write is not None and parsed.folds is None else parsed.folds
    if parsed.write is not None and folds != 1:
        raise ValueError("--write writes the settings of one run; leave out --folds, and give data.split and data.fold")
    plan = plan_training(None, weights=parsed.weights, machine=machine, given=given, folds=folds,
                         suits=parsed.write is None)  # fmt: skip
    for line in plan.lines():
        _say(line)
    if parsed.write is not None:
        write_text(parsed.write, plan.config.to_yaml())
        return 0
    if plan.folds > 1:
        return _finished_folds(*train_folds(plan, begun=begun, say=_say))
    result = train(plan.config, loggers=[PlanLogger(plan)], begun=begun)
    return _finished(_suited(result, max(plan.spare, 60 * plan.minutes - (time.monotonic() - begun))))


def _resume(arguments: list[str]) -> int:
    """Go on with a run, on this machine."""
    place = arguments.index("--resume")
    folder, words = Path(*arguments[place + 1 : place + 2]).expanduser(), arguments[:place] + arguments[place + 2 :]
    if len(arguments) < place + 2 or (words and not words[0].startswith("-")):
        raise ValueError("--resume DIR goes on with the run in folder DIR; a recipe or YAML file begins another one")
    from panfpn.engine import train
    from panfpn.engine.run_settings import resumed_config
    from panfpn.planning import Folds, resume_folds

    folds = Folds.read(folder)
    # Of several ranks the first reads the run's folder, which may lie on its host alone.
    elsewhere = os.environ.get("RANK", "0") != "0" and not (folder / "config.yaml").is_file()
    before = folds.config if folds else TrainConfig() if elsewhere else resumed_config(folder)
    after = parse_options(TrainConfig, f"train --resume {folder}", words, _TRAIN_HELP, before).to_dict()
    changes = {
        f"{part}.{key}": after[part][key]
        for part, values in before.to_dict().items() for key, value in values.items() if after[part][key] != value
    }  # fmt: skip
    if folds:
        return _finished_folds(*resume_folds(folder, changes, say=_say))
    return _finished(_suited(train(resume=folder, changes=changes)))


def _suited(result: "RunResult", seconds: float | None = None) -> "RunResult":
    """The result of a run of `train auto` with the size that its model predicts at; of another run, as it is."""
    from panfpn.planning import suit_scale

    late = result.scores is None or result.asked_to_stop
    scores = None if late else suit_scale(result.dir, seconds, say=_say)
    return result if scores is None else replace(result, scores=scores, value=scores.value)


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _finished_folds(result: "RunResult", folds: "Folds") -> int:
    code = _finished(result)
    if result.scores is not None and len(folds.values) == folds.count:
        if folds.seen_in_training():
            sys.stdout.write("the table is of the images that the last run learnt from\n")
        sys.stdout.write(f"{result.scores.headline} {folds.summary()}\n")
    return code


def _finished(result: "RunResult") -> int:
    if result.scores is not None and os.environ.get("RANK", "0") == "0":
        from panfpn.report.tables import print_scores

        print_scores(result.scores)
        files = f"model: {result.dir / 'model.safetensors'}, report: {result.dir / 'report.html'}"
        sys.stdout.write(f"\nbest {result.scores.headline} {result.value:.4f}; {result.minutes:.1f} min; {files}\n")
    from panfpn.engine.distributed import starts_again

    return _STOPPED if result.interrupted and starts_again() else 0


@dataclass(frozen=True)
class _Demo:
    out: Out[Path] = Path("demo")
    """Folder for the run and the pictures."""


_DEMO_HELP = """panfpn demo [--out DIR]

Train a small Semantic FPN on procedural street scenes (two to five minutes on two cores), print its per-class table,
draw held-out scenes, and label a real photo with the street-scene model that ships with panfpn."""


def run_demo(arguments: list[str]) -> int:
    """Train on procedural scenes, and label a photo."""
    options = parse_options(_Demo, "demo", arguments, _DEMO_HELP)
    from panfpn import demo

    result, pictures = demo.run_demo(options.out)
    if not result.interrupted:
        _finished(result)
    for picture in pictures:
        sys.stdout.write(f"{picture}\n")
    return 0
