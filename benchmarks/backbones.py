"""Which timm networks carry the two networks? Runs every one at awkward sizes, and writes docs/backbones.md.

    python benchmarks/backbones.py --state FILE [--names NAME ...] [--processes 2]

FILE (JSON lines) keeps each row as it is made, so that the script goes on where it was stopped. A row is "ok" if
Semantic FPN trained (forward and backward on two images of 97x131, every parameter that is trained with a gradient,
logits of the expected size), predicted at 64x96 and 512x512, and Panoptic FPN's maps had a gradient too. Networks above
400 million parameters are followed on shapes alone (torch's meta device), and say so.
"""

import argparse
import json
import multiprocessing
import resource
import time
import warnings
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import weight_init
from torch.utils.flop_counter import FlopCounterMode

from panfpn.labels import LabelTable
from panfpn.models import PanopticFPN, SemanticFPN
from panfpn.models.timm_weights import pretrained_weights

OWN = ("resnet18c", "resnet34c", "resnet50_msra", "resnet101_msra")
NUM_CLASSES = 19
SIZE = (512, 512)
ON_SHAPES = 400e6  # parameters
LARGE = (  # words in the names of those that may be larger
    "giant", "gigantic", "huge", "so400m", "xxlarge", "xlarge", "5b", "7b", "enormous", "gopt", "_g_", "_e_", "_h_",
    "regnety_640", "1280", "2560", "32x32d", "32x48d", "nfnet_f5", "nfnet_f6", "nfnet_f7", "efficientnet_l2", "152x4",
    "101x3",
)  # fmt: skip
LONGEST = 900  # seconds for one network
HEADER = """# Backbones

`model.backbone NAME`, `SemanticFPN(backbone=NAME)` and `Backbone(NAME)` take any timm network whose maps make a
pyramid ([how](guide/probing.md)). Nothing is listed in the code: a network is tried when it is built. This table is
of {scope} architectures that timm {timm} lists, run by `python benchmarks/backbones.py` with torch {torch}:
**{ok} run ({share:.1f} %)** in both networks, {bad} do not, for the reasons at the end.

Names beside timm's: `resnet18c` and `resnet34c` (mmsegmentation's deep stem), `resnet50_msra` and `resnet101_msra`
(the stride in the first 1×1 convolution of a stage, as in detectron2's models); timm's hub has no weights for
these.

- **run**: Semantic FPN forward and backward in training mode on two images of 97x131, every trained parameter with
  a gradient, forward at 64x96 and 512x512; Panoptic FPN's maps forward and backward. *shapes*: too large for this
  machine (above 400 million parameters), followed on shapes alone.
- **M**: millions of parameters of the backbone. **GMACs**: 10⁹ multiply-adds of the whole Semantic FPN with
  {classes} classes for one image of 512x512 (half of what `torch.utils.flop_counter` counts: convolutions and
  matrix products).
- **ms**: Semantic FPN, one image of 512x512, float32, plain torch in one thread beside one other process of this
  script, once, after one of 64x96. It ranks, it does not promise; – where only shapes were followed.
- **strides**: of its maps; one number: one stride, of which Feature2Pyramid makes four. **fed**: the image is
  padded to a multiple of this, or goes through in windows of this side.
- **licence**: of timm's default weights, as timm states it; – where it has none.

| network | strides | c2…c5 | fed | M | GMACs | ms | run | licence |
|---|---|---|---|--:|--:|--:|---|---|
"""


def row(name: str) -> dict[str, Any]:
    """What is known of a network, or why it does not run."""
    entry: dict[str, Any] = {"name": name, "licence": pretrained_weights(name)[1]}
    device = "meta" if is_large(name) else "cpu"
    with torch.device(device):
        semantic = SemanticFPN(name, NUM_CLASSES)
        backbone: Any = semantic.backbone
        entry |= {
            "strides": backbone.strides, "channels": backbone.channels,
            "parameters": sum(p.numel() for p in backbone.parameters()),
            "multiple": backbone.multiple, "window": backbone.window,
        }  # fmt: skip
        train(semantic)
        entry["ms"] = predict(semantic, timed=device == "cpu")
        semantic.zero_grad()
        panoptic = PanopticFPN(backbone, LabelTable.named("cityscapes")).train()
        maps = panoptic(torch.randn(2, 3, 97, 131))
        total = sum(m.square().mean() for m in (maps.semantic, *maps.pyramid, *maps.objectness, *maps.deltas))
        total.backward()
        with_gradients(panoptic, but=("box_head.", "mask_head."))
    entry["macs"] = multiply_adds(semantic)
    return entry | {"run": "shapes" if device == "meta" else "ok"}


def is_large(name: str) -> bool:
    """Whether a network is only followed on shapes."""
    if not any(word in name for word in LARGE):
        return False
    with torch.device("meta"):
        network = timm.create_model(name)
    return sum(p.numel() for p in network.parameters()) > ON_SHAPES


def multiply_adds(network: SemanticFPN) -> float | None:
    """Of an image of `SIZE`; None for a network that cannot be followed on shapes. Its weights are gone then."""
    try:
        network = network.to("meta").eval()
        with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.zeros(1, 3, *SIZE))
    except RuntimeError:  # NotImplementedError is one
        return None
    return counter.get_total_flops() / 2


def quick_init(tensor: torch.Tensor, mean: float, std: float, low: float, high: float) -> torch.Tensor:
    """In place of timm's truncated normal distribution, which takes longer than all the rest."""
    return tensor.uniform_(-std, std)


def train(network: SemanticFPN) -> None:
    check(network.train(), torch.randn(2, 3, 97, 131)).square().mean().backward()
    with_gradients(network)


def with_gradients(network: torch.nn.Module, but: tuple[str, ...] = ()) -> None:
    names = [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None and not n.startswith(but)]
    if names:
        raise RuntimeError(f"{len(names)} parameters without a gradient, such as {names[0]}")


def predict(network: SemanticFPN, *, timed: bool) -> float | None:
    """Milliseconds of an image of `SIZE`."""
    network.eval()
    with torch.no_grad():
        check(network, torch.randn(1, 3, 64, 96))
        image = torch.randn(1, 3, *SIZE)
        start = time.perf_counter()
        logits = network(image)
        elapsed = 1000 * (time.perf_counter() - start)
        check_logits(network, image, logits)
        return elapsed if timed else None


def check(network: SemanticFPN, images: torch.Tensor) -> torch.Tensor:
    """The logits, once they are known to be finite and of the network's stride."""
    logits: torch.Tensor = network(images)
    check_logits(network, images, logits)
    return logits


def check_logits(network: SemanticFPN, images: torch.Tensor, logits: torch.Tensor) -> None:
    exact = [side / network.stride for side in images.shape[2:]]  # unpadded, a few stems lose a row: as in the plan
    fits = all(-2 < got - e < 2 for got, e in zip(logits.shape[2:], exact, strict=True))
    if not fits or (logits.device.type != "meta" and not logits.isfinite().all()):
        raise RuntimeError(f"{tuple(images.shape[2:])}: logits {tuple(logits.shape)}, or not finite")


def tried(name: str, memory: int) -> dict[str, Any]:
    """A row, whatever happens; in a process of its own, where a network beyond so many bytes fails, not the machine."""
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    weight_init._trunc_normal_ = quick_init
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    try:
        return row(name)
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        reason = first if isinstance(error, ValueError) else f"{type(error).__name__}: {first}"
        return {"name": name, "licence": pretrained_weights(name)[1], "run": "", "why": reason}


def all_rows(names: list[str], state: Path, processes: int, memory: int) -> dict[str, dict[str, Any]]:
    """The rows of `names`: those in the file, and the others, which are written into it as they come."""
    rows = {r["name"]: r for r in map(json.loads, state.read_text().splitlines())} if state.exists() else {}
    todo = [name for name in names if name not in rows]
    context = multiprocessing.get_context("fork")
    running: dict[str, tuple[Any, Any, float]] = {}
    with state.open("a") as file:
        while todo or running:
            while todo and len(running) < processes:
                name = todo.pop(0)
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=lambda s=sender, n=name: s.send(tried(n, memory)))
                process.start()
                running[name] = (process, receiver, time.monotonic())
            for name, (process, receiver, begin) in list(running.items()):
                late = time.monotonic() - begin > LONGEST
                if not (receiver.poll(0.05) or late or not process.is_alive()):
                    continue
                gone = {"name": name, "licence": pretrained_weights(name)[1], "run": "",
                        "why": f"takes more than {LONGEST} s" if late else "its process was killed"}  # fmt: skip
                rows[name] = receiver.recv() if receiver.poll(0.2) else gone
                process.kill() if late else process.join()
                del running[name]
                file.write(json.dumps(rows[name]) + "\n")
                file.flush()
                print(len(rows), name, rows[name]["run"] or rows[name]["why"], flush=True)
    return rows


def line(r: dict[str, Any]) -> str:
    strides = "/".join(map(str, r["strides"])) if len(set(r["strides"])) > 1 else str(r["strides"][0])
    fed = f"windows of {r['window']}" if r["window"] else str(r["multiple"])
    macs, ms = (f"{value:.1f}" if value is not None else "–" for value in (r["macs"] and r["macs"] / 1e9, r["ms"]))
    return (f"| `{r['name']}` | {strides} | {', '.join(map(str, r['channels']))} | {fed} | {r['parameters'] / 1e6:.1f} "
            f"| {macs} | {ms} | {r['run']} | {r['licence'] or '–'} |")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--names", nargs="+", default=[], help="a sample; without, all that timm has")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--memory", type=int, default=10, help="GiB that a process may take")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "backbones.md")
    options = parser.parse_args()
    everything = timm.list_models()
    names = options.names or [*everything, *OWN]
    rows = all_rows(names, options.state, options.processes, options.memory << 30)
    counted = [name for name in names if name not in OWN]
    good, bad = ([rows[name] for name in names if bool(rows[name]["run"]) is runs] for runs in (True, False))
    text = HEADER.format(
        scope=f"{len(counted)} of the {len(everything)}" if options.names else f"**all** {len(everything)}",
        ok=(ok := sum(bool(rows[name]["run"]) for name in counted)), bad=len(counted) - ok,
        share=100 * ok / len(counted), timm=timm.__version__, torch=torch.__version__.split("+")[0],
        classes=NUM_CLASSES,
    )  # fmt: skip
    refused = "".join(f"| `{r['name']}` | {r['why'].split('; some')[0]} |\n" for r in bad)
    table = "\n".join(map(line, good))
    options.out.write_text(f"{text}{table}\n\n## Not run\n\n| network | why |\n|---|---|\n{refused}", encoding="utf-8")


if __name__ == "__main__":
    main()
