import math
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from panfpn import Predictor
from panfpn.cli import main
from panfpn.deploy.serve.limits import allowed_megapixels, measured_megapixels
from panfpn.deploy.serve.run import Settings, is_loopback, model_name, read_keys


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "0.0.0.0"], "lets other machines in; name a file with a key"),
        (["--queue", "-1"], "--queue is -1; it must be at least 0"),
        (["--workers", "0"], "--workers is 0; it must be at least 1"),
        (["--max-megapixels", "0"], "--max-megapixels is 0.0; it must be at least"),
        (["--max-megapixels", "nan"], "--max-megapixels is nan"),
        (["--port", "70000"], "--port is 70000"),
        (["--key-file", "no.txt"], "no.txt: cannot be read"),
        (["--host", "no.such.host.invalid", "--open"], "cannot listen there"),
        (["no.safetensors", "--port", "0"], "no.safetensors: no such file"),
    ],
)
def test_wrong_options(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", *options]) == 2
    assert words in capsys.readouterr().err


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", "--port", str(taken.getsockname()[1])]) == 2
    assert "cannot listen there (Address already in use" in capsys.readouterr().err


def test_keys_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    file.write_text("first key\n\n  second key \r\n")
    assert read_keys(file) == (b"first key", b"second key")
    for text, words in (("", "no key"), ("long enough\nshort", "too short")):
        file.write_text(text)
        with pytest.raises(ValueError, match=words):
            read_keys(file)


def test_who_is_let_in() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.1", "example.org")))
    Settings(host="0.0.0.0", open=True)


def test_names_of_models_fit_into_addresses() -> None:
    assert [model_name(m) for m in (None, "runs/my run", "a/b.onnx", "me/model")] == [
        "camvid_lite0", "my_run", "b", "model"
    ]  # fmt: skip


def test_megapixels_follow_the_memory() -> None:
    assert allowed_megapixels(1000, 8e9, 2) == 2.8
    assert allowed_megapixels(1000, 1e15, 2) == allowed_megapixels(math.nan, 8e9, 2) == 50
    assert allowed_megapixels(1e9, 1, 1) == 0.1


def test_megapixels_are_measured(shipped: Predictor) -> None:
    few, many = (measured_megapixels(shipped, workers) for workers in (1000, 1))
    assert 0.1 <= few < many <= 50


@pytest.fixture
def photo() -> bytes:
    picture = np.random.default_rng(0).integers(0, 256, (360, 480, 3), np.uint8)
    return bytes(cv2.imencode(".jpg", picture)[1])


SERVER = """import faulthandler, sys
from panfpn.cli import main
faulthandler.dump_traceback_later(100)  # it should have ended by then: where does it stand?
sys.exit(main(["serve", *sys.argv[1:]]))"""


def test_an_end_under_load_answers_what_was_accepted(photo: bytes) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", SERVER, "--port", "0", "--queue", "4", "--max-megapixels", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stderr is not None
        line = server.stderr.readline()
        (address,) = re.findall(r"http://\S+:\d+", line)
        wait_until_ready(address)
        answers: list[Any] = []

        def load() -> None:
            with httpx.Client(base_url=address, timeout=60) as client:
                while True:
                    try:
                        answer = client.post("/predict", content=photo)
                    except httpx.TransportError as error:
                        answers.append(error)
                        return
                    answers.append(answer.status_code)
                    if answer.status_code == 503:
                        time.sleep(0.1)

        clients = [threading.Thread(target=load) for _ in range(8)]
        for client in clients:
            client.start()
        time.sleep(2)
        server.send_signal(signal.SIGTERM)
        rest = server.stderr.read()
        assert server.wait(60) == 0
        for client in clients:
            client.join(60)
    assert "Traceback" not in rest, rest
    codes = [answer for answer in answers if isinstance(answer, int)]
    assert codes.count(200) >= 8 and set(codes) <= {200, 503}
    # Who was refused a connection, or found that an idle one had been closed, was not accepted.
    errors = [answer for answer in answers if not isinstance(answer, int)]
    assert len(errors) == 8 and all(isinstance(e, httpx.ConnectError | httpx.ReadError | httpx.RemoteProtocolError)
                                    and "complete message body" not in str(e) for e in errors), errors  # fmt: skip


def wait_until_ready(address: str) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            if httpx.get(f"{address}/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError("not ready in two minutes")
