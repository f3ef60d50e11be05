"""What runs a trained network: torch, OpenVINO, ONNX Runtime. In: pixels uint8 [B, H, W, 3]. Out: logits [B, K, h, w].

All three run one graph: normalisation, padding, network. Which is fastest where: docs/benchmarks.md.
"""

import copy
import importlib
import io
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten

from panfpn.device import PRECISIONS
from panfpn.models.depthwise import DepthwiseConv2d
from panfpn.models.pixels import PixelNetwork

ENGINES = ("torch", "openvino", "onnxruntime")

_EXAMPLES = {True: (64, 96), False: (67, 99)}  # sizes to trace with: aligned to every stride, and to none
_CPU_ONLY = "run it with device cpu, or take engine torch"


def make_runtime(
    engine: str, network: PixelNetwork, precision: torch.dtype, *, compile: bool = False
) -> "TorchRuntime | OpenVINORuntime | ONNXRuntime":
    """A network behind an engine; its weights must not change from here on (they are shared, or read later).

    `compile` is torch.compile's (the others compile anyway): a minute at the first image of each size, kept on disk in
    TORCHINDUCTOR_CACHE_DIR.

    Raises:
        ValueError: an unknown engine, one that is not installed, or one that cannot do what is asked.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine {engine!r}; choose from {', '.join(ENGINES)}")
    if engine == "torch":
        return TorchRuntime(network, precision, compile=compile)
    device = network.get_buffer("mean").device
    if device.type != "cpu":
        raise ValueError(f"engine {engine} is for CPUs, not for {device}; {_CPU_ONLY}")
    if engine == "openvino":
        return OpenVINORuntime(network, precision)
    return ONNXRuntime(network, precision)


def engine_precisions(engine: str) -> tuple[str, ...]:
    """What the engine computes in; ValueError for an unknown one."""
    classes: dict[str, Any] = {"torch": TorchRuntime, "openvino": OpenVINORuntime, "onnxruntime": ONNXRuntime}
    if engine not in classes:
        raise ValueError(f"engine {engine!r}; choose from {', '.join(ENGINES)}")
    precisions: tuple[str, ...] = classes[engine].precisions
    return precisions


class TorchRuntime:
    """torch with what training cannot have: batch norm folded into convolutions, weights in the precision at hand."""

    engine, precisions = "torch", PRECISIONS

    def __init__(self, network: PixelNetwork, precision: torch.dtype, *, compile: bool = False) -> None:
        self.network, self.precision = _folded(network, precision), precision
        self.device = network.get_buffer("mean").device
        self.compiled = compile
        self.run: Any = torch.compile(self.network, dynamic=False) if compile else self.network

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32)

    def __call__(self, pixels: torch.Tensor) -> Any:
        """What the network gives for pixels [B, H, W, C]."""
        with torch.inference_mode(), self._autocast():
            return self.run(pixels.to(self.device, non_blocking=True))


@torch.no_grad()
def _folded(network: PixelNetwork, precision: torch.dtype) -> PixelNetwork:
    """A copy whose batch norms are multiplied into the convolutions before them, and whose large weights are cast.

    What does not change is shared with the original.
    """
    shared = {id(tensor): tensor for tensor in [*network.parameters(), *network.buffers()]}
    folded = copy.deepcopy(network, shared).eval()
    folded.dtype = precision
    for conv_name, norm_name in _foldable(network):
        conv: Any = folded.get_submodule(conv_name)
        norm: Any = folded.get_submodule(norm_name)
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        _cast(conv, precision)
        folded.set_submodule(norm_name, getattr(norm, "act", nn.Identity()))  # timm's norms carry their activation
    for module in folded.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear, DepthwiseConv2d)):
            _cast(module, precision)
    return folded


def _cast(module: nn.Module, precision: torch.dtype) -> None:
    for name, parameter in list(module.named_parameters(recurse=False)):
        if parameter.dtype != precision:
            setattr(module, name, nn.Parameter(parameter.to(precision), requires_grad=False))


class _Uses(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operators that read each tensor."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count: Counter[int] = Counter()
        self.kept: list[Any] = []  # so that no two tensors have the same identity

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count.update(id(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor))
        result = func(*args, **(kwargs or {}))
        self.kept.append(result)
        return result


def _foldable(network: PixelNetwork) -> list[tuple[str, str]]:
    """Names of (convolution, norm) where nothing but the norm reads what the convolution gives, seen in a small run."""
    calls: Counter[nn.Module] = Counter()
    source: dict[int, nn.Module] = {}  # a result's identity -> its convolution
    pairs: list[tuple[nn.Module, nn.Module, int]] = []

    def seen(module: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        calls[module] += 1
        if not isinstance(module, nn.BatchNorm2d):
            source[id(output)] = module
        elif id(inputs[0]) in source and module.track_running_stats:
            pairs.append((source[id(inputs[0])], module, id(inputs[0])))

    wanted = (nn.Conv2d, DepthwiseConv2d, nn.BatchNorm2d)
    hooks = [module.register_forward_hook(seen) for module in network.modules() if isinstance(module, wanted)]
    buffer = network.get_buffer("mean")
    try:
        with _Uses() as uses:
            network(torch.zeros(1, *_EXAMPLES[True], buffer.shape[0], dtype=torch.uint8, device=buffer.device))
    finally:
        for hook in hooks:
            hook.remove()
    names = {module: name for name, module in network.named_modules()}
    return [(names[c], names[n]) for c, n, made in pairs if calls[c] == calls[n] == uses.count[made] == 1]


class OpenVINORuntime:
    """Intel's and others' CPUs at their best.

    A graph compiled for one size is 5 % faster and takes half the memory of one for any: the first size gets its own,
    which serves a folder of equal images; others share one.
    """

    engine, compiled, precisions = "openvino", True, ("float32", "bfloat16")

    def __init__(self, network: PixelNetwork, precision: torch.dtype) -> None:
        kinds = {torch.float32: "f32", torch.bfloat16: "bf16"}
        if precision not in kinds:
            raise ValueError(f"engine openvino computes in float32 or bfloat16, not in {str(precision)[6:]}")
        self.core = _installed("openvino").Core()
        self.graphs = _Graphs(network)
        self.settings = {"INFERENCE_PRECISION_HINT": kinds[precision], "PERFORMANCE_HINT": "LATENCY",
                         "INFERENCE_NUM_THREADS": torch.get_num_threads()}  # fmt: skip
        self.requests: dict[torch.Size | bool, Any] = {}  # by size, or by kind of sizes

    def __call__(self, pixels: torch.Tensor) -> Any:
        """What the network gives for pixels [B, H, W, C]."""
        aligned = self.graphs.aligned(pixels)
        if not self.requests:
            self.requests[pixels.shape] = self._compiled(aligned, list(pixels.shape))
        elif pixels.shape not in self.requests and aligned not in self.requests:
            self.requests[aligned] = self._compiled(aligned)
        request = self.requests.get(pixels.shape) or self.requests[aligned]
        found = request.infer([pixels.contiguous().numpy()], share_inputs=True)
        return self.graphs.joined([found[i] for i in range(len(found))])

    def _compiled(self, aligned: bool, shape: list[int] | None = None) -> Any:
        graph = self.core.read_model(self.graphs.onnx(aligned))
        if shape:
            graph.reshape(shape)
        return self.core.compile_model(graph, "CPU", self.settings).create_infer_request()


class ONNXRuntime:
    """ONNX Runtime on the CPU, in float32."""

    engine, compiled, precisions = "onnxruntime", True, ("float32",)

    def __init__(self, network: PixelNetwork, precision: torch.dtype) -> None:
        if precision != torch.float32:
            raise ValueError(f"engine onnxruntime computes in float32 here, not in {str(precision)[6:]}")
        self.onnxruntime = _installed("onnxruntime")
        self.graphs = _Graphs(network)
        self.sessions: dict[bool, Any] = {}

    def __call__(self, pixels: torch.Tensor) -> Any:
        """What the network gives for pixels [B, H, W, C]."""
        aligned = self.graphs.aligned(pixels)
        if aligned not in self.sessions:
            options = self.onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            self.sessions[aligned] = self.onnxruntime.InferenceSession(
                self.graphs.onnx(aligned), options, providers=["CPUExecutionProvider"]
            )
        return self.graphs.joined(self.sessions[aligned].run(None, {"pixels": pixels.contiguous().numpy()}))


class _Graphs:
    """ONNX graphs of a network, each for images of any size of its kind.

    Where every map of the pyramid is half the size of the one before ("aligned") the graph is simpler and faster.
    """

    def __init__(self, network: PixelNetwork) -> None:
        _installed("onnx")  # torch's exporter asks for it
        self.network = network.eval()
        self.form: TreeSpec | None = None

    def aligned(self, pixels: torch.Tensor) -> bool:
        """The kind of images of this size."""
        return all((side + -side % self.network.divisor) % 32 == 0 for side in pixels.shape[1:3])

    def joined(self, maps: Sequence[npt.NDArray[np.float32]]) -> Any:
        """The graph's outputs in the form in which the network gives them."""
        assert self.form is not None, "onnx() comes first"
        return tree_unflatten([torch.from_numpy(m) for m in maps], self.form)

    def onnx(self, aligned: bool) -> bytes:
        """The serialised graph: pixels [batch, height, width, C] uint8 -> the network's maps."""
        file, channels = io.BytesIO(), self.network.get_buffer("mean").shape[0]
        example = torch.zeros(1, *_EXAMPLES[aligned], channels, dtype=torch.uint8)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tracing: that sizes are followed is what the tests look at
            maps, self.form = tree_flatten(self.network(example))
            names = [f"maps_{i}" for i in range(len(maps))]
            torch.onnx.export(
                self.network, (example,), file, input_names=["pixels"], output_names=names, opset_version=18,  # type: ignore[arg-type]
                dynamic_axes={"pixels": {0: "batch", 1: "height", 2: "width"}}, dynamo=False,
            )  # fmt: skip
        return file.getvalue()


def _installed(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"{name} is not installed: pip install 'panfpn[export]'") from error
