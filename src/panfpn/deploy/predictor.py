"""Prediction. In: a model, and what `panfpn.deploy.inputs` reads. Out: maps at the input's size, or files of them."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from panfpn.build import describe_runtime, load_task
from panfpn.deploy.inputs import WRITTEN_SUFFIXES, Inputs, Source, as_image, written_stems
from panfpn.deploy.submission import Submission
from panfpn.labels import LabelTable
from panfpn.models import PanopticFPN, SemanticFPN
from panfpn.progress import progress_bar
from panfpn.tasks import PanopticTask, SemanticTask, Task, check_batch_size
from panfpn.types import PanopticMap, SemanticMap
from panfpn.weights.release import SHIPPED

_AHEAD = 4  # images decoded before their turn, and results written behind it
_BUCKETS = 4  # batches that are looked through for inputs of one size
_NO_CONFIDENCE = (
    "a panoptic map has no confidence of each pixel; its things have scores, which NAME.json (panoptic) holds"
)

Image = npt.NDArray[np.uint8]
Map = SemanticMap | PanopticMap
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Failure:
    """An input that could not be predicted, and why (one sentence)."""

    name: str
    reason: str


class Predictor:
    """A network ready to predict. Make one with `Predictor.from_file`; call it with an image."""

    def __init__(self, task: Task, notes: Sequence[str] = (), *, about: str = "the plain network") -> None:
        assert isinstance(task, SemanticTask | PanopticTask)
        self.task = task.eval()
        self.notes = tuple(notes)  # what was left out or assumed when another library's checkpoint was read
        self.about = about  # what runs the network, where, in which precision and why

    @classmethod
    def from_file(
        cls, path: str | Path | None = None, device: str | None = None, precision: str | None = None, *,
        engine: str = "torch", compile: bool = False,
    ) -> "Predictor":  # fmt: skip
        """The predictor of a model; None: the street-scene model that ships with panfpn.

        `path` is a release file, a run folder, an mmsegmentation checkpoint, the name of a published model, or
        OWNER/REPO on the Hugging Face Hub (see `panfpn.weights.zoo`). `device` None is cuda, else mps, else cpu;
        `precision` None is bfloat16 where the hardware has it. `engine` is torch, openvino or onnxruntime (pip install
        'panfpn[export]'); `compile` is torch.compile's, which pays for many images of few sizes.

        ValueError for a damaged file or one of another kind, and for an engine that is not there.
        """
        asked = precision or "auto"
        task, header = load_task(
            path or SHIPPED, device=device or "auto", precision=asked, engine=engine, compile=compile
        )
        return cls(task, header.get("notes", ()), about=describe_runtime(task, asked))

    @property
    def model(self) -> SemanticFPN | PanopticFPN:
        """The network: normalised images in, stride-4 logits out (and the instance branch's maps, if it has one)."""
        return self.task.model

    @property
    def table(self) -> LabelTable:
        """What the labels mean."""
        return self.task.table

    @property
    def maps(self) -> type[Map]:
        """What it makes of an image: SemanticMap or PanopticMap."""
        return PanopticMap if isinstance(self.task, PanopticTask) else SemanticMap

    def __call__(self, image: Any, *, confidence: bool = False, name: str | None = None) -> Map:
        """The map of one image: a path, encoded bytes, a PIL image, or an RGB array uint8 [H, W, 3].

        ValueError says what cannot be read.
        """
        self._check_confidence(confidence)
        if name is None:
            name = Path(image).stem if isinstance(image, str | Path) else "image"
        return self._predict([as_image(image)], [name], confidence, 1)[0]

    def _predict(self, images: Sequence[Image], names: list[str], confidence: bool, batch_size: int) -> Sequence[Map]:
        if isinstance(self.task, PanopticTask):
            return self.task.predict(images, names=names, batch_size=batch_size)
        return self.task.predict(images, names=names, confidence=confidence, batch_size=batch_size)

    def stream(
        self, inputs: "Iterable[Source]", *, confidence: bool = False, batch_size: int = 1,
        then: Callable[[Map], Any] | None = None,
    ) -> Generator[Map | Failure, None, None]:  # fmt: skip
        """Maps of many inputs, in their order and in bounded memory; a bad one gives a `Failure` and the rest go on.

        Decoding runs ahead of the network in one thread, `then` (saving, say) behind it in another; an error in either
        makes that input a `Failure`. With `batch_size` > 1, inputs of one size that are near each other share a run.
        """
        check_batch_size(batch_size)
        self._check_confidence(confidence)

        def finish(_: str, result: Map) -> Map:
            if then:
                then(result)
            return result

        span = 1 if batch_size == 1 else _BUCKETS * batch_size
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
            named = ((source.name, source) for source in inputs)
            decoded = _ahead(reader, lambda _, source: source.read(), named, span)
            labelled = (pair for part in _parts(decoded, span) for pair in self._label(part, confidence, batch_size))
            try:
                for _, result in _ahead(writer, finish, labelled, span):
                    yield result
            finally:  # who stops early waits for what is being written, not for what was to be read
                reader.shutdown(cancel_futures=True)

    def _check_confidence(self, confidence: bool) -> None:
        if confidence and self.maps is PanopticMap:
            raise ValueError(_NO_CONFIDENCE)

    def _label(
        self, part: "list[tuple[str, Image | Failure]]", confidence: bool, batch_size: int
    ) -> "list[tuple[str, Map | Failure]]":
        """Maps of decoded inputs, those of one size together; one by one if that fails, to find which is bad."""
        good = [i for i, (_, item) in enumerate(part) if not isinstance(item, Failure)]
        good.sort(key=lambda i: part[i][1].shape)  # type: ignore[union-attr]

        def run(_: str, numbers: list[int]) -> Sequence[Map]:
            images, names = [part[i][1] for i in numbers], [part[i][0] for i in numbers]
            return self._predict(images, names, confidence, batch_size)  # type: ignore[arg-type]

        made = _guarded(run, part[0][0], good)
        if isinstance(made, Failure) and len(part) > 1:
            return [found for pair in part for found in self._label([pair], confidence, batch_size)]
        maps: dict[int, Map | Failure] = dict(zip(good, [made] if isinstance(made, Failure) else made, strict=True))
        return [(name, maps.get(i, item)) for i, (name, item) in enumerate(part)]  # type: ignore[arg-type]


def _ahead(
    pool: ThreadPoolExecutor, work: Callable[[str, Any], T], items: Iterable[tuple[str, Any]], span: int
) -> Iterator[tuple[str, "T | Failure"]]:
    """`work` on named items in a thread, results in order, some of them (at least `span`) under way."""
    waiting: deque[tuple[str, Future[T | Failure]]] = deque()
    for name, item in items:
        waiting.append((name, pool.submit(_guarded, work, name, item)))
        if len(waiting) > max(_AHEAD, span):
            first, future = waiting.popleft()
            yield first, future.result()
    for name, future in waiting:
        yield name, future.result()


def _parts(items: Iterable[T], length: int) -> Iterator[list[T]]:
    """Lists of `length` neighbours; the last may be shorter."""
    iterator = iter(items)
    while part := list(islice(iterator, length)):
        yield part


def _guarded(work: Callable[[str, Any], T], name: str, item: Any) -> "T | Failure":
    """`work(name, item)`, or why it failed: one bad input (of whatever kind) must not cost the others."""
    if isinstance(item, Failure):
        return item
    try:
        return work(name, item)
    except (ValueError, OSError) as error:
        return Failure(name, str(error))
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        return Failure(name, f"{name}: {type(error).__name__}: {first}")


def predict_to_folder(
    arguments: Sequence[str | Path], folder: Path, *, predictor: "Predictor", what: tuple[str, ...] | None = None,
    submission: Submission | None = None, batch_size: int = 1, progress: bool = True,
) -> tuple[list[Failure], int]:  # fmt: skip
    """Label everything behind `arguments` and save it in `folder`; returns what failed, and how many did not.

    `what` None is the first two of what the model's maps can save. `submission` names and writes the files as a
    benchmark's server wants them instead. ValueError if there is nothing to label, `what` is unknown, or the folder
    cannot be used; KeyboardInterrupt, with what was done in words, after the results under way were written whole.
    """
    check_batch_size(batch_size)
    kinds = predictor.maps.outputs
    what = kinds[:2] if what is None else what
    predictor._check_confidence("confidence" in what)
    unknown = set(what) - set(kinds)
    if unknown or not what:
        raise ValueError(f"cannot save {', '.join(sorted(unknown)) or 'nothing'}; choose from {', '.join(kinds)}")
    inputs = _list_inputs(arguments, folder, submission)
    folder.mkdir(parents=True, exist_ok=True)
    images = [path for _, path in inputs.files]
    failures: list[Failure] = []
    written: list[str] = []
    with submission.into(folder, images) if submission else nullcontext(partial(_save, folder, what)) as save:

        def finish(found: Map) -> None:
            save(found)
            written.append(found.name)

        results = predictor.stream(inputs, confidence="confidence" in what, batch_size=batch_size, then=finish)
        try:
            with progress_bar("labelling", inputs.count, show=progress) as advance, closing(results):
                for result in results:
                    if isinstance(result, Failure):
                        failures.append(result)
                    advance(len(written) + len(failures))
        except KeyboardInterrupt:
            text = f"interrupted: {len(written)} of {inputs.count} inputs are done, their files in {folder} are whole"
            if submission and submission.last:
                text += f"; {submission.last}, which is written last, is not there"
            raise KeyboardInterrupt(text) from None
    return failures, len(written)


def _save(folder: Path, what: tuple[str, ...], found: Map) -> None:
    found.save(folder, what=what)


def _list_inputs(arguments: Sequence[str | Path], folder: Path, submission: Submission | None) -> Inputs:
    """The inputs under the names that their results get; ValueError if a result would lie on an input."""
    inputs = Inputs(arguments, out=folder)
    if not inputs.files:
        raise ValueError("nothing to label; name images, folders, patterns or videos")
    kept = {path.resolve() for _, path in inputs.files}
    if submission:
        inputs.rename(submission.names(path for _, path in inputs.files))
        kept |= {truth.resolve() for _, path in inputs.files if (truth := submission.ground_truth(path))}
    for name, _ in inputs.files:
        written = (folder / f"{stem}{end}" for stem in written_stems(name) for end in WRITTEN_SUFFIXES)
        if lost := [path for path in written if path.resolve() in kept]:
            raise ValueError(f"{folder}: the results would overwrite {lost[0]}; choose another folder for them")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file; name a folder for the results")
    return inputs
