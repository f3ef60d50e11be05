"""`panfpn probe`."""

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from panfpn.verbs.options import Out, parse_options


@dataclass(frozen=True)
class _Probe:
    data: tyro.conf.Positional[Path | None] = None
    """Folder of the data set."""
    backbones: tuple[str, ...] = ()
    """timm's names, or patterns such as 'repvit_*' (docs/backbones.md lists all); without, eight usual ones."""
    out: Out[Path] = Path("probe")
    """Folder for the runs, the table (probe.json) and the page (probe.html)."""
    minutes: float = 30.0
    """Time for all trainings together, which sets their steps."""
    steps: int | None = None
    """Steps of each training, in place of what the minutes allow."""
    frozen: bool = False
    """Train pyramid and head only: the backbones' features are computed once, and say what pretraining left in them."""
    budget_ms: float | None = None
    """Leave out what takes longer than this for one image here."""
    weights: str = "hub"
    """hub: timm's pretrained weights; random: none; or a folder of files called after backbones (random where there is
    none)."""
    dataset: str | None = None
    """Layout of the data set; without, the one that the folder has."""
    batch_size: int = 8
    lr: float = 1e-3
    """Of pyramid and head; the backbone's is a tenth of it."""
    seed: int = 0
    device: str = "auto"
    num_workers: int = 2


_HELP = """panfpn probe DATA [--backbones NAME ...] [options]

Which backbone is best for these photos? Each is trained by one recipe (the same images in the same order, the same
head), scored on the validation split, and timed on this machine. Writes a table and a page: mIoU with its 95 % interval
against latency. A probe that was stopped goes on where it was when the same command is given again; a backbone that
fails costs its own line."""


def run_probe(arguments: list[str]) -> int:
    """Compare backbones on one's own data."""
    options = parse_options(_Probe, "probe", arguments, _HELP)
    from panfpn.probing import Settings, probe
    from panfpn.probing.run import FILE, PAGE
    from panfpn.report.tables import print_probe

    settings = Settings(
        root=options.data, dataset=options.dataset, backbones=options.backbones, weights=options.weights,
        frozen=options.frozen, minutes=options.minutes, steps=options.steps, budget_ms=options.budget_ms,
        batch_size=options.batch_size, lr=options.lr, seed=options.seed, device=options.device,
        num_workers=options.num_workers,
    )  # fmt: skip
    found = probe(options.data, out=options.out, settings=settings)
    print_probe([row.__dict__ for row in found.rows], found.pareto)
    sys.stdout.write(f"\n{found.dir / PAGE}, {found.dir / FILE}\n")
    return 0 if any(row.miou is not None for row in found.rows) else 2
