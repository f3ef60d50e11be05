"""What does a pack cost that lies on a web server, read through a cache of a tenth of its size?

    python benchmarks/remote_pack.py LAYOUT ROOT [--epochs 3] [--workers 1] [--cache 0.1]

The training split is packed, cut into shards and served by another process on this machine (ranges, HTTP/1.1). Then
the same draws of random crops are read from the pack on disk and through the cache, alternating. Printed: whether all
samples are the same bits, images a second of both, what the cache held at most, and what was sent.
"""

import argparse
import hashlib
import multiprocessing
import statistics
import tempfile
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from panfpn.build import build_transform
from panfpn.config import Data
from panfpn.data import PackedDataset, open_pack, open_shards, train_loader, write_pack, write_shards
from panfpn.data.loader import DrawSampler


class Ranges(SimpleHTTPRequestHandler):
    """A file server that knows ranges, as web servers and buckets do."""

    protocol_version = "HTTP/1.1"
    sent: Any = None

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """A file, or the bytes of it that are asked for."""
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        start, stop = 0, path.stat().st_size
        wanted = self.headers.get("Range")
        if wanted:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last) + 1, stop)
        with path.open("rb") as file:
            file.seek(start)
            data = file.read(stop - start)
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{path.stat().st_size}")
        self.end_headers()
        self.wfile.write(data)
        with self.sent.get_lock():
            self.sent.value += len(data)


def serve(folder: str, port: Any, sent: Any) -> None:
    Ranges.sent = sent
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranges, directory=folder)) as http:
        port.value = http.server_address[1]
        http.serve_forever()


def read(data: PackedDataset, epochs: int, workers: int, seed: int) -> tuple[float, str]:
    """Images a second, and a digest of all batches."""
    transform = build_transform(Data(crop=(352, 480)))
    steps, state = epochs * len(data) // 4, hashlib.sha256()
    sampler = DrawSampler(steps=range(steps), batch_size=4)
    seconds = 0.0
    begin = time.perf_counter()
    for batch in train_loader(data, transform, sampler, seed=seed, num_workers=workers):
        seconds += time.perf_counter() - begin
        state.update(batch.images.numpy().tobytes() + batch.targets.numpy().tobytes())
        begin = time.perf_counter()
    return 4 * steps / seconds, state.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layout")
    parser.add_argument("root", type=Path)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--cache", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        write_pack(options.layout, options.root, place / "pack", ("train",))
        size = sum(path.stat().st_size for path in (place / "pack").rglob("*.raw"))
        shards = write_shards(place / "pack", place / "shards", size=max(1_000_000, size // 8))
        context = multiprocessing.get_context("spawn")
        port, sent = context.Value("i", 0), context.Value("q", 0)
        server = context.Process(target=serve, args=(str(place / "shards"), port, sent), daemon=True)
        server.start()
        while not port.value:
            time.sleep(0.05)
        cache, limit = place / "cache", int(options.cache * size)
        near = open_pack(place / "pack", options.layout, "train")
        far = open_shards(f"http://127.0.0.1:{port.value}", options.layout, "train", cache=cache, cache_bytes=limit)
        print(
            f"{len(near)} images, {size / 1e6:.0f} MB in {len(shards)} shards, cache of {limit / 1e6:.0f} MB",
            flush=True,
        )
        rates: dict[str, list[float]] = {"disk": [], "server": []}
        same, most = True, 0
        for turn in range(options.rounds):
            found = {}
            for what, data in (("disk", near), ("server", far)):
                rate, found[what] = read(data, options.epochs, options.workers, turn)
                rates[what].append(rate)
            same &= found["disk"] == found["server"]
            most = max(most, sum(path.stat().st_size for path in cache.rglob("*.raw")))
        server.kill()
        drawn = options.rounds * options.epochs * size
        shown = "; ".join(f"{what} {', '.join(f'{r:.1f}' for r in seen)}" for what, seen in rates.items())
        ratio = statistics.median(rates["server"]) / statistics.median(rates["disk"])
        print(f"{options.workers} workers, images/s: {shown}; ratio of the medians {ratio:.2f}; same bits {same}; the "
              f"cache holds {most / 1e6:.0f} MB; {sent.value / 1e6:.0f} MB sent, {drawn / 1e6:.0f} drawn")  # fmt: skip


if __name__ == "__main__":
    main()
