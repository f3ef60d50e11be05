"""A CUDA device for tests on a machine without a GPU: real values, CUDA's refusals, and a count of the host's waits.

`with FakeCuda() as gpu:` (or the fixture `fake_cuda`): inside, `torch.cuda.is_available()` is true, tensors on "cuda"
hold real numbers (computed by the CPU's kernels), their `.device` is `cuda:0`, autocast follows CUDA's lists, and they
refuse what CUDA refuses: a tensor of the CPU in the same operator, `.numpy()`. `gpu.waits` counts, by source line of
the package, everything that would make the host wait for the device, and copies from memory that is not pinned.

How: a tensor subclass whose C++ device is meta with CUDA's dispatch keys (tensor.py), a dispatch mode that computes on
the CPU tensor inside (device.py), and a function mode for what torch decides by the device before it dispatches
(surface.py). It shows no kernel's numbers, dtypes or strides, no streams, memory, NCCL, second GPU, torch.compile.
It leans on private functions of torch, and fails loudly where they are gone.
"""

from fake_cuda.device import FakeCuda
from fake_cuda.tensor import CUDA, CudaTensor, on_cpu

__all__ = ["CUDA", "CudaTensor", "FakeCuda", "on_cpu"]
