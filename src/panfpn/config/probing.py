"""What a probe compares, and for how long: settings of `panfpn.probe` and options of `panfpn probe`."""

from dataclasses import dataclass
from typing import Annotated

from panfpn.config.model import DatasetName
from panfpn.parsing import Bounds, Count, check_settings


@dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    """A probe, but for its data and its folder."""

    backbones: tuple[str, ...] = ()
    """timm's names, or patterns such as 'repvit_*' (docs/backbones.md lists all); without, eight usual ones."""
    minutes: Annotated[float, Bounds(above=0)] = 30.0
    """Time for all trainings together, which sets their steps."""
    steps: Count | None = None
    """Steps of each training, in place of what the minutes allow."""
    frozen: bool = False
    """Train pyramid and head only: the backbones' features are computed once, and say what pretraining left in them."""
    budget_ms: Annotated[float | None, Bounds(above=0)] = None
    """Leave out what takes longer than this for one image here."""
    weights: str = "hub"
    """hub: timm's pretrained weights; random: none; or a folder of files called after backbones (random where there is
    none)."""
    dataset: DatasetName | None = None
    """Layout of the data set; without, the one that the folder has."""
    batch_size: Count = 8
    lr: Annotated[float, Bounds(above=0)] = 1e-3
    """Of pyramid and head; the backbone's is a tenth of it."""
    seed: Annotated[int, Bounds(at_least=0, below=2**32)] = 0
    device: str = "auto"
    num_workers: Annotated[int, Bounds(at_least=0)] = 2

    def __post_init__(self) -> None:
        check_settings(self, "")
