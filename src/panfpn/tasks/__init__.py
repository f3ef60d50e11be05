"""A network at work: its losses, predictions and scores. The only place that knows how the architectures differ."""

from panfpn.tasks.task import Engine, Image, Loss, Scorer, Task, architecture_of, reading_of, task_type
from panfpn.tasks.views import check_batch_size, view_sizes, window_starts

__all__ = [
    "Engine", "Image", "Loss", "Scorer", "Task", "architecture_of", "check_batch_size", "reading_of", "task_type",
    "view_sizes", "window_starts",
]  # fmt: skip
