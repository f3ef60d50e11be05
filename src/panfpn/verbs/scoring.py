"""`panfpn eval` and `compare`."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from panfpn.choices import DRAWN
from panfpn.config import Data, Inference, TrainConfig
from panfpn.parsing import parse
from panfpn.verbs.options import EngineName, Out, ProtocolName, check_file, parse_options, print_notes

if TYPE_CHECKING:
    from panfpn.deploy.predictor import Predictor
    from panfpn.engine.distributed import Ranks


@dataclass(frozen=True)
class _Eval:
    data: Data = field(default_factory=Data)
    inference: Inference = field(default_factory=Inference)
    device: str = "auto"
    precision: str = "auto"
    engine: EngineName | None = None
    """Score the network as `panfpn predict` would run it; without, the plain network, as in training."""
    batch_size: int = 1
    protocol: ProtocolName = "mmseg"
    """Whose definition of the scores to print."""
    ap: bool = False
    """Panoptic FPN: score boxes and masks by COCO's AP too (pip install 'panfpn[coco]')."""
    boundary: bool = False
    """Score outlines too: Boundary IoU and trimap IoU."""
    trimap_width: int = 5
    """With --boundary: pixels to either side of a change of label that trimap IoU looks at."""
    json: Path | None = None
    """Write the scores and the counts of each image to this file."""


_EVAL_HELP = """panfpn eval MODEL|RUN_DIR [options]

Score a model on the validation split (data.val-split): a release file, a run folder, an mmsegmentation checkpoint, a
published model's name (fpn_r50_cityscapes, …) or OWNER/REPO on the Hugging Face Hub. A run brings its data settings, a
release file the layout of what it was trained on: --data.root DIR is then enough.
data.scale, data.size-divisor and inference.* are the model's own unless you set them."""


def run_eval(arguments: list[str]) -> int:
    """Score a model on a data set."""
    from_start = [a for a in arguments[:1] if not a.startswith("-")]
    if not from_start and not {"-h", "--help"} & set(arguments):
        raise ValueError("eval needs a model: a release file (model.safetensors), a run folder, or a published name")
    model, words = (from_start[0] if from_start else "MODEL"), arguments[len(from_start) :]
    options = parse_options(_Eval, f"eval {model}", words, _EVAL_HELP, _Eval())  # before a file is opened
    if options.trimap_width != _Eval.trimap_width and not options.boundary:
        raise ValueError("--trimap-width goes with --boundary")
    default, complete = _defaults(model)
    options = parse_options(_Eval, f"eval {model}", words, _EVAL_HELP, default)
    check_file(options.json, "scores")
    _check_data(options.data)
    from panfpn.deploy.predictor import Predictor
    from panfpn.deploy.runtime import shared_cores
    from panfpn.engine.distributed import joined_ranks

    with (
        joined_ranks(lambda: options.device, str) as (ranks, _, device),  # torchrun's ranks share the images
        shared_cores(options.engine, model, None, many=True) as streams,
    ):
        predictor = Predictor.from_file(model, device, options.precision, engine=options.engine, streams=streams)
        return _score(model, words, options, default, complete, ranks, predictor)


def _score(
    model: str, words: list[str], options: _Eval, default: _Eval, complete: bool, ranks: "Ranks", predictor: "Predictor"
) -> int:
    from panfpn.engine import evaluate
    from panfpn.files import write_json
    from panfpn.report.tables import print_scores

    task, released = predictor.task, predictor.task.preprocess
    if ranks.first:
        print_notes(predictor.notes)
        if said := _learnt(model, default.data, options.data):
            print_notes([said])
    if not complete:  # another library's checkpoint says only now how its model predicts
        data = replace(default.data, scale=released.scale, size_divisor=released.size_divisor)
        default = _Eval(data=data, inference=task.inference)
        options = parse_options(_Eval, f"eval {model}", words, _EVAL_HELP, default)
    task.set_inference(scale=options.data.scale, size_divisor=options.data.size_divisor, inference=options.inference)
    width = options.trimap_width if options.boundary else None
    scores = evaluate(
        task, options.data, batch_size=options.batch_size, trimap_width=width, average_precision=options.ap, ranks=ranks
    )
    if ranks.first:
        if options.json:  # first: a terminal may fail, and hours of scoring must not be lost with it
            write_json(options.json, scores.to_json(options.protocol))
        print_scores(scores, options.protocol)
    return 0


def data_of_model(model: str) -> Data:
    """The data settings that a model brings: a run's, or those of a release's header."""
    from panfpn.weights import peek

    settings = Path(model).expanduser() / "config.yaml"
    if settings.is_file():
        return TrainConfig.from_yaml(settings).data
    return parse(Data, dict(peek(model).data or {}), "data.")


def _defaults(model: str) -> tuple[_Eval, bool]:
    """What a model brings: its data and how it predicts; and whether that is all it will say, known without torch."""
    from panfpn.weights import peek

    data, header = data_of_model(model), peek(model)
    if header.config is None:
        return _Eval(data=data), False
    released = header.config.data
    data = replace(data, scale=released.scale, size_divisor=released.size_divisor)
    return _Eval(data=data, inference=header.config.inference), True


def _learnt(model: str, own: Data, data: Data) -> str:
    """What to say of `data` that a model learnt from, as far as its `own` settings tell; else nothing."""
    from panfpn.weights import peek

    split = data.val_split if data.split is None else data.train_split
    if peek(model).data is None or own.split is not None or (split, data.dataset) != (own.train_split, own.dataset):
        return ""
    if own.root is not None and (data.root is None or data.root.resolve() != own.root.resolve()):
        return ""
    unknown = "" if own.root else ", if these are the same images"  # a release file names no folder
    return f"the model learnt from split {split!r}, and scores there say nothing of other images{unknown}"


def _check_data(data: Data) -> None:
    """ValueError at once, and not after the model was read, where the data are not."""
    if (data.root, data.pack, data.pack_url) == (None,) * 3 and data.dataset not in DRAWN:
        raise ValueError(f"eval needs the folder of the data set ({data.dataset}): --data.root DIR")
    if data.root is not None and not data.root.expanduser().is_dir():
        raise ValueError(f"{data.root}: no such folder (data.root of data set {data.dataset!r})")


@dataclass(frozen=True)
class _Compare:
    files: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Two files of `panfpn eval --json`, on the same images."""
    a: tuple[Path, ...] = ()
    """In place of the first file, those of several trainings of one model with other seeds."""
    b: tuple[Path, ...] = ()
    """The same of the other model."""


_COMPARE_HELP = """panfpn compare A.json B.json, or panfpn compare --a A1.json A2.json --b B1.json B2.json

Compare two models on the same images: mIoU (PQ of Panoptic FPNs), their difference, its 95 % interval (bootstrap over
images, and over seeds where there are several), and the smallest difference that so many images could show."""


def run_compare(arguments: list[str]) -> int:
    """Compare two files of scores, or two groups of them."""
    options = parse_options(_Compare, "compare", arguments, _COMPARE_HELP)
    groups = (options.a, options.b) if options.a or options.b else (options.files[:1], options.files[1:])
    if not all(groups) or len(options.files) not in ((0,) if options.a else (2,)):
        raise ValueError("compare takes two files of `panfpn eval --json`, or --a FILE… and --b FILE… (see panfpn "
                         "compare --help)")  # fmt: skip
    from panfpn.files import read_json
    from panfpn.metrics import PanopticScores, SemanticScores
    from panfpn.metrics.bootstrap import compare
    from panfpn.report.tables import print_comparison

    read = [[(path, read_json(path)) for path in group] for group in groups]
    a, b = ([(PanopticScores if "pq" in data else SemanticScores).from_dict(data, source=path) for path, data in group]
            for group in read)  # fmt: skip
    names = [", ".join(map(str, group)) for group in groups]
    print_comparison(compare(a, b, sources=(*groups[0], *groups[1])), *names)
    return 0


@dataclass(frozen=True)
class _Calibrate:
    out: Out[Path]
    """Release file that is written."""
    data: Data = field(default_factory=Data)
    device: str = "auto"
    precision: str = "float32"
    pixels: int = 10_000
    """Of each image, drawn by its name."""
    bias: bool = False
    """Fit a bias of each class too, which moves some labels."""
    json: Path | None = None
    """Write temperature, errors, diagram and thresholds to this file."""
    page: Path | None = None
    """Write reliability diagram and risk against coverage to this HTML file."""


_CALIBRATE_HELP = """panfpn calibrate MODEL|RUN_DIR -o OUT.safetensors [options]

Make the confidence of a Semantic FPN what it says: one temperature, fitted on labelled images that it was not trained
on (data.val-split), goes into the weights of a copy. No label changes. Exported files of the copy have it too, and
`panfpn predict --reject 0.05` marks what is too unsure. A run brings its data settings; a release file wants
--data.root."""


def run_calibrate(arguments: list[str]) -> int:
    """Fit a temperature."""
    model = next((a for a in arguments[:1] if not a.startswith("-")), None)
    if model is None and not {"-h", "--help"} & set(arguments):
        raise ValueError("calibrate needs a model: a release file (model.safetensors) or a run folder")
    words = arguments[1:] if model else arguments
    default = _Calibrate(out=Path("-")) if model is None else _Calibrate(out=Path("-"), data=data_of_model(model))
    options = parse_options(_Calibrate, f"calibrate {model or 'MODEL'}", words, _CALIBRATE_HELP, default)
    assert model is not None
    if str(options.out) == "-" or options.out.suffix != ".safetensors":
        raise ValueError("calibrate writes a release file; name it with -o OUT.safetensors")
    if options.out.exists():
        raise ValueError(f"{options.out}: exists already; name another file")
    if options.pixels < 1:
        raise ValueError(f"--pixels is {options.pixels}; it must be 1 or more")
    check_file(options.json, "the calibration")
    check_file(options.page, "the diagrams", ".html")
    _check_data(options.data)
    if said := _learnt(model, default.data, options.data):
        if default.data.root is not None:
            raise ValueError(f"{model}: {said}; calibrate on others (--data.val-split, --data.root)")
        print_notes([said])
    from panfpn.build import build_dataset, load_task
    from panfpn.engine.calibrate import calibrate, write_calibrated
    from panfpn.files import write_json
    from panfpn.report.calibration import write_calibration_page
    from panfpn.report.tables import print_calibration
    from panfpn.weights.header import is_release

    task, release = load_task(model, device=options.device, precision=options.precision)
    release.with_weights()
    if not is_release(release.file):
        raise ValueError(f"{model}: calibrate takes release files of panfpn; `panfpn convert` makes one of it")
    if release.calibration:
        raise ValueError(f"{release.file}: is calibrated already; calibrate the file that it was made of")
    task.set_inference(scale=task.preprocess.scale, size_divisor=task.preprocess.size_divisor,
                       inference=replace(task.inference, ratios=(1.0,), flip=False))  # fmt: skip
    data = build_dataset(options.data, options.data.val_split, channels=task.preprocess.reading.channels)
    found = calibrate(task, data, pixels=options.pixels, bias=options.bias, num_workers=options.data.num_workers)
    about = {"dataset": options.data.dataset, "split": options.data.val_split, "images": len(data)}
    if options.bias and found.absent:
        print_notes([f"no labelled pixel of {', '.join(found.absent)}; their bias is none"])
    write_calibrated(options.out, release.file, found, about)
    if options.json:
        write_json(options.json, found.to_dict())
    if options.page:
        write_calibration_page(options.page, found, title=options.out.name)
    print_calibration(found)
    return 0
