"""Scores from predictions and truth, in memory that does not grow with the number of images."""

from panfpn.metrics.semantic import ConfusionMatrix, SemanticScores

__all__ = ["ConfusionMatrix", "SemanticScores"]
