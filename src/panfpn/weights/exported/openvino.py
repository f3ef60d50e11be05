"""OpenVINO's intermediate representation: model.xml and model.bin, for CPUs, in float32, bfloat16 or INT8."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from panfpn.extras import optional
from panfpn.files import replacing
from panfpn.weights.exported.onnx import to_onnx
from panfpn.weights.exported.program import KEY, Arrays, Format, Program, Traced, metadata, parsed

_HINTS = {"float32": "f32", "bfloat16": "bf16"}


class OpenVINOProgram(Program):
    """A compiled model, with a request for each call at a time."""

    precisions = ("float32", "bfloat16")

    def __init__(self, file: Path, precision: str) -> None:
        super().__init__(file, precision)
        core = optional("openvino", "export", f"{file}: an OpenVINO file needs").Core()
        settings = {"INFERENCE_PRECISION_HINT": _HINTS[precision], "PERFORMANCE_HINT": "LATENCY",
                    "INFERENCE_NUM_THREADS": torch.get_num_threads()}  # fmt: skip
        try:
            compiled = core.compile_model(core.read_model(file), "CPU", settings)
        except Exception as error:
            raise ValueError(f"{file}: not a model that OpenVINO can run ({_last_line(error)})") from error
        self._serve(compiled)

    @classmethod
    def of(cls, compiled: Any, file: Path) -> "OpenVINOProgram":
        """The program of a model that OpenVINO has compiled, and that `file` will hold."""
        program = cls.__new__(cls)
        super(cls, program).__init__(file, "float32")
        program._serve(compiled)
        return program

    def _serve(self, compiled: Any) -> None:
        self.compiled = compiled
        self._names = tuple(output.get_any_name() for output in compiled.outputs)
        self._idle: list[Any] = []

    @property
    def names(self) -> tuple[str, ...]:
        """See `Program`."""
        return self._names

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> Arrays:
        """See `Program`."""
        try:
            request = self._idle.pop()
        except IndexError:
            request = self.compiled.create_infer_request()
        try:
            found = request.infer([pixels], share_inputs=True, share_outputs=False)
        except Exception as error:
            raise ValueError(f"{self.file}: cannot take images {pixels.shape[1:]} ({_last_line(error)})") from error
        self._idle.append(request)  # not after an error: it may still be at work
        return {name: found[i] for i, name in enumerate(self._names)}


class OpenVINOFormat(Format):
    """`.xml`, with a `.bin` beside it."""

    suffix, engine, program = ".xml", "openvino", OpenVINOProgram

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
            raise ValueError(f"{path}: not a whole OpenVINO model ({_last_line(error)})") from error
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


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:300]
