"""Prediction. In: a model, and what `panfpn.deploy.inputs` reads. Out: maps at the input's size."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, overload

import torch
from torch import nn

from panfpn.build import load_task
from panfpn.deploy.inputs import Source, as_image
from panfpn.deploy.runtime import engine_precisions, make_runtime
from panfpn.device import describe_choice, survive_fork
from panfpn.files import sha256
from panfpn.labels import LabelTable, free_value
from panfpn.lanes import in_lanes
from panfpn.tasks import Image, Task, check_batch_size
from panfpn.types import PanopticMap, SemanticMap
from panfpn.weights.zoo import SHIPPED

_AHEAD = 4  # images decoded before their turn, and results written behind it
_BUCKETS = 4  # batches that are looked through for inputs of one size

Map = SemanticMap | PanopticMap


@dataclass(frozen=True, slots=True)
class Failure:
    """An input that could not be predicted, and why (one sentence)."""

    name: str
    reason: str


class Predictor:
    """A network ready to predict. Make one with `Predictor.from_file`; call it with an image, or a list of them.

    It can be called from any thread, copied, pickled and sent to another process.
    """

    def __init__(
        self, task: Task, notes: Sequence[str] = (), *, about: str = "the plain network",
        calibration: Mapping[str, Any] = {},
    ) -> None:  # fmt: skip
        self.task = task.eval()
        self.calibration = calibration  # what `panfpn calibrate` found; empty where it was not asked
        self.notes = tuple(notes)  # what was left out or assumed when another library's checkpoint was read
        self.about = about  # what runs the network, where, in which precision and why
        self._process = os.getpid()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _process=os.getpid())

    @classmethod
    def from_file(
        cls, path: str | Path | None = None, device: str | None = None, precision: str | None = None, *,
        engine: str | None = "torch", compile: bool = False, streams: int = 1, model: nn.Module | None = None,
    ) -> "Predictor":  # fmt: skip
        """The predictor of a model; None: the street-scene model that ships with panfpn.

        `path` is a release file, a run folder, a checkpoint of mmsegmentation, detectron2 or mmdetection, the name of a
        published model, OWNER/REPO on the Hugging Face Hub (see `panfpn.weights.zoo`), or a file of `panfpn export`,
        which is its own engine. `device` None is cuda, else
        mps, else cpu; `precision` None is the fastest that the hardware has. `engine` is torch, openvino or onnxruntime
        (pip install 'panfpn[export]'), or None: the network as it is trained. `compile` is torch.compile's, which pays
        for many images of few sizes. `streams`: from so many threads it will be called at once, each of whose calls is
        computed by `torch.get_num_threads()` threads. `model` is the network that the weights are for, where it has
        parts of your own.

        ValueError for a damaged file or one of another kind, and for an engine that is not there.
        """
        elsewhere = engine not in (None, "torch")  # engines of their own are for CPUs
        task, release = load_task(
            path or SHIPPED, device=device or ("cpu" if elsewhere else "auto"), precision=precision or "auto",
            precisions=engine_precisions(engine) if engine else None, network=model, streams=streams,
        )  # fmt: skip
        if release.exported is not None:
            runner = release.file.name
        elif engine:
            use_engine(task, engine, compile=compile, streams=streams)
            runner = f"engine {engine}"
        else:
            runner = "the plain network"
        about = describe_choice(runner, task.device, task.pixels.precision, precision or "auto")
        return cls(task, release.notes, about=about, calibration=release.calibration)

    def reject(self, risk: float) -> float:
        """From now on, mark as ignored what is labelled so unsurely that more than a share of `risk` would be wrong.

        Where the label table ignores no value, they get one that is none of its classes' (255, if that is free).

        Returns the probability that a label must have. ValueError without a calibration, or for a risk that no
        probability keeps.
        """
        if not 0 < risk < 1:
            raise ValueError(f"a risk of {risk:g} is none; it must be above 0 and below 1, such as 0.05")
        self.task.check_outputs(confidence=True)
        if not self.calibration:
            raise ValueError("this model is not calibrated, so nobody knows how often its labels are wrong; panfpn "
                             "calibrate makes a copy that is")  # fmt: skip
        if len(self.task.inference.ratios) > 1 or self.task.inference.flip:
            raise ValueError("the calibration is of one view; leave inference.ratios and inference.flip out")
        rows = self.calibration.get("thresholds", ())
        fits = [row for row in rows if row["risk"] <= risk]
        if not fits:
            lowest = f"from {rows[0]['risk']:g} on" if rows else "none"
            raise ValueError(f"no confidence of this model keeps a risk of {risk:g}; risks that one keeps: {lowest}")
        if not self.table.ignore:
            self.task.table = replace(self.table, ignore=(free_value(v for c in self.table.classes for v in c.values),))
        least = float(fits[-1]["confidence"])
        self.task.least_confidence = least
        return least

    @property
    def model(self) -> nn.Module:
        """The network: normalised images in, stride-4 logits out (and the instance branch's maps, if it has one)."""
        return self.task.model  # type: ignore[no-any-return]

    @property
    def table(self) -> LabelTable:
        """What the labels mean."""
        return self.task.table

    @property
    def digest(self) -> str:
        """A digest of all that its maps are a function of, but for the image."""
        task = self.task
        settings = (task.pixels.precision, task.preprocess, task.inference, task.table.to_dict(), task.model,
                    getattr(task.model, "anchor_scale", None), task.least_confidence)  # fmt: skip
        digest = hashlib.sha256(repr(settings).encode())
        engine = task.engine or task.program
        digest.update(engine.engine.encode() if engine else b"")
        if task.program is not None:
            digest.update(sha256(task.program.file).encode())
        else:
            for name, tensor in task.state_dict().items():
                digest.update(name.encode())
                digest.update(tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().data)
        return digest.hexdigest()[:16]

    @property
    def map_type(self) -> type[Map]:
        """What it makes of an image: SemanticMap or PanopticMap."""
        return self.task.map_type

    @overload
    def __call__(
        self, image: list[Any] | tuple[Any, ...], *, confidence: bool = False, name: None = None, batch_size: int = 1
    ) -> list[Map]: ...

    @overload
    def __call__(
        self, image: Any, *, confidence: bool = False, name: str | None = None, batch_size: int = 1
    ) -> Map: ...

    def __call__(self, image: Any, *, confidence: bool = False, name: str | None = None, batch_size: int = 1) -> Any:
        """The map of one image: a path, encoded bytes, a PIL image, or an array [H, W, C] with the model's bands.

        A list of them gives a list of maps; with `batch_size` > 1, neighbours of one size share a run. `confidence`
        adds the winner's probability to a SemanticMap. ValueError says what cannot be read.
        """
        self._after_fork()
        several = isinstance(image, list | tuple)
        images = list(image) if several else [image]
        names = [name or (Path(one).stem if isinstance(one, str | Path) else "image") for one in images]
        maps = self.task.predict(
            [as_image(one, self.task.preprocess.reading) for one in images],
            names=names,
            batch_size=batch_size,
            confidence=confidence,
        )
        return list(maps) if several else maps[0]

    def _after_fork(self) -> None:
        if os.getpid() != self._process:  # engines know what to do by themselves; the plain network would hang
            survive_fork(self.task.device)
            self._process = os.getpid()

    def stream(
        self, inputs: Iterable[Source], *, confidence: bool = False, batch_size: int = 1, lanes: int | None = 1,
        then: Callable[[Map], Any] | None = None,
    ) -> Generator[Map | Failure, None, None]:  # fmt: skip
        """Maps of many inputs, in their order and in bounded memory; a bad one gives a `Failure` and the rest go on.

        Decoding runs ahead of the network in one thread, `then` (saving, say) behind it in another; an error in either
        makes that input a `Failure`. With `batch_size` > 1, inputs of one size that are near each other share a run.
        `lanes` are labelled at once on a CPU, each on its share of the cores; None measures whether that pays. Engines
        but torch have as many as the streams that they were made for.
        """
        self._after_fork()
        check_batch_size(batch_size)
        self.task.check_outputs(confidence=confidence)
        window = 1 if batch_size == 1 else _BUCKETS * batch_size
        label = partial(self._labelled, confidence=confidence, batch_size=batch_size)
        writing: deque[tuple[Map | Failure, Future[Any] | None]] = deque()
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
            parts = _read_ahead(inputs, reader, window)
            made_for = self.task.lanes
            count, cores = (lanes, None) if made_for is None else (made_for, made_for * torch.get_num_threads())
            labelled = in_lanes(label, parts, count=count, cores=cores, size=lambda part: part.pixels)
            try:
                for results in labelled:
                    for result in results:
                        wanted = then is not None and not isinstance(result, Failure)
                        writing.append((result, writer.submit(then, result) if wanted else None))  # type: ignore[arg-type]
                    while len(writing) > window + _AHEAD:
                        yield _written(*writing.popleft())
                while writing:
                    yield _written(*writing.popleft())
            finally:  # who stops early waits for what is being written, not for what was to be read
                labelled.close()
                parts.close()
                reader.shutdown(cancel_futures=True)

    def _labelled(self, part: "_Part", *, confidence: bool, batch_size: int) -> list[Map | Failure]:
        """The maps of a part, and failures where there are none."""
        results: dict[int, Map | Failure] = dict(part.failures)
        images, names = part.images, part.names
        groups = [sorted(images, key=lambda i: images[i].shape)] if images else []
        while groups:
            group = groups.pop()
            some, called = [images[i] for i in group], [names[i] for i in group]
            try:
                maps = self.task.predict(some, names=called, batch_size=batch_size, confidence=confidence)
                results.update(zip(group, maps, strict=True))
            except Exception as error:  # one bad input (of whatever kind) must not cost the others
                if len(group) > 1:  # one by one, to know which it is
                    groups += [[i] for i in group]
                else:
                    results[group[0]] = failure(called[0], error)
        return [results[i] for i in sorted(results)]


@dataclass(frozen=True, slots=True)
class _Part:
    """Neighbouring inputs, by their position among them."""

    names: list[str]
    images: dict[int, Image]
    failures: dict[int, Failure]

    @property
    def pixels(self) -> float:
        """Of all images."""
        return float(sum(image.shape[0] * image.shape[1] for image in self.images.values()))


def _read_ahead(inputs: Iterable[Source], reader: ThreadPoolExecutor, window: int) -> Generator[_Part, None, None]:
    """The inputs, `window` at a time, decoded before their turn."""
    sources = iter(inputs)
    reading: deque[tuple[str, Future[Image]]] = deque()
    while True:
        for source in islice(sources, window + _AHEAD - len(reading)):
            reading.append((source.name, reader.submit(source.read)))
        if not reading:
            return
        part = [reading.popleft() for _ in range(min(window, len(reading)))]
        failures, images = _decoded(part)
        yield _Part([name for name, _ in part], images, failures)


def load(name: str | Path | None = None, *, device: str = "cpu") -> nn.Module:
    """The network of a model with its weights, in eval mode: normalised images [B, C, H, W] -> stride-4 logits.

    `name` as of `Predictor.from_file`, which also normalises, resizes and labels. ValueError for what cannot be used.
    """
    task, release = load_task(name or SHIPPED, device=device, precision="float32")
    release.with_weights()
    return task.model  # type: ignore[no-any-return]


def use_engine(task: Task, engine: str = "torch", *, compile: bool = False, streams: int = 1) -> None:
    """Let an engine (torch, openvino, onnxruntime) make the task's predictions; see `make_runtime` for the errors."""
    make = partial(make_runtime, engine, precision=task.pixels.precision, compile=compile, streams=streams)
    task.predict_with(make)


def _decoded(part: Sequence[tuple[str, Future[Image]]]) -> tuple[dict[int, Failure], dict[int, Image]]:
    """By position: the failures, and the images that could be read."""
    failures: dict[int, Failure] = {}
    images: dict[int, Image] = {}
    for i, (name, future) in enumerate(part):
        try:
            images[i] = future.result()
        except Exception as error:
            failures[i] = failure(name, error)
    return failures, images


def _written(result: Map | Failure, done: Future[Any] | None) -> Map | Failure:
    """The result, once it is saved."""
    try:
        if done is not None:
            done.result()
    except Exception as error:
        return failure(result.name, error)
    return result


def failure(name: str, error: Exception) -> Failure:
    """An error as a sentence about its input."""
    if isinstance(error, ValueError | OSError | ImportError):
        return Failure(name, str(error))
    first = (str(error).splitlines() or [""])[0]
    return Failure(name, f"{name}: {type(error).__name__}: {first}")
