"""A data set's page: one HTML file with its splits, classes, samples and suspects. In: a Diagnosis. Out: HTML."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from panfpn.data import Dataset
from panfpn.data.checked import open_sample
from panfpn.data.doctor import Diagnosis, Finding, SplitReport
from panfpn.draw import as_rgb, overlay
from panfpn.files import write_text
from panfpn.report.classes import legend
from panfpn.report.page import POLICY, environment
from panfpn.report.pictures import data_uri
from panfpn.types import Segments

_SIDE = 220  # pixels of the longer side of a small picture
_BYTES = 16_000  # of one
_SAMPLES = 3  # of a class
_CLASSES = 40  # of which samples are shown
_SUSPECTS = 60  # findings with pictures
_TOGETHER = 4  # pictures of a finding


def write_data_page(path: Path, diagnosis: Diagnosis, data: Mapping[str, Dataset]) -> None:
    """Write the page of a diagnosis; `data` has the splits, of which pictures are read again."""
    table, k = diagnosis.table, diagnosis.table.num_classes
    index = {(r.split, s.name): i for r in diagnosis.splits for i, s in enumerate(r.samples)}
    total = sum((r.counts(k) for r in diagnosis.splits), np.zeros(k + 1, np.int64))
    images = sum((r.images(k) for r in diagnosis.splits), np.zeros(k + 1, np.int64))
    labelled = max(1, int(total[:-1].sum()))
    order = np.argsort(-total[:-1], kind="stable").tolist()
    named = legend(table)
    highest = max(1, int(total[:-1].max(initial=1)))
    classes = [
        {
            "of": named[c], "share": f"{100 * total[c] / labelled:.2f}", "pixels": f"{total[c]:,}",
            "images": f"{images[c]:,}",
            "width": f"{100 * total[c] / highest:.2f}", "log": _log_width(int(total[c]), highest),
            "by_split": [f"{r.counts(k)[c]:,}" for r in diagnosis.splits],
            "samples": _samples(diagnosis, data, index, c) if place < _CLASSES and total[c] else [],
        } for place, c in enumerate(order)
    ]  # fmt: skip
    suspects = [f for f in diagnosis.findings if f.names][:_SUSPECTS]
    page = environment().get_template("data.html.j2").render(
        policy=POLICY, title=diagnosis.root.name or str(diagnosis.root), diagnosis=diagnosis, classes=classes,
        splits=[_split_row(r, k) for r in diagnosis.splits], ignored=f"{100 * total[-1] / max(1, total.sum()):.1f}",
        suspects=[{"finding": f, "pictures": _pictures(f, diagnosis, data, index)} for f in suspects],
        others=[f for f in diagnosis.findings if not f.names],
        more=len([f for f in diagnosis.findings if f.names]) - len(suspects),
    )  # fmt: skip
    write_text(path, page.encode("utf-8", "replace").decode("utf-8"))


def _log_width(count: int, highest: int) -> str:
    """Of a bar on a logarithmic axis from 1 to the most frequent class."""
    return f"{100 * math.log1p(count) / math.log1p(highest):.2f}"


def _split_row(report: SplitReport, num_classes: int) -> dict[str, Any]:
    counts = report.counts(num_classes)
    sizes = [s.size for s in report.readable]
    sides = [f"{w}×{h}" for h, w in (min(sizes, key=math.prod), max(sizes, key=math.prod))] if sizes else ["–", "–"]
    return {
        "split": report.split, "images": len(report.samples), "unreadable": len(report.samples) - len(report.readable),
        "smallest": sides[0], "largest": sides[1], "present": int((counts[:-1] > 0).sum()),
        "things": f"{sum(s.num_things for s in report.readable):,}",
        "ignored": f"{100 * counts[-1] / max(1, counts.sum()):.1f}", "left_out": str(report.left_out),
    }  # fmt: skip


def _samples(
    diagnosis: Diagnosis, data: Mapping[str, Dataset], index: Mapping[tuple[str, str], int], train_id: int
) -> list[dict[str, str]]:
    """Pictures of the images with the most pixels of a class."""
    everything = [(s.pixels_of(train_id), r.split, s.name) for r in diagnosis.splits for s in r.readable]
    best = sorted((e for e in everything if e[0]), key=lambda e: (-e[0], *e[1:]))[:_SAMPLES]
    return [_picture(data[split], index[split, name], f"{split}/{name}", diagnosis) for _, split, name in best]


def _pictures(
    finding: Finding, diagnosis: Diagnosis, data: Mapping[str, Dataset], index: Mapping[tuple[str, str], int]
) -> list[dict[str, str]]:
    pictures = []
    for name in finding.names[:_TOGETHER]:
        split, _, plain = name.partition("/")
        if (split, plain) in index and split in data:
            pictures.append(_picture(data[split], index[split, plain], name, diagnosis))
    return [picture for picture in pictures if picture]


def _picture(data: Dataset, index: int, name: str, diagnosis: Diagnosis) -> dict[str, str]:
    """A small picture with its labels over it; none of what cannot be read."""
    try:
        image, target = open_sample(data, index)
        labels = target.labels if isinstance(target, Segments) else target[:, :]
    except (ValueError, ImportError):
        return {}
    factor = _SIDE / max(image.shape[:2])
    size = max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor))
    small: npt.NDArray[np.uint8] = cv2.resize(as_rgb(image), size, interpolation=cv2.INTER_AREA)
    ids = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    drawn = overlay(small, np.asarray(ids), data.table.palette)
    return {"name": name, "uri": data_uri(np.concatenate([small, drawn], 1), _BYTES)}
