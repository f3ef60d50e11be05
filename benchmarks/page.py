"""Measured tables on docs/benchmarks.md. In: a name and rows. Out: the section between that name's two comments."""

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from panfpn.benchmark.machine import describe_machine
from panfpn.benchmark.tables import machine_line, markdown
from panfpn.files import write_json, write_text

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"


def add_options(parser: argparse.ArgumentParser) -> None:
    """--json, --write and --quick, which every script has."""
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/benchmarks.md")
    parser.add_argument("--quick", action="store_true", help="small sizes, one round: to see that it works")


def publish(
    name: str, tables: Mapping[str, Sequence[Mapping[str, str]]], options: argparse.Namespace, *, device: str = "cpu",
    raw: object = None, notes: Sequence[str] = (),
) -> None:  # fmt: skip
    """Print tables (caption -> rows) with the machine; write them where the options ask for it."""
    measured_on = torch.device(device)
    parts = [f"{caption}:\n\n{markdown([dict(row) for row in rows])}" for caption, rows in tables.items()]
    if options.quick:
        notes = [*notes, "**--quick: sizes are smaller than the captions say, and times mean nothing**"]
    text = "\n\n".join([*parts, *notes, f"({machine_line(measured_on)})"])
    print(text, flush=True)
    if options.json:
        plain = {caption: [dict(row) for row in rows] for caption, rows in tables.items()}
        write_json(options.json, {"benchmark": name, **describe_machine(measured_on), "tables": plain, "raw": raw})
    if options.write:
        if options.quick:
            raise ValueError("--quick figures mean nothing: they are not written to the page")
        write_text(PAGE, with_section(PAGE.read_text("utf-8"), name, text))


def with_section(page: str, name: str, text: str) -> str:
    """The page with `text` between `<!-- NAME -->` and `<!-- end NAME -->`; ValueError if they are not there."""
    section = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end {re.escape(name)} -->)", re.DOTALL)
    if not section.search(page):
        raise ValueError(f"{PAGE}: has no line `<!-- {name} -->` with `<!-- end {name} -->` after it")
    return section.sub(lambda found: f"{found[1]}{text}\n{found[2]}", page)
