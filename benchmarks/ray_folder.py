"""A folder by the actors of a local Ray cluster of two nodes of one core each: bytes, retries, images a second.

    python benchmarks/ray_folder.py FOLDER [--images 500] [--broken 5] [--seed 0]

The photos of FOLDER are repeated to so many, and so many files that are none are put among them. They are labelled by
one machine, by one actor, by two, and by two of which one is killed (SIGKILL) at a random moment. Printed: images a
second, whether all files equal those of one machine byte by byte, and whether the manifest has a row for each input.
"""

import argparse
import hashlib
import itertools
import json
import os
import random
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path

import ray
import torch
from ray.cluster_utils import Cluster

from panfpn import Predictor
from panfpn.deploy.folder import predict_to_folder
from panfpn.deploy.inputs import Inputs
from panfpn.deploy.plan import Plan
from panfpn.deploy.ray_cluster import LOG, predict_with_ray


def files(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in folder.iterdir() if path.suffix in (".png", ".jpg")}  # fmt: skip


def kill_an_actor(out: Path, after: int) -> None:
    while len(list(out.glob("*.png"))) < after:
        time.sleep(0.05)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            name = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if name.startswith(b"ray::") and b"_Actor" in name:
            os.kill(int(process.name), signal.SIGKILL)
            print(f"an actor was killed after {after} images", flush=True)
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--broken", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        photos = place / "photos"
        photos.mkdir()
        paths = [path for _, path in Inputs([options.folder]).files]
        for i, path in zip(range(options.images), itertools.cycle(paths)):
            (photos / f"photo_{i:04d}{path.suffix}").symlink_to(path.absolute())
        for i in range(options.broken):
            (photos / f"photo_{draw.randrange(options.images):04d}_broken_{i}.png").write_bytes(b"no picture")
        predictor = Predictor.from_file(device="cpu", precision="float32")
        begin = time.monotonic()
        outcome = predict_to_folder([photos], place / "alone", predictor=predictor, progress=False)
        seconds = time.monotonic() - begin
        wanted = files(place / "alone")
        print(f"one machine, {torch.get_num_threads()} cores: {outcome.done} images, {len(outcome.failures)} failures, "
              f"{outcome.done / seconds:.1f} images/s", flush=True)  # fmt: skip
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        nodes.add_node(num_cpus=1)
        ray.init(address=nodes.address, log_to_driver=False)
        try:
            for what, actors in (("one actor", 1), ("two actors", 2), ("two actors, one killed", 2)):
                out = place / "out"
                plan = Plan.make([photos], out, predictor=predictor, what=None, skip=True)
                if "killed" in what:
                    after = draw.randrange(10, options.images - 50)
                    threading.Thread(target=kill_an_actor, args=(out, after), daemon=True).start()
                begin = time.monotonic()
                outcome = predict_with_ray(plan, actors=actors, progress=False)
                seconds = time.monotonic() - begin
                rows = [json.loads(line) for line in (out / LOG).read_text().splitlines()]
                complete = len(rows) == options.images + options.broken == len({row["name"] for row in rows})
                print(f"{what}: {outcome.done} images, {len(outcome.failures)} failures, "
                      f"{outcome.done / seconds:.1f} images/s ({seconds:.0f} s with the actors' start); "
                      f"same bytes {files(out) == wanted}; manifest complete {complete}", flush=True)  # fmt: skip
                shutil.rmtree(out)
        finally:
            ray.shutdown()
            nodes.shutdown()


if __name__ == "__main__":
    main()
