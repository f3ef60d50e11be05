"""Which library a checkpoint comes from. In: a file. Out: its network as `Imported`, or the reason why not."""

from pathlib import Path

from panfpn.labels import LabelTable
from panfpn.weights.foreign import read_foreign, state_dict_of
from panfpn.weights.interop.detectron2 import is_detectron2, read_detectron2
from panfpn.weights.interop.imported import Imported
from panfpn.weights.interop.mmdet import is_mmdet, read_mmdet
from panfpn.weights.interop.mmseg import is_mmseg, read_mmseg
from panfpn.weights.interop.smp import is_smp, refuse_smp


def read_foreign_model(
    path: Path, *, labels: LabelTable | None = None, ema: bool = False, scale: tuple[int, int] | None = None
) -> Imported:
    """The Panoptic FPN or Semantic FPN in a checkpoint of another library; arguments as in `read_mmseg`.

    Raises:
        ValueError: a file that cannot be read safely, or another network; it says what it is.
    """
    data = read_foreign(path)
    tensors = state_dict_of(data, path)
    if is_mmseg(tensors):
        return read_mmseg(tensors, data, path, labels=labels, ema=ema, scale=scale)
    if ema:
        raise ValueError(f"{path}: --ema is for mmsegmentation's checkpoints; leave it out")
    if is_detectron2(tensors):
        return read_detectron2(tensors, path, labels, data=data, scale=scale)
    if is_mmdet(tensors):
        return read_mmdet(tensors, path, labels, data=data, scale=scale)
    if is_smp(tensors):
        refuse_smp(tensors, path)
    parts = ", ".join(sorted({name.split(".")[0] for name in tensors})[:8]) or "no tensors"
    only = (
        "; it may be a backbone alone: --model.backbone-weights takes those"
        if "layer4.0.conv1.weight" in tensors
        else ""
    )
    raise ValueError(
        f"{path}: not a Semantic FPN of mmsegmentation, nor a Panoptic FPN of detectron2 or mmdetection (its tensors "
        f"begin with {parts}){only}"
    )
