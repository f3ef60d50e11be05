"""Signals are handled after OpenVINO has compiled, which leaves too small a signal stack behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPT = """
import ctypes
import torch
from pixel_networks import network, pixels
from panfpn.deploy.runtime import make_runtime
from panfpn.deploy.signal_stack import _Stack

def stack():
    now = _Stack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(now))
    return now.address, now.flags, now.size

before = stack()
engine = make_runtime("openvino", network(), torch.float32)
engine(pixels((1, 64, 96))), engine(pixels((1, 33, 80)))
assert stack() == before, (stack(), before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="signal stacks of Linux")
def test_compiling_leaves_the_signal_stack_alone() -> None:
    pytest.importorskip("openvino")
    path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT], env={**os.environ, "PYTHONPATH": path}, check=False, timeout=300
    )
    assert done.returncode == 0
