"""`panfpn push`."""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro

from panfpn.verbs.options import parse_options


@dataclass(frozen=True)
class _Push:
    model: tyro.conf.Positional[str]
    """Release file, run folder, or another library's checkpoint (which becomes a release file)."""
    repository: tyro.conf.Positional[str]
    """OWNER/REPO on the Hugging Face Hub; it is made if it is not there."""
    example: Path | None = None
    """A photo that the card shows, labelled."""
    license: str | None = None
    """Of the model, as the Hub spells it (apache-2.0, mit, …); without it, what the model says of itself."""
    private: bool = False
    """Make a new repository private."""
    revision: str | None = None
    """A branch; without it, main."""
    message: str | None = None
    """Of the commit."""


_HELP = """panfpn push MODEL OWNER/REPO [options]

Upload a model to the Hugging Face Hub: model.safetensors, config.json, a card (what it is, scores, classes, lineage),
and with --example a picture. predict, eval, serve, … then take OWNER/REPO, or OWNER/REPO@REVISION.
Log in before with `hf auth login`, or set HF_TOKEN."""


def run_push(arguments: list[str]) -> int:
    """Push a model."""
    options = parse_options(_Push, "push", arguments, _HELP)
    from panfpn.deploy.hub import push

    sys.stdout.write(f"{push(**asdict(options))}\n")
    return 0
