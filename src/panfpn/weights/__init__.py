"""Weights and what they mean: release files, checkpoints of other libraries, and where they are found."""
