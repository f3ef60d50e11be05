"""What a request may be, and what is counted. In: requests as ASGI brings them. Out: the same, or a refusal."""

import asyncio
import base64
import binascii
import hmac
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import prometheus_client as prometheus
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN = frozenset({"/health", "/ready", "/v2/health/live", "/v2/health/ready"})  # to whoever asks: they tell nothing
SILENCE = 30.0  # seconds in which a client must begin its request, or take its answer
_SLOWEST = 10_000  # bytes a second that a body must come with, after as many seconds
_LINGERING = 1 << 28  # bytes of a refused request that are thrown away, so that its client hears why
_POLICY = "default-src 'self'; img-src 'self' blob: data:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'"
_WRITTEN_INLINE = ("/docs", "/redoc")  # pages of FastAPI
_LEFT = 499  # nginx's code for a client that did not wait


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
    """Stands before the app: keys, sizes and pace of requests, headers of answers, counters.

    `most_bytes` tells the largest body; `keys` are who may ask (nobody needs one if there are none): as X-API-Key, as
    Bearer token, or as the password of HTTP's own dialog, whatever the name. `hosts` are the names by which the server
    may be called (None: any): a page of another site that makes its name point here is not let in.
    """

    def __init__(
        self, app: ASGIApp, *, most_bytes: Callable[[], int], keys: Sequence[bytes], hosts: frozenset[str] | None,
        counters: Counters,
    ) -> None:  # fmt: skip
        self.app, self.most_bytes, self.keys, self.hosts = app, most_bytes, tuple(keys), hosts
        self.counters = counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begin, exchange = time.perf_counter(), _Exchange(scope, receive, send, self.most_bytes())
        try:
            refusal = self._refusal(scope)
            if refusal is not None:
                await refusal(scope, receive, exchange.send)
            else:
                await self.app(scope, exchange.receive, exchange.send)
        except _BodyError as error:
            if not exchange.code:
                await refused(error.code, str(error))(scope, receive, exchange.send)
        except (ClientDisconnect, OSError):
            exchange.code = exchange.code or _LEFT
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.counters.requests.labels(route, exchange.code or 500).inc()
            self.counters.seconds.labels(route).observe(time.perf_counter() - begin)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if self.hosts is not None and re.sub(r":\d*$", "", host).strip("[]") not in self.hosts:
            return refused(421, f"this server is not called {host[:100]!r}; ask for localhost")
        if self.keys and scope["path"] not in OPEN and not self._known(headers):
            text = "a key is needed: as header X-API-Key, as Bearer token, or as password"
            return refused(401, text, {"WWW-Authenticate": 'Basic realm="panfpn", charset="UTF-8"'})
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.most_bytes():
            return refused(413, _too_many(self.most_bytes()))
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


class _BodyError(BaseException):
    """A body is too large, or comes too slowly; it goes past what handles the errors of a route."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class _Exchange:
    """A request and its answer: the body is bounded in size and pace, and read to its end before the answer's.

    Who closes a connection on which something lies unread makes the other side lose the answer: what comes after an
    early answer is thrown away.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, most: int) -> None:
        headers = dict(scope["headers"])
        self._receive, self._send, self._most = receive, send, most
        self._whole = b"transfer-encoding" not in headers and headers.get(b"content-length", b"0") == b"0"
        self._size, self._begin = 0, time.monotonic()
        policy = _POLICY + "; script-src 'self' 'unsafe-inline'" * scope["path"].startswith(_WRITTEN_INLINE)
        self._headers = [(b"content-security-policy", policy.encode()), (b"x-content-type-options", b"nosniff")]
        self.code = 0  # of the answer; 0 before there is one

    async def receive(self) -> Message:
        """The next part of the body, or the client's leaving."""
        patience = None if self._whole else SILENCE + self._size / _SLOWEST - (time.monotonic() - self._begin)
        try:
            message = await asyncio.wait_for(self._receive(), patience)
        except TimeoutError:
            text = f"only {self._size} bytes of the request came in {time.monotonic() - self._begin:.0f} s"
            raise _BodyError(408, text) from None
        self._size += len(message.get("body", b""))
        self._whole |= not message.get("more_body")
        if self._size > self._most:
            raise _BodyError(413, _too_many(self._most))
        return message

    async def send(self, message: Message) -> None:
        """Pass on a part of the answer; OSError for a client that does not take it."""
        if message["type"] == "http.response.start":
            self.code = message["status"]
            early = [] if self._whole else [(b"connection", b"close")]
            message = {**message, "headers": [*message.get("headers", []), *self._headers, *early]}
        elif not self._whole and not message.get("more_body"):
            await self._take({**message, "more_body": True})
            await self._throw_away()
            message = {"type": "http.response.body", "body": b""}
        await self._take(message)

    async def _take(self, message: Message) -> None:
        try:
            await asyncio.wait_for(self._send(message), SILENCE)
        except TimeoutError:
            raise OSError("the client does not read") from None

    async def _throw_away(self) -> None:
        left, end = _LINGERING, time.monotonic() + SILENCE
        while left > 0 and time.monotonic() < end:
            try:
                message = await asyncio.wait_for(self._receive(), 2)
            except TimeoutError:
                return
            left -= len(message.get("body", b""))
            if message["type"] != "http.request" or not message.get("more_body"):
                return


def refused(code: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """A refusal in one sentence."""
    return JSONResponse({"detail": detail}, code, headers)


def _too_many(most: int) -> str:
    return f"the request has more than {most / 1e6:.0f} MB; this server takes no larger ones"
