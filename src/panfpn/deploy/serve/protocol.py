"""The Open Inference Protocol (version 2, REST), which KServe, Triton and OpenVINO Model Server speak.

In: JSON tensors, pixels UINT8 [B, H, W, C]. Out: labels [B, H, W]; of a Panoptic FPN also segments, and what they are.
Source: github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md.
"""

import json
import logging
import math
from collections.abc import Callable
from typing import Annotated, Any, BinaryIO

import numpy as np
import numpy.typing as npt
from fastapi import FastAPI, Path, Request
from fastapi.responses import JSONResponse

from panfpn import __version__
from panfpn.deploy.predictor import Map, Predictor
from panfpn.deploy.serve.bodies import spooled_body
from panfpn.deploy.serve.desk import Desk, FullError
from panfpn.deploy.serve.limits import Limits
from panfpn.types import PanopticMap

VERSION = "1"  # of the model: a server has one
_log = logging.getLogger("panfpn.serve")
_LARGEST = 1 << 26  # bytes of a request in JSON


class UnfitError(ValueError):
    """A request that is none; `code` is HTTP's."""

    def __init__(self, text: str, code: int = 400) -> None:
        super().__init__(text)
        self.code = code


def add_routes(
    app: FastAPI, predictor: Predictor, name: str, desk: Desk, ready: Callable[[], bool],
    limits: Callable[[], Limits],
) -> None:  # fmt: skip
    """Add the protocol's routes for one model."""
    Model = Annotated[str, Path(examples=[name])]  # noqa: N806

    def known(model: str, version: str = VERSION) -> None:
        if model != name or version != VERSION:
            raise UnfitError(f"no model {model!r} of version {version!r}; this server has {name!r}, version "
                             f"{VERSION!r}", 404)  # fmt: skip

    @app.exception_handler(UnfitError)
    def unfit(_: Request, error: UnfitError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, error.code)

    @app.get("/v2", tags=["Open Inference Protocol"])
    def server() -> dict[str, Any]:
        """What the server is."""
        return {"name": "panfpn", "version": __version__, "extensions": []}

    @app.get("/v2/health/live", tags=["Open Inference Protocol"])
    def alive() -> dict[str, bool]:
        """Whether it lives."""
        return {"live": True}

    @app.get("/v2/health/ready", tags=["Open Inference Protocol"], responses={503: {"description": "Not ready"}})
    def server_ready() -> JSONResponse:
        """Whether it takes images."""
        return JSONResponse({"ready": ready()}, 200 if ready() else 503)

    for path in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):

        @app.get(path, tags=["Open Inference Protocol"], responses={404: {"description": "No such model"}})
        def metadata(model: Model, version: str = VERSION) -> dict[str, Any]:
            """What goes in and comes out."""
            known(model, version)
            channels = predictor.task.preprocess.reading.channels
            return {
                "name": name, "versions": [VERSION], "platform": "panfpn",
                "inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [-1, -1, -1, channels]}],
                "outputs": _outputs(predictor),
            }  # fmt: skip

        @app.get(f"{path}/ready", tags=["Open Inference Protocol"],
                 responses={404: {"description": "No such model"}, 503: {"description": "Not ready"}})  # fmt: skip
        def model_ready(model: Model, version: str = VERSION) -> JSONResponse:
            """Whether the model takes images."""
            known(model, version)
            return JSONResponse({"name": name, "ready": ready()}, 200 if ready() else 503)

        @app.post(
            f"{path}/infer", tags=["Open Inference Protocol"], openapi_extra={"requestBody": _BODY},
            responses={code: {"description": text} for code, text in _REFUSALS.items()},
        )  # fmt: skip
        async def infer(request: Request, model: Model, version: str = VERSION) -> JSONResponse:
            """Label images of one size."""
            known(model, version)
            if not ready():
                raise UnfitError("the model is not ready", 503)
            try:
                async with desk.upload(), spooled_body(request) as body:
                    return await desk.do(_answer, predictor, body, limits(), name)
            except FullError as error:
                return JSONResponse({"error": str(error)}, 503, {"Retry-After": str(error.seconds)})


_REFUSALS = {400: "Not a request of the protocol", 404: "No such model", 413: "Too large", 503: "Full"}
_BODY = {"required": True, "content": {"application/json": {"schema": {
    "type": "object", "required": ["inputs"], "properties": {"id": {"type": "string"}, "inputs": {
        "type": "array", "minItems": 1, "maxItems": 1, "items": {
            "type": "object", "required": ["name", "shape", "datatype", "data"], "properties": {
                "name": {"const": "pixels"}, "datatype": {"const": "UINT8"}, "data": {"type": "array"},
                "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 4, "maxItems": 4},
            }}}}}}}}  # fmt: skip


def _outputs(predictor: Predictor) -> list[dict[str, Any]]:
    outputs: list[dict[str, Any]] = [{"name": "labels", "datatype": "INT32", "shape": [-1, -1, -1]}]
    if predictor.map_type is PanopticMap:
        outputs += [{"name": "segments", "datatype": "INT32", "shape": [-1, -1, -1]},
                    {"name": "info", "datatype": "BYTES", "shape": [-1]}]  # fmt: skip
    return outputs


def _answer(predictor: Predictor, body: BinaryIO, limits: Limits, name: str) -> JSONResponse:
    """The answer to a request's JSON; an error that nobody foresaw is logged here."""
    try:
        if len(text := body.read(_LARGEST + 1)) > _LARGEST:
            raise UnfitError(f"more than {_LARGEST >> 20} MiB of JSON; send the image's file to /predict", 413)
        return JSONResponse({"model_name": name, "model_version": VERSION, **_infer(predictor, text, limits)})
    except UnfitError:
        raise
    except Exception:
        _log.exception("a tensor could not be answered")
        return JSONResponse({"error": "the server failed at this tensor; its log says where"}, 500)


def _infer(predictor: Predictor, body: bytes, limits: Limits) -> dict[str, Any]:
    """What stands in the answer, of a request's JSON; `UnfitError` says what it lacks."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UnfitError("the request is not JSON") from error
    wanted = _wanted(request, [output["name"] for output in _outputs(predictor)])
    pixels = _pixels(request, predictor, limits)
    try:
        maps = predictor(list(pixels))
    except ValueError as error:
        raise UnfitError(str(error)) from error
    answer: dict[str, Any] = {"outputs": [_output(output, maps) for output in wanted]}
    return {"id": request["id"], **answer} if isinstance(request.get("id"), str) else answer


def _wanted(request: Any, names: list[str]) -> list[str]:
    if not isinstance(request, dict) or not isinstance(request.get("inputs"), list) or len(request["inputs"]) != 1:
        raise UnfitError("the request has no list `inputs` with one tensor")
    outputs = request.get("outputs") or names
    if not isinstance(outputs, list):
        raise UnfitError("`outputs` is a list of names")
    wanted = [str(output.get("name") if isinstance(output, dict) else output) for output in outputs]
    for output in wanted:
        if output not in names:
            raise UnfitError(f"no output {output!r}; there are {', '.join(names)}")
    return wanted


def _pixels(request: dict[str, Any], predictor: Predictor, limits: Limits) -> npt.NDArray[np.uint8]:
    """The images [B, H, W, C]."""
    channels = predictor.task.preprocess.reading.channels
    tensor = request["inputs"][0]
    if not isinstance(tensor, dict) or tensor.get("name") != "pixels" or tensor.get("datatype") != "UINT8":
        raise UnfitError("the input is the tensor 'pixels' of datatype UINT8")
    shape = tensor.get("shape")
    if not isinstance(shape, list) or len(shape) != 4 or not all(type(n) is int and 0 < n < 1 << 31 for n in shape):
        raise UnfitError("the shape of pixels is [images, height, width, channels]")
    if shape[3] != channels:
        raise UnfitError(f"pixels have {shape[3]} channels; the model sees {channels}")
    if refusal := limits.refusal(predictor, shape[1], shape[2], shape[0]):
        raise UnfitError(refusal, 413)
    try:
        data = np.array(tensor.get("data")).ravel()
        if data.dtype.kind not in "iuf":
            raise TypeError
    except (TypeError, ValueError, OverflowError) as error:
        raise UnfitError("the data of pixels are not numbers in the form of their shape") from error
    if data.size != math.prod(shape):
        raise UnfitError(f"the data of pixels are {data.size} numbers; the shape {shape} has {math.prod(shape)}")
    if not ((data >= 0) & (data <= 255) & (data == np.rint(data))).all():  # false of NaN
        raise UnfitError("the data of pixels are whole numbers from 0 to 255")
    return data.astype(np.uint8).reshape(shape)


def _output(name: str, maps: list[Map]) -> dict[str, Any]:
    """An output of the protocol."""
    if name == "info":
        texts = [json.dumps(one.to_dict()["segments_info"]) for one in maps if isinstance(one, PanopticMap)]
        return {"name": name, "datatype": "BYTES", "shape": [len(texts)], "data": texts}
    arrays = np.stack([getattr(one, name) for one in maps]).astype(np.int32)
    return {"name": name, "datatype": "INT32", "shape": list(arrays.shape), "data": arrays.ravel().tolist()}
