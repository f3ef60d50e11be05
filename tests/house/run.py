"""Adds a line for each of additions.py, then uses all of them together. Argument: a folder; in a process of its own."""

import sys
from pathlib import Path

import numpy as np

from panfpn import choices

choices.LAYOUTS["stripes"] = "additions:open_stripes"
choices.LOSSES["hinge"] = "additions:hinge"
choices.ARCHITECTURES["TinyFCN"] = "additions:TinyTask"
choices.ENGINES["plain"] = "additions:PlainEngine"
choices.LOGGERS["recorder"] = "additions:Recorder"

import panfpn  # noqa: E402 - types of settings derive from the dicts when they are first used
from panfpn import cli  # noqa: E402

cli.VERBS["hello"] = ("additions:run_hello", "say hello")

folder = Path(sys.argv[1])
rng = np.random.default_rng(0)
for i in range(8):
    image = rng.integers(0, 90, (64, 96, 3)).astype(np.uint8)
    image[:, 48:] += 120
    np.save(folder / f"{'train' if i < 6 else 'val'}-{i}.npy", image)
settings = {
    "data.dataset": "stripes", "data.root": folder, "data.crop": "64 96", "data.num-workers": 0,
    "model.architecture": "TinyFCN", "model.backbone": "test_resnet", "model.pretrained": False,
    "model.start-from": None, "loss.cross-entropy": 0.5, "loss.hinge": 0.5, "run.loggers": "recorder",
    "run.device": "cpu", "run.dir": folder / "run", "train.steps": 12, "train.batch-size": 4,
    "train.precision": "float32", "train.frozen-bn": False, "optim.lr": 0.003, "optim.warmup-steps": 0,
}  # fmt: skip
words = [word for key, value in settings.items() for word in (f"--{key}", *str(value).split(" "))]
assert cli.main(["train", "scenes", *words]) == 0
from additions import Recorder, TinyFCN  # noqa: E402

assert Recorder.values["train/loss/hinge"] > 0 and "val/miou" in Recorder.values
assert cli.main(["eval", str(folder / "run/model.safetensors"), "--data.root", str(folder), "--engine", "plain"]) == 0
predictor = panfpn.Predictor.from_file(folder / "run", engine="plain", precision="float32")
assert isinstance(predictor.model, TinyFCN) and predictor(image).labels.shape == (64, 96)
assert cli.main(["hello", "house"]) == 0
sys.stdout.write(f"architectures: {', '.join(choices.ARCHITECTURES)}\n")
