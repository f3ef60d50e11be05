"""Images that come one after the other: videos, cameras, RTSP. In: an address. Out: frames, and what is missing."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

VIDEO_SUFFIXES = frozenset({
    ".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".mpg", ".mpeg", ".3gp",
    ".ogv",
})  # fmt: skip
_COUNTED = (".mp4", ".m4v", ".mov", ".avi", ".3gp")  # containers that say how many frames they have
_SLACK = 0.02  # share of frames by which the others' estimate may be wrong
_USUAL_RATE = 25.0
_WAIT = 30_000  # milliseconds for a stream to open, or to send its next frame


@dataclass(frozen=True, slots=True)
class Video:
    """A video's address: a path or URL of a file, an RTSP address, or a camera's number."""

    address: str

    @property
    def is_live(self) -> bool:
        """Whether it has no end, and so no number of frames."""
        return self.address.isdecimal() or self.address.startswith(("rtsp://", "rtsps://", "rtmp://"))

    def count(self) -> int:
        """How many frames there are, as the container claims; 0 where nobody knows."""
        if self.is_live:
            return 0
        capture = self._open()
        try:
            return max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        finally:
            capture.release()

    def rate(self) -> float:
        """Frames a second, as the container claims; 25 where nobody knows."""
        capture = self._open()
        try:
            claimed = float(capture.get(cv2.CAP_PROP_FPS))
        finally:
            capture.release()
        return claimed if 0 < claimed < 1000 else _USUAL_RATE

    def frames(self) -> Iterator[npt.NDArray[np.uint8]]:
        """RGB frames [H, W, 3]; at the end ValueError, if there were fewer than the container claims, or none."""
        capture = self._open()
        try:
            claimed = 0 if self.is_live else int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
            number = 0
            while True:
                more, frame = capture.read()
                if not more:
                    break
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
                number += 1
        finally:
            capture.release()
        if number == 0:
            what = "camera or stream" if self.is_live else "video"
            raise ValueError(f"{self.shown}: not a readable {what} (no frame could be decoded)")
        slack = 0 if self.address.lower().endswith(_COUNTED) else max(2, int(claimed * _SLACK))
        if number + slack < claimed:
            raise ValueError(f"{self.shown}: only {number} of {claimed} frames could be decoded; the video is cut "
                             "short or damaged")  # fmt: skip
        if self.is_live:
            raise ValueError(f"{self.shown}: the stream ended after {number} frames")

    @property
    def shown(self) -> str:
        """The address without a password."""
        head, mark, rest = self.address.partition("://")
        return f"{head}://{rest.rpartition('@')[2]}" if mark else self.address

    def _open(self) -> cv2.VideoCapture:
        if self.address.isdecimal():
            return cv2.VideoCapture(int(self.address))
        if "://" not in self.address:
            return cv2.VideoCapture(self.address)
        waits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _WAIT, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _WAIT]
        return cv2.VideoCapture(self.address, cv2.CAP_FFMPEG, waits)
