"""What is compared, and by which recipe. In: names, patterns, data. Out: a configuration for each backbone."""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import timm

from panfpn import recipes
from panfpn.build import build_dataset
from panfpn.choices import DRAWN
from panfpn.config import Data, ProbeSettings, TrainConfig
from panfpn.data.checked import open_sample
from panfpn.data.recognition import recognise
from panfpn.data.transforms import fit_size
from panfpn.models.timm_weights import has_weights

# Where none is named: one or two of each kind, from quick to slow, whose weights may be used in products.
USUAL = (
    "mobilenetv4_conv_small", "tf_efficientnet_lite0", "resnet18", "repvit_m1_1", "pvt_v2_b1", "resnet50",
    "convnext_tiny", "vit_small_patch14_reg4_dinov2",
)  # fmt: skip
_NAME = re.compile(r"[A-Za-z0-9*?\[][\w.*?\[\]-]*")  # it becomes a folder
_WEIGHTS = (".safetensors", ".pth", ".pt", ".bin")
_CROP = 512  # the largest side of a training sample
_LONGEST = 1024  # side of an image as the networks see it
_FORMS = 4  # of each image, where the backbone is frozen
_MOST = 64  # candidates of patterns


def expand(names: Sequence[str]) -> list[str]:
    """The candidates of names and patterns (with * and ?), each once; ValueError for a pattern that nothing has."""
    found: dict[str, None] = {}
    for name in names or USUAL:
        if not _NAME.fullmatch(name):
            raise ValueError(f"no backbone of timm is called {name!r}")
        if not set("*?[") & set(name):
            found[name] = None
            continue
        some = [model for model in timm.list_models() if fnmatchcase(model, name)]
        if not some:
            raise ValueError(f"no backbone of timm is called {name!r}")
        if len(some) > _MOST:
            raise ValueError(f"{len(some)} backbones of timm are called {name!r}, such as {some[0]} and {some[-1]}; "
                             f"a pattern may stand for {_MOST}")  # fmt: skip
        found |= dict.fromkeys(some)
    return list(found)


def base_config(root: Path | None, settings: ProbeSettings) -> tuple[TrainConfig, tuple[int, int], int]:
    """The recipe for these data without a backbone, the size of the first validation image, and the classes.

    ValueError for data that cannot be used.
    """
    if root is None and settings.dataset not in DRAWN:
        raise ValueError("probe needs the folder of a data set")
    root = None if root is None else root.expanduser().resolve()
    layout = settings.dataset or recognise(root or Path())[0]
    data = Data(dataset=layout, root=root, num_workers=settings.num_workers)
    val = build_dataset(data, data.val_split)
    height, width = open_sample(val, 0)[0].shape[:2]
    scale = None
    if max(height, width) > _LONGEST:  # photos of phones: latency and scores are of what fits into this
        scale = (_LONGEST, _LONGEST)
        height, width = fit_size(height, width, scale)
    crop = tuple(max(64, min(_CROP, side // 32 * 32)) for side in (height, width))
    config = recipes.probe(
        data__dataset=layout, data__root=root, data__scale=scale, data__crop=crop,
        data__num_workers=settings.num_workers,
        train__batch_size=settings.batch_size, train__seed=settings.seed, optim__lr=settings.lr,
        run__device=settings.device,
    )  # fmt: skip
    if settings.frozen:
        config = config.changed(train__freeze_at="all", data__variants=_FORMS)
    return config, (height, width), val.table.num_classes


def candidate_config(base: TrainConfig, name: str, settings: ProbeSettings) -> tuple[TrainConfig, str]:
    """The recipe with a backbone, and where its weights come from; ValueError for a hub that has none of that name."""
    if settings.weights == "random":
        return base.changed(model__backbone=name), "random"
    if settings.weights == "hub":
        if not has_weights(name):
            raise ValueError(f"timm has no pretrained weights for {name!r}; give a folder with a file (--weights DIR)")
        return base.changed(model__backbone=name, model__pretrained=True), "timm"
    folder = Path(settings.weights).expanduser()
    if not folder.is_dir():
        raise ValueError(f"weights is {settings.weights}; it must be hub, random, or a folder of files such as "
                         f"{name}.safetensors")  # fmt: skip
    for suffix in _WEIGHTS:
        file = folder / f"{name}{suffix}"
        if file.is_file():
            return base.changed(model__backbone=name, model__backbone_weights=file.resolve()), file.name
    return base.changed(model__backbone=name), "random"
