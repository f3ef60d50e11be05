"""What runs a trained network: torch, OpenVINO, ONNX Runtime. In: pixels uint8 [B, H, W, 3]. Out: logits [B, K, h, w].

All three run one graph: normalisation, padding, network. Which is fastest where: docs/benchmarks.md.
"""

import copy
import importlib
import io
import warnings
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from panfpn.models.depthwise import DepthwiseConv2d

ENGINES = ("torch", "openvino", "onnxruntime")

_EXAMPLES = {True: (64, 96), False: (67, 99)}  # sizes to trace with: aligned to every stride, and to none
_SPECIALISE = 4  # images of one size in a row after which OpenVINO compiles for that size (0.2 s, 5 % faster)
_CPU_ONLY = "run it with device cpu, or take engine torch"


class PixelNetwork(nn.Module):
    """A network that takes pixels as they come: uint8 [B, H, W, C] -> logits [B, K, H/4, W/4].

    `mean` and `std` [C, 1, 1] are of values in 0..255; images are padded with the mean to a multiple of `divisor`, and
    the logits of the padding are given too.
    """

    def __init__(self, network: nn.Module, mean: torch.Tensor, std: torch.Tensor, divisor: int) -> None:
        super().__init__()
        self.network, self.divisor = network, divisor
        self.register_buffer("mean", mean.clone())
        self.register_buffer("std", std.clone())

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """[B, H, W, C] uint8 -> [B, K, H/4, W/4]."""
        height, width = pixels.shape[1:3]
        images = (pixels.permute(0, 3, 1, 2).float() - self.get_buffer("mean")) / self.get_buffer("std")
        if self.divisor > 1:
            images = F.pad(images, (0, -width % self.divisor, 0, -height % self.divisor))
        return self.network(images.contiguous(memory_format=torch.channels_last))  # type: ignore[no-any-return]


def make_runtime(
    engine: str, network: PixelNetwork, precision: torch.dtype, *, compile: bool = False
) -> "TorchRuntime | OpenVINORuntime | ONNXRuntime":
    """A network behind an engine; from here on it must not change (torch works on a copy, the others read it later).

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


class TorchRuntime:
    """torch with what training cannot have: batch norm folded into convolutions, weights in the precision at hand."""

    engine = "torch"

    def __init__(self, network: PixelNetwork, precision: torch.dtype, *, compile: bool = False) -> None:
        self.network, self.precision = copy.deepcopy(network).eval().requires_grad_(False), precision
        fold_batch_norm(self.network)
        self.device = network.get_buffer("mean").device
        if precision != torch.float32:
            for module in self.network.modules():
                if isinstance(module, (nn.Conv2d, nn.Linear, DepthwiseConv2d)):
                    module.to(precision)
        self.network.to(memory_format=torch.channels_last)
        self.compiled = compile
        self.run: Any = torch.compile(self.network, dynamic=False) if compile else self.network

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits of pixels [B, H, W, C]."""
        with torch.inference_mode(), self._autocast():
            return self.run(pixels.to(self.device, non_blocking=True))  # type: ignore[no-any-return]


@torch.no_grad()
def fold_batch_norm(network: PixelNetwork) -> None:
    """Multiply every batch norm that follows a convolution into that convolution, in place.

    Which follows which is watched in one small run, and the result is compared with what it was: a network whose
    batch norms cannot be folded (its convolution feeds something else too) is left as it is.
    """
    device = network.get_buffer("mean").device
    pixels = torch.randint(256, (1, *_EXAMPLES[True], network.get_buffer("mean").shape[0]), dtype=torch.uint8)
    pixels = pixels.to(device)
    expected, pairs = _watch(network, pixels)
    kept = [(conv, conv.weight, conv.bias, name, norm) for conv, name, norm in pairs]
    for conv, name, norm in pairs:
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        network.set_submodule(name, getattr(norm, "act", nn.Identity()))  # timm's norms carry their activation
    if not torch.allclose(network(pixels), expected, rtol=0, atol=1e-3 * float(expected.abs().max())):
        for conv, weight, bias, name, norm in kept:
            conv.weight, conv.bias = weight, bias
            network.set_submodule(name, norm)


def _watch(network: nn.Module, pixels: torch.Tensor) -> tuple[torch.Tensor, list[tuple[Any, str, Any]]]:
    """The result of a run, and the (convolution, name of its norm, norm) that were used right after another, once."""
    calls: dict[nn.Module, int] = {}
    made: list[tuple[torch.Tensor, nn.Module]] = []  # held, so that no two have the same identity
    follows: dict[nn.Module, nn.Module] = {}

    def seen(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        calls[module] = calls.get(module, 0) + 1
        if isinstance(module, nn.BatchNorm2d):
            follows.update((module, conv) for result, conv in made if result is inputs[0])
        else:
            made.append((output, module))

    wanted = (nn.Conv2d, DepthwiseConv2d, nn.BatchNorm2d)
    hooks = [module.register_forward_hook(seen) for module in network.modules() if isinstance(module, wanted)]
    result = network(pixels)
    for hook in hooks:
        hook.remove()
    names = {module: name for name, module in network.named_modules()}
    pairs = [(conv, names[norm], norm) for norm, conv in follows.items() if calls[norm] == calls[conv] == 1]
    return result, pairs


class OpenVINORuntime:
    """Intel's and others' CPUs at their best. The graph serves every size; one that stays is compiled for itself."""

    engine, compiled = "openvino", True

    def __init__(self, network: PixelNetwork, precision: torch.dtype) -> None:
        kinds = {torch.float32: "f32", torch.bfloat16: "bf16"}
        if precision not in kinds:
            raise ValueError(f"engine openvino computes in float32 or bfloat16, not in {str(precision)[6:]}")
        self.core = _installed("openvino").Core()
        self.graphs = _Graphs(network)
        self.settings = {"INFERENCE_PRECISION_HINT": kinds[precision], "PERFORMANCE_HINT": "LATENCY",
                         "INFERENCE_NUM_THREADS": torch.get_num_threads()}  # fmt: skip
        self.requests: dict[bool, Any] = {}
        self.last: tuple[torch.Size, int, Any] = (torch.Size(), 0, None)  # shape, how often in a row, compiled for it

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits of pixels [B, H, W, C]."""
        aligned = self.graphs.aligned(pixels)
        shape, count, special = self.last
        count, special = (count + 1, special) if pixels.shape == shape else (1, None)
        if count == _SPECIALISE:
            self.requests.clear()  # their memory: the size may well stay
            special = self._compiled(aligned, list(pixels.shape))
        self.last = (pixels.shape, count, special)
        if special is None and aligned not in self.requests:
            self.requests[aligned] = self._compiled(aligned)
        request = special or self.requests[aligned]
        return torch.from_numpy(request.infer([pixels.contiguous().numpy()], share_inputs=True)[0])

    def _compiled(self, aligned: bool, shape: list[int] | None = None) -> Any:
        graph = self.core.read_model(self.graphs.onnx(aligned))
        if shape:
            graph.reshape(shape)
        return self.core.compile_model(graph, "CPU", self.settings).create_infer_request()


class ONNXRuntime:
    """ONNX Runtime on the CPU, in float32."""

    engine, compiled = "onnxruntime", True

    def __init__(self, network: PixelNetwork, precision: torch.dtype) -> None:
        if precision != torch.float32:
            raise ValueError(f"engine onnxruntime computes in float32 here, not in {str(precision)[6:]}")
        self.onnxruntime = _installed("onnxruntime")
        self.graphs = _Graphs(network)
        self.sessions: dict[bool, Any] = {}

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits of pixels [B, H, W, C]."""
        aligned = self.graphs.aligned(pixels)
        if aligned not in self.sessions:
            options = self.onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            self.sessions[aligned] = self.onnxruntime.InferenceSession(
                self.graphs.onnx(aligned), options, providers=["CPUExecutionProvider"]
            )
        return torch.from_numpy(self.sessions[aligned].run(None, {"pixels": pixels.contiguous().numpy()})[0])


class _Graphs:
    """ONNX graphs of a network, each for images of any size of its kind.

    Where every map of the pyramid is half the size of the one before ("aligned") the graph is simpler and faster.
    """

    def __init__(self, network: PixelNetwork) -> None:
        _installed("onnx")  # torch's exporter asks for it
        self.network = network.eval()

    def aligned(self, pixels: torch.Tensor) -> bool:
        """The kind of images of this size."""
        return all((side + -side % self.network.divisor) % 32 == 0 for side in pixels.shape[1:3])

    def onnx(self, aligned: bool) -> bytes:
        """The serialised graph: pixels [batch, height, width, C] uint8 -> logits."""
        file, channels = io.BytesIO(), self.network.get_buffer("mean").shape[0]
        example = torch.zeros(1, *_EXAMPLES[aligned], channels, dtype=torch.uint8)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tracing: that sizes are followed is what the tests look at
            torch.onnx.export(
                self.network, (example,), file, input_names=["pixels"], output_names=["logits"], opset_version=18,  # type: ignore[arg-type]
                dynamic_axes={"pixels": {0: "batch", 1: "height", 2: "width"}}, dynamo=False,
            )  # fmt: skip
        return file.getvalue()


def _installed(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"{name} is not installed: pip install 'panfpn[export]'") from error
