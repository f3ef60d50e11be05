"""Scores from predictions and truth, in memory that does not grow with an image's size.

semantic.py: the confusion matrix and its scores; protocols.py: those of other evaluators; boundary.py: outlines;
bootstrap.py: intervals and comparisons; panoptic.py: PQ; average_precision.py: AP of instances; images.py, counts.py:
what they share.
"""

from panfpn.metrics.average_precision import AveragePrecision, InstanceRecords
from panfpn.metrics.boundary import BoundaryCounts
from panfpn.metrics.confusion import ConfusionMatrix, SemanticScores
from panfpn.metrics.images import ImageRows
from panfpn.metrics.panoptic_quality import PanopticQuality, PanopticScores

Scores = SemanticScores | PanopticScores

__all__ = [
    "AveragePrecision",
    "BoundaryCounts",
    "ConfusionMatrix",
    "ImageRows",
    "InstanceRecords",
    "PanopticQuality",
    "PanopticScores",
    "Scores",
    "SemanticScores",
]
