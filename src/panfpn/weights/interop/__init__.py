"""Checkpoints of other libraries, in and out. In: their files. Out: weights under our names, and what they mean."""

from panfpn.weights.interop.detect import read_foreign_model
from panfpn.weights.interop.detectron2 import read_detectron2, write_detectron2
from panfpn.weights.interop.imported import Imported
from panfpn.weights.interop.mmseg import write_mmseg

__all__ = ["Imported", "read_detectron2", "read_foreign_model", "write_detectron2", "write_mmseg"]
