"""A data set looked through before anybody trains on it. In: where it stands. Out: a Diagnosis.

A problem is what makes a training fail, or its scores lie; a note is what whoever trains should know. Each names the
file it is about.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from panfpn.choices import LAYOUTS, lookup
from panfpn.data.check import open_with_segments
from panfpn.data.copies import Group, find_copies
from panfpn.data.examination import Examination, examine_all
from panfpn.data.joint_table import ids_in, joint_table
from panfpn.data.layouts.request import SplitRequest
from panfpn.labels import IGNORE, LabelTable
from panfpn.listing import LeftOut
from panfpn.progress import progress_bar
from panfpn.types import RGB, Reading

_BLANK = 1.0  # standard deviation of grey values below which nothing is to be seen
_SMALL_SIDE = 32  # pixels; the coarsest level of the pyramid has one of them
_UNUSUAL = 16  # times the median area, or a part of it
_LONG = 6  # times as long as wide
_MOSTLY = 0.5  # of all pixels
_RARE = 1e-3  # share of the pixels
_SHIFT = 10  # times a class is more frequent in one split than in the other
_TINY = 4  # pixels of a thing
_SHOWN = 8
_FEW = 64  # samples that are looked at faster than workers start

Severity = Literal["problem", "note"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong, or should be known."""

    kind: str  # in one or two words
    sentence: str  # which names the first of the files
    severity: Severity = "problem"
    split: str = ""  # that it is about, if it is one
    names: tuple[str, ...] = ()  # of samples, as SPLIT/NAME


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SplitReport:
    """What there is in a split."""

    split: str
    samples: list[Examination]
    left_out: LeftOut

    @property
    def readable(self) -> list[Examination]:
        """Samples that can be read."""
        return [s for s in self.samples if not s.problem]

    def counts(self, num_classes: int) -> npt.NDArray[np.int64]:
        """[K + 1] pixels of each class, and of what is ignored."""
        return self._added(num_classes, lambda s: s.counts)

    def images(self, num_classes: int) -> npt.NDArray[np.int64]:
        """[K + 1] images that have each class, and ignored pixels."""
        return self._added(num_classes, lambda s: np.ones_like(s.counts))

    def _added(self, num_classes: int, values: Any) -> npt.NDArray[np.int64]:
        total = np.zeros(num_classes + 1, np.int64)
        for sample in self.readable:
            total[sample.classes] += values(sample)  # IGNORE = -1 is the last
        return total


@dataclass(frozen=True, eq=False, kw_only=True)
class Diagnosis:
    """What `diagnose` found."""

    layout: str
    root: Path
    table: LabelTable
    splits: tuple[SplitReport, ...]
    findings: tuple[Finding, ...]

    @property
    def problems(self) -> tuple[Finding, ...]:
        """What makes a training fail, or its scores lie."""
        return tuple(f for f in self.findings if f.severity == "problem")

    def to_dict(self) -> dict[str, Any]:
        """Plain data: splits, classes with their pixels and images, findings."""
        k = self.table.num_classes
        splits = {
            s.split: {
                "images": len(s.samples), "unreadable": len(s.samples) - len(s.readable),
                "left_out": dict(s.left_out.counts), "sizes": _sizes(s),
                "classes": {n: {"pixels": int(p), "images": int(i)} for n, p, i in
                            zip((*self.table.names, "(ignored)"), s.counts(k), s.images(k), strict=True)},
            } for s in self.splits
        }  # fmt: skip
        findings = [
            {"kind": f.kind, "severity": f.severity, "split": f.split, "sentence": f.sentence, "names": list(f.names)}
            for f in self.findings
        ]
        return {"layout": self.layout, "root": str(self.root), "labels": self.table.to_dict(), "splits": splits,
                "findings": findings}  # fmt: skip


def _sizes(split: SplitReport) -> dict[str, int]:
    counts = Counter(f"{s.size[1]}x{s.size[0]}" for s in split.readable)
    return dict(counts.most_common(20))


def diagnose(
    layout: str, root: Path, splits: Sequence[str], *, table: LabelTable | None = None, reading: Reading = RGB,
    num_workers: int = 2, progress: bool = True,
) -> Diagnosis:  # fmt: skip
    """Look through splits of a data set; every pixel is read once (of COCO's panoptic form twice).

    `table` says what values mean in place of the layout's own table. ValueError if no split can be opened, or there is
    no such layout; what is wrong with a split or a file is in the findings.
    """
    opener = lookup(LAYOUTS, layout, "data.dataset")
    own = getattr(sys.modules[opener.__module__], "problems", None)
    findings: list[Finding] = []
    reports: list[SplitReport] = []
    tables: list[LabelTable] = []
    for split in splits:
        request = SplitRequest(layout=layout, root=root, split=split, table=table, reading=reading)
        sentences: list[str] = []
        try:
            sentences += [] if own is None else own(request, progress=progress)
            data, unpaired = open_with_segments(opener, request)
        except ValueError as error:
            findings += [_of_file(split, s) for s in dict.fromkeys((*sentences, str(error)))]
            continue
        tables.append(data.table)
        samples: list[Examination] = []
        workers = num_workers if len(data) > _FEW else 0
        with progress_bar(f"{split}:", len(data), show=progress) as advance:
            for sample in examine_all(data, channels=reading.channels, num_workers=workers):
                samples.append(sample)
                advance(len(samples))
        report = SplitReport(split=split, samples=samples, left_out=getattr(data, "left_out", LeftOut()))
        known = {s.problem for s in samples}
        findings += [_of_file(split, sentence) for sentence in (*unpaired, *sentences) if sentence not in known]
        findings += _of_split(report)
        reports.append(report)
    if not tables:
        raise ValueError(findings[0].sentence if findings else f"{root}: no split to look at")
    for report, other in zip(reports, tables, strict=True):
        if other != tables[0]:
            findings.append(Finding(
                kind="label tables", split=report.split, sentence=f"{root}: the classes of {reports[0].split} are "
                f"{_classes(tables[0])}, those of {report.split} {_classes(other)}; give one labels.yaml for both",
            ))  # fmt: skip
    table = joint_table(tables)  # only counts go by it
    reports = [_by_names(report, other, table) for report, other in zip(reports, tables, strict=True)]
    findings += _of_classes(reports, table)
    findings += _of_copies(reports)
    return Diagnosis(layout=layout, root=root, table=table, splits=tuple(reports), findings=tuple(findings))


def _by_names(report: SplitReport, own: LabelTable, table: LabelTable) -> SplitReport:
    """The report of a split with the train ids of another table."""
    if own == table:
        return report
    ids = ids_in(table, own)
    return replace(report, samples=[replace(s, classes=ids[s.classes]) for s in report.samples])


def _of_file(split: str, sentence: str) -> Finding:
    return Finding(kind="files", split=split, sentence=sentence)


def _classes(table: LabelTable) -> str:
    return ", ".join(table.names[:_SHOWN]) + (", …" if table.num_classes > _SHOWN else "")


def _place(sample: Examination) -> str:
    return str(sample.image or sample.name)


def _of_split(report: SplitReport) -> Iterator[Finding]:
    """What single samples show."""
    split, readable = report.split, report.readable
    for s in report.samples:
        if s.problem:
            yield Finding(kind="cannot be read", split=split, sentence=s.problem, names=(f"{split}/{s.name}",))
    if report.left_out.counts:
        yield Finding(kind="left out", split=split, severity="note", sentence=f"{split}: left out: {report.left_out}")
    areas = [s.size[0] * s.size[1] for s in readable]
    median = float(np.median(areas)) if areas else 0.0
    for s in readable:
        for kind, severity, sentence in _of_sample(s, median):
            names = (f"{split}/{s.name}",)
            yield Finding(kind=kind, split=split, severity=severity, sentence=sentence, names=names)
    turned = [s for s in readable if s.orientation > 1]
    if turned:
        more = f" and {len(turned) - 1} more" if len(turned) > 1 else ""
        yield Finding(
            kind="turned photos", split=split, severity="note", names=tuple(f"{split}/{s.name}" for s in turned),
            sentence=f"{_place(turned[0])}{more}: turned by EXIF; the sizes of the masks tell how they were drawn",
        )  # fmt: skip
    ignored = sum(s.pixels_of(IGNORE) for s in readable) / max(1, sum(areas))
    if ignored > _MOSTLY:
        first = max(readable, key=lambda s: s.pixels_of(IGNORE))
        yield Finding(
            kind="mostly ignored", split=split, severity="note",
            sentence=f"{split}: {ignored:.0%} of all pixels are ignored (most in {_place(first)})",
        )  # fmt: skip


def _of_sample(s: Examination, median: float) -> Iterator[tuple[str, Severity, str]]:
    where, (height, width) = _place(s), s.size
    if s.contrast < _BLANK:
        yield "blank image", "problem", f"{where}: nothing is to be seen (all pixels are alike)"
    if s.classes.tolist() == [IGNORE]:
        sentence = f"{s.mask or where}: all pixels are ignored, so there is nothing to learn from it"
        yield "nothing labelled", "problem", sentence
    if min(height, width) < _SMALL_SIDE or not median / _UNUSUAL <= height * width <= median * _UNUSUAL:
        sentence = f"{where}: {width}×{height} pixels, where the median image has {median:.0f}"
        yield "unusual size", "note", sentence
    elif max(height, width) > _LONG * min(height, width):
        yield "unusual shape", "note", f"{where}: {width}×{height} pixels are a strip, of which crops see little"
    if s.num_things and s.smallest_thing < _TINY:
        plural = "s" * (s.smallest_thing > 1)
        sentence = f"{s.mask or where}: holds a thing of {s.smallest_thing} pixel{plural}, perhaps a slip"
        yield "tiny thing", "note", sentence


def _of_classes(reports: Sequence[SplitReport], table: LabelTable) -> Iterator[Finding]:
    """What the pixels of each class show."""
    k, table_name = table.num_classes, f"label table {table.name!r}"
    counts = {r.split: r.counts(k)[:-1] for r in reports}
    total = np.sum(list(counts.values()), axis=0)
    absent = [name for name, count in zip(table.names, total, strict=True) if not count]
    if 0 < len(absent) < k:
        shown = ", ".join(absent[:_SHOWN]) + (", …" if len(absent) > _SHOWN else "")
        sentence = f"{table_name}: {len(absent)} of {k} classes have no pixel anywhere: {shown}"
        yield Finding(kind="class without pixels", severity="note", sentence=sentence)
    if len(absent) == k - 1 > 0:
        only = next(name for name in table.names if name not in absent)
        sentence = f"{table_name}: only {only!r} has pixels, so there is nothing to tell apart"
        yield Finding(kind="one class", sentence=sentence)
    trained = counts.get("train", total)
    for report in reports:
        if report.split != "train":
            yield from _compared(report, counts[report.split], trained, table)


def _compared(
    report: SplitReport, counts: npt.NDArray[np.int64], trained: npt.NDArray[np.int64], table: LabelTable
) -> Iterator[Finding]:
    """Classes that a split has, and the training split lacks or has much more or less of."""
    missing = np.flatnonzero((counts > 0) & (trained == 0)).tolist()
    if missing:
        sample = next(s for s in report.readable if s.pixels_of(missing[0]))
        what = ", ".join(repr(table.names[c]) for c in missing[:_SHOWN]) + ", …" * (len(missing) > _SHOWN)
        yield Finding(
            kind="class not in train", split=report.split, severity="note", names=(f"{report.split}/{sample.name}",),
            sentence=f"{report.split} has {len(missing)} class{'es' * (len(missing) > 1)} that no training image has: "
            f"{what} (in {sample.mask or _place(sample)})",
        )  # fmt: skip
    before, now = (values / max(1, values.sum()) for values in (trained, counts))
    both = (trained > 0) & (counts > 0) & (np.maximum(before, now) > _RARE)
    ratio = np.where(both, now / np.maximum(before, 1e-12), 1)
    other = np.flatnonzero((ratio > _SHIFT) | (ratio < 1 / _SHIFT)).tolist()
    if other:
        shown = ", ".join(f"{table.names[c]!r} {now[c]:.2%} ({before[c]:.2%})" for c in other[:_SHOWN])
        sentence = f"{report.split}: classes with another share of the pixels than in train: {shown}"
        yield Finding(
            kind="other mixture", split=report.split, severity="note", sentence=sentence + ", …" * (len(other) > _SHOWN)
        )


def _of_copies(reports: Sequence[SplitReport]) -> Iterator[Finding]:
    """Images that are there twice, nearly the same, or have one mask."""
    found = find_copies([(r.split, s) for r in reports for s in r.readable if s.contrast >= _BLANK])
    for group in found.same:
        yield _copy(group, near=False)
    for group in found.near:
        yield _copy(group, near=True)
    for group in found.one_mask:
        files = ", ".join(_place(s) for _, s in group[:4])
        sentence = f"{files}: other pictures with exactly the same labels; one of the masks is not its own"
        yield Finding(kind="one mask for several images", names=_names(group), sentence=sentence)
    if found.not_compared:
        sentence = f"{found.not_compared} pictures are alike in outline, and were not compared for near copies"
        yield Finding(kind="not compared", severity="note", sentence=sentence)


def _names(group: Group) -> tuple[str, ...]:
    return tuple(f"{split}/{s.name}" for split, s in group)


def _copy(group: Group, *, near: bool) -> Finding:
    splits = sorted({split for split, _ in group})
    files = " and ".join(_place(s) for _, s in group[:3]) + (f" and {len(group) - 3} more" if len(group) > 3 else "")
    contradict = not near and len({s.label_digest for _, s in group}) > 1
    what = f"{'nearly ' * near}the same picture{', with different labels,' * contradict}"
    if len(splits) > 1:
        return Finding(kind="near leak" if near else "leak", names=_names(group),
                       sentence=f"{files}: {what} in {' and '.join(splits)}, so scores are too good")  # fmt: skip
    return Finding(kind="near duplicate" if near else "duplicate", names=_names(group),
                   sentence=f"{files}: {what} {len(group)} times in {splits[0]}")  # fmt: skip
