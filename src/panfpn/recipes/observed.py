"""What settings follow from. In: nothing. Out: a Fingerprint of data, a Machine, and a Choice with its reason."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from panfpn.parsing import Bounds, Count, NotNegative, check_settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """What `auto` goes by of a data set; sizes are medians of the images that were looked at."""

    dataset: str
    root: Path | None
    train_split: str
    val_split: str | None  # None: there is no such split
    num_train: int
    num_val: int
    looked_at: int
    size: tuple[int, int]  # height and width
    smallest: int = 1  # longer side of all
    largest: int  # side of all
    channels: int
    shares: dict[str, float] = field(default_factory=dict)  # of the labelled pixels, by class
    segments: bool = False  # whether things are told apart
    thing_sides: tuple[float, float, float] = (0.0, 0.0, 0.0)  # square roots of areas: 10 %, 50 %, 90 %
    most_things: int = 0  # in one image
    most_alike: int = 0  # of them, of one class
    thin: float = 0.0  # share of the classes whose regions are on average narrower than ten pixels
    turned: float = 0.0  # how many times as far as by chance images lie from themselves turned; 0: not known


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What this machine can do with the network that was chosen."""

    device: Literal["cpu", "cuda", "mps"]
    name: str  # of the processor
    cores: Count
    memory_gb: NotNegative | None  # free; None: the system does not say
    network: str  # that was measured
    architecture: str = "SemanticFPN"  # on it
    pixels_per_s: Annotated[float, Bounds(above=0)]  # of training crops
    bytes_per_pixel: NotNegative  # that a step takes

    def __post_init__(self) -> None:
        check_settings(self, "machine.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A setting by its key, and why it is what it is."""

    key: str
    value: Any
    reason: str


def fixed(table: tuple[str, Mapping[str, Any]]) -> Iterator[Choice]:
    """Choices that have one reason."""
    reason, values = table
    return (Choice(key=key, value=value, reason=reason) for key, value in values.items())
