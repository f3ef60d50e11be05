"""What ranks tell each other before they are joined, and what must be the same on all of them."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed import HashStore

from panfpn.config import TrainConfig
from panfpn.data.identity import Identity
from panfpn.engine import distributed
from panfpn.engine.distributed import Ranks, _first_word, is_lost_rank, joined_ranks, named_loss
from panfpn.engine.run_folder import resume_command
from panfpn.engine.run_settings import check_same_settings
from panfpn.engine.train import check_same_data, goes_on


class Other(Ranks):
    """The second of two ranks; the first has `first`."""

    def __init__(self, first: Any) -> None:
        super().__init__(1, 2)
        object.__setattr__(self, "word", first)

    def agreed(self, value: Any) -> Any:
        return self.word  # type: ignore[attr-defined]


def test_alone_a_job_begins_here() -> None:
    with joined_ranks(lambda: {"device": "cpu"}, lambda begun: begun["device"]) as joined:
        assert joined == (Ranks(0, 1), {"device": "cpu"}, "cpu")


def test_the_first_ranks_word_reaches_the_others() -> None:
    store, heard = HashStore(), []
    other = threading.Thread(target=lambda: heard.append(_first_word(store, 1, lambda: "not asked")))
    other.start()
    assert _first_word(store, 0, lambda: {"lr": 0.5}) == {"lr": 0.5}
    other.join(20)
    assert heard == [{"lr": 0.5}]


def test_what_stopped_the_first_rank_is_said_on_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "_AGAIN", 0.1)

    def bad() -> str:
        raise ValueError("run: holds no run to resume (no config.yaml)")

    store = HashStore()
    with pytest.raises(ValueError, match="holds no run"):
        _first_word(store, 0, bad)
    with pytest.raises(ConnectionError, match="could not begin: run: holds no run to resume"):
        _first_word(store, 1, lambda: "not asked")
    later = threading.Timer(0.5, _first_word, (store, 0, lambda: "better"))  # the launcher's next attempt
    monkeypatch.setattr(distributed, "_AGAIN", 1.0)
    later.start()
    assert _first_word(store, 1, lambda: "not asked") == "better"


def test_a_run_on_another_host_than_the_first_ranks_is_not_begun_anew(tmp_path: Path) -> None:
    class Both(Ranks):
        def gathered(self, value: Any) -> list[Any]:
            return [False, value]

    (tmp_path / "config.yaml").touch()
    with pytest.raises(ValueError, match="the run lies on the host of rank 1"):
        goes_on(Both(1, 2), TrainConfig().changed(**{"run.dir": tmp_path}), {})


def test_a_lost_rank_is_named_and_other_errors_are_not() -> None:
    lost = RuntimeError("[gloo/transport/tcp/pair.cc:1] Connection closed by peer [10.0.0.2]:1")
    assert is_lost_rank(lost) and not is_lost_rank(RuntimeError("shapes differ"))
    words = r"this is rank 1 of 2\); see what it said, and begin again"
    with pytest.raises(ConnectionError, match=words), named_loss(Ranks(1, 2), lambda: "begin again"):
        raise lost
    for ranks, error in ((Ranks(), lost), (Ranks(1, 2), RuntimeError("shapes differ"))):
        with pytest.raises(RuntimeError, match=str(error)[-8:]), named_loss(ranks, lambda: "begin again"):
            raise error


def test_settings_of_all_ranks_are_the_same_but_for_those_of_a_machine(tmp_path: Path) -> None:
    first = TrainConfig()
    check_same_settings(first.changed(**{"data.root": tmp_path, "run.dir": tmp_path, "data.num_workers": 1}), first)
    with pytest.raises(ValueError, match=r"optim.lr is 0.5 here and .* on the first rank"):
        check_same_settings(first.changed(**{"optim.lr": 0.5}), first)
    with pytest.raises(ValueError, match=r"train.steps is"):
        check_same_settings(first.changed(**{"train.steps": first.train.steps + 1}), first)


def test_a_rank_with_other_data_is_named() -> None:
    one, other = Identity({"classes": []}, {"a": [1, 2]}), Identity({"classes": []}, {"a": [1, 3]})
    first = Other({"training": one.summary()})
    check_same_data(first, {"training": one})
    with pytest.raises(
        ValueError, match=r"the training data of rank 1 are not the first rank's: other files \(1 samples"
    ):
        check_same_data(first, {"training": other})


def test_alone_tensors_are_their_own() -> None:
    tensors = {"a": torch.arange(3)}
    assert Ranks().copied(tensors, torch.device("cpu"))["a"] is tensors["a"]


def test_what_goes_on_with_a_job_of_several_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    wanted = f"torchrun --nnodes 3 … --nproc-per-node 2 -m panfpn train --resume {tmp_path}"
    assert resume_command(tmp_path, 6) == wanted
