import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from panfpn import Predictor
from panfpn.cli import main
from panfpn.deploy.folder import predict_to_folder
from panfpn.deploy.plan import Plan
from panfpn.deploy.ray_cluster import LOG, predict_with_ray
from photo_folder import digests, write_photos

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one core each, on this machine."""
    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))  # workers import what pytest has imported
    from ray.cluster_utils import Cluster  # noqa: PLC0415 - only where there is Ray

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    nodes.add_node(num_cpus=1)
    ray.init(address=nodes.address, log_to_driver=False)
    yield nodes
    ray.shutdown()
    nodes.shutdown()
    patch.undo()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos", 40, (96, 128))


def test_a_lost_actor_costs_a_retry_and_no_byte(cluster: Any, photos: Path, tmp_path: Path) -> None:
    by = Predictor.from_file(device="cpu", precision="float32")
    alone = predict_to_folder([photos], tmp_path / "alone", predictor=by, progress=False)
    out, killed = tmp_path / "out", []

    def kill() -> None:
        while len(list(out.glob("photo_*.png"))) < 6:
            time.sleep(0.02)
        for process in Path("/proc").glob("[0-9]*"):
            try:
                name = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if name.startswith(b"ray::") and b"_Actor" in name and not killed:
                os.kill(int(process.name), signal.SIGKILL)
                killed.append(int(process.name))

    thread = threading.Thread(target=kill)
    thread.start()
    plan = Plan.make([photos], out, predictor=by, what=None, skip=True)
    outcome = predict_with_ray(plan, progress=False)
    thread.join()
    assert killed and outcome.done == alone.done == 40
    assert [f.name for f in outcome.failures] == ["broken"] and "broken.png" in outcome.failures[0].reason
    assert digests(out) == digests(tmp_path / "alone")
    rows = [json.loads(line) for line in (out / LOG).read_text().splitlines()]
    assert sorted(row["name"] for row in rows) == ["broken", *(f"photo_{i:02d}" for i in range(40))]
    assert [path for path in out.iterdir() if path.name.startswith(".") and path.suffix != ".png"] == []


def test_the_verb_goes_on_where_it_was(
    cluster: Any, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "broken.png").unlink()
    words = ["predict", str(photos), "-o", str(tmp_path / "out"), "--precision", "float32", "--ray", "local"]
    assert main(words) == 0
    assert "40 of 40 images labelled" in capsys.readouterr().out
    (tmp_path / "out" / "photo_07.png").unlink()
    assert main(words) == 0
    assert "1 of 1 images labelled" in (said := capsys.readouterr().out) and "39 were there already" in said


def test_what_needs_one_process_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    words = ["predict", str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), "--ray", "local"]
    assert main([*words, "--shard", "1/2"]) == 2
    assert "--ray divides the inputs by itself" in capsys.readouterr().err
    assert main(["predict", "-", "-o", str(tmp_path / "out"), "--ray", "local"]) == 2
    assert "leave --ray out for it" in capsys.readouterr().err
