"""Export. In: a model. Out: a file that predicts without panfpn, and was seen to predict the same."""

import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from panfpn.build import build_dataset, load_task
from panfpn.choices import FORMATS
from panfpn.config import Data, Inference
from panfpn.data import Dataset
from panfpn.deploy.exportable import exportable
from panfpn.deploy.gate import SHAPES, Agreement, compare_files
from panfpn.deploy.int8 import Cost, calibration_images, quantized
from panfpn.engine.evaluate import score_dataset
from panfpn.extras import optional
from panfpn.files import first_line, sha256
from panfpn.orphans import folder_beside
from panfpn.signal_stack import kept_signal_stack
from panfpn.tasks import Task
from panfpn.tasks.graph import Graph
from panfpn.weights import Release
from panfpn.weights.exported.openvino import OpenVINOFormat, OpenVINOProgram, save
from panfpn.weights.exported.program import Format, Traced, format_named, format_of
from panfpn.weights.release import release_header

_PATIENCE = 240  # seconds that torch.export may take with free sizes: symbols of some networks grow without end


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written, and how it compared with torch."""

    files: tuple[Path, ...]
    route: str  # torch.export, or tracing
    seconds: float  # without the comparison
    gate: tuple[Agreement, ...]
    int8: Cost | None = None  # what INT8 costs

    @property
    def num_bytes(self) -> int:
        """Of all files."""
        return sum(file.stat().st_size for file in self.files)


def export(
    model: str | Path, out: str | Path, *, format: str | None = None, size: tuple[int, int] | None = None,
    confidence: bool = False, probabilities: bool = False, every_mask: bool = False,
    scale: tuple[int, int] | None = None,
    network: nn.Module | None = None, calibrate: Data | tuple[Dataset, Dataset] | None = None, max_drop: float = 0.3,
    say: Callable[[str], Any] = lambda _: None,
) -> Exported:  # fmt: skip
    """Write a model as a graph from uint8 pixels [B, H, W, C] to maps of their size, which needs no panfpn to run.

    `format` is onnx, openvino or torch (None: by the suffix of `out`: .onnx, .xml, .pt2). `size` fixes height and
    width; without, they are free; the number of images always is. `confidence` adds the winner's probability and
    `probabilities` those of all classes (Semantic FPN), `every_mask` the masks of things too weak for the map (Panoptic
    FPN), which average precision needs. `scale` (longer and shorter side that images are fitted into) is the model's
    own unless given. `network` is the one that the weights are for, where it has parts of your own. `say` gets a
    sentence about each step.

    With `calibrate` (the `data` part of a configuration, or a training and a validation set) an OpenVINO file computes
    in INT8: it is calibrated on images of the first, scored on the second before and after, and may lose `max_drop`
    points (pip install 'panfpn[int8]').

    The file is run beside torch at several sizes first, and only stays if both agree. Beside a Panoptic FPN's comes a
    NumPy file, OUT_merge.py, whose `segments_of` makes its map of what the graph gives.

    Raises:
        ValueError: a model that cannot be exported so, or whose file does not predict the same.
        ImportError: the extra `export` is not installed.
    """
    out = Path(out).expanduser()
    form = _format(format, out)
    if calibrate is not None and form is not OpenVINOFormat:
        raise ValueError(f"{out}: INT8 is for OpenVINO here; name a file that ends in {OpenVINOFormat.suffix}")
    task, release = load_task(model, device="cpu", precision="float32", network=network)
    release.with_weights()
    if scale is not None:
        task.set_inference(scale=scale, size_divisor=task.preprocess.size_divisor, inference=task.inference)
    _check_settings(task)
    data = None if calibrate is None else _data_sets(calibrate, task)
    begin = time.monotonic()
    network, free = exportable(task.pixels)
    wanted = {"confidence": confidence, "probabilities": probabilities, "every_mask": every_mask}
    graph = task.graph(network, [name for name, added in wanted.items() if added]).eval()
    traced = _traced(graph, task, form, size, free=free, say=say)
    header = _header(task, release) | {"export": {"size": size, "names": graph.names}}
    out.parent.mkdir(parents=True, exist_ok=True)
    with folder_beside(out) as folder:
        say(f"writing {out}")
        written = form.write(traced, header, folder / out.name)
        seconds = time.monotonic() - begin
        say("comparing it with torch")
        shapes = SHAPES if size is None else tuple((n, *size) for n in (1, 1, 1, 1, 2))
        exported = load_task(written[0], device="cpu", precision="float32")[0]
        try:
            gate = compare_files(exported, task, graph, shapes)
        except ValueError as error:
            raise ValueError(f"{out}: not written: {str(error).replace(f'{folder}{os.sep}', '')}") from error
        cost = None
        if data is not None:
            written, cost = _to_int8(written[0], exported, header, data, max_drop, say)
        files = [out.with_suffix(file.suffix) for file in written]
        if task.needs_segments:
            written.append(folder / "merge.py")
            written[-1].write_bytes(resources.files("panfpn.models").joinpath("merge.py").read_bytes())
            files.append(out.with_name(f"{out.stem}_merge.py"))
        for file, target in reversed([*zip(written, files, strict=True)]):
            file.replace(target)
    route = "torch.export" if traced.program is not None else "tracing"
    return Exported(files=tuple(files), route=route, seconds=seconds, gate=tuple(gate), int8=cost)


def _data_sets(calibrate: Data | tuple[Dataset, Dataset], task: Task) -> tuple[Dataset, Dataset]:
    """What to calibrate on, and what to score on."""
    if isinstance(calibrate, tuple):
        return calibrate
    channels = task.preprocess.reading.channels
    train, val = (build_dataset(calibrate, split, segments=task.needs_segments, channels=channels)
                  for split in (calibrate.train_split, calibrate.val_split))  # fmt: skip
    return train, val


def _to_int8(
    file: Path, exported: Task, header: dict[str, Any], data: tuple[Dataset, Dataset], max_drop: float,
    say: Callable[[str], Any],
) -> tuple[list[Path], Cost]:  # fmt: skip
    """The file quantised, in its place."""
    model = optional("openvino", "export", "INT8 needs").Core().read_model(file)

    def score(compiled: Any) -> float:
        exported.program = OpenVINOProgram.of(compiled, file)
        return 100 * score_dataset(exported, data[1])[0].value

    with kept_signal_stack():
        small, cost = quantized(
            model, calibration_images(data[0]), score, headline=exported.score_type.headline, max_drop=max_drop, say=say
        )
    figures = {"before": cost.before, "after": cost.after, "score": cost.headline, "method": cost.method}
    return save(small, header | {"int8": figures}, file), cost


def _format(name: str | None, out: Path) -> type[Format]:
    form = format_of(out)
    if name is None and form is None:
        known = ", ".join(f"{format_named(n).suffix} ({n})" for n in FORMATS)
        raise ValueError(f"{out}: its suffix names no format; take one of {known}")
    wanted = form if name is None else format_named(name)
    assert wanted is not None
    if wanted.suffix != out.suffix:
        raise ValueError(f"{out}: a file of format {name} ends in {wanted.suffix}")
    return wanted


def _check_settings(task: Task) -> None:
    """ValueError for ways to predict that are more than one pass of the network."""
    plain, settings = Inference(), task.inference
    for key in ("mode", "ratios", "flip", "stretch"):
        if getattr(settings, key) != getattr(plain, key):
            raise ValueError(f"inference.{key} is {getattr(settings, key)}, which takes more than one pass of the "
                             f"network, and a file has one; it must be {getattr(plain, key)}")  # fmt: skip


def _header(task: Task, release: Release) -> dict[str, Any]:
    config = release.config.changed(data__scale=task.preprocess.scale)
    header = release_header(config, release.table, release.scores, release.source, release.data)
    origin = {"file": release.file.name, "sha256": sha256(release.file)}
    about = {"panfpn": version("panfpn"), "torch": torch.__version__, "made_of": origin}
    return header | about | ({"calibration": dict(release.calibration)} if release.calibration else {})


def _traced(
    graph: Graph, task: Task, form: type[Format], size: tuple[int, int] | None, *, free: bool, say: Callable[[str], Any]
) -> Traced:  # fmt: skip
    """The module as torch.export sees it, or where that cannot follow it and the format allows, as tracing does."""
    channels = task.preprocess.reading.channels
    backbone = task.model.backbone
    if size is None and getattr(backbone, "window", None):
        side = backbone.window
        raise ValueError(f"backbone {backbone.name!r} takes images of {side}x{side} pixels and sees others in windows, "
                         "whose number a graph must know; fix the size (--size H W)")  # fmt: skip
    height, width = size or (97, 131)  # sizes of 0 and 1 would become constants, and even ones hide roundings
    example = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, height, width, channels), np.uint8))
    with torch.no_grad():
        graph(example)  # fills what is kept by size, with tensors that are none of the exporter's
    program, reason = None, "padding that depends on the size"
    if free or size is not None:
        say("following the network with torch.export")
        try:
            with _within(_PATIENCE):
                program = _followed(graph, example, dynamic=size is None)
        except Exception as error:
            reason = first_line(error)[:200]
    if program is None and not form.traces:
        raise ValueError(f"torch.export cannot follow this network at every size ({reason}); fix the size "
                         "(--size H W), or take --format onnx or openvino")  # fmt: skip
    if program is None:
        say(f"tracing it, as torch.export cannot follow it ({reason})")
    return Traced(module=graph, names=graph.names, example=example, program=program, dynamic=size is None)


def _followed(graph: Graph, example: torch.Tensor, *, dynamic: bool) -> Any:
    free = torch.export.Dim.DYNAMIC
    sides = {1: free, 2: free} if dynamic else {}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about its own
        program = torch.export.export(graph, (example,), dynamic_shapes=({0: free, **sides},), strict=False)
    # Of the example's size (that maps are more than a row, say), and not of the graph: the gate looks at other sizes.
    program._guards_code = []
    for symbol, bounds in program.range_constraints.items():
        if str(symbol).startswith("s"):  # height, width and number of images; others depend on what is found
            program.range_constraints[symbol] = type(bounds)(1, bounds.upper)
    return program


@contextmanager
def _within(seconds: int) -> Iterator[None]:
    """TimeoutError when the block takes longer; only the main thread can be interrupted so."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def late(*_: object) -> None:
        raise TimeoutError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def describe(exported: Exported) -> Sequence[str]:
    """Lines for a terminal."""
    rows = [f"{a.agreeing} of {a.clear} clear ({a.of} in all) agree at {a.shape[0]} × {a.shape[1]}×{a.shape[2]}"
            for a in exported.gate]  # fmt: skip
    if exported.int8 is not None:
        cost = exported.int8
        rows.append(f"INT8 ({cost.method}): {cost.headline} {cost.before:.2f} before, {cost.after:.2f} after")
    names = " and ".join(str(file) for file in exported.files)
    size = f"{exported.num_bytes / 1e6:.1f} MB by {exported.route} in {exported.seconds:.0f} s"
    return [*rows, f"{names}: {size}"]
