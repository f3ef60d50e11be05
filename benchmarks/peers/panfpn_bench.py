"""panfpn's side of the comparisons (see side.py): predict, train, count."""

import contextlib
import importlib
from pathlib import Path

import numpy as np
from side import seconds, serve

from panfpn import recipes
from panfpn.benchmark import prepare_training
from panfpn.deploy.predictor import Predictor
from panfpn.metrics import ConfusionMatrix

STATE: dict = {}
for engine in ("openvino", "onnxruntime"):  # parts of the program, not of the model
    with contextlib.suppress(ImportError):
        importlib.import_module(engine)


def load(
    folder: str, recipe: str | None = None, precision: str = "auto", engine: str = "torch", device: str = "cpu",
    crop: tuple[int, int] = (512, 512), batch: int = 4, file: str = "model.safetensors",
) -> None:  # fmt: skip
    """A file in `folder`, or with `recipe` its training on random crops."""
    STATE["device"] = device
    if recipe is None:
        STATE["predictor"] = Predictor.from_file(Path(folder) / file, device, precision, engine=engine)
        return
    config = recipes.find(recipe)(**{"data.crop": tuple(crop), "train.batch_size": batch, "run.device": device,
                                     "train.precision": precision})  # fmt: skip
    STATE["trainer"], STATE["batches"] = prepare_training(config)


def predict(image: str, save: str | None = None) -> float:
    pixels = np.load(image)  # [H, W, 3] RGB
    found = []
    taken = seconds(lambda: found.append(STATE["predictor"](pixels).labels), STATE["device"])
    if save:
        np.save(save, found[0])
    return taken


def train(steps: int = 1) -> float:
    """Seconds of the last of some steps of the trainer."""
    return [seconds(lambda: STATE["trainer"].step(STATE["batches"]), STATE["device"]) for _ in range(steps)][-1]


def count(found: str, true: str, num_classes: int, save: str | None = None) -> float:
    matrix = ConfusionMatrix(num_classes, 1)
    maps = np.load(found), np.load(true).astype(np.int16)
    maps[1][maps[1] == 255] = -1
    taken = seconds(lambda: matrix.update(*maps, 0))
    if save:
        scores = matrix.scores(tuple(map(str, range(num_classes))))
        np.save(save, scores.iou)
    return taken


if __name__ == "__main__":
    serve({"load": load, "predict": predict, "train": train, "count": count})
