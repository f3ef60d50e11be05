"""Every setting of a run, said once: frozen dataclasses whose fields carry default, bounds and help; YAML in and out.

model.py: what a trained model keeps (data, inference, network); training.py: the rest of a run, and the whole;
probing.py: a comparison of backbones. In:
keyword arguments, YAML, options of the command line. Out: sections that check themselves: whoever makes or changes one
gets converted values (text for paths, lists for tuples) or one sentence; nothing below ever changes one.
"""

from panfpn.config.model import Architecture, Data, DatasetName, Inference, Model
from panfpn.config.probing import ProbeSettings
from panfpn.config.training import Loss, Optim, Precision, Run, Train, TrainConfig, check_architecture

__all__ = [
    "Architecture", "Data", "DatasetName", "Inference", "Loss", "Model", "Optim", "Precision", "ProbeSettings", "Run",
    "Train", "TrainConfig", "check_architecture",
]  # fmt: skip
