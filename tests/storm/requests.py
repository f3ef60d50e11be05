"""Malformed requests to `panfpn serve`: what schemathesis makes of its OpenAPI document, and images that are none.

    python tests/storm/requests.py [--examples 60] [--images 600]        (needs schemathesis)

Exit code 1 for an answer of 500 and above (but 503), an answer that is no JSON sentence, a traceback in the server's log,
or memory that grows from the second half to the end by more than 5 %.
"""

import argparse
import json
import random
import re
import struct
import subprocess
import sys
import urllib.error
import urllib.request
import zlib
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from served import resident, served

FORMATS = (".png", ".jpg", ".webp", ".tiff", ".bmp")


def giant(side: int) -> bytes:
    """A PNG that claims side² pixels."""
    parts = b"\x89PNG\r\n\x1a\n"
    for kind, data in (
        (b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(99))),
    ):
        parts += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return parts


def bad_images(count: int) -> list[bytes]:
    """Files cut short, with bytes changed, too large, or of nothing."""
    rng = random.Random(0)
    picture = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    whole = [bytes(cv2.imencode(suffix, picture)[1]) for suffix in FORMATS]
    found = [b"", b"\0", giant(20_000), giant(2_000_000_000), b"GIF89a", b"%PDF-1.7", b"<svg/>", bytes(1 << 16)]
    while len(found) < count:
        data = bytearray(rng.choice(whole))
        if rng.random() < 0.5:
            del data[rng.randrange(len(data)) :]
        else:
            for _ in range(rng.randint(1, 30)):
                data[rng.randrange(len(data))] = rng.randrange(256)
        found.append(bytes(data))
    return found[:count]


def ask(address: str, body: bytes, rng: random.Random) -> tuple[int, str]:
    """Status and text of an answer to a file as body or form."""
    headers = {"Content-Type": rng.choice(["image/png", "application/octet-stream", "text/plain", "x"])}
    if rng.random() < 0.4:
        headers["Content-Type"] = "multipart/form-data; boundary=b" + "x" * rng.choice([0, 0, 0, 3])
        body = (
            b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + body + b"\r\n--b--\r\n"
        )
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{address}/predict", body, headers)) as answer:
            return answer.status, ""
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=60, help="of each route")
    parser.add_argument("--images", type=int, default=600)
    options = parser.parse_args()
    log = Path("requests.log")
    faults, memory = [], []
    with served("--max-megapixels", "2", log=log) as (server, address):
        tool = subprocess.run(
            [Path(sys.executable).with_name("schemathesis"), "run", f"{address}/openapi.json", "--exclude-path", "/live",
             "--checks", "not_a_server_error,content_type_conformance,status_code_conformance", "--max-examples",
             str(options.examples), "--continue-on-failure"], capture_output=True, text=True,
        )  # fmt: skip
        print(tool.stdout[-3000:])
        rng = random.Random(1)
        images = bad_images(options.images)
        for k, body in enumerate(images):
            status, text = ask(address, body, rng)
            if status >= 500 and status != 503:
                faults.append(f"{status} for image {k}")
            if status != 200 and (list(json.loads(text)) != ["detail"] or "\n" in json.loads(text)["detail"]):
                faults.append(f"{text[:200]} for image {k}")
            memory.append(resident(server.pid))
        counted = urllib.request.urlopen(f"{address}/metrics").read().decode()
    answers = re.findall(r'panfpn_requests_total\{code="(\d+)",route="([^"]+)"\} ([\d.]+)', counted)
    total = sum(float(number) for _, _, number in answers)
    faults += [
        f"{number} answers {code} of {route}" for code, route, number in answers if code[0] == "5" and code != "503"
    ]
    faults += ["a traceback in the log"] * ("Traceback" in log.read_text())
    half = memory[len(memory) // 2]
    faults += [f"memory grew from {half:.0f} to {memory[-1]:.0f} MB"] * (memory[-1] > 1.05 * half)
    print(f"{total:.0f} requests; memory {memory[0]:.0f}, {half:.0f}, {memory[-1]:.0f} MB; {len(faults)} faults")
    print("\n".join(faults))
    return int(bool(faults) or tool.returncode != 0)


if __name__ == "__main__":
    sys.exit(main())
