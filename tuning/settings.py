"""Every setting of a search, its default, its unit."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from rnn_tf.config import ClassWeights, Objective, Precision, Source, TrainConfig, preset
from rnn_tf.errors import InputError


@dataclass(frozen=True)
class Settings(Source):
    """What determines the trials of a search and their scores.

    Raises `InputError` for a value outside its range, naming it.
    """

    tuner: Literal["bayesian", "hyperband", "random", "grid"] = "bayesian"
    """How the next trial is chosen."""
    space: str = "small"
    """What varies: small (how SimpleRNN(32) is trained), full (cell, layers, directions and
    units too), or your own .yaml or .json file."""
    trials: int = 20
    """Models to train, at most."""
    epochs: int | Literal["auto"] = "auto"
    """Passes over the training split of each trial; hyperband: of the longest. auto: as many as
    the training command takes (mnist: 10)."""
    objective: Objective = "accuracy"
    """What on the validation split says which trial is the best, and which epoch of each."""
    class_weights: ClassWeights = "none"
    """What an example counts in the loss: none, each the same; balanced, each class the same."""
    max_parameters: int | None = None
    """No model larger than this is trained."""
    preset: str = "best"
    """Where settings that do not vary come from: best or tutorial."""
    precision: Precision = "auto"
    """Arithmetic of the recurrent layer."""
    seed: int = 1
    """Start of every random choice, of the search and of each training. 0 to 4294967295."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("trials", "max_parameters"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"bad {name}", expected="a whole number >= 1", got=value)
        self.base()  # refuses what a training refuses

    def base(self) -> TrainConfig:
        """What a trial is where the space does not say otherwise."""
        return dataclasses.replace(
            preset(self.preset),
            **self.source(),
            epochs=self.epochs,
            objective=self.objective,
            class_weights=self.class_weights,
            precision=self.precision,
            seed=self.seed,
        )
