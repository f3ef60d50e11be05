"""Scores from predictions and truth, in memory that does not grow with an image's size.

scores.py: what the scores of every network have in common. confusion.py, panoptic_quality.py, boundary.py,
average_precision.py: what counts along, image by image. semantic_scores.py, panoptic_scores.py: what follows from the
counts. protocols.py: the scores of other evaluators. bootstrap.py: intervals and comparisons. layers.py: how a
prediction is drawn beside its target. counts.py, images.py, matching.py: what they share.
"""

from panfpn.metrics.average_precision import AveragePrecision, InstanceRecords
from panfpn.metrics.boundary import BoundaryCounts
from panfpn.metrics.confusion import ConfusionMatrix
from panfpn.metrics.images import ImageRows, SegmentRows
from panfpn.metrics.panoptic_quality import PanopticQuality
from panfpn.metrics.panoptic_scores import PanopticScores
from panfpn.metrics.scores import Scores
from panfpn.metrics.semantic_scores import SemanticScores

__all__ = [
    "AveragePrecision",
    "BoundaryCounts",
    "ConfusionMatrix",
    "ImageRows",
    "InstanceRecords",
    "PanopticQuality",
    "PanopticScores",
    "Scores",
    "SegmentRows",
    "SemanticScores",
]
