"""What is labelled, and into which files. In: paths, a folder, a predictor. Out: a plan, checked in advance.

No result may lie on an input, on a file that is no result, or on another input's result.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from panfpn.deploy.inputs import Input, Inputs
from panfpn.deploy.manifest import FILE, Manifest, possible_files
from panfpn.deploy.predictor import Predictor
from panfpn.deploy.shares import Share
from panfpn.deploy.submission import Submission
from panfpn.deploy.tiles import TileOptions
from panfpn.deploy.video_file import SUFFIXES
from panfpn.engine.run_lock import locked

_PATIENCE = 60.0  # seconds that another call may take to write its list of results


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """The files that are written for an input, by its kind."""

    folder: Path
    what: tuple[str, ...]  # of an image
    of_frames: tuple[str, ...]  # of a video
    endings: tuple[str, ...]  # of an image's files, after its name
    of_rasters: tuple[str, ...]
    tiles: TileOptions

    @staticmethod
    def of(
        predictor: Predictor, folder: Path, what: tuple[str, ...] | None, tiles: TileOptions, *, anything: bool
    ) -> "Outputs":
        """Those of a model; ValueError for what it does not have, unless `anything` else is written."""
        maps = predictor.map_type
        chosen = maps.outputs[:2] if what is None else what
        predictor.task.check_outputs(confidence="confidence" in chosen)
        unknown = set(chosen) - set(maps.outputs)
        if not anything and (unknown or not chosen):
            raise ValueError(f"cannot save {', '.join(sorted(unknown)) or 'nothing'}; choose from "
                             f"{', '.join(maps.outputs)}")  # fmt: skip
        suffixes = (tiles.form, *maps.raster_also, *filter(None, [tiles.polygons]))
        return Outputs(
            folder=folder, what=chosen, of_frames=("overlay",) if what is None else what, tiles=tiles,
            endings=tuple(ending for output in chosen for ending in maps.endings.get(output, ())),
            of_rasters=tuple(f".{suffix}" for suffix in suffixes),
        )  # fmt: skip

    def endings_of(self, one: Input) -> Sequence[str]:
        """Of the files of an input; of a video, those that its overlay may have."""
        if one.video:
            return [f"_overlay{suffix}" for suffix in SUFFIXES] if "overlay" in self.of_frames else []
        return self.of_rasters if one.raster else self.endings

    def are_there(self, one: Input) -> bool:
        """Whether an image has all its files, newer than it is; they are written whole or not at all."""
        if one.video or one.address == "-":  # which may be another one by now, or have been cut short
            return False
        changed = one.path.stat().st_mtime_ns if one.path and one.path.exists() else 0
        files = [self.folder / f"{one.name}{ending}" for ending in self.endings_of(one)]
        return all(file.exists() and file.stat().st_mtime_ns >= changed for file in files)


@dataclass(kw_only=True)
class Plan:
    """Inputs with the names of their results, and what is written for each."""

    inputs: Inputs
    outputs: Outputs
    predictor: Predictor
    submission: Submission | None
    manifest: Callable[[], Manifest] | None  # of now; none beside the files of a submission
    skipped: tuple[str, ...]  # names of inputs whose files are there

    @staticmethod
    def make(
        arguments: Sequence[str | Path], folder: Path, *, predictor: Predictor, what: tuple[str, ...] | None = None,
        submission: Submission | None = None, max_frames: int | None = None, tiles: TileOptions | None = None,
        share: Share | None = None, skip: bool = False,
    ) -> "Plan":  # fmt: skip
        """The plan of a call; arguments and errors as of `panfpn.deploy.folder.predict_to_folder`."""
        outputs = Outputs.of(predictor, folder, what, tiles or TileOptions(), anything=submission is not None)
        inputs = Inputs(arguments, out=folder, reading=predictor.task.preprocess.reading, max_frames=max_frames,
                        tiles=tiles is not None)  # fmt: skip
        _check_inputs(inputs, folder, submission)
        if what is not None and any(one.raster for one in inputs.inputs) and not {"labels", "panoptic"} & set(what):
            raise ValueError(f"of a raster, its labels are written, and not {', '.join(what)}; leave --save out")
        manifest = None
        if submission is None:
            manifest = partial(_manifest, tuple(inputs.inputs), outputs, predictor, skip=skip)
            manifest()  # refuses what cannot be written there
        elif skip:
            raise ValueError("files for a server are written by one process at once; leave --shard, --ray and "
                             "--skip-existing out")  # fmt: skip
        if share is not None:
            inputs.keep(lambda one: share.holds(one.name))
        skipped = inputs.keep(lambda one: not outputs.are_there(one)) if skip else ()
        return Plan(inputs=inputs, outputs=outputs, predictor=predictor, submission=submission, manifest=manifest,
                    skipped=skipped)  # fmt: skip

    def begin(self) -> None:
        """Make the folder, and say in it what will be there, beside what others have begun meanwhile."""
        folder = self.outputs.folder
        folder.mkdir(parents=True, exist_ok=True)
        if self.manifest is not None:
            with locked(folder, "begins to write into it", file=f".{FILE}.lock", patience=_PATIENCE):
                self.manifest().write(folder)


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


def _overlays(folder: Path, video: str) -> Iterator[Path]:
    """The files one of which is a video's overlay."""
    return (folder / f"{video}_overlay{suffix}" for suffix in SUFFIXES)


def _extended(manifest: Manifest, inputs: Sequence[Input], outputs: Outputs) -> Manifest:
    """The manifest with this call's results; ValueError if one would lie on a file that is none, or is another's."""
    folder = outputs.folder
    for one in inputs:
        other = manifest.inputs.get(one.name, one.address)
        if other != one.address:
            raise ValueError(f"{folder}: holds the results of {other} under the name that those of {one.address} would "
                             "get; choose another folder for them")  # fmt: skip
        for ending in outputs.endings_of(one):
            if not manifest.holds(f"{one.name}{ending}") and (folder / f"{one.name}{ending}").exists():
                raise ValueError(f"{folder}: {one.name}{ending} is there, and no result of an earlier call ({FILE} "
                                 "does not list it); choose another folder")  # fmt: skip
    manifest.inputs |= {one.name: one.address for one in inputs}
    manifest.videos |= {one.name for one in inputs if one.video}
    manifest.files |= {f"{one.name}{ending}" for one in inputs for ending in outputs.endings_of(one)}
    return manifest


def _manifest(inputs: Sequence[Input], outputs: Outputs, predictor: Predictor, *, skip: bool) -> Manifest:
    """What is in the folder, with this call's results.

    Processes that label shares of one listing begin at once: where the manifest has changed meanwhile, it is read
    again before anything is refused.
    """
    while True:
        there = Manifest.of(outputs.folder)
        try:
            made_by = _maker(there, predictor, inputs, outputs, skip=skip)
            manifest = _extended(there or Manifest(), inputs, outputs)
        except ValueError:
            if Manifest.of(outputs.folder) == there:
                raise
            continue
        manifest.made_by = made_by
        return manifest


def _maker(
    there: Manifest | None, predictor: Predictor, inputs: Sequence[Input], outputs: Outputs, *, skip: bool
) -> str:
    """Digest of what the results are a function of; ValueError where others would be left beside these."""
    digest = predictor.digest
    if any(one.raster for one in inputs):
        digest += f"-{hashlib.sha256(repr(replace(outputs.tiles, memory=None)).encode()).hexdigest()[:8]}"
    alone = there is None or there.made_by == digest
    if skip and not alone:
        raise ValueError(f"{outputs.folder}: holds results of another model, of other settings or another precision; "
                         "choose another folder, or leave --skip-existing (and --shard, --ray) out")  # fmt: skip
    return digest if alone else ""
