"""How quickly this machine trains. In: a configuration. Out: a Machine; and which weights are at hand."""

import math
from pathlib import Path

import timm

from panfpn.benchmark.child import in_child
from panfpn.benchmark.machine import describe_machine
from panfpn.benchmark.training import measure_training
from panfpn.config import TrainConfig
from panfpn.data.main_guard import has_main_guard
from panfpn.device import resolve_device
from panfpn.memory import free_memory
from panfpn.models.timm_weights import has_weights
from panfpn.recipes.observed import Machine

_FILES = (".safetensors", ".pth", ".pt", ".bin")
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")
USUAL = ("tf_efficientnet_lite0", "resnet18", "resnet50", "convnext_tiny")
_PATIENCE = 5.0  # seconds that the hub has to answer
_SAMPLES = {"cpu": 4, "mps": 4, "cuda": 8}  # of the step that is measured
_STEPS, _WARMUP = 5, 2


def measure(config: TrainConfig, num_classes: int) -> Machine:
    """Train a few steps with random weights and images, and take pace and memory.

    In a process of its own, so that nothing of it stays, unless that would run the user's script again.
    """
    device = resolve_device(config.run.device)
    batch = _SAMPLES[device.type]
    job = (config.changed(train__batch_size=batch, train__accumulate=1), _STEPS, _WARMUP, num_classes)
    figures = in_child(measure_training, *job) if has_main_guard() else measure_training(*job)
    crop = figures.config.data.crop
    assert crop is not None, "auto crops"
    pixels = batch * crop[0] * crop[1]
    free, memory = free_memory(device), figures.memory if math.isfinite(figures.memory) else 0.0
    hardware = describe_machine(device)["hardware"]
    return Machine(
        device=device.type,  # type: ignore[arg-type]  # checked
        name=str(hardware["gpu"] or hardware["cpu"]), cores=int(hardware["cores"]),
        memory_gb=round(free / 1e9, 1) if math.isfinite(free) else None, network=config.model.backbone,
        architecture=config.model.architecture,
        pixels_per_s=round(figures.steps_per_second * pixels), bytes_per_pixel=round(memory / pixels, 1),
    )  # fmt: skip


def weights_at_hand(given: Path | None, backbone: str | None = None) -> dict[str, str]:
    """Backbones of timm whose ImageNet weights lie in a file or a folder of NAME.safetensors, or that the hub has.

    Without a path: those of `backbone`, or else of what is usual, in the hub's cache or on the hub.

    ValueError for a path that holds none.
    """
    if given is None:
        names = USUAL if backbone is None else (backbone,)
        cached = {name: "hub" for name in names if _is_cached(name)}
        return cached or {name: "hub" for name in names[:1] if _is_on_hub(name)}
    given = given.expanduser().resolve()
    if not given.exists():
        raise ValueError(f"{given}: no such file or folder of weights (weights)")
    files = sorted(given.iterdir()) if given.is_dir() else [given]
    found = {f.stem.partition(".")[0]: str(f) for f in files if f.is_file() and f.suffix in _FILES}
    found = {name: file for name, file in found.items() if timm.is_model(name)}  # resnet50.a1_in1k.safetensors too
    if not found:
        raise ValueError(f"{given}: no weights of a backbone; name a file, or a folder of files, called as timm calls "
                         "the network: resnet50.safetensors")  # fmt: skip
    return found


def _repository(name: str) -> str | None:
    return timm.get_pretrained_cfg(name).hf_hub_id if has_weights(name) else None


def _is_cached(name: str) -> bool:
    """Whether timm would find a network's weights without a network."""
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 - a second

    repository = _repository(name)
    cached = (try_to_load_from_cache(repository, file) for file in _HUB_FILES if repository)
    return any(isinstance(file, str) and Path(file).is_file() for file in cached)


def _is_on_hub(name: str) -> bool:
    """Whether the hub answers, and has them."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url  # noqa: PLC0415 - a second

    repository = _repository(name)
    if not repository:
        return False
    try:
        get_hf_file_metadata(hf_hub_url(repository, _HUB_FILES[0]), timeout=_PATIENCE)
    except Exception:  # its libraries have many ways to say that there is no network
        return False
    return True
