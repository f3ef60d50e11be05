"""Files from web servers: bounded in size and time."""

import http.server
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from panfpn import fetch
from panfpn.fetch import fetched, without_password


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        if self.path != "/endless":
            self.send_header("Content-Length", "1000")
        self.end_headers()
        try:
            if self.path == "/whole":
                self.wfile.write(b"x" * 1000)
            elif self.path == "/short":
                self.wfile.write(b"x" * 900)
            elif self.path == "/endless":
                while True:
                    self.wfile.write(b"x" * 65536)
            else:
                for _ in range(100):
                    self.wfile.write(b"x")
                    time.sleep(0.05)
        except OSError:
            pass  # who gave up has hung up

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()


def read(url: str, limit: int = 1 << 20) -> bytes:
    return b"".join(block for block, _ in fetched(url, limit=limit))


def test_what_is_whole_is_read_and_what_is_not_is_named(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(f"{server}/whole") == b"x" * 1000
    assert next(fetched(f"{server}/whole", limit=1000))[1] == 1000
    with pytest.raises((ValueError, OSError), match=r"ended after 900 of 1000 bytes|IncompleteRead"):
        read(f"{server}/short")
    with pytest.raises(ValueError, match="larger than 1 MiB"):
        read(f"{server}/endless")
    monkeypatch.setattr(fetch, "_PATIENCE", 0.3)
    begin = time.monotonic()
    with pytest.raises(ValueError, match=r"/drips: only \d+ bytes in 0 s; given up"):
        read(f"{server}/drips")
    assert time.monotonic() - begin < 3


def test_only_the_web_is_fetched_and_no_password_is_shown() -> None:
    with pytest.raises(ValueError, match=r"^ftp://host/x: of an unknown kind; http, https addresses are fetched"):
        read("ftp://me:secret@host/x")
    assert without_password("https://me:secret@host:8/a?b=c") == "https://host:8/a?b=c"
