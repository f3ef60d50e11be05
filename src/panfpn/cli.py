"""The command line: find the verb, turn errors into one sentence. `panfpn --help` answers without importing torch."""

import sys
from collections.abc import Callable, Sequence

from panfpn import __version__
from panfpn.verbs.benchmark import run_benchmark
from panfpn.verbs.data import run_data
from panfpn.verbs.prediction import run_convert, run_predict
from panfpn.verbs.scoring import run_compare, run_eval
from panfpn.verbs.training import run_demo, run_recipes, run_train

_HELP = f"""panfpn {__version__}: Semantic FPN and Panoptic FPN on any timm backbone

usage: panfpn VERB [options]        (panfpn VERB --help shows a verb's options)

  demo       train on procedural street scenes, score, draw; then the shipped model on a real photo
  recipes    list the recipes, or show one
  train      train a recipe or a YAML file, or go on with a run
  eval       score a model or a run on a data set
  compare    compare two models' scores on the same images
  predict    label images, folders, globs and videos
  data       pack a data set, so that training reads it without decoding; check a pack
  convert    mmsegmentation checkpoints into release files, and back
  benchmark  speed and memory of prediction, training and data loading

--version prints the version; --debug shows the traceback of an error.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code: 0, or 2 after one sentence on stderr."""
    args = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in args
    args = [a for a in args if a != "--debug"]
    verbs: dict[str, Callable[[list[str]], int]] = {
        "demo": run_demo, "recipes": run_recipes, "train": run_train, "eval": run_eval, "compare": run_compare,
        "predict": run_predict, "data": run_data, "convert": run_convert, "benchmark": run_benchmark,
    }  # fmt: skip
    if not args or args[0] in ("-h", "--help"):
        sys.stdout.write(_HELP)
        return 0 if args else 2
    if args[0] == "--version":
        sys.stdout.write(f"{__version__}\n")
        return 0
    try:
        if args[0] not in verbs:
            raise ValueError(f"{args[0]!r} is not a verb; choose from {', '.join(verbs)}")
        return verbs[args[0]](args[1:])
    except (ValueError, FloatingPointError, OSError) as error:
        if debug:
            raise
        sys.stderr.write(f"panfpn: {error}\n")
        return 2
    except KeyboardInterrupt as error:
        sys.stderr.write(f"panfpn: {str(error) or 'interrupted'}\n")
        return 130
    except Exception as error:  # not a mistake of the user's that we know
        if debug:
            raise
        first = (str(error).splitlines() or [""])[0]
        sys.stderr.write(f"panfpn: {type(error).__name__}: {first} (--debug shows where)\n")
        return 2
