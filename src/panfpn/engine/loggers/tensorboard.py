"""TensorBoard: `tensorboard --logdir RUN/tensorboard`."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from torch.utils.tensorboard import SummaryWriter

from panfpn.engine.loggers import LoggedRun


class TensorBoardLogger:
    """Event files in the run folder; what a killed run logged beyond its checkpoint is hidden."""

    def start(self, run: LoggedRun) -> None:
        """Open the event file."""
        self._writer = SummaryWriter(run.folder / "tensorboard", purge_step=run.first_step + 1)  # hides from there on

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One curve a name."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def image(self, step: int, name: str, picture: npt.NDArray[np.uint8]) -> None:
        """One slider a name."""
        self._writer.add_image(name, picture, step, dataformats="HWC")

    def end(self) -> None:
        """Flush and close the file."""
        self._writer.close()
