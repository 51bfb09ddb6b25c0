"""What a KerasTuner user writes first: `build_model`, NumPy arrays, `tuner.search`. Prints JSON."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import keras_tuner
import psutil

from rnn_tf.data import load


def build_tutorial(hp: keras_tuner.HyperParameters) -> keras.Sequential:
    """The tutorial's model; the space is `small` of `benchmarks.tuning`."""
    layer = keras.layers.SimpleRNN(32, recurrent_initializer=_initializer(hp))
    return _compiled(hp, [layer])


def build_network(hp: keras_tuner.HyperParameters) -> keras.Sequential:
    """Any network; the space is `full` of `benchmarks.tuning`."""
    cell = hp.Choice("cell", ["simple_rnn", "lstm", "gru"])
    kind = {
        "simple_rnn": keras.layers.SimpleRNN,
        "lstm": keras.layers.LSTM,
        "gru": keras.layers.GRU,
    }[cell]
    count = hp.Choice("layers", [1, 2])
    bidirectional = hp.Boolean("bidirectional")
    units = hp.Int("units", 8, 128, sampling="log")
    initializer = _initializer(hp)
    layers = []
    for number in range(1, count + 1):
        layer = kind(units, recurrent_initializer=initializer, return_sequences=number < count)
        layers.append(keras.layers.Bidirectional(layer) if bidirectional else layer)
    return _compiled(hp, layers)


def _initializer(hp: keras_tuner.HyperParameters) -> str:
    initializer: str = hp.Choice("recurrent_initializer", ["identity", "orthogonal"])
    # Keras's only registered name for it is that of the class.
    return {"identity": "Identity"}.get(initializer, initializer)


def _compiled(hp: keras_tuner.HyperParameters, layers: list[keras.Layer]) -> keras.Sequential:
    rate = hp.Float("learning_rate", 1e-3, 1e-2, sampling="log")
    softmax = keras.layers.Dense(10, activation="softmax")
    model = keras.Sequential([keras.Input((28, 28)), *layers, softmax])
    model.compile(
        optimizer=keras.optimizers.Adam(rate),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


class WatchedSearch(keras_tuner.RandomSearch):
    """Notes when each trial ended, and what memory the process then held."""

    def on_trial_end(self, trial: Any) -> None:
        super().on_trial_end(trial)
        process = psutil.Process()
        self.ended.append(time.time() - process.create_time())
        self.resident.append(process.memory_info().rss)


def main(trials: int, epochs: int, seed: int, space: str) -> None:
    """Search on MNIST; print the seconds to the end of each trial, the bytes held, the best."""
    data = load("mnist")
    x_train, x_valid = data.train.x / 255.0, data.valid.x / 255.0
    with tempfile.TemporaryDirectory() as folder:
        tuner = WatchedSearch(
            {"small": build_tutorial, "full": build_network}[space],
            objective="val_accuracy",
            max_trials=trials,
            seed=seed,
            directory=Path(folder),
        )
        tuner.ended, tuner.resident = [], []
        tuner.search(
            x_train,
            data.train.y,
            batch_size=64,
            epochs=epochs,
            validation_data=(x_valid, data.valid.y),
            verbose=0,
        )
        best = tuner.oracle.get_best_trials()[0].score
    print(json.dumps({"ended": tuner.ended, "resident": tuner.resident, "score": best}))


if __name__ == "__main__":
    trials, epochs, seed, space = sys.argv[1:]
    main(int(trials), int(epochs), int(seed), space)
