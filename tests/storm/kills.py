"""Kill panfpn at random moments, and see that nothing is lost. In: a seed. Out: how the same command went on.

    python tests/storm/kills.py [--kills 60] [--seed 0] [--only NAME]

`train` (0 and 2 workers, 1 and 2 ranks), `data pack`, `data shard`, `data import`, `predict` (of photos, and of a raster in
windows with polygons) and `convert` are killed (SIGKILL to all of their processes) after a random share of the time that
they take, twice at most, and then called again. Judged are: no file under a final
name that cannot be read, no temporary that stays, and an end that equals the undisturbed one.
"""

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from cases import encoded

sys.path.insert(0, str(Path(__file__).parents[1]))
from foreign_sets import photos as foreign_photos
from foreign_sets import write_coco
from panfpn.data import check_pack
from panfpn.data.header import read_header
from panfpn.weights.files import read_checkpoint


@dataclass(frozen=True)
class Job:
    """A command, what goes on with it after a kill, and what it leaves."""

    name: str
    begin: Callable[[Path], list[str]]
    again: Callable[[Path], list[str]]
    state: Callable[[Path], str]  # a digest of the end
    check: Callable[[Path], None]  # of whatever is there after a kill


def panfpn(*words: object, ranks: int = 1) -> list[str]:
    python = [sys.executable, "-m"]
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), "-m"]
    return [*python, *(torchrun if ranks > 1 else []), "panfpn", *map(str, words)]


def data_set(root: Path, count: int = 12, size: tuple[int, int] = (64, 80)) -> Path:
    rng = np.random.default_rng(3)
    for split in ("train", "val"):
        for i in range(count):
            mask = rng.integers(0, 2, size, dtype=np.uint8)
            for part, pixels in (
                ("images", np.repeat(mask[:, :, None] * 90 + 40, 3, 2).astype(np.uint8)),
                ("masks", mask),
            ):
                path = root / part / split / f"{i:03d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), pixels)
    (root / "labels.yaml").write_text("classes:\n  - {name: a, value: 0}\n  - {name: b, value: 1}\n")
    return root


def digest(paths: list[Path]) -> str:
    state = hashlib.sha256()
    for path in sorted(paths):
        state.update(path.name.encode() + path.read_bytes())
    return state.hexdigest()[:16]


def checkpoint(folder: Path) -> str:
    tensors, header = read_checkpoint(folder / "run/last.safetensors", role="run")
    state = hashlib.sha256(f"{header['step']} {header['best']}".encode())
    for name in sorted(tensors):
        state.update(
            name.encode() + tensors[name].contiguous().reshape(-1).view(dtype=tensors[name].dtype).numpy().tobytes()
        )
    return state.hexdigest()[:16]


def check_run(folder: Path) -> None:
    for name, role in (("last", "run"), ("model", "release")):
        if (folder / f"run/{name}.safetensors").exists():
            read_checkpoint(folder / f"run/{name}.safetensors", role=role)


def train(data: Path, workers: int, ranks: int) -> Job:
    options = ["--data.root", data, "--data.crop", "64", "64", "--data.num-workers", workers, "--model.backbone", "resnet18",
               "--model.fpn-channels", 8, "--model.head-channels", 8, "--model.start-from", "None",
               "--train.frozen-bn", "True", "--train.steps", 16, "--train.batch-size", 4, "--train.precision", "float32",
               "--optim.warmup-steps", 0, "--run.val-every", 8, "--run.checkpoint-every", 2, "--run.log-every", 1,
               "--run.device", "cpu", "--run.loggers", "tensorboard"]  # fmt: skip

    def again(folder: Path) -> list[str]:
        begun = (folder / "run/config.yaml").exists()
        return panfpn("train", "--resume", folder / "run", ranks=ranks) if begun else begin(folder)

    def begin(folder: Path) -> list[str]:
        return panfpn("train", "folder", *options, "--run.dir", folder / "run", ranks=ranks)

    return Job(f"train, {workers} workers, {ranks} ranks", begin, again, checkpoint, check_run)


def jobs(folder: Path) -> list[Job]:
    small, photos = data_set(folder / "small"), folder / "photos"
    large = data_set(folder / "large", 60, (500, 700))
    photos.mkdir()
    for i in range(40):
        (photos / f"{i:03d}.png").write_bytes(encoded("PNG"))

    def pack(place: Path) -> list[str]:
        return panfpn("data", "pack", large, "-o", place / "pack")

    def predict(place: Path) -> list[str]:
        return panfpn("predict", photos, "-o", place / "out", "--precision", "float32")

    raster = folder / "raster.npy"
    np.save(raster, np.random.default_rng(5).integers(0, 256, (600, 700, 3), dtype=np.uint8))
    write_coco(folder / "coco", "train", foreign_photos(400))

    def tiles(place: Path) -> list[str]:
        return panfpn("predict", raster, "-o", place / "out", "--window", 256, "--polygons", "geojson",
                      "--precision", "float32")  # fmt: skip

    def shard(place: Path) -> list[str]:
        return panfpn("data", "shard", folder / "whole data pack/pack", "-o", place / "shards", "--size", "5MB")

    def foreign(place: Path) -> list[str]:
        return panfpn("data", "import", folder / "coco", "-o", place / "imported")

    def check_rasters(place: Path) -> None:
        for path in (place / "out").glob("[!.]*.geojson"):
            json.loads(path.read_bytes())
        for path in (place / "out").glob("[!.]*.npy"):
            np.load(path)

    def check_shards(place: Path) -> None:
        if (place / "shards/pack.json").exists():
            check_pack(place / "shards", progress=False)

    def check_imported(place: Path) -> None:
        if (place / "imported").exists():
            assert len(list((place / "imported/masks").rglob("*.png"))) == 400

    def everything_in(name: str) -> Callable[[Path], str]:
        return lambda place: digest([path for path in (place / name).rglob("[!.]*") if path.is_file()])

    def convert(place: Path) -> list[str]:
        model = folder / "whole train, 0 workers, 1 ranks/run/model.safetensors"
        return panfpn("convert", model, "-o", place / "model.pth")

    def check_images(place: Path) -> None:
        for path in [*(place / "out").rglob("[!.]*.png"), *(place / "out").rglob("[!.]*.jpg")]:
            read_header(path.read_bytes(), path)

    def check_packs(place: Path) -> None:
        if (place / "pack/pack.json").exists():
            for path in (place / "pack").rglob("[!.]*.raw"):
                assert path.stat().st_size > 0, path

    def check_whole(place: Path) -> None:
        if (place / "model.pth").exists():
            again = place / "again.safetensors"
            again.unlink(missing_ok=True)  # of the kill before
            subprocess.run(panfpn("convert", place / "model.pth", "-o", again), check=True, capture_output=True)

    def packed(place: Path) -> str:
        check_pack(place / "pack", large, progress=False)
        return digest(list((place / "pack").rglob("*.raw")))

    return [
        *(train(small, workers, ranks) for workers, ranks in ((0, 1), (2, 1), (0, 2))),
        Job("data pack", pack, pack, packed, check_packs),
        Job(
            "predict",
            predict,
            predict,
            lambda p: digest([*(p / "out").rglob("*.png"), *(p / "out").rglob("*.jpg")]),
            check_images,
        ),
        Job("tiles", tiles, tiles, everything_in("out"), check_rasters),
        Job("data shard", shard, shard, everything_in("shards"), check_shards),
        Job("data import", foreign, foreign, everything_in("imported"), check_imported),
        Job("convert", convert, convert, lambda p: digest([p / "model.pth"]), check_whole),
    ]


def descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [found for child in map(int, children) for found in (*descendants(child), child)]


def run(words: list[str], log: Path, *, kill_after: float | None = None) -> int | None:
    """The exit code; None if it was killed."""
    with log.open("a") as file:
        job = subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            return job.wait(kill_after)
        except subprocess.TimeoutExpired:
            for pid in [*descendants(job.pid), job.pid]:  # torchrun gives its ranks sessions of their own
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            job.wait()
            return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    rng, bad, kills = np.random.default_rng(options.seed), 0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        everything = jobs(folder)
        whole: dict[str, tuple[str, float]] = {}
        for job in everything:
            place = folder / f"whole {job.name}"
            place.mkdir()
            begin = time.monotonic()
            assert run(job.begin(place), place / "log") == 0, (place / "log").read_text()[-2000:]
            whole[job.name] = job.state(place), time.monotonic() - begin
            print(f"{job.name}: {whole[job.name][1]:.1f} s undisturbed, ends as {whole[job.name][0]}", flush=True)
        everything = [job for job in everything if options.only in job.name]
        while kills < options.kills:
            job = everything[kills % len(everything)]
            place = folder / f"{kills} {job.name}"
            place.mkdir()
            state, seconds = whole[job.name]
            words, log, moments = job.begin(place), place / "log", []
            for _ in range(int(rng.integers(1, 3))):
                moments.append(round(float(rng.uniform(0.2, 1.0)) * seconds, 2))
                if (code := run(words, log, kill_after=moments[-1])) is not None:  # it was done before
                    break
                kills += 1
                job.check(place)
                words = job.again(place)
            else:
                code = run(words, log)
            leftovers = [p.name for p in place.rglob(".*") if p.name != ".lock"]
            last = log.read_text()[-600:]
            done = code == 0 or "name another f" in last  # it was killed after its last write
            ended = job.state(place) if done else f"exit code {code}: {last}"
            fine = ended == state and not leftovers
            bad += not fine
            print(
                f"{job.name}, killed after {moments} s: {'the same end' if fine else f'WRONG: {ended} {leftovers}'}",
                flush=True,
            )
            shutil.rmtree(place)
    print(f"{kills} kills (seed {options.seed}): {bad} wrong")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
