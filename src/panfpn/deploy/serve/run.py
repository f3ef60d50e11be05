"""The server on a port. In: a model and settings. Out: nothing; it ends when it is told to."""

import asyncio
import ipaddress
import os
import re
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from panfpn.deploy.predictor import Predictor
from panfpn.deploy.serve.app import Service, make_app
from panfpn.deploy.serve.desk import Desk
from panfpn.deploy.serve.guard import SILENCE
from panfpn.deploy.serve.live import Live
from panfpn.weights.zoo import SHIPPED

_CONNECTIONS = 512  # at once; more are answered with 503
_MOST_WORKERS = 4  # without being asked: each needs memory for an image of its own
_SHORTEST_KEY = 8
_LONGEST_END = 120  # seconds after which what is still not answered is given up


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a model is served; ValueError for what cannot be."""

    model: str | None = None  # as `Predictor.from_file` takes it
    host: str = "127.0.0.1"
    port: int = 8000
    device: str = "auto"
    precision: str = "auto"
    engine: str = "torch"
    key_file: Path | None = None
    open: bool = False  # to other machines, without a key
    megapixels: float | None = None
    queue: int = 16
    workers: int | None = None
    camera: str | None = None
    log: bool = False  # a line for each request

    def __post_init__(self) -> None:
        for name, least in (("queue", 0), ("workers", 1), ("megapixels", 0.01)):
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise ValueError(f"--{name.replace('mega', 'max-mega')} is {value}; it must be at least {least}")
        if not 0 <= self.port < 1 << 16:
            raise ValueError(f"--port is {self.port}; ports are 0 (any that is free) to 65535")
        if not is_loopback(self.host) and self.key_file is None and not self.open:
            raise ValueError(f"--host {self.host} lets other machines in; name a file with a key for them "
                             "(--key-file), or say that they need none (--open)")  # fmt: skip


def serve(settings: Settings, say: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; what was accepted by then is answered.

    Raises:
        ValueError: a model that cannot be read, a port that is taken, a key file without keys.
    """
    keys = read_keys(settings.key_file) if settings.key_file else ()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = settings.workers or min(cores, _MOST_WORKERS)
    desk = Desk(workers, settings.queue, max(1, cores // workers))
    with _listening(settings.host, settings.port) as listener:
        predictor = Predictor.from_file(
            settings.model, settings.device, settings.precision, engine=settings.engine, streams=workers
        )
        live = Live(settings.camera, predictor, desk) if settings.camera else None
        service = Service(predictor, model_name(settings.model), desk, settings.megapixels, keys, live=live)
        service.hosts = None if keys or settings.open else frozenset({"localhost", "127.0.0.1", "::1", settings.host})
        server = _Server(configured(service, log=settings.log), desk)
        service.end = server.end
        host, port = listener.getsockname()[:2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        plural = "s" * (desk.threads > 1)
        say(f"{service.name} ({predictor.about}) on {address}: {workers} workers of {desk.threads} thread{plural}, "
            f"queue {settings.queue}; /docs says what it answers; Ctrl-C ends it")  # fmt: skip
        server.run(sockets=[listener])
    if service.failure:
        raise ValueError(f"{service.name}: the model does not run here ({service.failure})")


def configured(service: Service, *, log: bool = False) -> uvicorn.Config:
    """Uvicorn's settings for a service; `log` prints a line for each request."""
    return uvicorn.Config(
        make_app(service), log_level="info" if log else "warning", access_log=log, limit_concurrency=_CONNECTIONS,
        server_header=False, proxy_headers=False, lifespan="on", ws="none", http=_Protocol,
        timeout_graceful_shutdown=_LONGEST_END,
    )  # fmt: skip


class _Protocol(H11Protocol):
    """A connection; one on which no request begins is closed, as it would keep others out."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.loop.call_later(SILENCE, self._close_unused)

    def _close_unused(self) -> None:
        if self.cycle is None:
            self.transport.close()


class _Server(uvicorn.Server):
    """Tells streams to end when the server shall; uvicorn would wait for them for ever."""

    def __init__(self, config: uvicorn.Config, desk: Desk) -> None:
        super().__init__(config)
        self.desk = desk

    def end(self) -> None:
        """Take no more requests, and answer those that came."""
        self.desk.closing = True
        self.should_exit = True

    def handle_exit(self, sig: int, frame: object) -> None:
        self.desk.closing = True
        super().handle_exit(sig, frame)  # type: ignore[arg-type]

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, but an end that was asked for is none by a signal."""
        before = {sig: signal.signal(sig, lambda *_: None) for sig in (signal.SIGTERM, signal.SIGINT)}
        try:
            super().run(sockets)  # which raises the signal again for whoever listened before
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches the host's address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_keys(file: Path) -> tuple[bytes, ...]:
    """The keys in a file, one a line; ValueError for one that is too short, or none."""
    try:
        keys = [line.strip() for line in file.read_bytes().splitlines() if line.strip()]
    except OSError as error:
        raise ValueError(f"{file}: cannot be read ({error.strerror})") from error
    if not keys or min(map(len, keys)) < _SHORTEST_KEY:
        raise ValueError(f"{file}: holds {'a key that is too short' if keys else 'no key'}; a key is a line of "
                         f"{_SHORTEST_KEY} characters or more")  # fmt: skip
    return tuple(keys)


def model_name(model: str | None) -> str:
    """What a model is called in addresses."""
    stem = Path(model).stem if model else SHIPPED
    return re.sub(r"[^\w.-]+", "_", stem) or "model"


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise ValueError(f"--host {host} --port {port}: cannot listen there ({error.strerror or error})") from error
