"""Training and evaluation loops."""

from panfpn.engine.evaluate import evaluate
from panfpn.engine.train import RunResult, train

__all__ = ["RunResult", "evaluate", "train"]
