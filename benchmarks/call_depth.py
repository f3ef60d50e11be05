"""How many calls of our own lie between the command line and a network's `forward`.

usage: python benchmarks/call_depth.py [--list]

`panfpn train` and `panfpn predict` run with tiny networks on drawn scenes; where they come to `SemanticFPN.forward` or
`PanopticFPN.forward`, the frames of the package's files are counted, strictly between `cli.main` and that `forward`.
The exit code is 1 where there are more than 5 in training or 7 in prediction. --list prints the frames.
"""

import argparse
import contextlib
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

import panfpn
from panfpn.cli import main as command
from panfpn.files import write_image
from panfpn.models import PanopticFPN, SemanticFPN

ROOT = Path(panfpn.__file__).parent
LIMITS = {"train": 5, "predict": 7}
RECIPES = {SemanticFPN: "scenes", PanopticFPN: "panoptic_scenes"}
SMALL = [
    "--model.backbone", "resnet18", "--model.pretrained", "False", "--data.num-workers", "0", "--train.steps", "1",
    "--train.batch-size", "2", "--optim.warmup-steps", "0", "--run.device", "cpu", "--train.precision", "float32",
    "--data.scenes", "4", "2", "--model.start-from", "None",
]  # fmt: skip


def stacks(network: type, arguments: Sequence[str]) -> list[list[traceback.FrameSummary]]:
    """Our frames between `cli.main` and the network's `forward`, of each time that the command comes there."""
    reached: list[list[traceback.FrameSummary]] = []
    plain = network.forward

    def forward(*given: object, **options: object) -> object:
        frames = [frame for frame in traceback.extract_stack() if ROOT in Path(frame.filename).parents]
        starts = [i for i, frame in enumerate(frames) if (Path(frame.filename).name, frame.name) == ("cli.py", "main")]
        reached.append(frames[starts[-1] + 1 :])
        return plain(*given, **options)

    network.forward = forward
    try:
        if code := command(list(arguments)):
            raise SystemExit(code)
    finally:
        network.forward = plain
    return [frames for frames in reached if Path(frames[-1].filename).name != "fold.py"]  # made ready, not used


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    depths, counts = [], []
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        picture = Path(folder) / "picture.png"
        write_image(picture, np.zeros((64, 96, 3), np.uint8))
        for network, recipe in RECIPES.items():
            run = f"{folder}/{recipe}"
            train = stacks(network, ["train", recipe, *SMALL, "--run.dir", run])[0]
            model = str(next(Path(folder).glob(f"{recipe}/**/model.safetensors")))
            predict = stacks(network, ["predict", str(picture), "--out", f"{folder}/out", "--model", model])[-1]
            depths += [(network.__name__, "train", train), (network.__name__, "predict", predict)]
    for name, verb, frames in depths:
        counts.append(len(frames) <= LIMITS[verb])
        print(f"{verb} {name}: {len(frames)} calls of our own, at most {LIMITS[verb]}")
        for frame in frames if options.list else ():
            print(f"    {Path(frame.filename).relative_to(ROOT)}:{frame.lineno} {frame.name}")
    return int(not all(counts))


if __name__ == "__main__":
    sys.exit(main())
