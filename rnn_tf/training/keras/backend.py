"""Training in Keras as a `Backend`."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Sequence
from concurrent.futures import Executor

import keras
import numpy as np

from rnn_tf.config import TrainConfig
from rnn_tf.data.spec import SequenceData, SequenceSpec, Split
from rnn_tf.model.classifier import MaskedSequential
from rnn_tf.run import Run
from rnn_tf.training.keras import compilation, devices, replicas, workers
from rnn_tf.training.keras.batches import evaluation_batches
from rnn_tf.training.keras.fit import fit, order_of, why_not_fused
from rnn_tf.training.keras.kept_models import KEPT
from rnn_tf.training.keras.tracing import new_programs_expected
from rnn_tf.training.recorder import Fitted


class KerasBackend:
    """Trains with Keras `fit`. All trainings of a process share compiled programs.

    `warn`: when this process compiles a run otherwise than the command would. A search does that
    once, and not for each of its trials.
    """

    first_epoch = "compiling"

    def __init__(self, *, warn: bool = True) -> None:
        self.warn = warn

    def describe(self, config: TrainConfig, data: SequenceData) -> str:
        strategy = devices.choose_strategy(config)
        if strategy is not None:
            how = replicas.describe(strategy, config.batch_size_for(len(data.train.y)))
        else:
            reason = why_not_fused(config, data, strategy)
            how = _as_programs(config, data) if reason is None else f"plain Keras fit: {reason}"
        return f"{how}{compilation.describe(config)}"

    def precision(self, config: TrainConfig) -> str:
        return devices.choose_precision(config.precision)

    def fit(
        self,
        run: Run,
        data: SequenceData,
        callbacks: Sequence[keras.callbacks.Callback],
        beside: Executor | None = None,
    ) -> Fitted:
        def get_ready(model: keras.Sequential) -> None:
            if beside is not None:
                # Asked for one answer, then for two, TensorFlow traces a program for any number.
                for count in (1, 2):
                    beside.submit(probabilities, model, data.test.take(slice(count)), run.spec)

        if self.warn:
            compilation.warn_if_unusual(run.config)
        compilation.keep(run)
        strategy = devices.choose_strategy(run.config)
        with contextlib.ExitStack() as together:
            if run.config.strategy == "multi_worker":
                workers.joined().share_checkpoint(run)
                together.enter_context(workers.joined().named_when_lost())
            return fit(
                run.config,
                data,
                run,
                precision=self.precision(run.config),
                strategy=strategy,
                callbacks=list(callbacks),
                kept=KEPT if strategy is None else None,
                get_ready=get_ready,
            )

    def probabilities(self, run: Run, model: keras.Sequential, split: Split) -> np.ndarray:
        return probabilities(model, split, run.spec)


def _as_programs(config: TrainConfig, data: SequenceData) -> str:
    """What is fused: whole epochs, or pieces of them."""
    count = order_of(config, data.train, data.spec).pieces
    if count == 1:
        return "each epoch one compiled program"
    return f"epochs of {count:,} pieces, each one compiled program"


# By the model that was given, the one that is asked with lengths. Kept as long as that: with it,
# Keras keeps the program that asks it.
_masked: weakref.WeakKeyDictionary[keras.Sequential, MaskedSequential] = weakref.WeakKeyDictionary()


def probabilities(model: keras.Sequential, split: Split, spec: SequenceSpec) -> np.ndarray:
    """The model's probabilities for every example of a split: float32 `(n, classes)`."""
    if spec.varies:
        if model not in _masked:
            _masked[model] = MaskedSequential(model.layers)
        model = _masked[model]
    with new_programs_expected():
        result: np.ndarray = model.predict(evaluation_batches(split, spec), verbose=0)
    return result
