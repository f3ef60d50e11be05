"""Speed and memory of the library itself. In: what to measure. Out: figures, as a table and as plain data.

Every model is measured in a fresh process (`in_child`), so that its peak memory is its own.
"""

from panfpn.benchmark.child import in_child
from panfpn.benchmark.inference import InferenceFigures, InferenceJob, measure_inference
from panfpn.benchmark.loading import LoadingFigures, measure_loading
from panfpn.benchmark.machine import describe_machine, measure_ceiling
from panfpn.benchmark.settings import published_config, starting_config, table_for
from panfpn.benchmark.training import TrainingFigures, measure_training, prepare_training
from panfpn.memory import PeakMemory

__all__ = [
    "InferenceFigures", "InferenceJob", "LoadingFigures", "PeakMemory", "TrainingFigures",
    "describe_machine", "in_child", "measure_ceiling", "measure_inference", "measure_loading", "measure_training",
    "prepare_training", "published_config", "starting_config", "table_for",
]  # fmt: skip
