"""Prediction. In: a model, and what `panfpn.inputs` reads. Out: SemanticMaps at the input's size, or files of them."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from panfpn.build import load_task
from panfpn.inputs import Inputs, Source, as_image, written_stems
from panfpn.labels import LabelTable
from panfpn.models import SemanticFPN
from panfpn.progress import progress_bar
from panfpn.release import SHIPPED
from panfpn.submission import Submission
from panfpn.tasks import SemanticTask
from panfpn.types import SAVED, SemanticMap

_AHEAD = 4  # images decoded before their turn, and results written behind it

Image = npt.NDArray[np.uint8]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Failure:
    """An input that could not be predicted, and why (one sentence)."""

    name: str
    reason: str


class Predictor:
    """A network ready to predict. Make one with `Predictor.from_file`; call it with an image."""

    def __init__(self, task: SemanticTask, notes: Sequence[str] = ()) -> None:
        self.task = task.eval()
        self.notes = tuple(notes)  # what was left out or assumed when another library's checkpoint was read

    @classmethod
    def from_file(
        cls, path: str | Path | None = None, device: str | None = None, precision: str | None = None
    ) -> "Predictor":
        """The predictor of a model; None: the street-scene model that ships with panfpn.

        `path` is a release file, a run folder, an mmsegmentation checkpoint, the name of a published model, or
        OWNER/REPO on the Hugging Face Hub (see `panfpn.zoo.find_model`). `device` None is cuda, else mps, else cpu;
        `precision` None is bfloat16 where the hardware has it. ValueError for a damaged file or one of another kind.
        """
        task, header = load_task(path or SHIPPED, device=device or "auto", precision=precision or "auto")
        return cls(task, header.get("notes", ()))

    @property
    def model(self) -> SemanticFPN:
        """The network: normalised images in, stride-4 logits out."""
        return self.task.model

    @property
    def table(self) -> LabelTable:
        """What the labels mean."""
        return self.task.table

    def __call__(self, image: Any, *, confidence: bool = False, name: str | None = None) -> SemanticMap:
        """The label map of one image: a path, encoded bytes, a PIL image, or an RGB array uint8 [H, W, 3].

        ValueError says what cannot be read.
        """
        if name is None:
            name = Path(image).stem if isinstance(image, str | Path) else "image"
        return self.task.predict([as_image(image)], names=[name], confidence=confidence)[0]

    def stream(
        self, inputs: "Iterable[Source]", *, confidence: bool = False, then: Callable[[SemanticMap], Any] | None = None
    ) -> Iterator[SemanticMap | Failure]:
        """Maps of many inputs, in their order and in bounded memory; a bad one gives a `Failure` and the rest go on.

        Decoding runs ahead of the network in one thread, `then` (saving, say) behind it in another; an error in either
        makes that input a `Failure`.
        """

        def label(name: str, image: Image) -> SemanticMap:
            return self(image, confidence=confidence, name=name)

        def finish(_: str, result: SemanticMap) -> SemanticMap:
            if then:
                then(result)
            return result

        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
            decoded = _ahead(reader, lambda _, source: source.read(), ((source.name, source) for source in inputs))
            labelled = ((name, _guarded(label, name, image)) for name, image in decoded)
            for _, result in _ahead(writer, finish, labelled):
                yield result


def _ahead(
    pool: ThreadPoolExecutor, work: Callable[[str, Any], T], items: Iterable[tuple[str, Any]]
) -> Iterator[tuple[str, "T | Failure"]]:
    """`work` on named items in a thread, results in order, `_AHEAD` of them under way."""
    waiting: deque[tuple[str, Future[T | Failure]]] = deque()
    for name, item in items:
        waiting.append((name, pool.submit(_guarded, work, name, item)))
        if len(waiting) > _AHEAD:
            first, future = waiting.popleft()
            yield first, future.result()
    for name, future in waiting:
        yield name, future.result()


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
    arguments: Sequence[str | Path], folder: Path, *, predictor: "Predictor",
    what: tuple[str, ...] = ("labels", "overlay"), submission: Submission | None = None, progress: bool = True,
) -> tuple[list[Failure], int]:  # fmt: skip
    """Label everything behind `arguments` and save it in `folder`; returns what failed, and how many did not.

    `submission` names the files as a benchmark's server wants them, and writes its values (`what` must be labels).
    ValueError if there is nothing to label, `what` is unknown, or the folder cannot be used.
    """
    unknown = set(what) - set(SAVED)
    if unknown or not what:
        raise ValueError(f"cannot save {', '.join(sorted(unknown)) or 'nothing'}; choose from {', '.join(SAVED)}")
    inputs = Inputs(arguments, out=folder)
    if not inputs.files:
        raise ValueError("nothing to label; name images, folders, patterns or videos")
    if submission:
        assert what == ("labels",), "a submission holds labels only"
        inputs.rename(submission.names(path for _, path in inputs.files))
    kept = {path.resolve() for _, path in inputs.files}
    if submission:
        kept |= {truth.resolve() for _, path in inputs.files if (truth := submission.ground_truth(path))}
    for name, _ in inputs.files:
        written = (folder / f"{stem}{end}" for stem in written_stems(name) for end in (".png", ".jpg"))
        if lost := [path for path in written if path.resolve() in kept]:
            raise ValueError(f"{folder}: the results would overwrite {lost[0]}; choose another folder for them")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file; name a folder for the results")
    folder.mkdir(parents=True, exist_ok=True)
    failures, done = [], 0
    with progress_bar("labelling", inputs.count, show=progress) as advance:
        for result in predictor.stream(
            inputs, confidence="confidence" in what, then=partial(_save, folder, what, submission)
        ):
            if isinstance(result, Failure):
                failures.append(result)
            else:
                done += 1
            advance(done + len(failures))
    return failures, done


def _save(folder: Path, what: tuple[str, ...], submission: Submission | None, result: SemanticMap) -> None:
    result = replace(result, table=submission.table) if submission else result
    result.save(folder, what=what)
