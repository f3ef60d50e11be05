"""Which format a model can write. In: a format's name, a label table. Out: what writes and checks it."""

from pathlib import Path

from panfpn.deploy.submission.panoptic import PanopticSubmission, read_image_ids
from panfpn.deploy.submission.semantic import Submission
from panfpn.labels import LabelTable
from panfpn.types import PanopticMap, SemanticMap

FORMATS = ("cityscapes", "ade20k")
PANOPTIC_FORMATS = ("coco-panoptic", "cityscapes-panoptic")


def submission_for(
    format: str, table: LabelTable, *, maps: type[SemanticMap | PanopticMap] = SemanticMap,
    annotations: Path | None = None,
) -> Submission | PanopticSubmission:  # fmt: skip
    """The format, for a model with label table `table` that makes `maps`; `annotations` gives COCO's image ids.

    ValueError for an unknown format, or a model of other classes or maps.
    """
    known = (*FORMATS, *PANOPTIC_FORMATS)
    if format not in known:
        raise ValueError(f"no submission format {format!r}; there are {', '.join(known)}")
    kinds, right = ("panoptic", PANOPTIC_FORMATS) if maps is PanopticMap else ("semantic", FORMATS)
    if format not in right:
        raise ValueError(f"--format {format} is not for the {kinds} maps of this model; use {' or '.join(right)}")
    if annotations and format != "coco-panoptic":
        raise ValueError(f"--annotations gives COCO's image ids; --format {format} takes them from the file names")
    if format != "coco-panoptic":
        official = LabelTable.named(format.removesuffix("-panoptic"))
        if official.names != table.names:
            raise ValueError(
                f"the model's label table {table.name!r} ({table.num_classes} classes) is not that of {official.name}"
            )
        table = official
    if maps is SemanticMap:
        return Submission(format=format, table=table)
    image_ids = read_image_ids(annotations) if annotations else None
    return PanopticSubmission(format=format, table=table, annotations=annotations, image_ids=image_ids)
