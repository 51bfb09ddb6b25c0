"""Training in Keras as a `Backend`."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from rnn_tf.config import TrainConfig
from rnn_tf.data.spec import SequenceData, SequenceSpec, Split
from rnn_tf.run import Run
from rnn_tf.training.keras import devices
from rnn_tf.training.keras.batches import evaluation_batches
from rnn_tf.training.keras.fit import CompiledModels, fit, why_not_fused
from rnn_tf.training.recorder import Fitted


class KerasBackend:
    """Trains with Keras `fit`; `kept` are the compiled programs that trainings share."""

    first_epoch = "compiling"

    def __init__(self, kept: CompiledModels | None = None) -> None:
        self.kept = kept

    def describe(self, config: TrainConfig, data: SequenceData) -> str:
        reason = why_not_fused(config, data, devices.choose_strategy(config))
        return "each epoch one compiled program" if reason is None else f"plain Keras fit: {reason}"

    def precision(self, config: TrainConfig) -> str:
        return devices.choose_precision(config.precision)

    def fit(
        self, run: Run, data: SequenceData, callbacks: Sequence[keras.callbacks.Callback]
    ) -> Fitted:
        return fit(
            run.config,
            data,
            run,
            precision=self.precision(run.config),
            strategy=devices.choose_strategy(run.config),
            callbacks=list(callbacks),
            kept=self.kept,
        )

    def probabilities(self, run: Run, model: keras.Sequential, split: Split) -> np.ndarray:
        return probabilities(model, split, run.spec)


def probabilities(model: keras.Sequential, split: Split, spec: SequenceSpec) -> np.ndarray:
    """The model's probabilities for every example of a split: float32 `(n, classes)`."""
    result: np.ndarray = model.predict(evaluation_batches(split, spec), verbose=0)
    return result
