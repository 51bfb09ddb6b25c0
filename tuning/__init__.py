"""Hyperparameter search: what may vary, the search, and what it found. KerasTuner searches."""
