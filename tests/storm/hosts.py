"""Train on three hosts, and take one away. In: a seed. Out: whether the others end, and what goes on.

    sudo python tests/storm/hosts.py [--seed 0] [--steps 40]

Each host is a network namespace with an address, a name and (where said) a disk of its own, and runs one rank under
`torchrun --nnodes` with a c10d rendezvous. Needs root and `ip`. Compared are the loss curves of one process and of three
hosts, and the end of runs that lost a host (SIGKILL to all of its processes, or its network) with that of the run left alone.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from kills import data_set, descendants

from panfpn.weights.files import read_checkpoint

_NET, _BRIDGE, _PORT = "10.77.0", "panfpn-br", 29_400
_COUNT = 3


@contextlib.contextmanager
def hosts() -> Iterator[None]:
    """Namespaces host1 to host3, joined by a bridge; each finds the others by name."""
    names = [f"host{n}" for n in range(1, _COUNT + 1)]
    book = "127.0.0.1 localhost\n" + "".join(f"{_NET}.{n} {name}\n" for n, name in enumerate(names, 1))
    remove()
    try:
        ip(f"link add {_BRIDGE} type bridge")
        ip(f"link set {_BRIDGE} up")
        for n, name in enumerate(names, 1):
            ip(f"netns add {name}")
            ip(f"link add v{n} type veth peer name eth0 netns {name}")
            ip(f"link set v{n} master {_BRIDGE} up")
            ip(f"-n {name} addr add {_NET}.{n}/24 dev eth0")
            for device in ("lo", "eth0"):
                ip(f"-n {name} link set {device} up")
            folder = Path("/etc/netns") / name  # `ip netns exec` lays its files over those of /etc
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "hosts").write_text(book)
        yield
    finally:
        remove()


def ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True)


def remove() -> None:
    for n in range(1, _COUNT + 1):
        subprocess.run(["ip", "netns", "del", f"host{n}"], capture_output=True)
        subprocess.run(["ip", "link", "del", f"v{n}"], capture_output=True)
        subprocess.run(["rm", "-rf", f"/etc/netns/host{n}"])
    subprocess.run(["ip", "link", "del", _BRIDGE], capture_output=True)


class Job:
    """torchrun on some hosts; `nodes` is its --nnodes."""

    def __init__(self, members: Sequence[int], words: Sequence[object], place: Path, *, nodes: str = "",
                 restarts: int = 0, own_disks: bool = False) -> None:  # fmt: skip
        self.members, self.logs = list(members), {n: place / f"host{n}.log" for n in members}
        self.processes = {}
        for n in members:
            home = place / f"disk{n}" if own_disks else place
            home.mkdir(parents=True, exist_ok=True)
            torchrun = [
                sys.executable, "-m", "torch.distributed.run", "--nnodes", nodes or str(len(self.members)),
                "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", place.name, "--max-restarts", str(restarts),
                "--rdzv-endpoint", f"{_NET}.{self.members[0]}:{_PORT}", "--local-addr", f"{_NET}.{n}", "-m", "panfpn",
                *map(str, words),
            ]  # fmt: skip
            named = ["unshare", "--uts", "sh", "-c", f'hostname host{n}; exec "$@"', "sh", *torchrun]
            self.processes[n] = subprocess.Popen(
                ["ip", "netns", "exec", f"host{n}", *named], cwd=home, stdout=self.logs[n].open("a"),
                stderr=subprocess.STDOUT, start_new_session=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
            )  # fmt: skip

    def kill(self, n: int, *, worker_only: bool = False) -> None:
        """SIGKILL to all of a host's processes, or to its rank alone."""
        top = self.processes[n].pid
        for pid in descendants(top) if worker_only else [*descendants(top), top]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def end(self, n: int) -> None:
        """SIGTERM to a host's torchrun, as who takes a machine away does."""
        for pid in descendants(self.processes[n].pid):
            if b"torch.distributed.run" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGTERM)
                return

    def stop(self, n: int, seconds: float) -> None:
        """Let a host's processes stand still for a while."""
        pids = [*descendants(self.processes[n].pid), self.processes[n].pid]
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            time.sleep(seconds if number == signal.SIGSTOP else 0)

    def wait(self, members: Sequence[int] | None = None, seconds: float = 900) -> dict[int, int]:
        end = time.monotonic() + seconds
        try:
            return {n: self.processes[n].wait(end - time.monotonic()) for n in members or self.members}
        except subprocess.TimeoutExpired:
            for n in self.members:
                self.kill(n)
            return {n: self.processes[n].wait() for n in self.members}

    def said(self, n: int) -> str:
        """Our own last word on a host, without torchrun's."""
        lines = [line.strip() for line in self.logs[n].read_text().splitlines()]
        return next((line for line in reversed(lines) if line.startswith(("panfpn:", "best", "stopped"))), lines[-1])


def losses(run: Path) -> list[float]:
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [row["loss"] for row in rows if row["kind"] == "train"]


def distance(one: Path, other: Path) -> float:
    """The largest difference of any number of two checkpoints' weights and moments."""
    tensors = [read_checkpoint(run / "last.safetensors", role="run")[0] for run in (one, other)]
    return max(
        float((t.double() - tensors[1][name].double()).abs().max()) for name, t in tensors[0].items() if t.numel()
    )


def wait_for(run: Path, step: int, job: Job) -> None:
    """Until a run has logged a step, or ended."""
    while all(p.poll() is None for p in job.processes.values()):
        with contextlib.suppress(OSError, json.JSONDecodeError, IndexError):
            if json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"] >= step:
                return
        time.sleep(0.02)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--network", action="store_true", help="cut a host's network too: ten minutes")
    options = parser.parse_args()
    rng, bad = np.random.default_rng(options.seed), 0
    with tempfile.TemporaryDirectory() as name, hosts():
        folder = Path(name)
        data = data_set(folder / "data", 13)  # no multiple of 2 or 3: some ranks validate on fewer images
        settings = ["train", "folder", "--data.root", data, "--data.crop", "64", "64", "--data.num-workers", 0,
                    "--model.backbone", "resnet18", "--model.norm", "group", "--model.fpn-channels", 16, "--model.head-channels",
                    16, "--model.dropout", 0.0, "--model.start-from", "None", "--train.frozen-bn", "True", "--train.steps",
                    options.steps, "--train.batch-size", 6, "--train.precision", "float32", "--loss.dice", 0.0, "--optim.name", "sgd", "--optim.lr", 0.001,
                    "--optim.warmup-steps", 0, "--run.val-every", 10,
                    "--run.checkpoint-every", 2, "--run.log-every", 1, "--run.device", "cpu"]  # fmt: skip

        def check(what: str, fine: bool, figures: str) -> None:
            nonlocal bad
            bad += not fine
            print(f"{'ok   ' if fine else 'WRONG'} {what}: {figures}", flush=True)

        def moment() -> int:
            return int(rng.integers(3, options.steps - 4))

        one, three = folder / "one/run", folder / "three/run"
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, "-m", "panfpn", *map(str, settings), "--run.dir", str(one)], check=True, env=environment,
                       capture_output=True)  # fmt: skip
        codes = Job((1, 2, 3), [*settings, "--run.dir", three], three.parent).wait()
        apart = np.abs(np.array(losses(one)) / np.array(losses(three)) - 1).max()
        check("one process and three hosts", not any(codes.values()) and bool(apart < 1e-4),
              f"losses {apart:.1e} apart (relative), weights {distance(one, three):.1e}")  # fmt: skip

        for own_disks in (False, True):
            for lost in (2, 3) if own_disks else (1, 2, 3):
                place = folder / f"lost{lost}{'own' * own_disks}"
                run = place / "disk1/run" if own_disks else place / "run"
                step = moment()
                job = Job((1, 2, 3), [*settings, "--run.dir", "run"], place, own_disks=own_disks)
                wait_for(run, step, job)
                job.kill(lost)
                begin = time.monotonic()
                rest = [n for n in (1, 2, 3) if n != lost]
                codes = job.wait(rest)
                seconds = time.monotonic() - begin
                said = [job.said(n) for n in rest]
                kept = folder / "kept"
                shutil.copytree(place, kept)
                ends = {}
                for members in (rest, [1, 2, 3]):
                    again = Job(members, ["train", "--resume", "run"], place, own_disks=own_disks)
                    codes |= {10 * n: not code for n, code in again.wait().items()}
                    ends[len(members)] = distance(run, three)
                    shutil.rmtree(place)
                    shutil.copytree(kept, place)
                shutil.rmtree(kept)
                fine = all(codes.values()) and max(ends.values()) < 1e-5 and seconds < 60  # ranks may be numbered anew
                fine = fine and all("another rank" in line for line in said)
                check(f"host {lost} killed at step {step}, {'own disks' if own_disks else 'shared disk'}", fine,
                      f"the others ended {seconds:.1f} s after; weights {ends[2]:.1e} from the run left alone where two hosts "
                      f"went on, {ends[3]:.1e} where three did; said: {said[0] if fine else (codes, said)}")  # fmt: skip

        place = folder / "slow"
        job = Job((1, 2, 3), [*settings, "--run.dir", "run"], place)
        for _ in range(3):
            wait_for(place / "run", moment() // 3, job)
            job.stop(int(rng.integers(1, 4)), 4.0)
        codes = job.wait()
        far = distance(place / "run", three)
        check(
            "hosts that stand still for 4 s, three times", not any(codes.values()) and far < 1e-6, f"weights {far:.1e}"
        )

        for fate in ("rank 2 killed", "host 2 killed", "host 2 ended (SIGTERM)"):
            place = folder / fate.replace(" ", "_").strip("()")
            job = Job((1, 2, 3), [*settings, "--run.dir", "run"], place, nodes="2:3", restarts=3)
            step = moment()
            wait_for(place / "run", step, job)
            if "ended" in fate:
                job.end(2)
            else:
                job.kill(2, worker_only="rank" in fate)
            rest = [1, 2, 3] if "rank" in fate else [1, 3]
            codes = job.wait(rest)
            far = distance(place / "run", three)
            check(f"elastic, {fate} at step {step}", not any(codes.values()) and far < 1e-5,
                  f"exit codes {codes}, weights {far:.1e}; said: {job.said(1)}")  # fmt: skip

        if options.network:
            place = folder / "network"
            job = Job((1, 2, 3), [*settings, "--run.dir", "run"], place)
            wait_for(place / "run", moment(), job)
            begin = time.monotonic()
            ip("link set v3 down")
            codes = job.wait(seconds=1500)
            ip("link set v3 up")
            said = job.said(1)
            check("the network of host 3 is cut", all(codes.values()) and "another rank" in said,
                  f"ended {time.monotonic() - begin:.0f} s after: {said}")  # fmt: skip
    print(f"seed {options.seed}: {bad} wrong")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
