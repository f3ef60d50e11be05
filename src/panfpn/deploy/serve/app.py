"""The routes. In: a predictor and a desk. Out: an ASGI application."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import resources
from typing import Annotated, Any, cast

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException as AnyHTTPException

from panfpn import __version__
from panfpn.data.formats.header import format_of
from panfpn.data.header import TooManyPixelsError, read_header
from panfpn.data.images import decode_image
from panfpn.deploy.predictor import Map, Predictor
from panfpn.deploy.serve import protocol
from panfpn.deploy.serve.answers import TYPES, Masks, as_class, as_json, as_picture
from panfpn.deploy.serve.bodies import received_image, wanted_type
from panfpn.deploy.serve.desk import Desk, FullError
from panfpn.deploy.serve.guard import Counters, Guard, refused
from panfpn.deploy.serve.limits import MOST_MEGAPIXELS, Limits, measured_megapixels
from panfpn.deploy.serve.live import BOUNDARY, Live

_log = logging.getLogger("panfpn.serve")
_PAGE = {"/": ("index.html", "text/html"), "/page.js": ("page.js", "text/javascript"),
         "/page.css": ("page.css", "text/css")}  # fmt: skip
_ANSWERS = {
    "image/png": {"schema": {"type": "string", "format": "binary"}},
    "image/jpeg": {"schema": {"type": "string", "format": "binary"}},
}
_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {"schema": {
            "type": "object", "required": ["image"], "properties": {"image": {"type": "string", "format": "binary"}}
        }},
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    },
}  # fmt: skip
_SENTENCE = {"content": {"application/json": {"schema": {
    "type": "object", "required": ["detail"], "properties": {"detail": {"type": "string"}}
}}}}  # fmt: skip


def _refusals(**reasons: str) -> dict[int | str, dict[str, Any]]:
    return {int(code[1:]): {"description": reason, **_SENTENCE} for code, reason in reasons.items()}


@dataclass(slots=True)
class Service:
    """A model and what its server knows of itself."""

    predictor: Predictor
    name: str
    desk: Desk
    megapixels: float | None = None  # the largest image; None until it is measured
    keys: Sequence[bytes] = ()
    hosts: frozenset[str] | None = None  # names by which it may be called; None: any
    live: Live | None = None
    counters: Counters = field(default_factory=Counters)
    ready: bool = False
    end: Callable[[], None] = lambda: None  # ends the server
    failure: str = ""  # why the model does not run

    @property
    def limits(self) -> Limits:
        """What an image may be now."""
        return Limits(self.megapixels or MOST_MEGAPIXELS)

    def label(self, data: bytes, name: str, confidence: bool = False) -> Map:
        """The map of an image file's bytes; HTTPException says what is wrong with them."""
        reading = self.predictor.task.preprocess.reading
        if not data:
            raise HTTPException(422, "the request has no image; send its bytes, or a form with a file")
        if format_of(data) is None:
            raise HTTPException(415, f"{name}: not an image of a format that is read here (it begins with "
                                     f"{data[:8]!r})")  # fmt: skip
        try:
            header = read_header(data, name, reading.page or 1, most_pixels=self.limits.pixels)
            if refusal := self.limits.refusal(self.predictor, header.height, header.width):
                raise TooManyPixelsError(f"{name}: {refusal}")
            if header.num_bytes > self.limits.decoded_bytes(self.predictor):
                raise TooManyPixelsError(
                    f"{name}: {header.bands} bands of {header.bits} bits are {header.num_bytes >> 20} MiB, more than "
                    "is taken; leave out what the model does not see"
                )
            image = decode_image(data, name, reading)
            with self.counters.predicting.time():
                return self.predictor(image, name=name, confidence=confidence)
        except TooManyPixelsError as error:
            raise HTTPException(413, str(error)) from error
        except ImportError as error:
            raise HTTPException(415, str(error)) from error
        except ValueError as error:
            raise HTTPException(422, str(error)) from error
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "memory" not in str(error):
                raise
            raise HTTPException(413, f"{name}: too large for this server's memory") from error


def make_app(service: Service) -> FastAPI:
    """The application of a service: it measures how large images may be, and then is ready."""
    task, desk = service.predictor.task, service.desk

    async def prepare() -> None:
        try:
            measured = await desk.do(measured_megapixels, service.predictor, desk.workers)
        except Exception as error:
            service.failure = f"{type(error).__name__}: {error}"
            service.end()
            return
        service.megapixels = service.megapixels or measured
        service.ready = True

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        preparing = asyncio.create_task(prepare())
        yield
        preparing.cancel()
        desk.close()

    app = FastAPIOffline(
        redirect_slashes=False,
        title=f"panfpn: {service.name}", version=__version__, lifespan=lifespan,
        description=f"{task.architecture} of {task.table.num_classes} classes ({task.table.name}).",
    )  # fmt: skip
    service.counters.inside.set_function(lambda: desk.inside)
    app.add_middleware(
        Guard, most_bytes=lambda: service.limits.file_bytes(service.predictor), keys=service.keys, hosts=service.hosts,
        counters=service.counters,
    )  # fmt: skip
    _add_handlers(app)

    @app.post(
        "/predict", summary="Label an image", openapi_extra={"requestBody": _BODY},
        responses={
            200: {"description": "What was found, or a picture of it, as the Accept header asks", "content": _ANSWERS},
            **_refusals(
                _400="A form that is none", _401="A key is needed", _406="Nothing that is accepted can be answered",
                _408="The request stopped",
                _413="Too large", _415="Of an unknown format", _422="A damaged image, or a wrong parameter",
                _503="Full, or not ready: come again after Retry-After seconds",
            ),
        },
    )  # fmt: skip
    async def predict(
        request: Request,
        masks: Annotated[Masks, Query(description="How the JSON says where segments are")] = "rle",
        what: Annotated[str | None, Query(description="Of pictures: " + ", ".join(
            ["image", *service.predictor.map_type.outputs]))] = None,
    ) -> Response:  # fmt: skip
        """An image as a form's file or as plain bytes: JSON, or with `Accept: image/png` (or jpeg) a picture."""
        media_type = wanted_type(request.headers.get("accept") or "*/*", "image/png" if what else "application/json")
        pictures = ("image", *service.predictor.map_type.outputs)
        if what not in (None, *pictures):
            raise HTTPException(422, f"what is {what!r}; this model has {', '.join(pictures)}")
        picture = what or ("overlay" if media_type == "image/jpeg" else service.predictor.map_type.outputs[0])
        _check_ready(service)
        async with desk.upload(), received_image(request) as (file, name):

            def answer() -> Response:
                found = service.label(file.read(), name, media_type in TYPES and picture == "confidence")
                if media_type in TYPES:
                    return Response(as_picture(found, picture, media_type), media_type=media_type)
                return JSONResponse({"model": service.name, **as_json(found, masks)})

            return await desk.do(_as_http, answer)

    @app.get("/model", summary="What the model is", responses=_refusals(_401="A key is needed"))
    def model() -> dict[str, Any]:
        """Classes, colours, what computes it, and what this server takes."""
        return {
            "name": service.name, "architecture": task.architecture, "panfpn": __version__,
            "table": task.table.name, "about": service.predictor.about,
            "classes": [as_class(task.table, k) for k in range(task.table.num_classes)],
            "outputs": list(service.predictor.map_type.outputs), "channels": task.preprocess.reading.channels,
            "megapixels": service.limits.megapixels, "workers": desk.workers, "queue": desk.queue,
            "live": service.live is not None,
        }  # fmt: skip

    @app.head("/health", include_in_schema=False)
    @app.get("/health", summary="Whether it lives")
    def health() -> dict[str, str]:
        """It does, if it answers."""
        return {"status": "alive"}

    @app.head("/ready", include_in_schema=False)
    @app.get("/ready", summary="Whether it takes images", responses=_refusals(_503="Not yet, or no more"))
    def ready() -> dict[str, str]:
        """Once the model has run."""
        _check_ready(service)
        if desk.closing:
            raise HTTPException(503, "the server ends")
        return {"status": "ready"}

    @app.get("/metrics", summary="Counters for Prometheus", response_class=PlainTextResponse,
             responses=_refusals(_401="A key is needed"))  # fmt: skip
    def metrics() -> Response:
        """Requests by route and answer, seconds, memory."""
        return Response(service.counters.text(), media_type="text/plain; version=0.0.4")

    @app.get(
        "/live", summary="The camera's labelled picture",
        responses={200: {"content": {"multipart/x-mixed-replace": {}}}, **_refusals(
            _401="A key is needed", _404="No camera", _503="The camera sends nothing")},
    )  # fmt: skip
    async def live() -> Response:
        """JPEGs without end, the newest that could be labelled each (`panfpn serve --camera`)."""
        if service.live is None:
            raise HTTPException(404, "this server has no camera; start it with --camera")
        pictures = service.live.pictures()
        try:
            first = await anext(pictures)
        except (ValueError, StopAsyncIteration) as error:
            raise HTTPException(503, str(error) or "the camera sends nothing", {"Retry-After": "5"}) from error
        kind = f"multipart/x-mixed-replace; boundary={BOUNDARY}"
        return StreamingResponse(Live.as_parts(first, pictures), media_type=kind)

    for path, (name, kind) in _PAGE.items():
        content = (resources.files("panfpn.deploy.serve") / "page" / name).read_bytes()
        page = partial(Response, content, media_type=kind, headers={"Cache-Control": "no-cache"})
        app.add_route(path, _constant(page), include_in_schema=False)
    protocol.add_routes(app, service.predictor, service.name, desk, lambda: service.ready and not desk.closing,
                        lambda: service.limits)  # fmt: skip
    return app


def _constant(make: Callable[[], Response]) -> Callable[[Request], Response]:
    return lambda _: make()


def _check_ready(service: Service) -> None:
    if not service.ready:
        raise HTTPException(503, "the model is not ready yet", {"Retry-After": "1"})


def _as_http(answer: Any) -> Response:
    """What the answer is; an error that nobody foresaw is logged here, and said in one sentence."""
    try:
        return cast(Response, answer())
    except AnyHTTPException:
        raise
    except ValueError as error:
        return refused(422, str(error))
    except Exception:
        _log.exception("an image could not be answered")
        return refused(500, "the server failed at this image; its log says where")


def _add_handlers(app: FastAPI) -> None:
    @app.exception_handler(FullError)
    def full(_: Request, error: FullError) -> Response:
        return refused(503, str(error), {"Retry-After": str(error.seconds)})

    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return refused(422, f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}")
