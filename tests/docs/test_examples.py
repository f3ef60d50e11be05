"""The files and notebooks of examples/, each run by a fresh interpreter in a folder of its own, as a reader would."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from torch.distributed.run import get_args_parser

from panfpn import recipes
from panfpn.config import TrainConfig
from panfpn.engine import train
from panfpn.verbs.options import parse_options

EXAMPLES = Path(__file__).parents[2] / "examples"
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def run(name: str, folder: Path, *arguments: object) -> str:
    """What examples/NAME prints, errors too; the test fails with its traceback if it does not end well."""
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    ended = subprocess.run(command, cwd=folder, env=ENVIRONMENT, text=True, check=False,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


@pytest.mark.slow
def test_predict_image(folder_data: Path, tmp_path: Path) -> None:
    assert "road" in run("predict_image.py", tmp_path, folder_data / "images/val/photo_0.png")
    assert {path.name for path in (tmp_path / "labelled").iterdir()} == {"photo_0.png", "photo_0_overlay.jpg"}


@pytest.mark.slow
def test_finetune_folder(folder_data: Path, tmp_path: Path) -> None:
    said = run("finetune_folder.py", tmp_path, folder_data, folder_data / "images/val/photo_0.png", 1)
    assert "'ground':" in said
    assert (tmp_path / "runs/finetuned/report.html").is_file() and (tmp_path / "labelled/photo_0.png").is_file()


@pytest.mark.slow
def test_panoptic_image(folder_data: Path, tmp_path: Path) -> None:
    config = recipes.panoptic_scenes(
        model__backbone="test_resnet", model__pretrained=False, model__fpn_channels=16, model__head_channels=16,
        model__box_channels=16, model__mask_channels=16, data__scenes=(2, 1), data__num_workers=0, train__steps=1,
        train__batch_size=1, optim__warmup_steps=0, inference__confidence=0.0, run__dir=tmp_path / "run",
    )  # fmt: skip
    run("panoptic_image.py", tmp_path, train(config).dir, folder_data / "images/val/photo_0.png")
    assert {path.name for path in (tmp_path / "labelled").iterdir()} == {
        "photo_0.png", "photo_0.json", "photo_0_overlay.jpg",
    }  # fmt: skip


@pytest.mark.slow
def test_own_everything(tmp_path: Path) -> None:
    """Trains, is stopped and resumed, evaluates, predicts; in at most 60 lines."""
    said = run("own_everything.py", tmp_path, "run")
    assert "stopped after step 21" in said and "step 60/60" in said
    assert float(said.split("mIoU of 20 others ")[1].split()[0]) > 0.7
    assert len((EXAMPLES / "own_everything.py").read_text("utf-8").splitlines()) <= 60


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cell runs, and some show a picture. The committed notebook holds no outputs."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, ENVIRONMENT[name])
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code), "strip the outputs"
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert any("image/png" in output.get("data", {}) for cell in code for output in cell.outputs)


def test_every_example_is_named_in_the_readme_of_examples() -> None:
    listed = set(re.findall(r"^- `(\S+)`", (EXAMPLES / "README.md").read_text("utf-8"), re.MULTILINE))
    assert listed == {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb")}


CLUSTER = {"slurm_train.sbatch": "bash", "kubernetes_train.yaml": "yaml"}


@pytest.mark.parametrize("name", CLUSTER)
def test_cluster_files_are_sound_and_their_options_are_ours(name: str, tmp_path: Path) -> None:
    text = (EXAMPLES / "cluster" / name).read_text()
    if CLUSTER[name] == "bash":
        subprocess.run(["bash", "-n", EXAMPLES / "cluster" / name], check=True)
        lines = text.replace("\\\n", " ").splitlines()
        command = next(line for line in lines if "torchrun" in line and not line.startswith("#"))
        words = shlex.split(
            command.rstrip("& ").rstrip("'").replace("$SLURM_NNODES", "4").replace("$SLURM_NODEID", "0")
        )
    else:
        job = next(part for part in yaml.safe_load_all(text) if part["kind"] == "Job")
        container = job["spec"]["template"]["spec"]["containers"][0]
        words = [*container["command"], *container["args"]]
    launcher = get_args_parser().parse_args(words[1:])
    assert (launcher.training_script, launcher.module) == ("panfpn", True)
    verb, recipe, *options = launcher.training_script_args
    assert verb == "train"
    config = parse_options(TrainConfig, recipe, options, "", recipes.find(recipe)())
    largest = int(launcher.nnodes.rpartition(":")[2] if ":" in launcher.nnodes else 4) * int(launcher.nproc_per_node)
    assert config.train.batch_size % largest == 0
