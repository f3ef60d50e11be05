"""ONNX: one file, run by ONNX Runtime on a CPU in float32."""

import io
import threading
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from panfpn.extras import optional
from panfpn.files import replacing
from panfpn.weights.exported import SUFFIXES
from panfpn.weights.exported.program import KEY, Format, Program, Traced, last_line, metadata, parsed

OPSET = 18
_TRACING = threading.Lock()  # torch's exporter keeps its state in globals
_LARGEST = 1 << 31  # bytes that a protobuf message can have


class ONNXProgram(Program):
    """A session of ONNX Runtime."""

    engine = "onnxruntime"

    def __init__(self, file: Path, precision: str, streams: int = 1) -> None:
        super().__init__(file, precision, streams)
        runtime = optional("onnxruntime", "export", f"{file}: an ONNX file needs")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        try:
            self.session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ValueError(f"{file}: not an ONNX file that ONNX Runtime can run ({last_line(error)})") from error
        self.names = tuple(output.name for output in self.session.get_outputs())

    def run(self, pixels: npt.NDArray[np.uint8]) -> Sequence[npt.NDArray[Any]]:
        """See `Program`."""
        found: Sequence[npt.NDArray[Any]] = self.session.run(None, {"pixels": pixels})
        return found


class ONNXFormat(Format):
    """`.onnx`."""

    suffix, program = SUFFIXES["onnx"], ONNXProgram

    @staticmethod
    def write(traced: Traced, header: Mapping[str, Any], path: Path) -> list[Path]:
        """See `Format`."""
        onnx = optional("onnx", "export", "an ONNX file needs")
        model = onnx.load_model_from_string(to_onnx(traced))
        onnx.helper.set_model_props(model, metadata(header))
        model.producer_name, model.producer_version = "panfpn", str(header["panfpn"])
        with replacing(path) as temporary:
            temporary.write_bytes(model.SerializeToString())
        return [path]

    @staticmethod
    def header(path: Path) -> dict[str, Any]:
        """See `Format`."""
        onnx = optional("onnx", "export", f"{path}: an ONNX file needs")
        try:
            properties = {entry.key: entry.value for entry in onnx.load(path, load_external_data=False).metadata_props}
        except Exception as error:
            raise ValueError(f"{path}: not a whole ONNX file ({last_line(error)})") from error
        return parsed(properties.get(KEY), path)


def to_onnx(traced: Traced) -> bytes:
    """The graph of a module as ONNX."""
    optional("onnxscript" if traced.program else "onnx", "export", "an ONNX graph needs")
    file = io.BytesIO()
    common: dict[str, Any] = {
        "input_names": ["pixels"], "output_names": list(traced.names), "opset_version": OPSET
    }  # fmt: skip
    with _TRACING, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whether sizes are followed is what the gate looks at
        if traced.program is not None:
            exported = torch.onnx.export(
                traced.program, (traced.example,), dynamo=True, verbose=False, external_data=False, **common
            )
            assert exported is not None
            return bytes(exported.model_proto.SerializeToString())
        sides = {1: "height", 2: "width"} if traced.dynamic else {}
        torch.onnx.export(
            traced.module, (traced.example,), file, dynamo=False,  # type: ignore[arg-type] # it takes files too
            dynamic_axes={"pixels": {0: "batch", **sides}},
            **common,
        )  # fmt: skip
    return file.getvalue()
