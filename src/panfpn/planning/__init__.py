"""Training that configures itself. In: a folder and a time. Out: a TrainingPlan, the settings with their reasons.

Data are looked at (fingerprint.py) and a step is measured (measurement.py); what follows from them is chosen in
panfpn.recipes.automatic. Few images are trained on in folds (folds.py).
"""

from panfpn.planning.folds import Folds, resume_folds, train_folds
from panfpn.planning.plan import PlanLogger, TrainingPlan, plan_training
from panfpn.planning.scale import suit_scale

__all__ = ["Folds", "PlanLogger", "TrainingPlan", "plan_training", "resume_folds", "suit_scale", "train_folds"]
