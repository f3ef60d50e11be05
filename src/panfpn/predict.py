"""Prediction. In: a path, bytes, PIL image, array, folder, glob or video. Out: SemanticMaps at the input's size."""

import glob
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from panfpn.build import load_task
from panfpn.files import IMAGE_SUFFIXES, decode_image, is_hidden, read_image
from panfpn.labels import LabelTable
from panfpn.models import SemanticFPN
from panfpn.progress import progress_bar
from panfpn.release import SHIPPED
from panfpn.tasks import SemanticTask
from panfpn.types import SAVED, SemanticMap

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v"})
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

    def __init__(self, task: SemanticTask) -> None:
        self.task = task.eval()

    @classmethod
    def from_file(
        cls, path: str | Path | None = None, device: str | None = None, precision: str | None = None
    ) -> "Predictor":
        """The predictor of a model; None: the street-scene model that ships with panfpn.

        `path` is a release file, a run folder, an mmsegmentation checkpoint, the name of a published model, or
        OWNER/REPO on the Hugging Face Hub (see `panfpn.zoo.find_model`). `device` None is cuda, else mps, else cpu;
        `precision` None is bfloat16 where the hardware has it. ValueError for a damaged file or one of another kind.
        """
        return cls(load_task(path or SHIPPED, device=device or "auto", precision=precision or "auto")[0])

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


def as_image(image: Any) -> Image:
    """An RGB uint8 array [H, W, 3] of a path, encoded bytes, PIL image or array; ValueError says what it is instead."""
    if isinstance(image, str | Path):
        return read_image(Path(image))
    if isinstance(image, bytes | bytearray | memoryview):
        return decode_image(bytes(image))
    if not isinstance(image, np.ndarray):
        from PIL import Image as Pillow  # noqa: PLC0415 - only who passes PIL images pays for it
        from PIL import ImageOps  # noqa: PLC0415

        if not isinstance(image, Pillow.Image):
            raise ValueError(
                f"cannot predict a {type(image).__name__}; give a path, bytes, a PIL image or an RGB array"
            )
        image = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    if image.dtype != np.uint8:
        raise ValueError(f"an image array must be uint8 (0 to 255), this one is {image.dtype}")
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)
    if image.ndim != 3 or image.shape[2] not in (3, 4) or not image.size:
        raise ValueError(f"an image array must have shape [H, W, 3], this one has {list(image.shape)}")
    return np.asarray(image[:, :, :3])


@dataclass(frozen=True, slots=True)
class Source:
    """One image to be predicted: its name (the stem of what is written) and how to read it."""

    name: str
    read: Callable[[], Image]


class Inputs:
    """All images behind paths, folders, globs and videos, as `Source`s; nothing is decoded before its turn.

    Names are unique: the path below a folder argument without suffix, with the suffix where two would clash; a video's
    frames lie in a folder of its name. What lies in the folder `out` is not taken as input. ValueError for an argument
    behind which there is nothing.
    """

    def __init__(self, arguments: Sequence[str | Path], *, out: Path | None = None) -> None:
        found: list[tuple[str, Path]] = []
        for argument in arguments:
            found += _expand(str(argument), out)
        stems = Counter(name for name, _ in found)
        self.files: list[tuple[str, Path]] = []
        taken: set[str] = set()
        for stem, path in found:
            name = base = stem if stems[stem] == 1 else f"{stem}_{path.suffix[1:]}"
            k = 2
            while not taken.isdisjoint(_written(name)):
                name, k = f"{base}_{k}", k + 1
            taken.update(_written(name))
            self.files.append((name, path))
        self.count = sum(_num_frames(path) if _is_video(path) else 1 for _, path in self.files)

    def __iter__(self) -> Iterator[Source]:
        for name, path in self.files:
            if _is_video(path):
                yield from _frames(name, path)
            else:
                yield Source(name, partial(read_image, path))


def _written(name: str) -> tuple[str, ...]:
    """Stems of the files that may be written for an image: two images must not share one."""
    return name, f"{name}_overlay", f"{name}_confidence"


def predict_to_folder(
    arguments: Sequence[str | Path], folder: Path, *, predictor: "Predictor",
    what: tuple[str, ...] = ("labels", "overlay"), progress: bool = True,
) -> tuple[list[Failure], int]:  # fmt: skip
    """Label everything behind `arguments` and save it in `folder`; returns what failed, and how many did not.

    ValueError if there is nothing to label, `what` is unknown, or the folder cannot be used.
    """
    unknown = set(what) - set(SAVED)
    if unknown or not what:
        raise ValueError(f"cannot save {', '.join(sorted(unknown)) or 'nothing'}; choose from {', '.join(SAVED)}")
    inputs = Inputs(arguments, out=folder)
    sources = {path.resolve() for _, path in inputs.files}
    for name, path in inputs.files:
        if not sources.isdisjoint(
            (folder / f"{stem}{end}").resolve() for stem in _written(name) for end in (".png", ".jpg")
        ):
            raise ValueError(f"{folder}: the results would overwrite {path}; choose another folder for them")
    folder.mkdir(parents=True, exist_ok=True)
    failures, done = [], 0
    with progress_bar("labelling", inputs.count, show=progress) as advance:
        for result in predictor.stream(inputs, confidence="confidence" in what, then=partial(_save, folder, what)):
            if isinstance(result, Failure):
                failures.append(result)
            else:
                done += 1
            advance(done + len(failures))
    return failures, done


def _save(folder: Path, what: tuple[str, ...], result: SemanticMap) -> None:
    result.save(folder, what=what)


def _expand(argument: str, out: Path | None) -> list[tuple[str, Path]]:
    path = Path(argument).expanduser()
    if path.is_dir():
        wanted = (p for p in sorted(path.rglob("*")) if p.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES)
        files = [p for p in wanted if p.is_file() and not is_hidden(p, path) and not _below(p, out, path)]
        if not files:
            raise ValueError(f"{path}: holds no images or videos")
        return [(p.relative_to(path).with_suffix("").as_posix(), p) for p in files]
    if path.is_file():
        return [(path.stem, path)]
    found = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
    matches = [p for p in map(Path, found) if p.is_file()]
    if not matches:
        raise ValueError(f"{argument}: no such file or folder, and no file matches it as a pattern")
    return [(p.stem, p) for p in matches]


def _below(path: Path, out: Path | None, root: Path) -> bool:
    """Whether `path` is a result of an earlier run: in `out`, where that lies inside the input folder `root`."""
    return out is not None and out.resolve() != root.resolve() and path.resolve().is_relative_to(out.resolve())


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def _num_frames(path: Path) -> int:
    """As the container claims: for the progress bar only."""
    capture = cv2.VideoCapture(str(path))
    try:
        return max(1, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
    finally:
        capture.release()


def _frames(name: str, path: Path) -> Iterator[Source]:
    capture = cv2.VideoCapture(str(path))
    try:
        number = 0
        while True:
            more, frame = capture.read()
            if not more:
                break
            yield Source(f"{name}/{number:06d}", partial(cv2.cvtColor, frame, cv2.COLOR_BGR2RGB))
            number += 1
        if number == 0:
            yield Source(name, partial(_no_frames, path))
    finally:
        capture.release()


def _no_frames(path: Path) -> Image:
    raise ValueError(f"{path}: not a readable video (no frame could be decoded)")
