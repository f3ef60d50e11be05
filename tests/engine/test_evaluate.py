import json
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import panfpn
from panfpn.build import build_task
from panfpn.cli import main
from panfpn.config import Data, Model, Train, TrainConfig
from panfpn.data import Dataset, open_dataset
from panfpn.engine.distributed import Ranks
from panfpn.engine.evaluate import score_dataset
from panfpn.metrics import BoundaryCounts, SemanticScores
from panfpn.tasks.semantic import SemanticTask
from panfpn.types import Example, Sample
from panfpn.weights.release import write_release


@pytest.fixture
def data(folder_data: Path) -> Dataset:
    return open_dataset("folder", folder_data, "train")


@pytest.fixture
def task(data: Dataset) -> SemanticTask:
    torch.manual_seed(0)
    model = Model(
        backbone="test_resnet", num_classes=3, fpn_channels=16, head_channels=16, mean=(127.5,) * 3, std=(60.0,) * 3
    )
    settings = Data(size_divisor=1)
    return build_task(TrainConfig(model=model, data=settings, train=Train(precision="float32")), data.table)


class Reversed:
    """The same samples from the last to the first."""

    def __init__(self, data: Dataset) -> None:
        self.table, self.data = data.table, data

    def __len__(self) -> int:
        return len(self.data)

    def name(self, index: int) -> str:
        return self.data.name(len(self) - 1 - index)

    def read(self, index: int) -> Sample:
        return self.data.read(len(self) - 1 - index)


class SameSize(Reversed):
    """Every other sample, which have one size."""

    def __len__(self) -> int:
        return len(self.data) // 2

    def name(self, index: int) -> str:
        return self.data.name(2 * index)

    def read(self, index: int) -> Sample:
        return self.data.read(2 * index)


class Recording:
    """A scorer that gives the images that it got as its scores."""

    def __init__(self) -> None:
        self.options: dict[str, Any] = {}
        self.seen: list[int] = []

    def add(self, index: int, sample: Sample, _: object) -> Example:
        self.seen.append(index)
        return Example(name=sample.name, image=sample.image, target=sample.target, prediction=sample.target, score=1.0)

    def scores(self, *_: object) -> list[int]:
        return self.seen


@pytest.mark.parametrize(
    ("most", "wanted"), [(None, [0, 1, 2, 3, 4, 5]), (4, [0, 1, 3, 4]), (1, [0]), (9, [0, 1, 2, 3, 4, 5])]
)
def test_ranks_score_the_same_part_as_one_process(
    most: int | None, wanted: list[int], task: SemanticTask, data: Dataset
) -> None:
    for world in (1, 2, 3):
        parts = [score_dataset(task, data, scorer=Recording(), ranks=Ranks(rank=r, world=world), most=most)[0]
                 for r in range(world)]  # fmt: skip
        assert sorted(index for part in parts for index in part) == wanted
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_batches_of_mixed_sizes_and_order_change_no_count(task: SemanticTask, data: Dataset) -> None:
    one, _ = score_dataset(task, data, batch_size=1)
    assert one.counts.sum() == sum((data.read(i).target >= 0).sum() for i in range(len(data)))
    for other in (
        score_dataset(task, data, batch_size=4)[0],
        score_dataset(task, data, batch_size=6, num_workers=1)[0],
        score_dataset(task, Reversed(data), batch_size=4)[0],
    ):
        assert np.array_equal(one.counts, other.counts)
        assert one.images is not None and other.images is not None
        for image in one.images.to_list():
            assert image in other.images.to_list()  # under its own name, whatever its place
    assert one.images.names == tuple(data.name(i) for i in range(len(data)))
    assert np.array_equal(sum(one.images.areas[0]), np.diag(one.counts)[:-1])


def test_boundaries_count_along(task: SemanticTask, data: Dataset) -> None:
    task.eval()  # as it is scored
    scores, _ = score_dataset(task, data, batch_size=4, scorer=task.scorer(data, trimap_width=2))
    wanted = BoundaryCounts(3, trimap_width=2)
    for i in range(len(data)):
        sample = data.read(i)
        wanted.update(task.predict([sample.image], names=["x"])[0].labels, sample.target)
    assert scores.boundary is not None and np.array_equal(scores.boundary.counts, wanted.counts)
    assert wanted.counts.any(1).all()
    with pytest.raises(ValueError, match="trimap width is 0; it must be from 1"):
        panfpn.evaluate(task, data, trimap_width=0)
    from_evaluate = panfpn.evaluate(task, data, trimap_width=2).boundary
    assert from_evaluate is not None and np.array_equal(from_evaluate.counts, wanted.counts)
    assert panfpn.evaluate(task, data).boundary is None


class Other(Ranks):
    """A rank of two, with what the other one counted."""

    counted: list[torch.Tensor] = []  # noqa: RUF012 - filled by the first rank, added by the second

    def total(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.rank == 0:
            self.counted.append(tensor.clone())
            return tensor
        return tensor + self.counted.pop(0)


def test_ranks_add_up(task: SemanticTask, data: Dataset) -> None:
    def score(ranks: Ranks) -> SemanticScores:
        scores, _ = score_dataset(task, data, ranks=ranks, scorer=task.scorer(data, trimap_width=5))
        assert isinstance(scores, SemanticScores) and scores.boundary is not None
        return scores

    wanted, part = score(Ranks()), score(Other(0, 2))
    assert part.images is not None and (part.images.pixels > 0).tolist() == [True, False] * 3
    both = score(Other(1, 2))
    assert wanted.images is not None and both.images is not None and wanted.boundary and both.boundary
    assert np.array_equal(both.counts, wanted.counts)
    assert np.array_equal(both.boundary.counts, wanted.boundary.counts)
    assert both.images.to_list() == wanted.images.to_list()


def test_batches_reach_the_network(task: SemanticTask, data: Dataset) -> None:
    sizes: list[int] = []
    handle = task.model.register_forward_pre_hook(lambda _, images: sizes.append(len(images[0])))
    score_dataset(task, SameSize(data), batch_size=2)
    handle.remove()
    assert sizes == [2, 1]


def test_an_error_leaves_the_mode_as_it_was(task: SemanticTask, data: Dataset) -> None:
    class Broken(Reversed):
        def read(self, index: int) -> Sample:
            raise ValueError("broken image")

    task.train()
    with pytest.raises(ValueError, match="broken image"):
        score_dataset(task, Broken(data))
    assert task.training and task.model.training


def test_best_and_worst_images_are_kept(task: SemanticTask, data: Dataset) -> None:
    done: list[int] = []
    _, shown = score_dataset(task, data, progress=done.append)
    assert done == [1, 2, 3, 4, 5, 6]
    assert [s.score for s in shown] == sorted(s.score for s in shown)
    assert {s.name for s in shown} == {f"photo_{i}" for i in range(6)}
    assert not task.training or task.model.training  # the mode is as before


def test_evaluate_takes_files_predictors_and_tasks(
    task: SemanticTask, data: Dataset, folder_data: Path, tmp_path: Path
) -> None:
    file = tmp_path / "model.safetensors"
    config = TrainConfig(model=Model(backbone="test_resnet", num_classes=3, fpn_channels=16, head_channels=16,
                                     mean=(127.5,) * 3, std=(60.0,) * 3))  # fmt: skip
    write_release(file, task.model.state_dict(), config, data.table, scores={}, source={})
    settings = Data(dataset="folder", root=folder_data, num_workers=0)
    options: dict[str, Any] = {"device": "cpu", "precision": "float32"}
    from_file = panfpn.evaluate(file, settings, **options)
    from_folder = panfpn.evaluate(str(tmp_path), settings, **options)
    predictor = panfpn.Predictor.from_file(file, **options)
    from_predictor = panfpn.evaluate(predictor, open_dataset("folder", folder_data, "val"))
    assert np.array_equal(from_file.counts, from_folder.counts)
    assert np.array_equal(from_file.counts, from_predictor.counts) and from_file.counts.sum() > 0
    with pytest.raises(
        ValueError, match=r"label table 'toy' \(3 classes\) is not that of the data, 'scenes' \(9 classes\)"
    ):
        panfpn.evaluate(file, Data(dataset="scenes"), **options)
    with pytest.raises(ValueError, match="not a int"):
        panfpn.evaluate(3, settings)
    with pytest.raises(ValueError, match=r"data\.scale is \(64, 48\)"):
        panfpn.evaluate(file, Data(dataset="folder", root=folder_data, scale=(64, 48)), **options)


def test_ranks_share_an_evaluation_and_one_prints(
    folder_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Path(str(resources.files("panfpn"))) / "weights" / "camvid_lite0.safetensors"
    table = panfpn.LabelTable.named("camvid")
    names = "".join(f"- {{name: {name}, value: {k}}}\n" for k, name in enumerate(table.names))
    (folder_data / "labels.yaml").write_text(f"classes:\n{names}ignore: [20, 255]\n")
    words = ["eval", str(model), "--data.root", str(folder_data), "--data.dataset", "folder"]
    words += ["--data.num-workers", "0", "--precision", "float32", "--device", "cpu", "--json"]
    assert main([*words, str(tmp_path / "1.json")]) == 0
    alone = capsys.readouterr().out
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "panfpn"]
    run = subprocess.run([*start, *words, str(tmp_path / "2.json")], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout == alone and "mIoU" in alone
    one, two = (json.loads((tmp_path / f"{ranks}.json").read_text())["confusion"] for ranks in (1, 2))
    assert one == two
