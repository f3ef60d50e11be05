"""A folder of results. In: paths, folders, patterns, videos, and a predictor. Out: files, and what failed."""

from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

from panfpn.deploy.inputs import Inputs
from panfpn.deploy.plan import Outputs, Plan
from panfpn.deploy.predictor import Failure, Map, Predictor, failure
from panfpn.deploy.shares import Rows, Share
from panfpn.deploy.submission import Submission
from panfpn.deploy.tiles import RasterResult, TileOptions, label_raster
from panfpn.deploy.video_file import VideoFile
from panfpn.heap import kept_heap
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
    plan = Plan.make(
        arguments, folder, predictor=predictor, what=what, submission=submission, max_frames=max_frames, tiles=tiles,
        share=share, skip=skip_existing or share is not None,
    )  # fmt: skip
    return label(plan, batch_size=batch_size, lanes=lanes, log=share.log if share else None, progress=progress)


def label(
    plan: Plan, *, batch_size: int = 1, lanes: int | None = None, log: str | None = None, progress: bool = True
) -> Outcome:  # fmt: skip
    """Do what a plan says, in this process; a file of the name `log` has a row for each input.

    KeyboardInterrupt as of `predict_to_folder`.
    """
    inputs, folder, predictor, outputs = plan.inputs, plan.outputs.folder, plan.predictor, plan.outputs
    check_batch_size(batch_size)
    total, confidence = inputs.count(), "confidence" in outputs.what
    plan.begin()
    failures: list[Failure] = []
    written: list[str] = []
    images = [path for _, path in inputs.files]
    with (
        closing(_Videos(inputs, outputs)) as videos, Rows(folder / log if log else None) as rows,
        plan.submission.into(folder, images) if plan.submission else nullcontext(None) as write,
    ):  # fmt: skip
        rows.add_missing(plan.skipped)

        def save(result: Map) -> None:
            if write is not None:
                write(result)
            elif not videos.save(result):
                result.save(folder, what=outputs.what)
            written.append(result.name)
            rows.add(name=result.name, status="ok")

        def failed(failure: Failure) -> None:
            failures.append(failure)
            rows.add(name=failure.name, status="failed", reason=failure.reason)

        results = predictor.stream(inputs, confidence=confidence, batch_size=batch_size, lanes=lanes, then=save)
        try:
            with kept_heap(), progress_bar("labelling", total, show=progress) as advance, closing(results):
                for result in results:
                    if isinstance(result, Failure):
                        failed(result)
                    advance(len(written) + len(failures))
        except KeyboardInterrupt:
            of = "" if total is None else f" of {total}"
            text = f"interrupted: {len(written)}{of} inputs are done, their files in {folder} are whole"
            if plan.submission and plan.submission.last:
                text += f"; {plan.submission.last}, which is written last, is not there"
            raise KeyboardInterrupt(text) from None
        rasters = []
        for one in inputs.inputs:
            if one.raster and one.path is not None:
                try:
                    rasters.append(label_raster(one.path, folder, name=one.name, predictor=predictor,
                                                options=outputs.tiles, progress=progress))  # fmt: skip
                    rows.add(name=one.name, status="ok")
                except Exception as error:  # one bad raster must not cost the others
                    failed(failure(one.name, error))
    return Outcome(len(written), tuple(failures), inputs.left_out, tuple(rasters), len(plan.skipped))


class _Videos:
    """Writes the frames of videos: one overlay video at a time, as the frames come in their order."""

    def __init__(self, inputs: Inputs, outputs: Outputs) -> None:
        self.videos = {one.name: one.video for one in inputs.inputs if one.video}
        self.folder, self.what = outputs.folder, outputs.of_frames
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
