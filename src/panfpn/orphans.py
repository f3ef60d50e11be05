"""What must not outlive its maker. In: processes and folders. Out: nothing that a kill leaves behind for good."""

import contextlib
import ctypes
import glob
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>


def end_with_parent(parent: int) -> None:
    """Let this process be killed when `parent`, which made it, ends; elsewhere than on Linux, does nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)


@contextlib.contextmanager
def folder_beside(out: Path) -> Iterator[Path]:
    """An empty folder on the disk of `out`, for the time of the block; whatever is in it then is removed.

    Those of processes that were killed in such a block for the same `out` are removed first.
    """
    for other in out.parent.glob(f".{glob.escape(out.name)}-????????"):
        with _held(other) as held:
            if held:
                shutil.rmtree(other, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        with _held(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def complete_or_nothing(out: Path) -> Iterator[Path]:
    """A folder that becomes `out` (empty, or not there) at the end of the block, and is removed if that fails."""
    new = [parent for parent in out.parents if not parent.exists()]
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with folder_beside(out) as folder:
            yield folder
            if out.is_dir():
                out.rmdir()
            folder.chmod(0o755)
            folder.rename(out)
    except BaseException:
        for parent in new:
            with contextlib.suppress(OSError):  # somebody else may use it by now
                parent.rmdir()
        raise


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Hold a folder while this process lives, for the time of the block; whether nobody else does."""
    try:
        import fcntl  # noqa: PLC0415 - Windows has none
    except ImportError:
        yield False
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = True
        except OSError:
            mine = False
        yield mine
    finally:
        os.close(handle)
