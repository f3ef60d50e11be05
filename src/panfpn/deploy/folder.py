"""A folder of results. In: paths, folders, patterns, videos, and a predictor. Out: files, and what failed."""

from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from panfpn.deploy.inputs import Input, Inputs
from panfpn.deploy.manifest import FILE, Manifest, possible_files
from panfpn.deploy.predictor import Failure, Map, Predictor
from panfpn.deploy.shares import Rows, Share
from panfpn.deploy.submission import Submission
from panfpn.deploy.tiles import RasterResult, TileOptions, label_raster
from panfpn.deploy.video_file import SUFFIXES, VideoFile
from panfpn.listing import LeftOut
from panfpn.progress import progress_bar
from panfpn.tasks import check_batch_size


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of the inputs of a call."""

    done: int  # images that were labelled
    failures: tuple[Failure, ...]
    left_out: LeftOut  # what in folders was not used
    rasters: tuple[RasterResult, ...] = ()  # that were labelled in windows
    skipped: int = 0  # inputs whose results were there


def predict_to_folder(
    arguments: Sequence[str | Path], folder: Path, *, predictor: Predictor, what: tuple[str, ...] | None = None,
    submission: Submission | None = None, batch_size: int = 1, max_frames: int | None = None, progress: bool = True,
    tiles: TileOptions | None = None, lanes: int | None = None, share: Share | None = None, skip_existing: bool = False,
) -> Outcome:  # fmt: skip
    """Label everything behind `arguments` (see `Inputs`) and save it in `folder`.

    `what` None is the first two of what the model's maps can save, and of videos the overlay alone. Overlays of a video
    become a video; all else is a file a frame, in a folder of its name. `submission` names and writes the files as a
    server or an annotation tool wants them instead. Of a video or camera, `max_frames` are labelled. With `tiles`, all
    images are labelled in windows, as otherwise only rasters are: see `panfpn.deploy.tiles`. predictions.json
    there says which result belongs to which input.

    With `skip_existing`, what has all its files is left as it is. With `share` too, and only the inputs of that share
    are labelled, by one of several processes that write into one folder; a log there has a row for each.

    ValueError if there is nothing to label, `what` is unknown, the folder cannot be used, or its results are another
    model's and would be mixed with these; KeyboardInterrupt, with what was done in words, after the results under way
    were written whole.
    """
    check_batch_size(batch_size)
    outputs = predictor.map_type.outputs
    of_frames = ("overlay",) if what is None else what
    what = outputs[:2] if what is None else what
    predictor.task.check_outputs(confidence="confidence" in what)
    unknown = set(what) - set(outputs)
    if submission is None and (unknown or not what):
        raise ValueError(f"cannot save {', '.join(sorted(unknown)) or 'nothing'}; choose from {', '.join(outputs)}")
    inputs = Inputs(arguments, out=folder, reading=predictor.task.preprocess.reading, max_frames=max_frames,
                    tiles=tiles is not None)  # fmt: skip
    tiles = tiles or TileOptions()
    _check_inputs(inputs, folder, submission)
    manifest = None
    if submission is None:
        endings = [ending for output in what for ending in predictor.map_type.endings[output]]
        suffixes = (tiles.form, *predictor.map_type.raster_also, *filter(None, [tiles.polygons]))
        of_rasters = tuple(f".{suffix}" for suffix in suffixes)
        manifest = _extended(Manifest.of(folder) or Manifest(), inputs, folder, endings, of_frames, of_rasters)
        manifest.made_by = _maker(manifest, predictor, folder, skip=skip_existing or share is not None)
    elif skip_existing or share:
        raise ValueError("files for a server are written by one process; leave --shard and --skip-existing out")
    skipped = 0
    if share is not None:
        inputs.keep(lambda one: share.holds(one.name))
    if skip_existing or share is not None:
        skipped = inputs.keep(lambda one: not _is_there(one, folder, endings, of_frames, of_rasters))
    total = inputs.count()
    folder.mkdir(parents=True, exist_ok=True)
    if manifest is not None:
        manifest.write(folder)
    failures: list[Failure] = []
    written: list[str] = []
    images = [path for _, path in inputs.files]
    videos = _Videos(inputs, folder, of_frames)
    rows = Rows(folder / share.log) if share else None
    with (
        closing(videos),
        rows or nullcontext(),
        submission.into(folder, images) if submission else nullcontext(None) as write,
    ):

        def save(result: Map) -> None:
            if write is not None:
                write(result)
            elif not videos.save(result):
                result.save(folder, what=what)
            written.append(result.name)
            if rows is not None:
                rows.add(name=result.name, status="ok")

        results = predictor.stream(
            inputs, confidence="confidence" in what, batch_size=batch_size, lanes=lanes, then=save
        )
        try:
            with progress_bar("labelling", total, show=progress) as advance, closing(results):
                for result in results:
                    if isinstance(result, Failure):
                        failures.append(result)
                        if rows is not None:
                            rows.add(name=result.name, status="failed", reason=result.reason)
                    advance(len(written) + len(failures))
        except KeyboardInterrupt:
            of = "" if total is None else f" of {total}"
            text = f"interrupted: {len(written)}{of} inputs are done, their files in {folder} are whole"
            if submission and submission.last:
                text += f"; {submission.last}, which is written last, is not there"
            raise KeyboardInterrupt(text) from None
        rasters = []
        for one in inputs.inputs:
            if one.raster and one.path is not None:
                try:
                    rasters.append(label_raster(
                        one.path, folder, name=one.name, predictor=predictor, options=tiles, progress=progress
                    ))  # fmt: skip
                except (ValueError, OSError, ImportError) as error:
                    failures.append(Failure(one.name, str(error)))
                if rows is not None:
                    lost = failures and failures[-1].name == one.name
                    rows.add(name=one.name, **({"status": "failed", "reason": failures[-1].reason} if lost else
                                               {"status": "ok"}))  # fmt: skip
    return Outcome(len(written), tuple(failures), inputs.left_out, tuple(rasters), skipped)


class _Videos:
    """Writes the frames of videos: one overlay video at a time, as the frames come in their order."""

    def __init__(self, inputs: Inputs, folder: Path, what: Sequence[str]) -> None:
        self.videos = {one.name: one.video for one in inputs.inputs if one.video}
        self.folder, self.what = folder, what
        self.name = ""
        self.file: VideoFile | None = None

    def save(self, frame: Map) -> bool:
        """Write what is wanted of a map, if it is a frame's."""
        name = frame.name.rpartition("/")[0]
        if name not in self.videos:
            return False
        if "overlay" in self.what:
            if name != self.name:
                self.close()
                stem = self.folder / f"{name}_overlay"
                self.name, self.file = name, VideoFile(stem, self.videos[name].rate())
            assert self.file is not None
            self.file.add(frame.overlay(), int(frame.name.rpartition("/")[2]))
        if rest := tuple(output for output in self.what if output != "overlay"):
            frame.save(self.folder, what=rest)
        return True

    def close(self) -> None:
        """Put the video that was written last into its place."""
        if self.file is not None:
            self.file.close()
        self.file = None


def _check_inputs(inputs: Inputs, folder: Path, submission: Any) -> None:
    """Give the inputs the names that their results get; ValueError if a result would lie on an input."""
    if not inputs.inputs:
        raise ValueError("nothing to label; name images, folders, patterns, videos, URLs, a camera's number or -")
    kept = {path.resolve() for _, path in inputs.files}
    if submission:
        inputs.rename(submission.names(path for _, path in inputs.files))
        kept |= {truth.resolve() for _, path in inputs.files if (truth := submission.ground_truth(path))}
    for one in inputs.inputs:
        frames = (folder / one.name).resolve()
        if one.video:
            lost = [path for path in kept if path.is_relative_to(frames)]
            lost += [path for path in _overlays(folder, one.name) if path.resolve() in kept]
        elif submission is None:
            lost = [path for path in possible_files(folder, one.name) if path.resolve() in kept]
        else:
            lost = [path for name in submission.files([one.name]) if (path := folder / name).resolve() in kept]
        if lost:
            raise ValueError(f"{folder}: the results would overwrite {lost[0]}; choose another folder for them")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file; name a folder for the results")
    if submission and submission.by_hand:
        for file in submission.files([one.name for one in inputs.inputs]):
            if (folder / file).exists():
                raise ValueError(
                    f"{folder}: {file} is there, and somebody may have worked on it; choose another folder"
                )


def _is_there(
    one: Input, folder: Path, endings: Sequence[str], of_frames: Sequence[str], of_rasters: Sequence[str]
) -> bool:
    """Whether an input has all its files; they are written whole or not at all. Frames in a folder may be a part."""
    if one.video:
        return of_frames == ("overlay",) and any(path.exists() for path in _overlays(folder, one.name))
    return all((folder / f"{one.name}{ending}").exists() for ending in (of_rasters if one.raster else endings))


def _maker(manifest: Manifest, predictor: Predictor, folder: Path, *, skip: bool) -> str:
    """Digest of the model whose results are in the folder; ValueError where others would be left beside these."""
    alone = not (folder / FILE).exists() or manifest.made_by == predictor.digest
    if skip and not alone:
        raise ValueError(f"{folder}: holds results of another model, or of other settings or another precision; choose "
                         "another folder, or leave --skip-existing (and --shard) out")  # fmt: skip
    return predictor.digest if alone else ""


def _overlays(folder: Path, video: str) -> Iterator[Path]:
    """The files one of which is a video's overlay."""
    return (folder / f"{video}_overlay{suffix}" for suffix in SUFFIXES)


def _extended(
    manifest: Manifest, inputs: Inputs, folder: Path, endings: Sequence[str], of_frames: Sequence[str],
    of_rasters: Sequence[str],
) -> Manifest:  # fmt: skip
    """The manifest with this call's results; ValueError if one would lie on a file that is none, or is another's."""
    for one in inputs.inputs:
        other = manifest.inputs.get(one.name, one.address)
        if other != one.address:
            raise ValueError(f"{folder}: holds the results of {other} under the name that those of {one.address} would "
                             "get; choose another folder for them")  # fmt: skip
        of_video = [f"_overlay{suffix}" for suffix in SUFFIXES] if "overlay" in of_frames else []
        for ending in of_video if one.video else of_rasters if one.raster else endings:
            if not manifest.holds(f"{one.name}{ending}") and (folder / f"{one.name}{ending}").exists():
                raise ValueError(f"{folder}: {one.name}{ending} is there, and no result of an earlier call ({FILE} "
                                 "does not list it); choose another folder")  # fmt: skip
    videos = [one.name for one in inputs.inputs if one.video]
    manifest.add({one.name: one.address for one in inputs.inputs if not one.raster}, endings, videos)
    manifest.add({one.name: one.address for one in inputs.inputs if one.raster}, of_rasters, ())
    if "overlay" in of_frames:
        manifest.files |= {path.relative_to(folder).as_posix() for name in videos for path in _overlays(folder, name)}
    return manifest
