"""The command line: find the verb, turn errors into one sentence. `panfpn --help` answers without importing torch."""

import io
import os
import sys
from collections.abc import Sequence

from panfpn import __version__
from panfpn.choices import lookup
from panfpn.files import printable

VERBS = {  # name -> where its function is, and what it does
    "demo": ("panfpn.verbs.training:run_demo",
             "train on procedural street scenes, score, draw; then the shipped model on a real photo"),
    "recipes": ("panfpn.verbs.training:run_recipes", "list the recipes, or show one"),
    "train": ("panfpn.verbs.training:run_train", "train a recipe or a YAML file, or go on with a run"),
    "eval": ("panfpn.verbs.scoring:run_eval", "score a model or a run on a data set"),
    "compare": ("panfpn.verbs.scoring:run_compare", "compare two models' scores on the same images"),
    "calibrate": ("panfpn.verbs.scoring:run_calibrate",
                  "make a model's confidence what it says, by one temperature"),
    "predict": ("panfpn.verbs.prediction:run_predict", "label images, folders, globs and videos"),
    "data": ("panfpn.verbs.data:run_data",
             "pack a data set, so that training reads it without decoding; check a pack or a data set"),
    "convert": ("panfpn.verbs.prediction:run_convert",
                "checkpoints of mmsegmentation and detectron2 into release files, and back"),
    "export": ("panfpn.verbs.export:run_export",
               "write a model as ONNX, OpenVINO or torch.export, checked against torch"),
    "probe": ("panfpn.verbs.probe:run_probe", "find the backbone that is best for your photos, in score and speed"),
    "push": ("panfpn.verbs.push:run_push", "upload a model to the Hugging Face Hub, with a card"),
    "serve": ("panfpn.verbs.serve:run_serve", "put a model behind HTTP, with a page"),
    "benchmark": ("panfpn.verbs.benchmark:run_benchmark", "speed and memory of prediction, training and data loading"),
}  # fmt: skip


def _help() -> str:
    width = max(map(len, VERBS)) + 2
    verbs = "".join(f"  {name:<{width}}{about}\n" for name, (_, about) in VERBS.items())
    return f"""panfpn {__version__}: Semantic FPN and Panoptic FPN on any timm backbone

usage: panfpn VERB [options]        (panfpn VERB --help shows a verb's options)

{verbs}
--version prints the version; --debug shows the traceback of an error.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code: 0, or 2 after one sentence on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # where the locale knows few characters
    args = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in args
    args = [a for a in args if a != "--debug"]
    if not args or args[0] in ("-h", "--help"):
        sys.stdout.write(_help())
        return 0 if args else 2
    if args[0] == "--version":
        sys.stdout.write(f"{__version__}\n")
        return 0
    try:
        run = lookup({name: address for name, (address, _) in VERBS.items()}, args[0], "the verb")
        return int(run(args[1:]))
    except BrokenPipeError:  # who reads has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, FloatingPointError, ImportError, OSError) as error:
        if debug:
            raise
        sys.stderr.write(f"panfpn: {printable(str(error))}\n")
        return 2
    except KeyboardInterrupt as error:
        sys.stderr.write(f"panfpn: {str(error) or 'interrupted'}\n")
        return 130
    except Exception as error:  # not a mistake of the user's that we know
        if debug:
            raise
        first = (str(error).splitlines() or [""])[0]
        if "home directory" in first:  # Python's own word for it
            sys.stderr.write("panfpn: this user has no home directory; set HOME, and PANFPN_CACHE for models\n")
            return 2
        sys.stderr.write(f"panfpn: {type(error).__name__}: {printable(first)} (--debug shows where)\n")
        return 2
