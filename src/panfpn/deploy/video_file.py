"""A video of overlays. In: frames, one after the other. Out: a file with their size and rate, whole or not there."""

from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from panfpn.files import replacing

SUFFIXES = (".mp4", ".avi")  # of sides that are even (MPEG-4), and of others (Motion JPEG: MPEG would cut a pixel)


class VideoFile:
    """Grows with every frame under a temporary name, and takes its own when it is closed."""

    def __init__(self, stem: Path, rate: float) -> None:
        self.stem, self.rate = stem, rate
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._count, self._last = 0, np.zeros((0, 0, 3), np.uint8)

    def add(self, frame: npt.NDArray[np.uint8], number: int) -> None:
        """Write an RGB frame [H, W, 3] as number `number`, and for those that are missing before it the last one.

        ValueError for one of another size than the first.
        """
        if self._writer is None:
            self._open(frame.shape[1], frame.shape[0])
        if frame.shape[:2] != self._size[::-1]:
            width, height = self._size
            raise ValueError(
                f"{self._file}: a frame of {frame.shape[1]}×{frame.shape[0]} in a video of {width}×{height}"
            )
        assert self._writer is not None
        picture = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        for _ in range(self._count, number):
            self._writer.write(self._last if self._last.size else picture)
        self._writer.write(picture)
        self._count, self._last = number + 1, picture

    def close(self) -> None:
        """Put what was added into its place."""
        if self._writer is not None:
            self._writer.release()
            self._place.close()
            self._writer = None

    def _open(self, width: int, height: int) -> None:
        odd = bool(width % 2 or height % 2)
        self._size, self._file = (width, height), self.stem.with_name(self.stem.name + SUFFIXES[odd])
        backend = cv2.CAP_OPENCV_MJPEG if odd else cv2.CAP_FFMPEG
        code = cv2.VideoWriter.fourcc(*("MJPG" if odd else "mp4v"))
        with ExitStack() as place:
            temporary = place.enter_context(replacing(self._file))
            writer = cv2.VideoWriter(str(temporary), backend, code, _fraction(self.rate), self._size)
            if not writer.isOpened():
                raise ValueError(f"{self._file}: OpenCV cannot write a video of {width}×{height} pixels, "
                                 f"{self.rate:g} a second; take --save labels for a file a frame")  # fmt: skip
            self._writer, self._place = writer, place.pop_all()


def _fraction(rate: float) -> float:
    """The rate with so many digits that it is a fraction of 16 bits, which MPEG-4 wants."""
    return next((value for digits in (3, 2, 1, 0) if (value := round(rate, digits)) * 10**digits < 1 << 16), rate)
