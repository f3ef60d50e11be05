"""The bottom-up path. In: images [B, C, H, W] of any size. Out: c2…c5 at strides 4, 8, 16, 32, or at one stride.

Paper §3.1 (ResNet there). `Backbone` is any timm network; a module of the user's takes its place where it has what
`AnyBackbone` lists. docs/backbones.md lists what runs.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, cast

import torch
from torch import nn

from panfpn.models.positions import ExportablePositions
from panfpn.models.timm_networks import STRIDES, create_network, feature_maps, layer_numbers

_SHOWN = 3  # of a file's names, in errors
_STRIDES = [tuple(s << level for level in range(4)) for s in (4, 8, 16)] + [(s,) * 4 for s in STRIDES]


class AnyBackbone(Protocol):
    """What a module (`nn.Module`) needs to be the backbone of SemanticFPN and PanopticFPN.

    One whose maps are not at strides 4, 8, 16 and 32 says so in a fifth attribute, `strides`: 8 or 16 and on, or four
    times one stride from 4 to 32, of which `panfpn.models.pyramid` makes levels.
    """

    @property
    def channels(self) -> Sequence[int]:
        """Widths of c2, c3, c4, c5."""

    @property
    def mean(self) -> Sequence[float]:
        """A value per channel of the images, which are normalised by it; of values in 0..255."""

    @property
    def std(self) -> Sequence[float]:
        """As `mean`."""

    def __call__(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Normalised images [B, C, H, W] -> c2…c5, each [B, channels[i], ~H/stride, ~W/stride], rounded up or down."""


class Backbone(nn.Module):
    """A timm network's feature maps at four strides (4, 8, 16 and 32, or from 8 or 16 on), or at one.

    Args: `name` as timm spells it; `pretrained` loads through timm's hub (needs a network); `drop_path` is the
    stochastic depth, for networks that have it. Of a network with one stride (a plain transformer), `blocks` are the
    four whose maps are taken (none: at even quarters of its depth), with `final_norm` after its last norm.

    `channels` holds the widths of c2…c5; `mean` and `std` are of the input in 0..255, as the network was pretrained.
    `multiple` is 1 for a network that takes any size; others (windows of attention, patches, branches that must meet)
    see the image padded with zeros on the right and below to this multiple, and their maps are cropped again. Patches
    of 14 pixels see it resized so that they count as 16. `window` is not 0 where a network takes one size only: it sees
    larger images in overlapping windows of this side.

    Raises:
        ValueError: an unknown name, a network without feature maps at such strides or that cannot be run, no weights
            to be `pretrained` with, `drop_path` for a network that has no stochastic depth, or `blocks` and
            `final_norm` for one that has several strides.
        ConnectionError: the pretrained weights cannot be fetched.
    """

    def __init__(
        self, name: str, *, in_channels: int = 3, pretrained: bool = False, drop_path: float = 0.0,
        blocks: Sequence[int] = (), final_norm: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.name = name
        self.blocks, self.final_norm = tuple(blocks), final_norm
        self.body, self.plan = create_network(
            name, self.blocks, final_norm, in_channels=in_channels, pretrained=pretrained, drop_path=drop_path
        )
        self.channels, self.strides = self.plan.channels, self.plan.strides
        self.multiple, self.window = self.plan.multiple, self.plan.window
        cfg: Any = self.body.pretrained_cfg
        self.mean, self.std = (
            tuple(255 * cfg[key][i % len(cfg[key])] for i in range(in_channels)) for key in ("mean", "std")
        )

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """[B, C, H, W] -> c2…c5, each [B, channels[i], ~H/strides[i], ~W/strides[i]].

        Exactly ceil(H/stride) where the image is padded (`multiple` > 1) or goes through in windows; otherwise as the
        network itself rounds.
        """
        exported: bool = torch.compiler.is_exporting() or torch.jit.is_tracing()  # type: ignore[no-untyped-call, attr-defined]
        with ExportablePositions() if exported else contextlib.nullcontext():
            return feature_maps(self.body, images, self.plan)

    @property
    def prefix(self) -> str:
        """What timm has put before a network's names: it wraps it whole, or takes it apart (nothing, `stages_0`)."""
        children = [name for name, _ in self.body.named_children()]
        return f"{children[0]}." if children in (["model"], ["body"]) else ""

    def load(self, tensors: Mapping[str, torch.Tensor], source: object) -> None:
        """Load weights in timm's names; `source` (their file) is named in errors.

        torchvision's and mmsegmentation's ResNets and the encoders of smp are understood too. A classifier's head is
        not needed and left out. ValueError names the source and the tensors that are missing or of another shape;
        then nothing was loaded.
        """
        expected = self.body.state_dict()
        prefix = self.prefix
        candidates = [
            {name: weights[key] for name in expected if (key := _joined(name.removeprefix(prefix))) in weights}
            for weights in _spellings(tensors)
        ]
        used = fitted_input(max(candidates, key=len), expected)
        missing = [n for n in expected if n not in used and not n.endswith("num_batches_tracked")]
        wrong = [n for n in used if used[n].shape != expected[n].shape]
        if missing or wrong:
            if missing:
                there = ", ".join(list(tensors)[:_SHOWN]) or "none"
                what = (
                    f"{len(missing)} of {len(expected)} tensors are missing, such as "
                    f"{missing[0].removeprefix(prefix)}; the file has {there}{', …' * (len(tensors) > _SHOWN)}"
                )
            else:
                what = _difference(wrong[0].removeprefix(prefix), used[wrong[0]].shape, expected[wrong[0]].shape)
            raise ValueError(f"{source}: not weights of backbone {self.name!r} in timm's names; {what}")
        self.body.load_state_dict(used, strict=False)


def fitted_input(tensors: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors, where a convolution of RGB images is wanted for another number of channels made for that.

    Its weights are summed for one channel, and repeated (scaled, so that sums stay) for more, as timm does it.
    """
    from timm.models import adapt_input_conv  # noqa: PLC0415

    fitted = dict(tensors)
    for name, tensor in tensors.items():
        shape = expected[name].shape if name in expected else tensor.shape
        if tensor.ndim == 4 and tensor.shape[1] == 3 and (shape[0], *shape[2:]) == (tensor.shape[0], *tensor.shape[2:]):
            fitted[name] = adapt_input_conv(shape[1], tensor) if shape[1] != 3 else tensor
    return fitted


def _joined(name: str) -> str:
    return name.replace(".", "_")


def _difference(name: str, theirs: torch.Size, ours: torch.Size) -> str:
    what = f"{name} is {tuple(theirs)} instead of {tuple(ours)}"
    if len(ours) == 4 and (theirs[0], *theirs[2:]) == (ours[0], *ours[2:]):
        what += ": the file was made for another number of input channels"
    return what


_WRAPPERS = re.compile(  # names under which other programs keep a network
    r"^(?:(?:_orig_mod|module|model|net|network|timm_model|trunk|visual|student|teacher|backbone|body|encoder)\.)+"
)


def _spellings(weights: Mapping[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """The tensors by joined name: as they are, as a part of a whole network, and with mmsegmentation's deep stem."""
    part = {_WRAPPERS.sub("", n): t for n, t in weights.items()}
    stem = {re.sub(r"^stem\.", "conv1.", re.sub(r"^stem\.7\.", "bn1.", n)): t for n, t in part.items()}
    return [{_joined(name): tensor for name, tensor in names.items()} for names in (weights, part, stem)]


def strides_of(backbone: AnyBackbone) -> tuple[int, ...]:
    """The strides of a backbone's maps: 4, 8, 16 and 32 where it does not say."""
    return tuple(getattr(backbone, "strides", STRIDES))


def has_one_stride(backbone: AnyBackbone) -> bool:
    """Whether levels must be made of its maps, as of a plain transformer's."""
    return len(set(strides_of(backbone))) == 1


def make_backbone(backbone: str | AnyBackbone, *, in_channels: int, pretrained: bool) -> nn.Module:
    """The timm network of a name, or the module that was given, once it shows that it fits (see `AnyBackbone`).

    Raises:
        ValueError: as `Backbone`; or a module that misses an attribute, is pretrained by nobody here, takes another
            number of channels, or whose maps of a blank image are not c2…c5.
    """
    if isinstance(backbone, str):
        return Backbone(backbone, in_channels=in_channels, pretrained=pretrained)
    if pretrained:
        raise ValueError("pretrained_backbone=True is for backbones by name; load the weights of a module beforehand")
    if type(backbone) is not Backbone:  # those were tried when they were made
        _check_module(backbone)
    if len(backbone.mean) != in_channels:
        raise ValueError(f"in_channels is {in_channels}, but the backbone's mean has {len(backbone.mean)} entries, one "
                         "for each channel of its images")  # fmt: skip
    return cast(nn.Module, backbone)


def _check_module(backbone: AnyBackbone) -> None:
    name = type(backbone).__name__
    if not isinstance(backbone, nn.Module):
        raise ValueError(f"backbone {backbone!r} is neither timm's name of a network nor an nn.Module")
    for attribute, meaning in (
        ("channels", "the widths of c2…c5"), ("mean", "of images in 0..255, by channel"), ("std", "beside mean"),
    ):  # fmt: skip
        if not hasattr(backbone, attribute):
            raise ValueError(f"backbone {name} has no attribute {attribute!r} ({meaning}); panfpn.models.AnyBackbone "
                             "lists what a backbone needs")  # fmt: skip
    channels, mean, std = tuple(backbone.channels), tuple(backbone.mean), tuple(backbone.std)
    strides = strides_of(backbone)
    if strides not in _STRIDES:
        raise ValueError(f"backbone {name} has strides {strides}; four that begin at 4, 8 or 16 and double are wanted, "
                         "or four times one from 4 to 32")  # fmt: skip
    if len(channels) != len(STRIDES) or len(mean) != len(std):
        raise ValueError(f"backbone {name} has {len(channels)} channels (one for each of c2…c5 is wanted), {len(mean)} "
                         f"entries in mean and {len(std)} in std (as many as its images have channels)")  # fmt: skip
    size = (128, 192)
    images = f"zeros [1, {len(mean)}, {size[0]}, {size[1]}]"
    try:
        maps = _maps_of_zeros(backbone, len(mean), size)
    except Exception as error:  # a module of anyone's fails in any way
        raise ValueError(f"backbone {name} fails on {images}: {type(error).__name__}: {error}") from error
    if not isinstance(maps, list | tuple) or len(maps) != 4 or not all(isinstance(m, torch.Tensor) for m in maps):
        given = f"{len(maps)} things" if isinstance(maps, list | tuple) else type(maps).__name__
        raise ValueError(f"backbone {name} must give a list of four tensors, c2…c5, but gives {given}")
    for level, (m, count, stride) in enumerate(zip(maps, channels, strides, strict=True), 2):
        due = [1, count, size[0] // stride, size[1] // stride]
        fits = m.ndim == 4 and list(m.shape[:2]) == due[:2]
        if not fits or any(abs(side - s) >= 2 for side, s in zip(m.shape[2:], due[2:], strict=True)):
            raise ValueError(f"backbone {name} gives c{level} {list(m.shape)} of {images}, but channels[{level - 2}] "
                             f"and stride {stride} call for {due}")  # fmt: skip


def _maps_of_zeros(backbone: nn.Module, channels: int, size: tuple[int, int]) -> Any:
    """What the module gives for a blank image; its modes and norm statistics and the random state stay as they are."""
    weight = next((t for t in (*backbone.parameters(), *backbone.buffers())), torch.empty(0))
    with torch.random.fork_rng(devices=[]), _evaluating(backbone), torch.no_grad():
        return backbone(torch.zeros(1, channels, *size, device=weight.device, dtype=weight.dtype))


@contextlib.contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """The module in evaluation mode; afterwards every part is in the mode in which it was."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def layers_of(backbone: nn.Module) -> tuple[dict[str, int], int]:
    """The layer of each weight of a timm network by name: 0 before the first, 1 … L, L + 1 behind the last.

    And L + 1, the layer of all that follows the backbone.

    ValueError for a network whose layers have no order that timm knows.
    """
    if not isinstance(backbone, Backbone):
        raise ValueError(f"optim.layer_decay is for timm's networks; backbone {type(backbone).__name__} does not say "
                         "what its layers are")  # fmt: skip
    known = layer_numbers(backbone.name)
    names = {name: name.removeprefix(backbone.prefix) for name, _ in backbone.body.named_parameters()}
    numbers = {f"body.{name}": known[_joined(whole)] for name, whole in names.items()}
    last = max(numbers.values()) + 1
    if backbone.final_norm:  # which timm counts to the last layer
        numbers |= {f"body.{name}": last for name, whole in names.items() if whole.startswith("norm.")}
    return numbers, last


def freeze(backbone: nn.Module, level: int | Literal["all"]) -> None:
    """Train no weight that c2 (`level` 2) … c5 (5) depends on: those that a gradient reaches. 0 freezes none."""
    weights = [w for w in backbone.parameters() if w.requires_grad]
    if level == "all":
        backbone.requires_grad_(False)
    if level in (0, "all") or not weights:
        return
    assert isinstance(level, int)
    images = torch.zeros(1, len(cast(AnyBackbone, backbone).mean), 64, 64, device=weights[0].device)
    with torch.random.fork_rng(devices=[]), _evaluating(backbone), torch.enable_grad():
        total = torch.stack([m.sum() for m in backbone(images)[: level - 1]]).sum()
    for weight, gradient in zip(weights, torch.autograd.grad(total, weights, allow_unused=True), strict=True):
        if gradient is not None:
            weight.requires_grad_(False)
