"""OpenVINO's intermediate representation: model.xml and model.bin, for CPUs, in float32, bfloat16 or INT8."""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from panfpn.extras import optional
from panfpn.files import replacing
from panfpn.signal_stack import kept_signal_stack
from panfpn.weights.exported import SUFFIXES
from panfpn.weights.exported.onnx import to_onnx
from panfpn.weights.exported.program import KEY, Format, Program, Traced, last_line, metadata, parsed

_HINTS = {"float32": "f32", "bfloat16": "bf16"}


class Requests:
    """A model compiled for this machine's CPU; each request computes in memory of its own, for one call at a time.

    `streams` calls are computed at once, each by as many threads as torch has here.
    """

    def __init__(self, core: Any, model: Any, precision: str, streams: int = 1) -> None:
        threads = torch.get_num_threads() * streams
        settings = {"INFERENCE_PRECISION_HINT": _HINTS[precision], "PERFORMANCE_HINT": "LATENCY",
                    "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": streams}  # fmt: skip
        with kept_signal_stack():
            self.compiled = core.compile_model(model, "CPU", settings)
        self._idle: list[Any] = []

    @classmethod
    def of(cls, compiled: Any) -> "Requests":
        """Those of a model that somebody else compiled."""
        requests = cls.__new__(cls)
        requests.compiled, requests._idle = compiled, []
        return requests

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> list[npt.NDArray[Any]]:
        """The outputs for pixels [B, H, W, C], in the model's order."""
        try:
            request = self._idle.pop()
        except IndexError:  # there are as many as there ever were calls at once
            request = self.compiled.create_infer_request()
        # Copied out: the request's memory is another call's as soon as it is given back.
        found = request.infer([pixels], share_inputs=True, share_outputs=False)
        self._idle.append(request)  # not after an error: it may still be at work
        return [found[i] for i in range(len(found))]


class OpenVINOProgram(Program):
    """A model, compiled at the first call.

    A graph of one size is 5 % faster and takes half the memory of one for any: the first size gets its own, all others
    share one.
    """

    engine, precisions = "openvino", ("float32", "bfloat16")

    def __init__(self, file: Path, precision: str, streams: int = 1) -> None:
        super().__init__(file, precision, streams)
        self._core = optional("openvino", "export", f"{file}: an OpenVINO file needs").Core()
        self._lock = threading.Lock()
        self._compiled: dict[tuple[int, ...] | None, Requests] = {}  # by size; None: for any
        self.names = tuple(output.get_any_name() for output in self._model().outputs)

    @classmethod
    def of(cls, compiled: Any, file: Path) -> "OpenVINOProgram":
        """The program of a model that OpenVINO has compiled, and that `file` will hold."""
        program = cls.__new__(cls)
        super(cls, program).__init__(file, "float32")
        program._compiled = {None: Requests.of(compiled)}
        program.names = tuple(output.get_any_name() for output in compiled.outputs)
        return program

    def run(self, pixels: npt.NDArray[np.uint8]) -> Sequence[npt.NDArray[Any]]:
        """See `Program`."""
        requests = self._compiled.get(pixels.shape) or self._compiled.get(None)
        if requests is None:
            with self._lock:
                key = None if self._compiled and pixels.shape not in self._compiled else pixels.shape
                if key not in self._compiled:
                    model = self._model()
                    if key is not None:
                        model.reshape(list(key))
                    self._compiled[key] = Requests(self._core, model, self.precision, self.streams)
                requests = self._compiled[key]
        return requests(pixels)

    def _model(self) -> Any:
        try:
            return self._core.read_model(self.file)
        except Exception as error:
            raise ValueError(f"{self.file}: not a model that OpenVINO can run ({last_line(error)})") from error


class OpenVINOFormat(Format):
    """`.xml`, with a `.bin` beside it."""

    suffix, program = SUFFIXES["openvino"], OpenVINOProgram

    @staticmethod
    def write(traced: Traced, header: Mapping[str, Any], path: Path) -> list[Path]:
        """See `Format`."""
        openvino = optional("openvino", "export", "an OpenVINO file needs")
        return save(openvino.Core().read_model(to_onnx(traced)), header, path)

    @staticmethod
    def header(path: Path) -> dict[str, Any]:
        """See `Format`."""
        openvino = optional("openvino", "export", f"{path}: an OpenVINO file needs")
        if not path.with_suffix(".bin").is_file():
            raise ValueError(f"{path}: its weights are not beside it ({path.with_suffix('.bin').name})")
        try:
            model = openvino.Core().read_model(path)
            text = model.get_rt_info([KEY]).value if model.has_rt_info([KEY]) else None
        except Exception as error:
            raise ValueError(f"{path}: not a whole OpenVINO model ({last_line(error)})") from error
        return parsed(text, path)


def save(model: Any, header: Mapping[str, Any], path: Path) -> list[Path]:
    """Write an OpenVINO model with a header, weights first: the `.xml` is never without its `.bin`."""
    openvino = optional("openvino", "export", "an OpenVINO file needs")
    for key, value in metadata(header).items():
        model.set_rt_info(value, [key])
    labels = " ".join(c["name"].replace(" ", "_") for c in header["table"]["classes"])
    for key, value in {"model_type": "Segmentation", "labels": labels, "embedded_processing": "True"}.items():
        model.set_rt_info(value, ["model_info", key])  # where OpenVINO's Model API and its server look
    weights = path.with_suffix(".bin")
    with replacing(weights) as first, replacing(path) as second:
        made = first.with_suffix(".xml")
        try:
            openvino.save_model(model, made, compress_to_fp16=False)  # the weights under the name of `first`
            made.replace(second)
        finally:
            made.unlink(missing_ok=True)
    return [path, weights]
