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
from panfpn.signal_stack import _Stack

def stack():
    now = _Stack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(now))
    return now.address, now.flags, now.size

before = stack()
engine = make_runtime("openvino", network(), torch.float32)
engine(pixels((1, 64, 96))), engine(pixels((1, 33, 80)))
assert stack() == before, (stack(), before)

import openvino
from pathlib import Path
from panfpn.weights.exported.openvino import OpenVINOProgram
parameter = openvino.opset13.parameter([-1, -1, -1, 3], openvino.Type.u8, name="pixels")
openvino.save_model(openvino.Model([openvino.opset13.convert(parameter, "f32")], [parameter]), "model.xml")
OpenVINOProgram(Path("model.xml"), "float32")
assert stack() == before, (stack(), before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="signal stacks of Linux")
def test_compiling_leaves_the_signal_stack_alone(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    path = os.pathsep.join([str(Path(__file__).parents[0]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        env={**os.environ, "PYTHONPATH": path},
        check=False,
        timeout=300,
        cwd=tmp_path,
    )
    assert done.returncode == 0
