"""`panfpn predict` and `convert`."""

import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from panfpn.choices import SUBMISSIONS, lookup
from panfpn.config import Inference
from panfpn.files import printable
from panfpn.verbs.options import (
    EngineName,
    Out,
    RasterForm,
    ReadingOptions,
    SubmissionName,
    num_bytes,
    parse_options,
    print_notes,
)

if TYPE_CHECKING:
    from panfpn.deploy.predictor import Predictor
    from panfpn.deploy.submission import Submission
    from panfpn.deploy.tiles import TileOptions


@dataclass(frozen=True)
class _Predict:
    inputs: tyro.conf.Positional[tuple[str, ...]]
    """Images, folders, patterns, videos, http(s) and rtsp addresses, a camera's number, or - (standard input)."""
    out: Out[Path]
    """Folder that the results are written to."""
    model: str | None = None
    """Release file, run folder, mmsegmentation checkpoint, published name (fpn_r50_cityscapes, …) or OWNER/REPO on the
    Hugging Face Hub; without it, the street-scene model that ships with panfpn."""
    save: str | None = None
    """What to write, joined by commas. Semantic models: labels, overlay, confidence (default: labels,overlay); panoptic
    ones: panoptic (PNG of segment ids, and JSON), overlay, labels, instances (default: panoptic,overlay)."""
    format: SubmissionName | None = None
    """Write files as a benchmark's server wants them (ade20k and cityscapes for semantic models, the two -panoptic for
    panoptic ones), or polygons for an annotation tool (coco, yolo, cvat, labelme), to start labelling from."""
    annotations: Path | None = None
    """With --format coco-panoptic: a JSON whose `images` give the image ids; without it, they are the numbers that the
    files are named by."""
    check: bool = False
    """With --format: read the files again as the server will, and score them where the ground truth lies beside the
    images."""
    device: str = "auto"
    precision: str = "auto"
    engine: EngineName = "torch"
    """What runs the network; the last two are for CPUs (pip install 'panfpn[export]'), and openvino is the fastest."""
    compile: bool = False
    """torch.compile: a minute at the first image of each size, then faster."""
    batch_size: int = 1
    """Inputs of one size that go through the network together; for GPUs."""
    streams: int | None = None
    """Images that are labelled at once on a CPU, each on its share of the cores; without it, whatever is faster of one
    and as many as there are cores, measured on the first images (openvino and onnxruntime: one a core)."""
    skip_existing: bool = False
    """Leave what has its results already, of this model, as it is: to go on after a stop."""
    shard: str | None = None
    """Label only a share of the inputs, such as 3/8, the third of eight: by as many processes, on as many machines, as
    there are shares. What is there is skipped, and a log beside the results has a row for each input."""
    ray: str | None = None
    """Label by the actors of a Ray cluster: its address, or local for one of this machine (pip install 'panfpn[ray]').
    All of its machines must see the inputs and the folder of results. What is there is skipped."""
    reject: float | None = None
    """Mark as ignored what is labelled so unsurely that more than this share would be wrong, such as 0.05 (models that
    `panfpn calibrate` has seen)."""
    frames: int | None = None
    """At most so many frames of each video or camera."""
    tiles: bool = False
    """Label every image in overlapping windows, as what fits no memory always is (TIFF of more than 100 megapixels,
    .vrt, .npy, .zarr, whole slides): one file of labels, with coordinates where the image has them."""
    memory: str | None = None
    """What this process may take with rasters, such as 4GB; without it, a quarter of the machine's memory."""
    window: int | None = None
    """Side of a window of a raster in pixels; without it, as large as memory allows."""
    raster_form: RasterForm = "tif"
    """What the labels of rasters are written as: tif (GeoTIFF: coordinates, palette, nodata), npy, zarr or png."""
    polygons: Literal["gpkg", "geojson"] | None = None
    """Write a polygon for each region of a raster too, with class and area, in its coordinates."""
    simplify: float = 1.0
    """Tolerance of their edges in pixels, which neighbours share; 0 keeps the edges of pixels."""
    data: ReadingOptions = field(default_factory=ReadingOptions)
    scale: tuple[int, int] | None = None
    """Longer and shorter side that images are fitted into; like size-divisor and inference.*, the model's own unless
    you set it."""
    size_divisor: int = 1
    """Multiple that images are padded to (with inference.stretch: resized to)."""
    inference: Inference = field(default_factory=Inference)


_SHOWN = 100  # failures
MANY = 4  # inputs for which an engine is made that labels several at once
SMALLEST = 128  # pixels of a side of a window
_PREDICT_HELP = """panfpn predict INPUT... --out DIR [options]

Label images: files, folders, patterns ('photos/*.jpg'), videos, addresses and cameras. Results keep the input's size;
predictions.json beside them says which belongs to which input."""


def run_predict(arguments: list[str]) -> int:
    """Label images."""
    options = parse_options(_Predict, "predict", arguments, _PREDICT_HELP)
    if options.frames is not None and options.frames < 1:
        raise ValueError(f"--frames is {options.frames}; it must be 1 or more")
    from panfpn.deploy.inputs import Inputs
    from panfpn.deploy.runtime import shared_cores

    tiles = _tiles(options)
    if options.ray is not None and options.shard:
        raise ValueError("--ray divides the inputs by itself; leave --shard out")
    if options.ray is not None and (options.streams is not None or options.batch_size != 1):
        raise ValueError("a Ray actor labels one image at a time, on one core; leave --streams and --batch-size out")
    if options.streams is not None and options.streams < 1:
        raise ValueError(f"--streams is {options.streams}; it must be 1 or more")
    listing = Inputs(options.inputs, out=options.out, tiles=tiles is not None)
    if options.reject is not None and any(one.raster for one in listing.inputs):
        raise ValueError("unsure labels of rasters cannot be rejected; leave --reject out")
    count = 0 if any(one.raster for one in listing.inputs) else listing.count()  # a raster takes all cores
    many = count is not None and count > MANY
    with shared_cores(options.engine, options.model, options.streams, many=many) as streams:
        return _label(options, arguments, tiles, streams)


def _label(options: _Predict, arguments: list[str], tiles: "TileOptions | None", streams: int) -> int:
    from panfpn.deploy.folder import label
    from panfpn.deploy.inputs import Inputs
    from panfpn.deploy.plan import Plan
    from panfpn.deploy.predictor import Predictor
    from panfpn.deploy.shares import Share
    from panfpn.report.tables import print_scores

    share = Share.parse(options.shard) if options.shard else None
    predictor = Predictor.from_file(
        options.model, options.device, options.precision, engine=options.engine, compile=options.compile,
        streams=streams,
    )  # fmt: skip
    print_notes(predictor.notes)
    task = predictor.task
    reading = task.preprocess.reading
    released = replace(
        options, scale=task.preprocess.scale, size_divisor=task.preprocess.size_divisor, inference=task.inference,
        data=ReadingOptions(bands=reading.bands, range=reading.range, pages=reading.page),
    )  # fmt: skip
    options = parse_options(_Predict, "predict", arguments, _PREDICT_HELP, released)
    task.set_inference(scale=options.scale, size_divisor=options.size_divisor, inference=options.inference)
    task.read_as(**asdict(options.data))
    if options.reject is not None:
        predictor.reject(options.reject)
    what, submission = _what_to_write(options, predictor)
    # Listed before anything is written: results may lie beside the images.
    images = [path for _, path in Inputs(options.inputs, out=options.out).files] if options.check else []
    plan = Plan.make(
        options.inputs, options.out, predictor=predictor, what=what, submission=submission, max_frames=options.frames,
        tiles=tiles, share=share, skip=options.skip_existing or share is not None or options.ray is not None,
    )  # fmt: skip
    if options.ray is not None:
        from panfpn.deploy.ray_cluster import predict_with_ray

        outcome = predict_with_ray(plan, address=options.ray)
    else:
        outcome = label(
            plan, batch_size=options.batch_size, lanes=options.streams, log=share.log if share is not None else None
        )
    done, failures = outcome.done, outcome.failures
    lost = f"; left out: {outcome.left_out}" if outcome.left_out.counts else ""
    lost += f"; {outcome.skipped} were there already" if outcome.skipped else ""
    for raster in outcome.rasters:
        empty = f", {raster.empty} without data" if raster.empty else ""
        empty += "" if raster.regions is None else f"; {raster.regions} polygons"
        sys.stdout.write(printable(
            f"{raster.files[0]}: {raster.height}×{raster.width} pixels in {raster.windows} windows of {raster.side}"
            f"{empty}\n"
        ))  # fmt: skip
    written = f"{', '.join(what)} in " if done or not outcome.rasters else ""
    done += len(outcome.rasters)
    sys.stdout.write(printable(
        f"{done} of {done + len(failures)} images labelled by {predictor.about}; {written}{options.out}"
        f"{lost}\n"
    ))  # fmt: skip
    if failures:
        shown = "\n  ".join(failure.reason for failure in failures[:_SHOWN])
        more = f"\n  … and {len(failures) - _SHOWN} more" if len(failures) > _SHOWN else ""
        raise ValueError(f"{len(failures)} input{'s' * (len(failures) > 1)} could not be labelled:\n  {shown}{more}")
    if submission and options.check:
        files, scores = submission.check(images, options.out)
        sys.stdout.write(f"{files} file{' is' if files == 1 else 's are'} as {submission.format} wants them\n")
        if scores is None:
            sys.stdout.write("no ground truth beside the images, so they were not scored\n")
        else:
            print_scores(scores, submission.protocol)
    return 0


def _tiles(options: _Predict) -> "TileOptions | None":
    """How rasters are labelled; None where only they are. ValueError for an impossible size."""
    from panfpn.deploy.tiles import TileOptions

    if options.window is not None and options.window < SMALLEST:
        raise ValueError(f"--window is {options.window}; it must be {SMALLEST} or more")
    memory = None if options.memory is None else num_bytes(options.memory, "--memory")
    if not 0 <= options.simplify < float("inf"):
        raise ValueError(f"--simplify is {options.simplify}; it must be 0 or a number of pixels")
    wanted = options.tiles or memory or options.window or options.raster_form != "tif" or options.polygons
    return TileOptions(
        memory=memory, window=options.window, form=options.raster_form, polygons=options.polygons,
        simplify=options.simplify,
    ) if wanted else None  # fmt: skip


def _what_to_write(options: _Predict, predictor: "Predictor") -> "tuple[tuple[str, ...], Submission | None]":
    """Kinds of files, and the format they are written in; ValueError for options that do not go together."""
    from panfpn.deploy.submission import submission_for

    if not options.format:
        if options.check or options.annotations:
            raise ValueError(f"--{'check' if options.check else 'annotations'} goes with --format")
        outputs = options.save.split(",") if options.save is not None else predictor.map_type.outputs[:2]
        return tuple(part.strip() for part in outputs), None
    only = lookup(SUBMISSIONS, options.format, "format").what
    if options.save not in (None, only):
        raise ValueError(f"--format {options.format} writes {only} only; leave --save out")
    table, maps = predictor.table, predictor.map_type
    return (only,), submission_for(options.format, table, maps=maps, annotations=options.annotations)


@dataclass(frozen=True)
class _Convert:
    model: tyro.conf.Positional[str]
    """Checkpoint of mmsegmentation, detectron2 or mmdetection, release file, run folder, or the name of a published
    model."""
    out: Out[Path | None] = None
    """File to write; without it, the input's name with the other suffix, in the current folder."""
    labels: str | None = None
    """Classes of a checkpoint, where it does not name them: cityscapes, ade20k, camvid, coco_panoptic, or a
    labels.yaml."""
    ema: bool = False
    """Take the second copy of the weights, where an EMA hook left one."""
    scale: tuple[int, int] | None = None
    """Longer and shorter side that test images are fitted into; without it, what the checkpoint says."""


_CONVERT_HELP = """panfpn convert MODEL [--out FILE] [options]

A checkpoint of mmsegmentation, detectron2 or mmdetection (.pth, .pkl) becomes a release file (.safetensors) that
predicts, scores and fine-tunes here. A release file or run folder becomes a checkpoint (.pth): a Semantic FPN
mmsegmentation's, a Panoptic FPN detectron2's. Nothing in a checkpoint is run."""


def run_convert(arguments: list[str]) -> int:
    """Change a checkpoint's form."""
    options = parse_options(_Convert, "convert", arguments, _CONVERT_HELP)
    from panfpn.weights import convert_model

    file, notes = convert_model(options.model, options.out, labels=options.labels, ema=options.ema, scale=options.scale)
    print_notes(notes)
    sys.stdout.write(f"{file}\n")
    return 0
