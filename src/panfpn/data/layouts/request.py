"""What a layout is told. In: the settings of a data set. Out: a SplitRequest, which refuses what cannot be opened."""

from dataclasses import dataclass, field
from pathlib import Path

from panfpn.labels import LabelTable
from panfpn.listing import LeftOut
from panfpn.types import RGB, Reading

_USE_SEMANTIC = "use Semantic FPN (model.architecture SemanticFPN)"


class NoInstancesError(ValueError):
    """Samples shall be panoptic, and the data tell no things apart."""


@dataclass(frozen=True, kw_only=True)
class SplitRequest:
    """Which split is to be opened, and what its samples shall carry. A layout reads the fields that concern it."""

    layout: str  # its name, for errors
    root: Path | None
    split: str
    panoptic: bool = False  # samples carry segments
    instances: str = "panoptic"  # where COCO's instances come from in training: "panoptic" or "json"
    scene_count: int = 64
    scene_size: tuple[int, int] = (192, 256)  # height, width
    reading: Reading = RGB  # what its images' files leave open
    table: LabelTable | None = None  # what values mean, in place of the layout's table
    stuff: tuple[str, ...] = ()  # of the classes of shapes, those that are no things
    left_out: LeftOut = field(default_factory=LeftOut)  # gets what lies in its folders and is not used
    unpaired: list[str] | None = None
    """Gets a sentence for every image without mask and mask without image, which are then left out; None: an error."""

    @property
    def folder(self) -> Path:
        """The root; ValueError if it is not set, or no folder."""
        if self.root is None:
            raise ValueError(f"data.root is not set; data set {self.layout!r} needs the folder that holds it")
        if not self.root.is_dir():
            raise ValueError(f"{self.root}: no such folder (data.root of data set {self.layout!r})")
        return self.root

    def named_table(self) -> LabelTable:
        """The user's own table, or that of the layout's name; with things if the samples shall be panoptic."""
        return self.fitting(self.own_table() or LabelTable.named(self.layout))

    def own_table(self) -> LabelTable | None:
        """What the user says of the layout's values (labels.yaml in the root): classes renamed, merged or left out."""
        if self.table is not None:
            return self.table
        labels = self.folder / "labels.yaml"
        return LabelTable.from_yaml(labels) if labels.is_file() else None

    def fitting(self, table: LabelTable) -> LabelTable:
        """The same table; ValueError if the samples shall be panoptic and it has no things."""
        if self.panoptic and not any(c.thing for c in table.classes):
            raise NoInstancesError(f"label table {table.name!r} has no things; {_USE_SEMANTIC}")
        return table

    def refuse_panoptic(self, reason: str | None = None) -> None:
        """ValueError if the samples shall be panoptic: the layout has no instances, for this `reason`."""
        if self.panoptic:
            reason = reason or f"data set {self.layout!r} has no maps of instances"
            raise NoInstancesError(f"{reason}, so things cannot be told apart; {_USE_SEMANTIC}")
