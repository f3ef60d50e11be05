"""Files as the benchmarks' servers want them. In: images and maps. Out: names, files, and a check.

semantic.py: label maps (Cityscapes, ADE20K); panoptic.py: segments (COCO's format, also for Cityscapes); formats.py:
which of them a model can write; names.py: what files are called.
"""

from panfpn.deploy.submission.formats import FORMATS, PANOPTIC_FORMATS, submission_for
from panfpn.deploy.submission.panoptic import PanopticSubmission
from panfpn.deploy.submission.semantic import Submission

__all__ = ["FORMATS", "PANOPTIC_FORMATS", "PanopticSubmission", "Submission", "submission_for"]
