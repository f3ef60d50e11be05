"""A run knows its data, its folder and its process: what changed is refused, what only moved is not."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import panfpn
from panfpn.cli import main
from panfpn.config import Data, Model, TrainConfig
from panfpn.data import from_pairs, open_dataset, write_pack
from panfpn.data.identity import differences, identity_of
from panfpn.engine.run_folder import _new_folder
from panfpn.engine.run_lock import locked
from panfpn.engine.run_settings import holds_same_run
from panfpn.engine.trainer import Trainer
from panfpn.labels import LabelTable
from panfpn.weights.files import read_checkpoint

NAMES = ("ground", "wall", "person")


def make(root: Path, order: tuple[int, ...] = (0, 1, 2)) -> Path:
    for split in ("train", "val"):
        for part in ("images", "masks"):
            (root / part / split).mkdir(parents=True, exist_ok=True)
        for i in range(3):
            mask = np.kron(np.arange(16).reshape(4, 4) % 3, np.ones((16, 16))).astype(np.uint8)
            cv2.imwrite(str(root / f"masks/{split}/{i}.png"), mask)
            cv2.imwrite(str(root / f"images/{split}/{i}.png"), np.repeat(mask[:, :, None] * 90, 3, 2) + np.uint8(i))
    lines = "".join(f"  - {{name: {NAMES[k]}, value: {k}}}\n" for k in order)
    (root / "labels.yaml").write_text(f"classes:\n{lines}")
    return root


def config(root: Path, folder: Path | None, **changes: Any) -> TrainConfig:
    return TrainConfig(
        data=Data(root=root, crop=(64, 64), num_workers=0),
        model=Model(backbone="test_resnet", fpn_channels=8, head_channels=8),
    ).changed(**{
        "train.steps": 4, "train.batch_size": 2, "train.precision": "float32", "run.device": "cpu", "run.loggers": (),
        "run.dir": folder, "run.val_every": 4, "run.log_every": 1, "run.checkpoint_every": 1, "optim.warmup_steps": 0,
        **changes,
    })  # fmt: skip


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was stopped after two of four steps; its data are in `data` beside it."""
    make(tmp_path / "data")
    stop_after(monkeypatch, 2)
    assert panfpn.train(config(tmp_path / "data", tmp_path / "run")).interrupted
    monkeypatch.undo()
    return tmp_path / "run"


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    step = Trainer.step

    def stopping(self: Trainer, batches: Any) -> None:
        step(self, batches)
        if self.state.step == steps:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Trainer, "step", stopping)


def test_other_classes_are_refused_with_the_first_that_differs(stopped: Path) -> None:
    make(stopped.parent / "data", (2, 0, 1))
    with pytest.raises(
        ValueError, match=r"its training data have changed since: other classes: train id 0 was 'ground'"
    ):
        panfpn.train(resume=stopped)
    make(stopped.parent / "data")
    assert panfpn.train(resume=stopped).step == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: [(root / f"{p}/train/1.png").unlink() for p in ("images", "masks")],
         r"1 gone: 1 \(3 samples then"),
        (lambda root: [shutil.copy(root / f"{p}/train/1.png", root / f"{p}/train/7.png") for p in ("images", "masks")],
         r"1 new: 7 \(3 samples then and 4 now\)"),
        (lambda root: (root / "images/train/2.png").write_bytes((root / "images/train/2.png").read_bytes() + b"more"),
         r"1 of another size: 2"),
        (lambda root: (root / "images/val/2.png").write_bytes(b""), r"validation data .*1 of another size: 2"),
    ],
)  # fmt: skip
def test_other_files_are_refused_by_name(stopped: Path, change: Any, message: str) -> None:
    before = (stopped / "last.safetensors").read_bytes()
    change(stopped.parent / "data")
    with pytest.raises(ValueError, match=message):
        panfpn.train(resume=stopped)
    assert (stopped / "last.safetensors").read_bytes() == before


@pytest.mark.parametrize("way", ["option", "edited", "python", "moved run"])
def test_what_moved_is_found_again(way: str, stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = stopped.parent / "elsewhere"
    if way == "moved run":
        shutil.move(stopped, stopped.parent / "other")
        assert panfpn.train(resume=stopped.parent / "other").step == 4
        return
    (stopped.parent / "data").rename(new)
    assert main(["train", "--resume", str(stopped)]) == 2
    assert "no such folder (data.root" in capsys.readouterr().err
    if way == "option":
        assert main(["train", "--resume", str(stopped), "--data.root", str(new), "--data.num-workers", "1"]) == 0
    elif way == "python":
        assert panfpn.train(resume=stopped, changes={"data.root": new}).step == 4
    else:
        text = (stopped / "config.yaml").read_text()
        (stopped / "config.yaml").write_text(text.replace(str(stopped.parent / "data"), str(new)))
        assert panfpn.train(resume=stopped).step == 4
    assert str(new) in (stopped / "config.yaml").read_text()  # from now on


def test_a_run_goes_on_for_more_steps(stopped: Path) -> None:
    assert panfpn.train(resume=stopped).step == 4
    assert main(["train", "--resume", str(stopped), "--train.steps", "6"]) == 0
    rows = [json.loads(line) for line in (stopped / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["kind"] == "train"] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(ValueError, match=r"last.safetensors: has done 6 steps, but train.steps is 5"):
        panfpn.train(resume=stopped, changes={"train.steps": 5})


def test_what_would_train_something_else_cannot_change(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--resume", str(stopped), "--optim.lr", "0.5"]) == 2
    assert "panfpn: --optim.lr cannot change when a run goes on; what can: data.root" in capsys.readouterr().err
    text = (stopped / "config.yaml").read_text()
    (stopped / "config.yaml").write_text(text.replace("seed: 0", "seed: 7"))
    with pytest.raises(ValueError, match=r"config.yaml: train.seed was edited, and cannot change"):
        panfpn.train(resume=stopped)
    with pytest.raises(ValueError, match="changes are for a run that is resumed"):
        panfpn.train(config(stopped.parent / "data", None), changes={"train.steps": 5})


def test_a_checkpoint_that_is_lost_does_not_begin_again(stopped: Path) -> None:
    (stopped / "last.safetensors").unlink()
    before = (stopped / "metrics.jsonl").read_bytes()
    with pytest.raises(
        ValueError, match=r"last.safetensors: is missing, but metrics.jsonl says that 2 steps were done"
    ):
        panfpn.train(resume=stopped)
    assert (stopped / "metrics.jsonl").read_bytes() == before


def test_a_damaged_log_is_named_by_line_and_a_cut_one_is_mended(stopped: Path) -> None:
    log = stopped / "metrics.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    for damage in ("nonsense\n", "[]\n", '{"step": "1"}\n', "null\n"):
        log.write_text(lines[0] + damage + lines[1])
        with pytest.raises(ValueError, match=r"metrics.jsonl: line 2 is damaged; take it out"):
            panfpn.train(resume=stopped)
    log.write_text("".join(lines) + '{"kind": "tra')
    assert panfpn.train(resume=stopped).step == 4


def test_a_pack_of_the_same_files_is_the_same_data(tmp_path: Path) -> None:
    root = make(tmp_path / "data")
    write_pack("folder", root, tmp_path / "pack", ["train"], progress=False)
    packed = panfpn.data.open_pack(tmp_path / "pack", "folder", "train")
    files, again = identity_of(open_dataset("folder", root, "train")), identity_of(packed)
    assert files.summary() == again.summary() and files.summary()["count"] == 3
    table = LabelTable.from_yaml(root / "labels.yaml")
    mine = identity_of(from_pairs([(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8))], table))
    assert mine.listing == {"000000": []}
    assert differences(files.summary(), None, mine) == "other files (3 samples then and 1 now)"


def test_one_folder_one_process(stopped: Path) -> None:
    with locked(stopped):
        with pytest.raises(ValueError, match="another thread of this process trains in this run folder"):
            panfpn.train(resume=stopped)
        code = f"import panfpn; panfpn.train(resume={str(stopped)!r})"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert other.returncode == 1
        assert f"{stopped}: process {os.getpid()} on " in other.stderr.splitlines()[-1]
    for name in (".last.safetensors.abc.safetensors", ".tmpDo5xUH"):  # what kills left
        (stopped / name).touch()
    assert panfpn.train(resume=stopped).step == 4
    assert not [path.name for path in stopped.iterdir() if path.name.startswith(".")]


def test_a_lock_waits_with_patience(tmp_path: Path) -> None:
    with locked(tmp_path):
        begun = time.monotonic()
        with pytest.raises(ValueError, match="another thread of this process writes"), locked(
            tmp_path, "writes", patience=0.2
        ):  # fmt: skip
            pass
        assert time.monotonic() - begun >= 0.2
        with locked(tmp_path, file=".other"):  # another lock
            pass
    with ThreadPoolExecutor(1) as pool:
        with locked(tmp_path):
            second = pool.submit(lambda: _hold(tmp_path))
            time.sleep(0.1)
            assert not second.done()
        second.result(10)
    assert not list(tmp_path.iterdir())


def _hold(folder: Path) -> None:
    with locked(folder, patience=10):
        pass


def test_a_folder_that_was_made_for_nothing_vanishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make(tmp_path / "data")
    monkeypatch.setattr(Trainer, "__init__", lambda *_, **__: (_ for _ in ()).throw(ValueError("no network")))
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path / "run", None):
        with pytest.raises(ValueError, match="no network"):
            panfpn.train(config(root, folder))
    assert not (tmp_path / "run").exists() and not list((tmp_path / "runs").iterdir())


def test_folders_of_runs_begun_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made: list[Path] = []
    threads = [threading.Thread(target=lambda: made.append(_new_folder(Path("runs/a")))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path.name for path in made) == ["a", *(f"a-{k}" for k in range(2, 9))]


class Slow:
    """A data set of eight, which are all looked at first; the fifth that is trained on takes for ever."""

    table = LabelTable.from_dict({"classes": [{"name": "a", "value": 0}, {"name": "b", "value": 1}]})

    def __init__(self, hang: Any) -> None:
        self.hang, self.calls = hang, 0

    def __len__(self) -> int:
        return 8

    def name(self, index: int) -> str:
        return str(index)

    def read(self, index: int) -> panfpn.Sample:
        self.calls += 1
        if self.calls == 8 + 5:
            self.hang()
        target = np.zeros((64, 64), np.int16)
        target[:30] = 1
        return panfpn.Sample(image=np.full((64, 64, 3), 9, np.uint8), target=target, name=str(index))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stop_is_heard_while_data_are_waited_for(
    workers: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = Slow(lambda: time.sleep(60))
    threading.Timer(6 if workers else 4, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
    begin = time.monotonic()
    result = panfpn.train(
        config(tmp_path, tmp_path / "run", data__num_workers=workers, data__root=None, train__steps=50),
        train_data=data, val_data=data,
    )  # fmt: skip
    assert result.interrupted and time.monotonic() - begin < 30
    assert f"stopped after step {result.step}; go on with: panfpn.train(resume=" in capfd.readouterr().err
    assert result.step == 2 and (tmp_path / "run/last.safetensors").is_file()


def test_a_worker_that_ends_is_named(tmp_path: Path) -> None:
    data = Slow(lambda: os._exit(3))
    with pytest.raises(
        ValueError, match=r"a data worker has ended, .* --ipc=host\), or set data.num_workers to 0"
    ) as error:
        panfpn.train(
            config(tmp_path, tmp_path / "run", data__num_workers=1, data__root=None), train_data=data, val_data=data
        )
    assert error.value.__suppress_context__ and "\n" not in str(error.value)


def test_shared_memory_is_looked_at_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make(tmp_path / "data")
    real = shutil.disk_usage
    monkeypatch.setattr("panfpn.data.loader._SHARED", tmp_path)
    monkeypatch.setattr(
        "panfpn.data.loader.shutil.disk_usage",
        lambda path: real(path)._replace(free=100_000) if path == tmp_path else real(path),
    )
    with pytest.raises(ValueError, match=r"has 0 MiB free, but 2 data workers pass up to .* --shm-size=2g"):
        panfpn.train(config(root, tmp_path / "run", data__num_workers=2))
    assert panfpn.train(config(root, tmp_path / "run0")).step == 4  # without workers none is needed


SCRIPT = """
import multiprocessing
multiprocessing.set_start_method({method!r}, force=True)
import panfpn
config = panfpn.TrainConfig.from_yaml({file!r})
{guard}panfpn.train(config.changed(run__dir={folder!r}))
"""


def test_a_script_that_workers_would_run_again(tmp_path: Path) -> None:
    root, file = make(tmp_path / "data"), tmp_path / "c.yaml"
    file.write_text(config(root, None, data__num_workers=1, train__steps=2).to_yaml())
    guarded = 'if __name__ == "__main__":\n    '
    for method, guard, code in (("spawn", guarded, 0), ("forkserver", "", 1)):
        folder = str(tmp_path / f"run{code}")
        script = tmp_path / f"script{code}.py"
        script.write_text(SCRIPT.format(method=method, file=str(file), folder=folder, guard=guard))
        run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
        assert run.returncode == code, run.stderr
        if code:
            assert run.stderr.count("Traceback") == 1
            assert 'put it under `if __name__ == "__main__":`, or set' in run.stderr.splitlines()[-1]


WORDS = [
    "train",
    "scenes",
    "--data.scenes",
    "8",
    "2",
    "--train.batch-size",
    "2",
    "--data.num-workers",
    "0",
    "--optim.warmup-steps",
    "0",
    "--data.crop",
    "64",
    "64",
    "--data.scene-size",
    "64",
    "64",
    "--run.log-every",
    "1",
    "--model.backbone",
    "test_resnet",
    "--model.fpn-channels",
    "8",
    "--model.head-channels",
    "8",
    "--run.device",
    "cpu",
    "--model.start-from",
    "None",
]


def test_ranks_stop_together_and_go_on_and_one_that_dies_is_named(tmp_path: Path) -> None:
    """Each rank has a disk of its own: the run lies on the first one's, and nothing of it on the other's."""
    resume = "torchrun --nproc-per-node 2 -m panfpn train --resume run"
    begin = [*WORDS, "--run.dir", "run", "--train.steps", "4000", "--run.val-every", "4000"]
    for number, (fate, words) in enumerate((
        ("stopped", begin), ("killed", ["train", "--resume", "run", "--run.checkpoint-every", "5"]),
    )):  # fmt: skip
        jobs = two_ranks(tmp_path, words, port=29700 + os.getpid() % 200 + number)
        log, seen = tmp_path / "0/log", tmp_path / "0/run/metrics.jsonl"
        before = len(seen.read_text().splitlines()) if number else 0
        while jobs[0].poll() is None and not (seen.exists() and len(seen.read_text().splitlines()) >= before + 3):
            time.sleep(0.1)
        if fate == "killed":
            jobs[1].kill()
        else:
            jobs[1].send_signal(signal.SIGTERM)
        assert jobs[0].wait(120) == (2 if fate == "killed" else 0), log.read_text()
        jobs[1].wait(60)
        last = log.read_text().strip().splitlines()[-1]
        assert last.endswith(f"go on with: {resume}")
        assert "another rank of this job has ended" in last if fate == "killed" else last.startswith("stopped")
    assert not (tmp_path / "1/run").exists()
    steps = [json.loads(line)["step"] for line in seen.read_text().splitlines()]
    assert steps == list(range(1, len(steps) + 1))  # it went on where it had stopped


def two_ranks(folder: Path, words: list[str], port: int) -> list["subprocess.Popen[bytes]"]:
    """A job of two processes as torchrun starts them, each in a folder of its own."""
    jobs = []
    for rank in "01":
        (folder / rank).mkdir(exist_ok=True)
        names = {
            "WORLD_SIZE": "2",
            "RANK": rank,
            "LOCAL_RANK": rank,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        jobs.append(subprocess.Popen(
            [sys.executable, "-m", "panfpn", *words], cwd=folder / rank, stdout=(folder / rank / "log").open("a"),
            stderr=subprocess.STDOUT, env=os.environ | names,
        ))  # fmt: skip
    return jobs


def test_a_command_that_its_launcher_calls_again_goes_on(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    again = config(stopped.parent / "data", stopped)
    with pytest.raises(ValueError, match="already holds a run"):
        panfpn.train(again)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with pytest.raises(ValueError, match=r"run: holds a run with another optim\.lr; choose another run\.dir"):
        panfpn.train(again.changed(**{"optim.lr": 0.5}))
    for launcher in (None, "0"):  # a plain torchrun says so of itself
        if launcher:
            monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", launcher)
        assert not holds_same_run(again.changed(**{"run.dir": None}))  # Slurm says so only at the second start
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    with pytest.raises(ValueError, match=r"needs run\.dir"):
        panfpn.train(again.changed(**{"run.dir": None}))
    with pytest.raises(ValueError, match=r"started without loss"):
        panfpn.train(again, loss=lambda logits, target: logits.sum())
    assert panfpn.train(again).step == 4
    rows = [json.loads(line) for line in (stopped / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["kind"] == "train"] == [1, 2, 3, 4]
    new = panfpn.train(again.changed(**{"run.dir": stopped.parent / "new"}))
    assert new.step == 4
    one, other = (read_checkpoint(f / "last.safetensors", role="run")[0] for f in (stopped, stopped.parent / "new"))
    assert all(torch.equal(one[name], other[name]) for name in other)
