"""The command line: parse, call, print. `panfpn --help` answers without importing torch."""

import contextlib
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import tyro

from panfpn import __version__, recipes
from panfpn.config import Data, Inference, TrainConfig

if TYPE_CHECKING:
    from panfpn.engine import RunResult

T = TypeVar("T")

_HELP = f"""panfpn {__version__}: Semantic FPN on any timm backbone

usage: panfpn VERB [options]        (panfpn VERB --help shows a verb's options)

  demo      train on procedural street scenes, score, draw; then the shipped model on a real photo
  recipes   list the recipes, or show one
  train     train a recipe or a YAML file, or go on with a run
  eval      score a model or a run on a data set
  compare   compare two models' scores on the same images
  predict   label images, folders, globs and videos
  convert   mmsegmentation checkpoints into release files, and back

--version prints the version; --debug shows the traceback of an error.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code: 0, or 2 after one sentence on stderr."""
    args = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in args
    args = [a for a in args if a != "--debug"]
    verbs: dict[str, Callable[[list[str]], int]] = {
        "demo": _demo, "recipes": _recipes, "train": _train, "eval": _eval, "compare": _compare, "predict": _predict,
        "convert": _convert,
    }  # fmt: skip
    if not args or args[0] in ("-h", "--help"):
        sys.stdout.write(_HELP)
        return 0 if args else 2
    if args[0] == "--version":
        sys.stdout.write(f"{__version__}\n")
        return 0
    try:
        if args[0] not in verbs:
            raise ValueError(f"{args[0]!r} is not a verb; choose from {', '.join(verbs)}")
        return verbs[args[0]](args[1:])
    except (ValueError, FloatingPointError, OSError) as error:
        if debug:
            raise
        sys.stderr.write(f"panfpn: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("panfpn: interrupted\n")
        return 130
    except Exception as error:  # not a mistake of the user's that we know
        if debug:
            raise
        first = (str(error).splitlines() or [""])[0]
        sys.stderr.write(f"panfpn: {type(error).__name__}: {first} (--debug shows where)\n")
        return 2


def _parse(kind: type[T], verb: str, arguments: list[str], description: str, default: Any = None) -> T:
    """Options of one verb into a dataclass; ValueError for one that is unknown, missing or of the wrong type."""
    config = (tyro.conf.HelptextFromCommentsOff, tyro.conf.FlagConversionOff)
    prog = f"panfpn {verb}"
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            parsed: T = tyro.cli(
                kind, prog=prog, description=description, args=arguments, default=default, config=config
            )
    except SystemExit as leaving:
        if leaving.code:
            raise ValueError(f"{_sentence(box.getvalue())} (see {prog} --help)") from None
        raise
    return parsed


def _sentence(framed: str) -> str:
    """What stands in tyro's framed message, without frame, title and pointer to the help text."""
    lines = [line.strip("\u2500\u2502\u256d\u256e\u2570\u256f ") for line in framed.splitlines()]
    text = " ".join(line for line in lines[1:] if line).partition("For full helptext")[0]
    return re.sub(r"Error parsing \w*Config: |Argument helptext: ", "", text).strip()


def _recipes(arguments: list[str]) -> int:
    if arguments and arguments[0] not in ("-h", "--help"):
        sys.stdout.write(f"{recipes.describe(arguments[0])}\n")
        return 0
    sys.stdout.write("usage: panfpn recipes [NAME]      (a recipe's command, hardware, score and settings)\n\n")
    width = max(map(len, recipes.NAMES))
    for name in recipes.NAMES:
        sys.stdout.write(f"  {name:<{width}}  {recipes.summary(name)}\n")
    return 0


_TRAIN_HELP = """panfpn train RECIPE|FILE.yaml [options], or panfpn train --resume DIR

Train a recipe (see `panfpn recipes`) or a YAML file. Every setting is an option; its default here is the recipe's."""


def _train(arguments: list[str]) -> int:
    arguments = [part for a in arguments for part in (a.split("=", 1) if a.startswith("--resume=") else [a])]
    from_start = [a for a in arguments[:1] if not a.startswith("-")]
    if "--resume" in arguments:
        if len(arguments) != 2 or arguments[0] != "--resume":
            raise ValueError("--resume DIR stands alone: a run goes on with the settings it began with")
        from panfpn.engine import train

        return _finished(train(resume=Path(arguments[1])))
    if not from_start and not {"-h", "--help"} & set(arguments):
        raise ValueError("train needs a recipe (`panfpn recipes` lists them), a YAML file, or --resume DIR")
    name = from_start[0] if from_start else None
    if name is None:
        start = TrainConfig()
    elif name.endswith((".yaml", ".yml")):
        start = TrainConfig.from_yaml(Path(name))
    else:
        start = recipes.find(name)()
    config = _parse(TrainConfig, f"train {name or 'RECIPE'}", arguments[len(from_start) :], _TRAIN_HELP, start)
    from panfpn.engine import train

    return _finished(train(config))


def _finished(result: "RunResult") -> int:
    if result.scores is not None and os.environ.get("RANK", "0") == "0":
        from panfpn.show import print_scores

        print_scores(result.scores)
        files = f"model: {result.dir / 'model.safetensors'}, report: {result.dir / 'report.html'}"
        sys.stdout.write(f"\nbest mIoU {result.miou:.4f}; {result.minutes:.1f} min; {files}\n")
    return 0


@dataclass(frozen=True)
class _Eval:
    data: Data = field(default_factory=Data)
    inference: Inference = field(default_factory=Inference)
    device: str = "auto"
    precision: str = "auto"
    batch_size: int = 1
    protocol: Literal["mmseg", "detectron2", "cityscapes", "hf", "smp"] = "mmseg"
    """Whose definition of the scores to print."""
    boundary: bool = False
    """Score outlines too: Boundary IoU and trimap IoU."""
    trimap_width: int = 5
    """With --boundary True: pixels to either side of a change of label that trimap IoU looks at."""
    json: Path | None = None
    """Write the scores and the counts of each image to this file."""


_EVAL_HELP = """panfpn eval MODEL|RUN_DIR [options]

Score a model on the validation split (data.val-split): a release file, a run folder, an mmsegmentation checkpoint, a
published model's name (fpn_r50_cityscapes, …) or OWNER/REPO on the Hugging Face Hub. A run brings its data settings.
data.scale, data.size-divisor and inference.* are the model's own unless you set them."""


def _eval(arguments: list[str]) -> int:
    from_start = [a for a in arguments[:1] if not a.startswith("-")]
    if not from_start and not {"-h", "--help"} & set(arguments):
        raise ValueError("eval needs a model: a release file (model.safetensors), a run folder, or a published name")
    model = Path(from_start[0]) if from_start else Path("MODEL")
    settings = model / "config.yaml"
    data = TrainConfig.from_yaml(settings).data if settings.is_file() else Data()
    options = _parse(_Eval, f"eval {model}", arguments[len(from_start) :], _EVAL_HELP, _Eval(data=data))
    if options.trimap_width != _Eval.trimap_width and not options.boundary:
        raise ValueError("--trimap-width goes with --boundary True")
    from panfpn.build import load_task, set_inference
    from panfpn.engine import evaluate
    from panfpn.files import write_json
    from panfpn.show import print_scores, scores_to_json

    task, header = load_task(from_start[0], device=options.device, precision=options.precision)
    _print_notes(header.get("notes", ()))
    own = task.preprocess
    default = _Eval(data=replace(data, scale=own.scale, size_divisor=own.size_divisor), inference=task.inference)
    options = _parse(_Eval, f"eval {model}", arguments[len(from_start) :], _EVAL_HELP, default)
    set_inference(task, scale=options.data.scale, size_divisor=options.data.size_divisor, inference=options.inference)
    if options.json and (options.json.is_dir() or options.json.suffix != ".json"):  # before hours of scoring
        raise ValueError(f"{options.json}: the scores go into a file whose name ends in .json")
    width = options.trimap_width if options.boundary else None
    scores = evaluate(task, options.data, batch_size=options.batch_size, trimap_width=width)
    print_scores(scores, options.protocol)
    if options.json:
        write_json(options.json, scores_to_json(scores, options.protocol))
    return 0


@dataclass(frozen=True)
class _Compare:
    files: tyro.conf.Positional[tuple[Path, Path]]
    """Two files of `panfpn eval --json`, on the same images."""


_COMPARE_HELP = """panfpn compare A.json B.json

Compare two models on the same images: mIoU, their difference and its 95 % interval (bootstrap over images)."""


def _compare(arguments: list[str]) -> int:
    first, second = _parse(_Compare, "compare", arguments, _COMPARE_HELP).files
    from panfpn.files import read_json
    from panfpn.metrics import SemanticScores
    from panfpn.metrics.bootstrap import compare
    from panfpn.show import print_comparison

    a, b = (SemanticScores.from_dict(read_json(path), source=path) for path in (first, second))
    print_comparison(compare(a, b, sources=(first, second)), first, second)
    return 0


@dataclass(frozen=True)
class _Predict:
    inputs: tyro.conf.Positional[tuple[str, ...]]
    """Images, folders, patterns, videos."""
    out: Path
    """Folder that the results are written to."""
    model: str | None = None
    """Release file, run folder, mmsegmentation checkpoint, published name (fpn_r50_cityscapes, …) or OWNER/REPO on the
    Hugging Face Hub; without it, the street-scene model that ships with panfpn."""
    save: str | None = None
    """What to write, joined by commas: labels, overlay, confidence. Default: labels,overlay (labels with --format)."""
    format: Literal["cityscapes", "ade20k"] | None = None
    """Name and encode the files as this benchmark's server wants them."""
    check: bool = False
    """With --format: read the files again as the server will, and score them where the ground truth lies beside the
    images."""
    device: str = "auto"
    precision: str = "auto"
    scale: tuple[int, int] | None = None
    """Longer and shorter side that images are fitted into; like size-divisor and inference.*, the model's own unless
    you set it."""
    size_divisor: int = 1
    """Multiple that images are padded to (with inference.stretch: resized to)."""
    inference: Inference = field(default_factory=Inference)


_PREDICT_HELP = """panfpn predict INPUT... --out DIR [options]

Label images: files, folders, patterns ('photos/*.jpg') and videos. Results keep the input's size."""


def _predict(arguments: list[str]) -> int:
    options = _parse(_Predict, "predict", arguments, _PREDICT_HELP)
    from panfpn.build import set_inference
    from panfpn.inputs import Inputs
    from panfpn.predict import Predictor, predict_to_folder
    from panfpn.show import print_scores
    from panfpn.submission import submission_for

    predictor = Predictor.from_file(options.model, options.device, options.precision)
    _print_notes(predictor.notes)
    task = predictor.task
    own = replace(options, scale=task.preprocess.scale, size_divisor=task.preprocess.size_divisor,
                  inference=task.inference)  # fmt: skip
    options = _parse(_Predict, "predict", arguments, _PREDICT_HELP, own)
    set_inference(task, scale=options.scale, size_divisor=options.size_divisor, inference=options.inference)
    save = ("labels" if options.format else "labels,overlay") if options.save is None else options.save
    what = tuple(part.strip() for part in save.split(","))
    if options.format and what != ("labels",):
        raise ValueError(f"--format {options.format} writes labels only; leave --save out")
    if options.check and not options.format:
        raise ValueError("--check goes with --format")
    submission = submission_for(options.format, task.table) if options.format else None
    # Listed before anything is written: results may lie beside the images.
    images = [path for _, path in Inputs(options.inputs, out=options.out).files] if options.check else []
    failures, done = predict_to_folder(
        options.inputs, options.out, predictor=predictor, what=what, submission=submission
    )
    sys.stdout.write(f"{done} of {done + len(failures)} images labelled; {', '.join(what)} in {options.out}\n")
    if failures:
        reasons = "\n  ".join(failure.reason for failure in failures)
        raise ValueError(f"{len(failures)} input{'s' * (len(failures) > 1)} could not be labelled:\n  {reasons}")
    if submission and options.check:
        files, scores = submission.check(images, options.out)
        sys.stdout.write(f"{files} files are as {submission.format} wants them\n")
        if scores is None:
            sys.stdout.write("no ground truth beside the images, so they were not scored\n")
        else:
            print_scores(scores, "cityscapes" if submission.format == "cityscapes" else "mmseg")
    return 0


@dataclass(frozen=True)
class _Convert:
    model: tyro.conf.Positional[str]
    """mmsegmentation checkpoint (0.x or 1.x), release file, run folder, or the name of a published model."""
    out: Path | None = None
    """File to write; without it, the input's name with the other suffix, in the current folder."""
    labels: str | None = None
    """Classes of a checkpoint, where it does not name them: cityscapes, ade20k, camvid, or a labels.yaml."""
    ema: bool = False
    """Take the second copy of the weights, where an EMA hook left one."""
    scale: tuple[int, int] | None = None
    """Longer and shorter side that test images are fitted into; without it, what the checkpoint says."""


_CONVERT_HELP = """panfpn convert MODEL [--out FILE] [options]

An mmsegmentation checkpoint becomes a release file (.safetensors) that predicts, scores and fine-tunes here; a release
file or run folder becomes an mmsegmentation checkpoint (.pth). Nothing in a checkpoint is run."""


def _convert(arguments: list[str]) -> int:
    options = _parse(_Convert, "convert", arguments, _CONVERT_HELP)
    from panfpn.release import convert_model

    file, notes = convert_model(options.model, options.out, labels=options.labels, ema=options.ema, scale=options.scale)
    _print_notes(notes)
    sys.stdout.write(f"{file}\n")
    return 0


def _print_notes(notes: Sequence[str]) -> None:
    """What a reader of foreign checkpoints left out or assumed; beside the results, not among them."""
    for note in notes:
        sys.stderr.write(f"note: {note}\n")


@dataclass(frozen=True)
class _Demo:
    out: Path = Path("demo")
    """Folder for the run and the pictures."""


_DEMO_HELP = """panfpn demo [--out DIR]

Train a small Semantic FPN on procedural street scenes (about two minutes on two cores), print its per-class table, draw
held-out scenes, and label a real photo with the street-scene model that ships with panfpn."""


def _demo(arguments: list[str]) -> int:
    options = _parse(_Demo, "demo", arguments, _DEMO_HELP)
    from panfpn.demo import run_demo

    result, pictures = run_demo(options.out)
    if not result.interrupted:
        _finished(result)
    for picture in pictures:
        sys.stdout.write(f"{picture}\n")
    return 0
