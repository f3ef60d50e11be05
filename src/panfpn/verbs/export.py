"""`panfpn export`."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from panfpn.verbs.options import FormatName, Out, parse_options


@dataclass(frozen=True)
class _Export:
    model: tyro.conf.Positional[str]
    """Release file, run folder, mmsegmentation or detectron2 checkpoint, published name or OWNER/REPO on the Hugging
    Face Hub."""
    out: Out[Path]
    """The file: .onnx, .xml (OpenVINO, with a .bin beside it) or .pt2 (torch.export)."""
    format: FormatName | None = None
    """Without it, what the file's suffix says."""
    size: tuple[int, int] | None = None
    """Fix the images' height and width; without it, the file takes any."""
    scale: tuple[int, int] | None = None
    """Longer and shorter side that images are fitted into; the model's own unless you set it."""
    confidence: bool = False
    """Semantic FPN: give the winner's probability too."""
    probabilities: bool = False
    """Semantic FPN: give the probabilities of all classes too, float32 [B, K, H, W]."""
    int8: bool = False
    """OpenVINO: compute in whole numbers of 8 bits, calibrated and scored on --calibrate (pip install
    'panfpn[int8]')."""
    calibrate: Path | None = None
    """With --int8: the folder of the data set that the model was trained on. 100 training images are calibrated on, the
    validation split is scored before and after."""
    max_drop: float = 0.3
    """With --int8: points of mIoU (PQ) that it may cost; else there is no file."""
    every_mask: bool = False
    """Panoptic FPN: masks also of things that are too weak for the map; average precision needs them."""


_HELP = """panfpn export MODEL -o FILE [options]

Write a model as one graph, from pixels (uint8, any size and number of images) to labels of their size; all that happens
to an image on the way is in it. The file says what it is (classes, colours, licence, lineage), and runs without panfpn.
Before it is written, it is run beside torch at several sizes: it must give the same labels.
A file of panfpn export is a model: predict, eval and benchmark take it."""


def run_export(arguments: list[str]) -> int:
    """Export a model."""
    options = parse_options(_Export, "export", arguments, _HELP)
    if options.int8 != (options.calibrate is not None):
        raise ValueError("--int8 and --calibrate DIR go together")
    from panfpn.deploy.export import describe, export
    from panfpn.verbs.scoring import data_of_model

    calibrate = replace(data_of_model(options.model), root=options.calibrate) if options.int8 else None
    exported = export(
        options.model, options.out, format=options.format, size=options.size, scale=options.scale,
        confidence=options.confidence, probabilities=options.probabilities, every_mask=options.every_mask,
        calibrate=calibrate, max_drop=options.max_drop, say=lambda text: sys.stderr.write(f"{text} …\n"),
    )  # fmt: skip
    sys.stdout.write("".join(f"{line}\n" for line in describe(exported)))
    return 0
