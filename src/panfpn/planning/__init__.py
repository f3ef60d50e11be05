"""Training that configures itself. In: a folder and a time. Out: a TrainingPlan, the settings with their reasons.

Data are looked at (fingerprint.py) and a step is measured (measurement.py); what follows from them is chosen in
panfpn.recipes.automatic.
"""

from panfpn.planning.plan import PlanLogger, TrainingPlan, plan_training

__all__ = ["PlanLogger", "TrainingPlan", "plan_training"]
