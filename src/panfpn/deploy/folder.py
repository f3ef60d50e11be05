"""A folder of results. In: paths, folders, patterns, videos, and a predictor. Out: files, and what failed."""

from collections.abc import Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

from panfpn.deploy.inputs import WRITTEN_SUFFIXES, Inputs, written_stems
from panfpn.deploy.predictor import Failure, Map, Predictor
from panfpn.deploy.submission import Submission
from panfpn.progress import progress_bar
from panfpn.tasks import check_batch_size


def predict_to_folder(
    arguments: Sequence[str | Path], folder: Path, *, predictor: Predictor, what: tuple[str, ...] | None = None,
    submission: Submission | None = None, batch_size: int = 1, progress: bool = True,
) -> tuple[list[Failure], int]:  # fmt: skip
    """Label everything behind `arguments` and save it in `folder`; returns what failed, and how many did not.

    `what` None is the first two of what the model's maps can save. `submission` names and writes the files as a
    benchmark's server wants them instead. ValueError if there is nothing to label, `what` is unknown, or the folder
    cannot be used; KeyboardInterrupt, with what was done in words, after the results under way were written whole.
    """
    check_batch_size(batch_size)
    outputs = predictor.map_type.outputs
    what = outputs[:2] if what is None else what
    predictor.task.check_outputs(confidence="confidence" in what)
    unknown = set(what) - set(outputs)
    if unknown or not what:
        raise ValueError(f"cannot save {', '.join(sorted(unknown)) or 'nothing'}; choose from {', '.join(outputs)}")
    inputs = _list_inputs(arguments, folder, submission)
    folder.mkdir(parents=True, exist_ok=True)
    failures: list[Failure] = []
    written: list[str] = []
    images = [path for _, path in inputs.files]
    with submission.into(folder, images) if submission else nullcontext(None) as write:

        def save(result: Map) -> None:
            _ = result.save(folder, what=what) if write is None else write(result)
            written.append(result.name)

        results = predictor.stream(inputs, confidence="confidence" in what, batch_size=batch_size, then=save)
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


def _list_inputs(arguments: Sequence[str | Path], folder: Path, submission: Any) -> Inputs:
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
