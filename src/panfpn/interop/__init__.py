"""Checkpoints of other libraries, in and out. In: their files. Out: weights under our names, and what they mean."""

from panfpn.interop.detect import read_foreign_model
from panfpn.interop.detectron2 import read_detectron2, write_detectron2
from panfpn.interop.imported import Imported
from panfpn.interop.mmseg import write_mmseg

__all__ = ["Imported", "read_detectron2", "read_foreign_model", "write_detectron2", "write_mmseg"]
