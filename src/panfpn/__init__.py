"""Semantic FPN and Panoptic FPN (Kirillov et al., CVPR 2019) on any timm backbone: train, evaluate, predict.

The public names; each is imported when it is first used, so `import panfpn` does no work.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from panfpn.config import TrainConfig
    from panfpn.data import Dataset, from_pairs, from_torch
    from panfpn.deploy.export import Exported, export
    from panfpn.deploy.predictor import Predictor, load
    from panfpn.engine.evaluate import evaluate
    from panfpn.engine.train import RunResult, train
    from panfpn.labels import LabelTable
    from panfpn.maps import PanopticMap, SemanticMap
    from panfpn.metrics import PanopticScores, SemanticScores
    from panfpn.models import PanopticFPN, SemanticFPN
    from panfpn.probing import Probe, probe
    from panfpn.types import Sample

__version__ = "0.1.0"

_HOMES = {
    "Dataset": "data", "Exported": "deploy.export", "LabelTable": "labels", "PanopticFPN": "models",
    "PanopticMap": "maps", "PanopticScores": "metrics", "Predictor": "deploy.predictor", "Probe": "probing",
    "RunResult": "engine",
    "Sample": "types", "SemanticFPN": "models", "SemanticMap": "maps", "SemanticScores": "metrics",
    "TrainConfig": "config", "evaluate": "engine", "export": "deploy.export", "from_pairs": "data",
    "from_torch": "data", "load": "deploy.predictor", "probe": "probing", "train": "engine",
}  # fmt: skip
_MODULES = ("data", "recipes")

__all__ = [
    "Dataset", "Exported", "LabelTable", "PanopticFPN", "PanopticMap", "PanopticScores", "Predictor", "Probe",
    "RunResult", "Sample", "SemanticFPN", "SemanticMap", "SemanticScores", "TrainConfig", "data", "evaluate",
    "export", "from_pairs", "from_torch", "load", "probe", "recipes", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"panfpn.{name}")
    if name in _HOMES:
        return getattr(import_module(f"panfpn.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'panfpn' has no attribute {name!r}")
