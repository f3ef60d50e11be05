"""`panfpn benchmark inference`, `train` and `data`."""

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from panfpn.config import Data, TrainConfig
from panfpn.labels import MAX_CLASSES
from panfpn.verbs.options import EngineName, check_file, parse_options

if TYPE_CHECKING:
    from panfpn.benchmark import InferenceJob

_HELP = """usage: panfpn benchmark WHAT [options]        (panfpn benchmark WHAT --help shows its options)

  inference   image in memory -> label map: latency, images/s, peak memory, FLOPs, share of the machine's ceiling
  train       the training step on a batch in memory: steps/s, images/s, peak memory
  data        the training loader by itself: images/s

A recipe is measured with random weights: nothing is downloaded. Peak memory is that of a fresh process, above the
loaded program. A table is printed; --json FILE writes all figures with hardware, versions and commit.
"""


def run_benchmark(arguments: list[str]) -> int:
    """Measure speed and memory."""
    measures = {"inference": _run_inference, "train": _run_train, "data": _run_data}
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(_HELP)
        return 0 if arguments else 2
    if arguments[0] not in measures:
        raise ValueError(f"{arguments[0]!r} is nothing that benchmark measures; choose from {', '.join(measures)}")
    return measures[arguments[0]](arguments[1:])


@dataclass(frozen=True)
class _Inference:
    models: tyro.conf.Positional[tuple[str, ...]] = ()
    """Recipes, YAML files, models; published: the four published models' recipes."""
    size: tuple[int, int] | None = None
    """Height and width of the image in pixels; without it, one that is typical of the model's data set."""
    batch: int = 1
    """Images of one size given in one call, which go through the network together."""
    precision: str = "auto"
    """float32, bfloat16, float16; auto: the fastest that hardware and engine have."""
    engine: EngineName = "torch"
    """What runs the network; the last two are for CPUs (pip install 'panfpn[export]')."""
    compile: bool = False
    """torch.compile, which takes a minute."""
    device: str = "auto"
    repeats: int = 20
    """Calls that are timed."""
    warmup: int = 5
    """Calls before them."""
    num_classes: int | None = None
    """Classes of a recipe, in place of its data set's."""
    json: Path | None = None
    """Write all figures to this file."""


_INFERENCE_HELP = """panfpn benchmark inference RECIPE|FILE.yaml|MODEL|published ... [options]

Recipes and YAML files run with random weights; a MODEL is what `panfpn predict --model` takes. Measured is a whole
prediction: from an RGB image in memory to its label map at the image's own size. `network` is the size that the network
sees, `peak GB` memory above the loaded program (weights and work), `GFLOP` that of the network in one call (two a
multiply-add), `of ceiling` GFLOP per second as a share of what a large convolution or matrix product reaches here, in
the same precision."""


def _run_inference(arguments: list[str]) -> int:
    options = parse_options(_Inference, "benchmark inference", arguments, _INFERENCE_HELP)
    if options.num_classes is not None and not 1 <= options.num_classes <= MAX_CLASSES:
        raise ValueError(f"--num-classes is {options.num_classes}; it must be from 1 to {MAX_CLASSES}")
    if not options.models:
        raise ValueError("benchmark inference needs a recipe (`panfpn recipes` lists them), a model, or `published`")
    check_file(options.json, "figures")
    from panfpn.benchmark import InferenceJob, in_child, measure_inference
    from panfpn.benchmark.tables import document, inference_rows, print_rows
    from panfpn.device import resolve_precision
    from panfpn.files import write_json
    from panfpn.weights.zoo import PUBLISHED

    names = [n for model in options.models for n in (PUBLISHED if model == "published" else (model,))]
    jobs = [
        InferenceJob(
            model=name, size=options.size, batch=options.batch, precision=options.precision, engine=options.engine,
            compile=options.compile, device=options.device,
            repeats=options.repeats, warmup=options.warmup, num_classes=options.num_classes,
        )
        for name in names
    ]  # fmt: skip
    device = jobs[0].runs_on
    for job in jobs:  # before minutes of measuring
        resolve_precision(job.precision, device)
        _check(job)
    figures = []
    for k, job in enumerate(jobs):
        sys.stderr.write(f"measuring {job.model} ({k + 1} of {len(jobs)})\n")
        figures.append(in_child(measure_inference, job))
    print_rows(inference_rows(figures), device, _inference_notes(jobs))
    if options.json:
        write_json(options.json, document("inference", figures, device))
    return 0


def _check(job: "InferenceJob") -> None:
    """ValueError for a model that cannot be had, or whose options do not fit it."""
    from panfpn.benchmark import starting_config, table_for
    from panfpn.weights.zoo import find_model

    if job.random_weights:
        table_for(starting_config(job.model), job.num_classes)
    elif job.num_classes:
        raise ValueError(f"{job.model}: has classes of its own; --num-classes goes with a recipe")
    else:
        find_model(job.model)


def _inference_notes(jobs: "list[InferenceJob]") -> list[str]:
    random = [job.model for job in jobs if job.random_weights]
    return [f"random weights: {', '.join(dict.fromkeys(random))}"] if random else []


@dataclass(frozen=True)
class _Train:
    config: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)
    repeats: int = 10
    """Steps that are timed."""
    warmup: int = 3
    """Steps before them."""
    num_classes: int | None = None
    """Classes, in place of the data set's."""
    json: Path | None = None
    """Write all figures to this file."""


_TRAIN_HELP = """panfpn benchmark train RECIPE|FILE.yaml|published [options]

Time and memory of the trainer's own step on a batch of random crops in memory. Every setting of the recipe is an
option: --train.batch-size, --train.precision, --train.compile, --data.crop, … `published`: the four published models,
each with the batch that one of its four GPUs had."""


def _run_train(arguments: list[str]) -> int:
    name, words = _named(arguments, "train")
    from panfpn.benchmark import in_child, measure_training, published_config, starting_config
    from panfpn.weights.zoo import PUBLISHED

    if name == "published":
        starts = [published_config(model) for model in PUBLISHED]
    else:
        starts = [starting_config(name) if name else TrainConfig()]
    jobs = [
        parse_options(_Train, f"benchmark train {name or 'RECIPE'}", words, _TRAIN_HELP, _Train(config=start))
        for start in starts
    ]
    check_file(jobs[0].json, "figures")
    from panfpn.benchmark.tables import document, print_rows, training_rows
    from panfpn.device import resolve_device
    from panfpn.files import write_json

    device = resolve_device(jobs[0].config.run.device)
    figures = []
    for k, job in enumerate(jobs):
        sys.stderr.write(f"measuring {job.config.run.name} ({k + 1} of {len(jobs)})\n")
        config = job.config.changed(run__device=str(device))
        figures.append(in_child(measure_training, config, job.repeats, job.warmup, job.num_classes))
    print_rows(training_rows(figures), device)
    if jobs[0].json:
        write_json(jobs[0].json, document("train", figures, device))
    return 0


@dataclass(frozen=True)
class _Data:
    data: Data = field(default_factory=Data)
    batch_size: int = 8
    batches: int = 50
    """Batches that are timed."""
    json: Path | None = None
    """Write all figures to this file."""


_DATA_HELP = """panfpn benchmark data RECIPE|FILE.yaml [options]

Images per second of the training loader by itself: read, augmented, put together. All but `scenes` need --data.root."""


def _run_data(arguments: list[str]) -> int:
    name, words = _named(arguments, "data")
    from panfpn.benchmark import measure_loading, starting_config
    from panfpn.benchmark.tables import document, loading_rows, print_rows

    start = starting_config(name) if name else TrainConfig()
    default = replace(_Data(), data=start.data, batch_size=start.train.batch_size)
    options = parse_options(_Data, f"benchmark data {name or 'RECIPE'}", words, _DATA_HELP, default)
    check_file(options.json, "figures")
    import torch

    from panfpn.files import write_json

    figures = [measure_loading(options.data, batch_size=options.batch_size, batches=options.batches)]
    device = torch.device("cpu")
    print_rows(loading_rows(figures), device)
    if options.json:
        write_json(options.json, document("data", figures, device))
    return 0


def _named(arguments: list[str], measured: str) -> tuple[str | None, list[str]]:
    """The recipe that comes first, None where only help is asked for, and the options."""
    if arguments and not arguments[0].startswith("-"):
        return arguments[0], arguments[1:]
    if not {"-h", "--help"} & set(arguments):
        raise ValueError(f"benchmark {measured} needs a recipe (`panfpn recipes` lists them) or a YAML file")
    return None, arguments
