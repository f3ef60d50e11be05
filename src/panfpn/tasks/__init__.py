"""A network with its losses and predictions. In: a Batch or images. Out: {name: loss}, or maps."""

from panfpn.tasks.panoptic import PanopticTask
from panfpn.tasks.semantic import SemanticTask
from panfpn.tasks.task import Runtime, Task
from panfpn.tasks.views import check_batch_size, view_sizes, window_starts

AnyTask = SemanticTask | PanopticTask

__all__ = [
    "AnyTask",
    "PanopticTask",
    "Runtime",
    "SemanticTask",
    "Task",
    "check_batch_size",
    "view_sizes",
    "window_starts",
]
