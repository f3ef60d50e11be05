"""What a raster is to those who read it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[Any]  # [h, w, B] as stored
Valid = npt.NDArray[np.bool_]  # [h, w]


@dataclass(frozen=True, slots=True)
class Geography:
    """Where on Earth the pixels are, in rasterio's types."""

    crs: Any
    transform: Any  # pixel -> map coordinates
    points: tuple[Any, Any] = ((), None)  # ground control points and their reference system

    @property
    def placed(self) -> bool:
        """Whether the pixels lie in map coordinates (which need not have a reference system)."""
        return bool(self.crs) or not self.transform.is_identity


class Raster(ABC):
    """An image that is read window by window, by one thread at a time."""

    path: Path
    height: int
    width: int
    bands: int
    dtype: str
    alpha: bool = False  # the last band is none
    colors: bool | None = None  # the bands are grey, or begin with RGB; None: nobody says
    geography: Geography | None = None
    bits: int = 8  # of a sample; fewer are stored as 0 … 2 ** bits - 1
    pages: int = 1  # pictures in the file, of which the first is read

    def files(self) -> list[Path]:
        """All that the pixels are read from."""
        return [self.path]

    @abstractmethod
    def read(self, rows: slice, columns: slice) -> tuple[Samples, Valid | None]:
        """A window's samples [h, w, B], and which pixels have data (None: all).

        ValueError names the file, if a part of it is damaged.
        """

    @abstractmethod
    def close(self) -> None:
        """Let the file go."""
