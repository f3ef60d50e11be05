"""What runs a trained network: torch, OpenVINO, ONNX Runtime. In: pixels uint8 [B, H, W, 3]. Out: logits [B, K, h, w].

All run one graph: normalisation, padding, network. Which is fastest where: docs/benchmarks.md. An engine may be called
from any thread, pickled, copied and sent to a spawned process, which makes it again; see `Engine` for forks.
"""

import io
import os
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from panfpn.choices import ENGINES, lookup
from panfpn.deploy.fold import folded
from panfpn.device import DTYPES, on_device, survive_fork
from panfpn.extras import optional
from panfpn.models.pixels import PixelNetwork
from panfpn.ops import grown
from panfpn.types import moved
from panfpn.weights.exported import SUFFIXES
from panfpn.weights.exported.openvino import Requests

_EXAMPLES = {True: (64, 96), False: (67, 99)}  # sizes to trace with: aligned to every stride, and to none
_CPU_ONLY = "run it with device cpu, or take engine torch"
_EXPORT = threading.Lock()  # torch's exporter keeps its state in globals


def make_runtime(
    engine: str, network: PixelNetwork, precision: torch.dtype, *, compile: bool = False, streams: int = 1
) -> "Engine":
    """A network behind an engine; its weights must not change from here on (they are shared, or read later).

    `compile` is torch.compile's (the others compile anyway): a minute at the first image and another at the first of
    another size, kept on disk in TORCHINDUCTOR_CACHE_DIR. `streams` calls will be made at once, from as many threads,
    each to be computed by `torch.get_num_threads()` threads.

    Raises:
        ValueError: an unknown engine, or one that cannot compute so or there.
        ImportError: the extra `export` is not installed.
    """
    made: Engine = lookup(ENGINES, engine, "engine")(network, precision, compile=compile, streams=streams)
    return made


def engine_precisions(engine: str) -> tuple[str, ...]:
    """What an engine computes in; ValueError for an unknown one."""
    precisions: tuple[str, ...] = lookup(ENGINES, engine, "engine").precisions
    return precisions


@contextmanager
def shared_cores(engine: str | None, model: str | Path | None, streams: int | None, *, many: bool) -> Iterator[int]:
    """For how many calls at once an engine, or the engine of an exported file, is to be made.

    `streams` None: one a core where there are many images. The cores are divided among them for the time of the block.
    torch needs no such number, and gets 1.
    """
    exported = Path(str(model)).suffix in SUFFIXES.values()
    if engine in (None, "torch") and not exported:
        yield 1
        return
    cores = torch.get_num_threads()
    streams = streams or (cores if many else 1)
    torch.set_num_threads(max(1, cores // streams))
    try:
        yield streams
    finally:
        torch.set_num_threads(cores)


class Engine(ABC):
    """A network made ready to predict; call it with pixels.

    A forked process has none of its parent's threads, so there torch computes in one, and the other engines (which
    would wait for theirs for ever) leave the work to torch and warn.
    """

    engine: str  # its name
    precisions: ClassVar[tuple[str, ...]]  # what it computes in
    cpu_only: ClassVar[bool] = True

    def __init__(
        self, network: PixelNetwork, precision: torch.dtype, *, compile: bool = False, streams: int = 1
    ) -> None:
        if precision not in [DTYPES[name] for name in self.precisions]:
            raise ValueError(f"engine {self.engine} computes in {' or '.join(self.precisions)} here, not in "
                             f"{str(precision).removeprefix('torch.')}")  # fmt: skip
        self.device = network.get_buffer("mean").device
        if self.cpu_only and self.device.type != "cpu":
            raise ValueError(f"engine {self.engine} is for CPUs, not for {self.device}; {_CPU_ONLY}")
        self.source, self.precision, self.compiled, self.streams = network.eval(), precision, compile, streams
        self.lock = threading.Lock()  # held while a graph is made, so that it is made once
        self.process = os.getpid()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled and copied as what it is made of: graphs, requests and threads belong to one process."""
        return _remade, (type(self), self.source, self.precision, self.compiled, self.streams)

    @abstractmethod
    def __call__(self, pixels: torch.Tensor) -> Any:
        """What the network gives for pixels [B, H, W, C], from any thread."""

    @property
    def forked(self) -> bool:
        """Whether this is another process than that which made the engine."""
        return os.getpid() != self.process

    @cached_property
    def heir(self) -> "TorchRuntime":
        """What computes in a forked process."""
        survive_fork(self.device)
        warnings.warn(
            f"engine {self.engine} does not survive a fork: this process computes with engine torch in one thread; "
            "start workers with the spawn method, or make the predictor in them",
            stacklevel=3,
        )
        return TorchRuntime(self.source, self.precision)


def _remade(
    engine: type[Engine], network: PixelNetwork, precision: torch.dtype, compiled: bool, streams: int
) -> Engine:
    return engine(network, precision, compile=compiled, streams=streams)


class TorchRuntime(Engine):
    """torch with what training cannot have: batch norm folded into convolutions, weights in the precision at hand."""

    engine, precisions, cpu_only = "torch", tuple(DTYPES), False

    def __init__(
        self, network: PixelNetwork, precision: torch.dtype, *, compile: bool = False, streams: int = 1
    ) -> None:
        super().__init__(network, precision, compile=compile, streams=streams)
        self.network = folded(network, precision)
        # The first size gets its own graph, the second one that serves all others: `dynamic=False` would make one a
        # size, up to torch's limit of 8, and then none.
        self.run: Any = torch.compile(self.network) if compile else self.network

    def __call__(self, pixels: torch.Tensor) -> Any:
        """What the folded network gives."""
        if self.forked:
            survive_fork(self.device)
            self.run = self.network  # a compiled program starts as many threads as it was compiled for
            self.process = os.getpid()
        with torch.inference_mode(), on_device(self.device):
            return self.run(moved(pixels, self.device))


class OpenVINORuntime(Engine):
    """Intel's and others' CPUs at their best.

    A graph compiled for one size is 5 % faster and takes half the memory of one for any: the first size gets its own,
    which serves a folder of equal images; others share one.
    """

    engine, precisions = "openvino", ("float32", "bfloat16")

    def __init__(
        self, network: PixelNetwork, precision: torch.dtype, *, compile: bool = False, streams: int = 1
    ) -> None:
        super().__init__(network, precision, compile=compile, streams=streams)
        self.core = optional("openvino", "export", "engine openvino needs").Core()
        self.graphs = _Graphs(network)
        self.programs: dict[torch.Size | bool, Requests] = {}  # by size, or by whether sizes are aligned

    def __call__(self, pixels: torch.Tensor) -> Any:
        """What the compiled graph gives."""
        if self.forked:
            return self.heir(pixels)
        return self.graphs.joined(self._program(pixels)(pixels.contiguous().numpy()))

    def _program(self, pixels: torch.Tensor) -> Requests:
        size, aligned = pixels.shape, self.graphs.aligned(pixels)
        program = self.programs.get(size) or self.programs.get(aligned)
        if program is None:
            with self.lock:
                key = aligned if self.programs and size not in self.programs else size
                if key not in self.programs:
                    self.programs[key] = self._compiled(aligned, list(size) if key == size else None)
                program = self.programs[key]
        return program

    def _compiled(self, aligned: bool, shape: list[int] | None) -> Requests:
        graph = self.core.read_model(self.graphs.onnx(aligned))
        if shape:
            graph.reshape(shape)
        precision = str(self.precision).removeprefix("torch.")
        return Requests(self.core, graph, precision, self.streams)


class ONNXRuntime(Engine):
    """ONNX Runtime on the CPU, in float32."""

    engine, precisions = "onnxruntime", ("float32",)

    def __init__(
        self, network: PixelNetwork, precision: torch.dtype, *, compile: bool = False, streams: int = 1
    ) -> None:
        super().__init__(network, precision, compile=compile, streams=streams)
        self.onnxruntime = optional("onnxruntime", "export", "engine onnxruntime needs")
        self.graphs = _Graphs(network)
        self.sessions: dict[bool, Any] = {}

    def __call__(self, pixels: torch.Tensor) -> Any:
        """What a session gives; it may run in several threads at once."""
        if self.forked:
            return self.heir(pixels)
        aligned = self.graphs.aligned(pixels)
        if aligned not in self.sessions:
            with self.lock:
                if aligned not in self.sessions:
                    self.sessions[aligned] = self._session(aligned)
        return self.graphs.joined(self.sessions[aligned].run(None, {"pixels": pixels.contiguous().numpy()}))

    def _session(self, aligned: bool) -> Any:
        options = self.onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        return self.onnxruntime.InferenceSession(self.graphs.onnx(aligned), options, providers=["CPUExecutionProvider"])


class _Graphs:
    """ONNX graphs of a network, one for sizes that are aligned and one for all others.

    Where every map of the pyramid is half the size of the one before ("aligned") the graph is simpler and faster.
    """

    def __init__(self, network: PixelNetwork) -> None:
        optional("onnx", "export", "an ONNX graph needs")  # which torch's exporter imports
        backbone = getattr(network.network, "backbone", None)
        if backbone is not None and getattr(backbone, "window", None):
            raise ValueError(f"backbone {backbone.name!r} takes images of one size and sees others in "
                             "windows, which ONNX graphs cannot cut; take engine torch")  # fmt: skip
        self.network = network.at(torch.float32)  # autocast would become a part of the graph
        self.form: TreeSpec | None = None

    def aligned(self, pixels: torch.Tensor) -> bool:
        """Whether images of this size are."""
        return all(side % 32 == 0 for side in grown(pixels.shape[1:3], self.network.divisor))

    def joined(self, maps: Sequence[npt.NDArray[np.float32]]) -> Any:
        """The graph's outputs in the form in which the network gives them."""
        assert self.form is not None, "onnx() comes first"
        return tree_unflatten([torch.from_numpy(m) for m in maps], self.form)

    def onnx(self, aligned: bool) -> bytes:
        """The serialised graph: pixels [batch, height, width, C] uint8 -> the network's maps."""
        file, channels = io.BytesIO(), self.network.get_buffer("mean").shape[0]
        example = torch.zeros(1, *_EXAMPLES[aligned], channels, dtype=torch.uint8)
        with _EXPORT, torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tracing: that sizes are followed is what the tests look at
            maps, self.form = tree_flatten(self.network(example))
            names = [f"maps_{i}" for i in range(len(maps))]
            torch.onnx.export(
                self.network, (example,), file, input_names=["pixels"], output_names=names, opset_version=18,  # type: ignore[arg-type]
                dynamic_axes={"pixels": {0: "batch", 1: "height", 2: "width"}}, dynamo=False,
            )  # fmt: skip
        return file.getvalue()
