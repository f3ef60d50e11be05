"""`panfpn probe`."""

import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import tyro

from panfpn.config import ProbeSettings
from panfpn.verbs.options import Out, parse_options


@dataclass(frozen=True, kw_only=True)
class _Probe(ProbeSettings):
    data: tyro.conf.Positional[Path | None] = None
    """Folder of the data set."""
    out: Out[Path] = Path("probe")
    """Folder for the runs, the table (probe.json) and the page (probe.html)."""


_HELP = """panfpn probe DATA [--backbones NAME ...] [options]

Which backbone is best for these photos? Each is trained by one recipe (the same images in the same order, the same
head), scored on the validation split, and timed on this machine. Writes a table and a page: mIoU with its 95 % interval
against latency. A probe that was stopped goes on where it was when the same command is given again; a backbone that
fails costs its own line."""


def run_probe(arguments: list[str]) -> int:
    """Compare backbones on one's own data."""
    options = parse_options(_Probe, "probe", arguments, _HELP)
    from panfpn.probing import probe
    from panfpn.probing.run import FILE, PAGE
    from panfpn.report.tables import print_probe

    settings = ProbeSettings(**{f.name: getattr(options, f.name) for f in fields(ProbeSettings)})
    found = probe(options.data, out=options.out, settings=settings)
    print_probe([asdict(row) for row in found.rows], found.pareto)
    sys.stdout.write(f"\n{found.dir / PAGE}, {found.dir / FILE}\n")
    return 0 if any(row.miou is not None for row in found.rows) else 2
