"""The demonstration: train on procedural scenes, score, draw; then the shipped model on a real photo.

In: a folder. Out: the run in it, and pictures.
"""

from importlib import import_module
from pathlib import Path

from panfpn import recipes
from panfpn.build import build_dataset
from panfpn.deploy.predictor import Predictor
from panfpn.draw import overlay, side_by_side
from panfpn.engine import RunResult, train
from panfpn.engine.run_folder import free_folder
from panfpn.files import write_image


def run_demo(folder: Path, *, pictures: int = 4) -> tuple[RunResult, list[Path]]:
    """Run the demonstration in `folder`; returns how the training ended and the pictures (image, truth, prediction)."""
    config = recipes.scenes(**{"run.dir": free_folder(folder / "run")})
    result = train(config)
    if result.interrupted:
        return result, []
    predictor = Predictor.from_file(result.dir)
    data = build_dataset(config.data, config.data.val_split)
    written = []
    for i in range(pictures):
        sample = data.read(i)
        prediction = predictor(sample.image, name=sample.name)
        truth = overlay(sample.image, sample.target, data.table.palette)
        written.append(folder / f"{sample.name}.png")
        write_image(written[-1], side_by_side(sample.image, truth, prediction.overlay()))
    return result, written + _label_photo(folder)


def _label_photo(folder: Path) -> list[Path]:
    """The shipped model on scikit-learn's china.jpg, where that package is installed (extra `demo`)."""
    try:
        images = Path(str(import_module("sklearn").__file__)).parent / "datasets" / "images"
    except ImportError:
        return []
    return Predictor.from_file()(images / "china.jpg").save(folder, what=("overlay",))
