"""A folder of results by the actors of a Ray cluster. In: inputs and a predictor. Out: files, and a row for each input.

The folder must be one that all machines see. Every actor has its copy of the predictor and one core (or GPU), labels a
few inputs at a time and writes their files whole; what is there is skipped. So an actor or a machine that is lost costs
the inputs that it was at, which Ray gives to another, and the files are those that one machine would have written.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from panfpn.deploy.folder import Outcome
from panfpn.deploy.inputs import Input, as_image
from panfpn.deploy.plan import Outputs, Plan
from panfpn.deploy.predictor import Failure, failure
from panfpn.deploy.shares import Rows
from panfpn.deploy.tiles import label_raster
from panfpn.extras import optional
from panfpn.progress import progress_bar

LOG = "predictions-ray.jsonl"
_TOGETHER = 8  # inputs that an actor gets at a time


def predict_with_ray(
    plan: Plan, *, address: str = "local", actors: int | None = None, progress: bool = True
) -> Outcome:  # fmt: skip
    """Do what a plan says, by so many actors (None: one a core of the cluster, or one a GPU).

    `address` is a cluster's, as `ray.init` takes it, or local: a cluster of this machine alone.

    Raises:
        ValueError: videos, cameras and standard input, which no other machine can take over; no cluster there.
        ImportError: the extra `ray` is not installed.
    """
    ray: Any = optional("ray", "ray", "predict --ray needs")
    data: Any = optional("ray.data", "ray", "predict --ray needs")
    inputs = plan.inputs
    for one in inputs.inputs:
        if one.video or one.address == "-":
            raise ValueError(f"{one.address}: is labelled frame by frame, by one process; leave --ray out for it")
    plan.begin()
    items = [{"name": one.name, "address": one.address, "path": str(one.path.absolute()) if one.path else "",
              "raster": one.raster} for one in inputs.inputs]  # fmt: skip
    outputs = replace(plan.outputs, folder=plan.outputs.folder.absolute())  # actors work in other folders
    failures: list[Failure] = []
    done = 0
    began = not ray.is_initialized()
    if began:
        try:
            ray.init(address=None if address == "local" else address, include_dashboard=False, log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ValueError(f"--ray {address}: no such cluster ({error})") from error
    try:
        gpu = plan.predictor.task.device.type == "cuda"
        blocks = max(1, -(-len(items) // _TOGETHER))
        there = int(ray.cluster_resources().get("GPU" if gpu else "CPU", 1))
        data.DataContext.get_current().enable_progress_bars = False
        rows = data.from_items(items, override_num_blocks=blocks).map_batches(
            _Actor, batch_size=_TOGETHER, compute=data.ActorPoolStrategy(size=min(actors or there, blocks)),
            num_cpus=None if gpu else 1, num_gpus=1 if gpu else None,
            fn_constructor_kwargs={"outputs": outputs, "predictor": ray.put(plan.predictor)},
        )  # fmt: skip
        with (
            Rows(plan.outputs.folder / LOG) as log, progress_bar("labelling", len(items), show=progress) as advance
        ):  # fmt: skip
            log.add_missing(plan.skipped)
            for row in rows.iter_rows() if items else ():
                if row["status"] == "failed":
                    failures.append(Failure(row["name"], row["reason"]))
                else:
                    done += 1
                log.add(**{key: value for key, value in row.items() if value})
                advance(done + len(failures))
    finally:
        if began:
            ray.shutdown()
    return Outcome(done, tuple(failures), inputs.left_out, skipped=len(plan.skipped))


class _Actor:
    """Labels inputs in a process of its own."""

    def __init__(self, outputs: Outputs, predictor: Any) -> None:
        ray: Any = optional("ray", "ray", "an actor needs")
        self.outputs, self.predictor = outputs, ray.get(predictor)
        if self.predictor.task.device.type == "cpu":
            torch.set_num_threads(1)  # there are as many actors as cores

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The rows of a batch of inputs."""
        columns = (batch[key].tolist() for key in ("name", "address", "path", "raster"))
        rows = [self._row(*values) for values in zip(*columns, strict=True)]
        return {key: np.array([row[key] for row in rows], object) for key in ("name", "status", "reason")}

    def _row(self, name: str, address: str, path: str, raster: bool) -> dict[str, str]:
        outputs, predictor = self.outputs, self.predictor
        one = Input(name, address, Path(path) if path else None, raster=raster)
        try:
            if one.raster and one.path:
                label_raster(one.path, outputs.folder, name=name, predictor=predictor, options=outputs.tiles,
                             progress=False)  # fmt: skip
            else:
                image = as_image(path or address, predictor.task.preprocess.reading)
                found = predictor(image, name=name, confidence="confidence" in outputs.what)
                found.save(outputs.folder, what=outputs.what)
        except Exception as error:  # one bad input must not cost the others
            return {"name": name, "status": "failed", "reason": failure(name, error).reason}
        return {"name": name, "status": "ok", "reason": ""}
