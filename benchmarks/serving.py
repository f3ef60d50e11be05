"""`panfpn serve` under load, beside `panfpn benchmark inference` on the same cores.

    python benchmarks/serving.py [--minutes 10] [--model camvid_lite0] [--engine torch] [--size 360 480] [--photo FILE]

wrk (https://github.com/wg/wrk) sends one JPEG over and over from 8 connections. Printed: images a second of both, their
ratio, p50 and p95 of an answer, the server's resident memory at the start and the end and its slope over the second
half, and what the server counted. Exit code 1 below 90 %, or where an answer was none.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
import urllib.request
from pathlib import Path

import cv2
import numpy as np
from served import resident, served

from panfpn.benchmark import InferenceJob, in_child, measure_inference

LUA = """
local file = io.open("{image}", "rb")
wrk.method, wrk.body = "POST", file:read("*a")
wrk.headers["Content-Type"] = "image/jpeg"
function response(status, headers, body) if status ~= 200 then print("answer " .. status) end end
"""


def seconds_of(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(number) * {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60}[unit]


def under_load(options: argparse.Namespace, image: Path) -> tuple[dict[str, float], list[float]]:
    """Figures of wrk, and the server's memory every 5 seconds."""
    log = image.with_suffix(".log")
    with served(options.model, "--engine", options.engine, log=log) as (server, address):
        print(log.read_text().strip(), flush=True)
        script = image.with_suffix(".lua")
        script.write_text(LUA.format(image=image))
        memory, done = [], threading.Event()

        def watch() -> None:
            while not done.wait(5):
                memory.append(resident(server.pid))

        threading.Thread(target=watch, daemon=True).start()
        wrk = subprocess.run(
            ["wrk", "-t1", "-c8", f"-d{round(60 * options.minutes)}s", "--timeout", "60s", "--latency", "-s",
             str(script), f"{address}/predict"], capture_output=True, text=True, check=True,
        )  # fmt: skip
        done.set()
        counted = urllib.request.urlopen(f"{address}/metrics").read().decode()
        print("\n".join(row for row in counted.splitlines() if row.startswith("panfpn_requests_total")))
    text = wrk.stdout
    latencies = dict(re.findall(r"(\d+)%\s+(\S+)", text))
    figures = {
        "images/s": float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1]), "p50": seconds_of(latencies["50"]),
        "p90": seconds_of(latencies["90"]), "p99": seconds_of(latencies["99"]),
        "bad": float(text.count("answer ") + len(re.findall(r"Non-2xx|Socket errors", text))),
    }  # fmt: skip
    print(text)
    return figures, memory


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--model", default="camvid_lite0")
    parser.add_argument("--engine", default="torch")
    parser.add_argument("--size", nargs=2, type=int, default=[360, 480])
    parser.add_argument("--photo", type=Path)
    options = parser.parse_args()
    job = InferenceJob(model=options.model, size=tuple(options.size), engine=options.engine, repeats=100, warmup=10)
    before = in_child(measure_inference, job, False).images_per_second
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "photo.jpg"
        photo = cv2.imread(str(options.photo)) if options.photo else np.random.default_rng(0).integers(
            0, 256, (45, 60, 3)).astype(np.uint8)  # fmt: skip
        cv2.imwrite(str(image), cv2.resize(photo, options.size[::-1], interpolation=cv2.INTER_CUBIC))
        figures, memory = under_load(options, image)
    after = in_child(measure_inference, job, False).images_per_second
    half = memory[len(memory) // 2 :]
    slope = float(np.polyfit(np.arange(len(half)) / 12, half, 1)[0]) if len(half) > 2 else float("nan")
    ratio = figures["images/s"] / ((before + after) / 2)
    print(json.dumps({
        **figures, "benchmark inference, before and after": [before, after], "ratio": ratio,
        "RSS MB, first and last": [memory[0], memory[-1]], "MB a minute, second half": slope,
    }, indent=1))  # fmt: skip
    return int(ratio < 0.9 or figures["bad"] > 0)


if __name__ == "__main__":
    sys.exit(main())
