"""What stands in the file of a raster's labels. In: train ids or segment ids. Out: values, and what they mean."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from panfpn.data.rasters import Raster
from panfpn.deploy.raster_files import Labels
from panfpn.labels import LabelTable
from panfpn.tasks.tiles import Tiles


@dataclass(frozen=True, kw_only=True)
class Values:
    """Raw label values, as in the data set's masks (train ids where those are colours); or segment ids, 0 for void."""

    table: LabelTable
    by_train_id: npt.NDArray[Any] | None  # the last for IGNORE; None: ids stay as they are
    nodata: int
    dtype: np.dtype[Any]

    @staticmethod
    def of(table: LabelTable, tiles: Tiles) -> "Values":
        """Those of a model."""
        if tiles.same() is not None:
            return Values(table=table, by_train_id=None, nodata=0, dtype=tiles.dtype)
        first = [c.values[0] for c in table.classes]
        if table.masks == "colors" or not 0 <= min(first) <= max(first) < 65_535:
            first = list(range(table.num_classes))
        free = [value for value in (*table.ignore, 255, 65_535, 0) if 0 <= value < 65_536 and value not in first]
        dtype = np.dtype(np.uint8 if max(*first, free[0]) < 256 else np.uint16)
        return Values(table=table, by_train_id=np.array([*first, free[0]], dtype), nodata=free[0], dtype=dtype)

    @property
    def are_ids(self) -> bool:
        """Whether they are segments'."""
        return self.by_train_id is None

    def of_labels(
        self, labels: npt.NDArray[Any], valid: npt.NDArray[np.bool_] | None
    ) -> npt.NDArray[Any]:  # fmt: skip
        """The values of what `Tiles.add` gave, of which `valid` has data."""
        values = labels if self.by_train_id is None else self.by_train_id[labels]
        return values if valid is None else np.where(valid, values, values.dtype.type(self.nodata))

    def labels(self, file: Path, raster: Raster) -> Labels:
        """The whole raster's, which lie in a file."""
        names: dict[int, str] = {}
        colors: dict[int, tuple[int, int, int]] = {}
        if self.by_train_id is not None:
            for value, one in zip(self.by_train_id.tolist(), self.table.classes, strict=False):
                names[value], colors[value] = one.name, one.color
        return Labels(file=file, shape=(raster.height, raster.width), dtype=self.dtype, nodata=self.nodata,
                      names=names, colors=colors, geography=raster.geography)  # fmt: skip
