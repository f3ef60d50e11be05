"""What a request may be, and what is counted. In: requests as ASGI brings them. Out: the same, or a refusal."""

import asyncio
import base64
import binascii
import hmac
import time
from collections.abc import Sequence
from typing import Any

import prometheus_client as prometheus
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN = frozenset({"/health", "/ready", "/v2/health/live", "/v2/health/ready"})  # to whoever asks: they tell nothing
_LINGERING = 1 << 28  # bytes of a refused request that are thrown away, so that its client hears why
_SILENCE = 30.0  # seconds in which a client must send something of its request
_POLICY = "default-src 'self'; img-src 'self' blob: data:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'"
_WRITTEN_INLINE = ("/docs", "/redoc")  # pages of FastAPI


class Counters:
    """Prometheus' counters of one server."""

    def __init__(self) -> None:
        self.registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=self.registry)
        common: dict[str, Any] = {"registry": self.registry}
        self.requests = prometheus.Counter("panfpn_requests", "Answers", ["route", "code"], **common)
        self.seconds = prometheus.Histogram(
            "panfpn_request_seconds", "From a request's first byte to its answer's last", ["route"], **common
        )
        self.predicting = prometheus.Histogram("panfpn_predict_seconds", "Image to map, without the queue", **common)
        self.inside = prometheus.Gauge("panfpn_inside", "Requests at work or in the queue", **common)

    def text(self) -> bytes:
        """As Prometheus reads them."""
        return prometheus.generate_latest(self.registry)


class Guard:
    """Stands before the app: keys, sizes and silence of requests, headers of answers, counters.

    `most_bytes` is the largest body; `keys` are who may ask (nobody needs one if there are none): as X-API-Key, as
    Bearer token, or as the password of HTTP's own dialog, whatever the name.
    """

    def __init__(self, app: ASGIApp, *, most_bytes: int, keys: Sequence[bytes], counters: Counters) -> None:
        self.app, self.most_bytes, self.keys, self.counters = app, most_bytes, tuple(keys), counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        begin, code, answered = time.perf_counter(), 500, False
        policy = _POLICY + "; script-src 'self' 'unsafe-inline'" * scope["path"].startswith(_WRITTEN_INLINE)

        async def sending(message: Message) -> None:
            nonlocal code, answered
            if message["type"] == "http.response.start":
                code, answered = message["status"], True
                message.setdefault("headers", [])
                message["headers"] += [
                    (b"content-security-policy", policy.encode()), (b"x-content-type-options", b"nosniff")
                ]  # fmt: skip
            await send(message)

        try:
            refusal = self._refusal(scope["path"], headers)
            if refusal is not None:
                await _answered_early(refusal, scope, receive, sending)
            else:
                await self.app(scope, self._bounded(receive), sending)
        except _TooLargeError as error:
            if not answered:
                await _answered_early(refused(413, str(error)), scope, receive, sending)
        except HTTPException as error:  # of `_bounded`, where a route did not expect it
            if not answered:
                await refused(error.status_code, error.detail)(scope, receive, sending)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.counters.requests.labels(route, code).inc()
            self.counters.seconds.labels(route).observe(time.perf_counter() - begin)

    def _refusal(self, path: str, headers: dict[bytes, bytes]) -> JSONResponse | None:
        if self.keys and path not in OPEN and not self._known(headers):
            text = "a key is needed: as header X-API-Key, as Bearer token, or as password"
            return refused(401, text, {"WWW-Authenticate": 'Basic realm="panfpn", charset="UTF-8"'})
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.most_bytes:
            return refused(413, _too_many(self.most_bytes))
        return None

    def _known(self, headers: dict[bytes, bytes]) -> bool:
        kind, _, rest = headers.get(b"authorization", b"").partition(b" ")
        offered = headers.get(b"x-api-key", b"")
        if kind.lower() == b"bearer":
            offered = rest.strip()
        elif kind.lower() == b"basic":
            try:
                offered = base64.b64decode(rest, validate=True).partition(b":")[2]
            except binascii.Error:
                return False
        matches = [hmac.compare_digest(offered, key) for key in self.keys]  # all, so that time tells nothing
        return any(matches)

    def _bounded(self, receive: Receive) -> Receive:
        size = 0

        async def receiving() -> Message:
            nonlocal size
            try:
                message = await asyncio.wait_for(receive(), _SILENCE if size >= 0 else None)
            except TimeoutError:
                raise HTTPException(408, f"no byte of the request came for {_SILENCE:.0f} s") from None
            if message["type"] == "http.request":
                size += len(message.get("body", b""))
                if size > self.most_bytes:
                    raise _TooLargeError(_too_many(self.most_bytes))
                if not message.get("more_body"):
                    size = -1  # whole; from here on it is waited for the client's leaving
            return message

        return receiving


class _TooLargeError(BaseException):
    """A body is; it goes past what handles the errors of a route."""


async def _answered_early(refusal: JSONResponse, scope: Scope, receive: Receive, send: Send) -> None:
    """The refusal at once; then what the client is still sending is thrown away for a while.

    Who closes a connection on which something lies unread makes the other side lose the answer.
    """
    refusal.headers["Connection"] = "close"

    async def unfinished(message: Message) -> None:
        await send({**message, "more_body": True} if message["type"] == "http.response.body" else message)

    await refusal(scope, receive, unfinished)
    left, end = _LINGERING, time.monotonic() + _SILENCE
    while left > 0 and time.monotonic() < end:
        try:
            message = await asyncio.wait_for(receive(), 2)
        except TimeoutError:
            break
        left -= len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            break
    await send({"type": "http.response.body", "body": b""})


def refused(code: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """A refusal in one sentence."""
    return JSONResponse({"detail": detail}, code, headers)


def _too_many(most: int) -> str:
    return f"the request has more than {most / 1e6:.0f} MB; this server takes no larger ones"
