"""A camera's picture, labelled. In: an address that whoever starts the server names. Out: JPEGs, the newest each."""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import numpy as np
import numpy.typing as npt

from panfpn.deploy.predictor import Predictor
from panfpn.deploy.serve.answers import as_picture
from panfpn.deploy.serve.desk import Desk, FullError
from panfpn.deploy.streams import Video

BOUNDARY = "panfpn-frame"
_log = logging.getLogger("panfpn.serve")
_PAUSE = 0.02  # seconds between two looks for a new frame
_PATIENCE = 35.0  # seconds for the first


class Live:
    """Labels frames while anybody watches: one at a time, whatever the camera sends in between is dropped."""

    def __init__(self, address: str, predictor: Predictor, desk: Desk) -> None:
        self.video, self.predictor, self.desk = Video(address), predictor, desk
        self._watching = 0
        self._number, self._picture = 0, b""
        self._error: str | None = None
        self._task: asyncio.Task[None] | None = None

    async def pictures(self) -> AsyncIterator[bytes]:
        """JPEGs of the overlay from now on; ValueError where the camera sends nothing, or no more."""
        self._watching += 1
        seen, begin = 0, time.monotonic()
        if self._task is None or self._task.done():
            self._number, self._error = 0, None
            self._task = asyncio.create_task(self._label())
        else:
            seen = max(0, self._number - 1)
        try:
            while not self.desk.closing:
                if self._number > seen:
                    seen = self._number
                    yield self._picture
                elif self._error is not None:
                    raise ValueError(self._error)
                elif not seen and time.monotonic() - begin > _PATIENCE:
                    raise ValueError(f"{self.video.shown}: no picture in {_PATIENCE:.0f} s")
                await asyncio.sleep(_PAUSE)
        finally:
            self._watching -= 1

    @staticmethod
    async def as_parts(first: bytes, others: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Pictures as a browser's <img> takes them; the stream ends where they do."""
        yield _part(first)
        with suppress(ValueError):
            async for picture in others:
                yield _part(picture)

    async def _label(self) -> None:
        newest = _Newest(self.video)
        try:
            while self._watching and not self.desk.closing:
                frame = newest.take()
                if frame is None:
                    if newest.error is not None:
                        self._error = newest.error
                        return
                    await asyncio.sleep(_PAUSE)
                    continue
                try:
                    self._picture = await self.desk.do(self._drawn, frame)
                except FullError:  # who sends images comes first
                    await asyncio.sleep(1)
                    continue
                except Exception as error:
                    self._error = f"{self.video.shown}: cannot be labelled ({error})"
                    return
                self._number += 1
        finally:
            newest.stop()
            if self._error is not None:
                _log.warning("the live picture ends: %s", self._error)

    def _drawn(self, frame: npt.NDArray[np.uint8]) -> bytes:
        return as_picture(self.predictor(frame), "overlay", "image/jpeg")


class _Newest:
    """Reads a video in a thread of its own, and keeps the newest frame only."""

    def __init__(self, video: Video) -> None:
        self.video, self.error = video, None  # type: Video, str | None
        self._frame: npt.NDArray[np.uint8] | None = None
        self._stopped = threading.Event()
        threading.Thread(target=self._read, name="panfpn-camera", daemon=True).start()

    def take(self) -> npt.NDArray[np.uint8] | None:
        """A frame that nobody took yet, if there is one."""
        frame, self._frame = self._frame, None
        return frame

    def stop(self) -> None:
        """Read no more."""
        self._stopped.set()

    def _read(self) -> None:
        frames = self.video.frames()
        try:
            pause = 0.0 if self.video.is_live else 1 / self.video.rate()  # a file would be over at once
            for frame in frames:
                self._frame = frame
                if self._stopped.wait(pause):
                    return
            self.error = f"{self.video.shown}: the video is over"
        except Exception as error:  # whatever a decoder throws
            self.error = str(error)
        finally:
            frames.close()  # type: ignore[attr-defined]


def _part(picture: bytes) -> bytes:
    head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
    return head.encode() + picture + b"\r\n"
