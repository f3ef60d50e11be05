"""Servers of this process, each on a port of its own."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import httpx
import pytest
import uvicorn

from panfpn import Predictor
from panfpn.deploy.serve.app import Service
from panfpn.deploy.serve.desk import Desk
from panfpn.deploy.serve.run import configured


class Served(httpx.Client):
    """A client, and the service that it talks to."""

    service: Service


Serving = Callable[..., AbstractContextManager[Served]]


@contextmanager
def a_server(predictor: Predictor, *, workers: int = 1, queue: int = 4, **settings: Any) -> Iterator[Served]:
    service = Service(predictor, "toy", Desk(workers, queue, 1), **settings)
    server = uvicorn.Server(configured(service))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            with Served(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=60) as client:
                end = time.monotonic() + 60
                while not service.ready and not getattr(predictor.task, "stuck", False):
                    assert time.monotonic() < end
                    time.sleep(0.01)
                client.service = service
                yield client
        finally:
            service.desk.closing = True
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


@pytest.fixture(scope="session")
def serving() -> Serving:
    """`with serving(predictor, queue=2, …) as client:` an httpx client of a server that is ready."""
    return a_server


@pytest.fixture(scope="session")
def shipped() -> Predictor:
    return Predictor.from_file(device="cpu", precision="float32")


@pytest.fixture(scope="session")
def client(shipped: Predictor) -> Iterator[Served]:
    with a_server(shipped, workers=2, megapixels=1.0) as client:
        yield client
