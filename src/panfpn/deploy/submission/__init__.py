"""Files as the benchmarks' servers and annotation tools want them. In: images and maps. Out: names, files, and a check.

label_files.py: label maps (Cityscapes, ADE20K); segment_files.py: segments (COCO's format, also for Cityscapes);
outline_files.py: polygons (COCO, YOLO, CVAT, LabelMe);
formats.py: which of them a model can write; names.py: what files are called.
"""

from panfpn.deploy.submission.formats import Submission, submission_for

__all__ = ["Submission", "submission_for"]
