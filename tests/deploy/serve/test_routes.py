import contextlib
import io
import json
import socket
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
import tifffile
import uvicorn
from PIL import Image

from panfpn import Predictor
from panfpn.data.images import decode_image, decode_mask
from panfpn.data.layouts.coco_outlines import rasterised
from panfpn.data.layouts.scenes import scenes_table
from panfpn.deploy.serve import guard, run
from panfpn.deploy.serve.app import Service
from panfpn.deploy.serve.desk import Desk
from panfpn.deploy.serve.run import configured


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    rows, columns = np.mgrid[:90, :130]
    picture = np.stack([rows * 2, columns, (rows + columns) % 97 * 2], -1).astype(np.uint8)
    picture[50:] = (90, 80, 90)
    picture[20:60, 30:60] = (140, 40, 30)
    return picture


@pytest.fixture(scope="module")
def png(photo: np.ndarray) -> bytes:
    return encoded(photo)


def encoded(picture: np.ndarray, suffix: str = ".png") -> bytes:
    return bytes(cv2.imencode(suffix, picture[:, :, ::-1])[1])


def filled(counts: list[int], size: list[int]) -> np.ndarray:
    return np.repeat(np.arange(len(counts)) % 2, counts).reshape(size[::-1]).T.astype(bool)


def labels_of(answer: dict[str, Any]) -> np.ndarray:
    """Raw values of an answer's segments."""
    labels = np.full((answer["height"], answer["width"]), -1)
    for segment in answer["segments"]:
        mask = filled(**segment["segmentation"])
        assert mask.sum() == segment["area"]
        labels[mask] = segment["category_id"]
    return labels


def test_json_says_what_the_predictor_finds(
    client: httpx.Client, shipped: Predictor, photo: np.ndarray, png: bytes
) -> None:
    found = shipped(photo)
    for sent in ({"content": png}, {"files": {"image": ("a photo.png", png)}}):
        answer = client.post("/predict", **sent).raise_for_status().json()
        np.testing.assert_array_equal(labels_of(answer), found.table.decode(found.labels))
        assert {c["name"]: c["share"] for c in answer["classes"]} == found.shares()
        assert len(np.unique(found.labels)) > 1
    assert "segmentation" not in client.post("/predict?masks=none", content=png).json()["segments"][0]


def test_polygons_cover_the_same_pixels(client: httpx.Client, png: bytes) -> None:
    runs = client.post("/predict", content=png).json()["segments"]
    polygons = client.post("/predict?masks=polygons", content=png).json()["segments"]
    for a, b in zip(runs, polygons, strict=True):
        mask = filled(**a["segmentation"])
        rings = [np.array(ring, np.float64).reshape(-1, 2) for ring in b["segmentation"]]
        np.testing.assert_array_equal(rasterised(rings, mask.shape), mask)


def test_pictures(client: httpx.Client, shipped: Predictor, photo: np.ndarray, png: bytes) -> None:
    found = shipped(photo, confidence=True)

    def ask(query: str, accept: str = "image/png") -> bytes:
        answer = client.post(f"/predict{query}", content=png, headers={"Accept": accept}).raise_for_status()
        assert answer.headers["content-type"] == accept
        return answer.content

    for query in ("", "?what=labels"):
        np.testing.assert_array_equal(decode_mask(ask(query)), found.picture("labels"))
    np.testing.assert_array_equal(decode_image(ask("?what=overlay")), found.overlay())
    np.testing.assert_array_equal(decode_mask(ask("?what=confidence")), found.picture("confidence"))
    np.testing.assert_array_equal(decode_image(ask("?what=image")), photo)
    assert decode_image(ask("", "image/jpeg")).shape == photo.shape


def test_segments_of_a_panoptic_model(serving: Any, fake_panoptic_task: Any, png: bytes, photo: np.ndarray) -> None:
    predictor = Predictor(fake_panoptic_task(scenes_table()))
    found = predictor(photo)
    with serving(predictor) as client:
        answer = client.post("/predict", content=png).json()
        things = [s for s in answer["segments"] if s["isthing"]]
        assert things and [s["score"] for s in things] == sorted((s["score"] for s in things), reverse=True)
        for segment in answer["segments"]:
            mask = filled(**segment.pop("segmentation"))
            np.testing.assert_array_equal(mask, found.segments == segment["id"])
        assert answer["segments"] == found.to_dict()["segments_info"]
        picture = client.post("/predict", content=png, headers={"Accept": "image/png"}).content
        np.testing.assert_array_equal(decode_image(picture), found.picture("panoptic"))
        outputs = client.post("/v2/models/toy/infer", json=tensor(photo[None])).json()["outputs"]
        assert [output["name"] for output in outputs] == ["labels", "segments", "info"]
        assert json.loads(outputs[2]["data"][0]) == found.to_dict()["segments_info"]


def huge_png(side: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def tiff_pages() -> bytes:
    file = io.BytesIO()
    pages = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:])
    return file.getvalue()


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        ({"content": b"hello"}, 415, "not an image of a format that is read here"),
        ({"content": b""}, 422, "the request has no image"),
        ({"files": {"a": b"hello", "b": b"x"}}, 422, "2 files"),
        ({"files": {"a": ("bad.png", b"\x89PNG\r\n\x1a\n\0\0")}}, 422, "bad.png: not a readable image"),
        ({"content": huge_png(1100)}, 413, "1100×1100 pixels are more than the 1 megapixels"),
        ({"content": huge_png(2_000_000)}, 413, "2000000×2000000"),
        ({"content": tiff_pages()}, 422, "has 2 pages"),
        ({"content": encoded(np.zeros((9, 9, 3), np.uint8))[:-20]}, 422, "cut short"),
        ({"content": bytes(5_000_000)}, 413, "more than 4 MB"),
        ({"content": b"x", "params": {"masks": "all"}}, 422, "masks: Input should be 'rle'"),
        ({"content": b"x", "params": {"what": "all"}}, 422, "what is 'all'; this model has image, labels, overlay"),
        ({"content": b"x", "headers": {"Accept": "text/html"}}, 406, "Accept names none"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "oundary"),
    ],
)  # fmt: skip
def test_refusals_are_one_sentence(client: httpx.Client, request_: dict[str, Any], code: int, words: str) -> None:
    answer = client.post("/predict", **request_)
    assert (answer.status_code, list(answer.json())) == (code, ["detail"])
    assert words in answer.json()["detail"] and "\n" not in answer.json()["detail"]


def test_a_body_without_a_length_is_cut_off(client: httpx.Client) -> None:
    sent = 0

    def blocks() -> Any:
        nonlocal sent
        for _ in range(400):
            sent += 1 << 20
            yield bytes(1 << 20)

    with contextlib.suppress(httpx.TransportError):  # closed while it was written to, which is all the same
        assert client.post("/predict", content=blocks()).status_code == 413
    assert sent < 300 << 20


def test_what_an_image_becomes_in_the_network_is_bounded(client: httpx.Client) -> None:
    thin = encoded(np.zeros((1, 60_000, 3), np.uint8))
    answer = client.post("/predict", content=thin)
    assert answer.status_code == 413 and "become 1920000 in the network" in answer.json()["detail"]
    file = io.BytesIO()
    tifffile.imwrite(
        file, np.zeros((500, 500, 40), np.uint8), compression="zlib", planarconfig="contig", photometric="minisblack"
    )
    answer = client.post("/predict", content=file.getvalue())
    assert answer.status_code == 413 and "40 bands" in answer.json()["detail"]


def test_early_refusals_reach_clients_that_are_still_sending(client: httpx.Client) -> None:
    """Without a library that reads while it sends: first all of the body, then the answer."""
    address = (client.base_url.host, client.base_url.port)
    for path, size, code in (("/predict?what=x", 3_000_000, b"422"), ("/predict", 8_000_000, b"413")):
        with socket.create_connection(address, timeout=20) as connection:
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"
            connection.sendall(head.encode() + bytes(size))
            assert connection.recv(65536).split()[1] == code


@pytest.mark.parametrize("charset", ["punycode", "utf-7", "unicode_escape", "no-such"])
def test_a_form_chooses_no_codec(client: httpx.Client, png: bytes, charset: str) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="image"; filename="+2AA-.png"\r\n\r\n' + png + b"\r\n--x--\r\n"
    kind = f"multipart/form-data; boundary=x; charset={charset}"
    assert client.post("/predict", content=body, headers={"Content-Type": kind}).status_code == 200


def test_slow_and_silent_clients_are_left(
    serving: Any, fake_panoptic_task: Any, monkeypatch: pytest.MonkeyPatch, png: bytes
) -> None:
    monkeypatch.setattr(guard, "SILENCE", 1.0)
    monkeypatch.setattr(run, "SILENCE", 1.0)
    with serving(Predictor(fake_panoptic_task(scenes_table()))) as client:
        address = (client.base_url.host, client.base_url.port)
        with socket.create_connection(address, timeout=20) as silent, socket.create_connection(address) as slow:
            slow.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
            for _ in range(4):
                time.sleep(0.4)
                with contextlib.suppress(OSError):
                    slow.sendall(b"x")
            assert slow.recv(4096).split()[1] == b"408"
            assert silent.recv(4096) == b""  # closed
        assert client.post("/predict", content=png).status_code == 200


def test_a_client_that_leaves_is_no_error(client: httpx.Client, png: bytes, caplog: pytest.LogCaptureFixture) -> None:
    address = (client.base_url.host, client.base_url.port)
    for _ in range(3):
        with socket.create_connection(address) as connection:
            connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
    end = time.monotonic() + 20
    while 'code="499",route="/predict"} 3.0' not in client.get("/metrics").text:
        assert time.monotonic() < end
    assert "Traceback" not in caplog.text and client.post("/predict", content=png).status_code == 200


def test_other_names_are_not_let_in(serving: Any, fake_panoptic_task: Any) -> None:
    hosts = frozenset({"localhost", "127.0.0.1", "::1"})
    with serving(Predictor(fake_panoptic_task(scenes_table())), hosts=hosts) as client:
        names = dict.fromkeys(("localhost", "localhost:8000", "[::1]:80", "[::1]"), 200) | {"evil.example:8000": 421}
        for name, code in names.items():
            assert client.get("/model", headers={"Host": name}).status_code == code


def test_a_model_that_does_not_run_ends_the_server(fake_panoptic_task: Any, png: bytes) -> None:
    def fail(_: str) -> None:
        raise RuntimeError("no such instruction")

    service = Service(Predictor(fake_panoptic_task(scenes_table(), fail)), "toy", Desk(1, 1, 1))
    server = uvicorn.Server(configured(service))
    service.end = lambda: setattr(server, "should_exit", True)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server.run(sockets=[listener])  # which returns
    assert service.failure == "RuntimeError: no such instruction" and not service.ready


def test_what_means_a_picture(client: httpx.Client, png: bytes) -> None:
    for headers in ({}, {"Accept": ""}, {"Accept": "*/*"}):
        answer = client.post("/predict?what=overlay", content=png, headers=headers)
        assert answer.headers["content-type"] == "image/png"
    assert client.head("/health").status_code == client.head("/ready").status_code == 200


def test_labels_do_not_survive_as_jpeg(client: httpx.Client, png: bytes) -> None:
    answer = client.post("/predict?what=labels", content=png, headers={"Accept": "image/jpeg"})
    assert answer.status_code == 422 and "ask for image/png" in answer.json()["detail"]


def test_keys(serving: Any, fake_panoptic_task: Any, png: bytes) -> None:
    keys = (b"the first key", b"another key")
    with serving(Predictor(fake_panoptic_task(scenes_table())), keys=keys) as client:
        for path in ("/", "/model", "/metrics", "/docs", "/openapi.json", "/live", "/v2/models/toy"):
            answer = client.get(path)
            assert answer.status_code == 401 and "key" in answer.json()["detail"]
            assert answer.headers["www-authenticate"].startswith("Basic")
        for path in ("/health", "/ready", "/v2/health/live", "/v2/health/ready"):
            assert client.get(path).status_code == 200
        for wrong in ({"X-API-Key": "the first"}, {"Authorization": "Bearer x"}, {"Authorization": "Basic ***"}):
            assert client.post("/predict", content=png, headers=wrong).status_code == 401
        for right in ({"X-API-Key": "another key"}, {"Authorization": "Bearer the first key"}):
            assert client.post("/predict", content=png, headers=right).status_code == 200
        assert client.get("/", auth=("whoever", "another key")).status_code == 200


def test_a_full_queue_says_when_to_come_again(serving: Any, fake_panoptic_task: Any, png: bytes) -> None:
    go_on, begun = threading.Event(), threading.Semaphore(0)

    def wait(name: str) -> None:
        if name == "slow.png":
            begun.release()
            assert go_on.wait(60)

    predictor = Predictor(fake_panoptic_task(scenes_table(), wait))
    with serving(predictor, workers=2, queue=1) as client, ThreadPoolExecutor(3) as pool:
        slow = [pool.submit(client.post, "/predict", files={"i": ("slow.png", png)}) for _ in range(3)]
        assert begun.acquire(timeout=30) and begun.acquire(timeout=30)
        while client.service.desk.inside < 3:
            time.sleep(0.01)
        for path, sent in (
            ("/predict", {"content": png}),
            ("/v2/models/toy/infer", {"json": tensor(np.zeros((1, 9, 9, 3)))}),
        ):
            answer = client.post(path, **sent)
            assert answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1
            assert "queue is full" in answer.text
        assert b"panfpn_inside 3.0" in client.get("/metrics").content
        go_on.set()
        assert [one.result().status_code for one in slow] == [200] * 3
        assert client.post("/predict", content=png).status_code == 200


def test_not_ready_before_the_model_has_run(serving: Any, fake_panoptic_task: Any) -> None:
    go_on = threading.Event()
    task = fake_panoptic_task(scenes_table(), lambda _: go_on.wait(60))
    task.stuck = True
    with serving(Predictor(task)) as client:
        assert client.get("/health").json() == {"status": "alive"}
        for path in ("/ready", "/v2/health/ready", "/v2/models/toy/ready"):
            assert client.get(path).status_code == 503
        go_on.set()
        end = time.monotonic() + 60
        while client.get("/ready").status_code != 200:
            assert time.monotonic() < end


def test_an_unforeseen_error_is_logged_and_not_shown(
    serving: Any, fake_panoptic_task: Any, png: bytes, caplog: Any
) -> None:
    def fail(name: str) -> None:
        if name == "the image":
            raise RuntimeError("a secret of the program")

    with serving(Predictor(fake_panoptic_task(scenes_table(), fail))) as client:
        answer = client.post("/predict", content=png)
        assert answer.status_code == 500 and "secret" not in answer.text
        assert "a secret of the program" in caplog.text
        assert client.post("/predict", files={"i": ("good.png", png)}).status_code == 200


def test_memory_that_is_not_there_is_said(serving: Any, fake_panoptic_task: Any, png: bytes) -> None:
    def fail(name: str) -> None:
        if name == "the image":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with serving(Predictor(fake_panoptic_task(scenes_table(), fail))) as client:
        answer = client.post("/predict", content=png)
        assert answer.status_code == 413 and "memory" in answer.json()["detail"]


def test_counters(client: httpx.Client, png: bytes) -> None:
    def count(line: str) -> float:
        found = [row.split()[-1] for row in client.get("/metrics").text.splitlines() if row.startswith(line)]
        return float(found[0]) if found else 0.0

    good, bad = (f'panfpn_requests_total{{code="{code}",route="/predict"}}' for code in (200, 415))
    before = count(good), count(bad), count("panfpn_predict_seconds_count")
    client.post("/predict", content=png)
    client.post("/predict", content=b"x")
    client.get("/no/such/path")
    assert (count(good), count(bad), count("panfpn_predict_seconds_count")) == tuple(n + 1 for n in before)
    assert count('panfpn_requests_total{code="404",route="other"}') >= 1


def test_what_the_model_is(client: httpx.Client, shipped: Predictor) -> None:
    model = client.get("/model").json()
    assert [c["name"] for c in model["classes"]] == list(shipped.table.names)
    assert model["architecture"] == "SemanticFPN" and model["megapixels"] == 1.0


def tensor(images: np.ndarray, **changes: Any) -> dict[str, Any]:
    data = images.astype(int).ravel().tolist()
    return {"inputs": [{"name": "pixels", "datatype": "UINT8", "shape": list(images.shape), "data": data} | changes]}


def test_open_inference_protocol(client: httpx.Client, shipped: Predictor, photo: np.ndarray) -> None:
    assert client.get("/v2").json()["name"] == "panfpn"
    for path in ("/v2/models/toy", "/v2/models/toy/versions/1"):
        assert client.get(path).json()["inputs"][0]["shape"] == [-1, -1, -1, 3]
        assert client.get(f"{path}/ready").json() == {"name": "toy", "ready": True}
        images = np.stack([photo, photo[::-1]])
        answer = client.post(f"{path}/infer", json={"id": "7", **tensor(images)}).raise_for_status().json()
        assert (answer["id"], answer["model_name"], answer["model_version"]) == ("7", "toy", "1")
        (output,) = answer["outputs"]
        labels = np.array(output["data"]).reshape(output["shape"])
        for i, image in enumerate(images):
            np.testing.assert_array_equal(labels[i], shipped(image).labels)
    nested = tensor(photo[None], data=photo[None].tolist())
    assert client.post("/v2/models/toy/infer", json=nested | {"outputs": [{"name": "labels"}]}).status_code == 200


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        (b"{", 400, "not JSON"),
        (b"[" * 100_000, 400, "not JSON"),
        (b"7", 400, "list `inputs`"),
        ({"inputs": []}, 400, "list `inputs`"),
        (tensor(np.zeros((1, 2, 2, 3))) | {"outputs": [{"name": "x"}]}, 400, "no output 'x'"),
        (tensor(np.zeros((1, 2, 2, 3))) | {"outputs": 7}, 400, "list of names"),
        (tensor(np.zeros((1, 2, 2, 3)), datatype="FP32"), 400, "datatype UINT8"),
        (tensor(np.zeros((1, 2, 2, 4))), 400, "4 channels"),
        (tensor(np.zeros((1, 2, 2, 3)), shape=[1, 2, 2]), 400, "the shape of pixels"),
        (tensor(np.zeros((1, 2, 2, 3)), shape=[1, 2, True, 3]), 400, "the shape of pixels"),
        (tensor(np.zeros((1, 2, 2, 3)), shape=[1, 3, 2, 3]), 400, "12 numbers"),
        (tensor(np.zeros((1, 2, 2, 3)), shape=[1, 3000, 3000, 3]), 413, "megapixels"),
        (tensor(np.zeros((1, 2, 2, 3)), data=[256] * 12), 400, "from 0 to 255"),
        (tensor(np.zeros((1, 2, 2, 3)), data=[[1], [2, 3]]), 400, "not numbers"),
        (tensor(np.zeros((1, 2, 2, 3)), data=["1"] * 12), 400, "not numbers"),
        (tensor(np.zeros((1, 2, 2, 3)), data=[True] * 12), 400, "not numbers"),
        (tensor(np.zeros((1, 2, 2, 3)), shape=[10**400, 2, 2, 3]), 400, "the shape of pixels"),
        (tensor(np.zeros((1, 2, 2, 3)), shape=[50_000, 2, 2, 3]), 413, "become 51200000 in the network"),
        (tensor(np.zeros((1, 2, 2, 3)), data=None), 400, "not numbers"),
    ],
)  # fmt: skip
def test_wrong_requests_of_the_protocol(client: httpx.Client, body: Any, code: int, words: str) -> None:
    sent = {"content": body} if isinstance(body, bytes) else {"json": body}
    answer = client.post("/v2/models/toy/infer", **sent)
    assert (answer.status_code, list(answer.json())) == (code, ["error"]) and words in answer.json()["error"]


def test_no_such_model(client: httpx.Client) -> None:
    answer = client.get("/v2/models/other/ready")
    assert answer.status_code == 404 and "this server has 'toy'" in answer.json()["error"]


def test_documentation_comes_from_here(client: httpx.Client) -> None:
    pages = [client.get(path) for path in ("/", "/docs")]
    assert all(page.status_code == 200 and "//cdn" not in page.text for page in pages)
    assert all("default-src 'self'" in page.headers["content-security-policy"] for page in pages)
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/predict", "/model", "/health", "/ready", "/metrics", "/live", "/v2/models/{model}/infer"} <= set(paths)


def test_the_cameras_picture(serving: Any, fake_panoptic_task: Any, tmp_path: Path) -> None:
    from panfpn.deploy.serve.live import Live  # noqa: PLC0415 - beside what it is tried with

    video = tmp_path / "video.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"MJPG"), 20, (64, 48))
    for i in range(20):
        writer.write(np.full((48, 64, 3), 10 * i, np.uint8))
    writer.release()
    predictor = Predictor(fake_panoptic_task(scenes_table()))
    with serving(predictor) as client:
        assert client.get("/live").status_code == 404
        for address, code in ((video, 200), (tmp_path / "none.avi", 503)):
            client.service.live = Live(str(address), predictor, client.service.desk)
            with client.stream("GET", "/live") as answer:
                assert answer.status_code == code
                content = b"".join(answer.iter_bytes())
            if code == 200:
                parts = content.split(b"--panfpn-frame\r\n")[1:]
                pictures = [part.partition(b"\r\n\r\n")[2][:-2] for part in parts]
                assert len(pictures) >= 2 and all(decode_image(one).shape == (48, 64, 3) for one in pictures)
            else:
                assert "none.avi: not a readable video" in json.loads(content)["detail"]


@pytest.mark.parametrize("kind", [".jpg", ".webp", ".bmp", ".tiff"])
def test_every_format(client: httpx.Client, photo: np.ndarray, kind: str) -> None:
    assert client.post("/predict", content=encoded(photo, kind)).status_code == 200


def test_many_at_once_get_their_own_answers(client: httpx.Client, shipped: Predictor) -> None:
    images = [np.full((20 + i, 30, 3), 20 * i, np.uint8) for i in range(6)]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda image: client.post("/predict", content=encoded(image)), images))
    for image, answer in zip(images, answers, strict=True):
        np.testing.assert_array_equal(labels_of(answer.json()), shipped.table.decode(shipped(image).labels))
