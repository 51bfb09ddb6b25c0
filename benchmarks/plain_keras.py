"""What a Keras user writes first: NumPy arrays and `model.fit`. Prints one JSON object.

python -m benchmarks.plain_keras EPOCHS [CELL LAYERS DIRECTIONS ANSWER]
"""

from __future__ import annotations

import json
import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from rnn_tf.data import load

CELLS = {
    "simple_rnn": keras.layers.SimpleRNN,
    "lstm": keras.layers.LSTM,
    "gru": keras.layers.GRU,
}


class EpochTimes(keras.callbacks.Callback):
    """Seconds of each epoch, its validation included."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.seconds.append(time.perf_counter() - self.began)


def main(
    epochs: int,
    cell: str = "simple_rnn",
    layers: int = 1,
    directions: int = 1,
    answer: str = "end",
) -> None:
    """Train the tutorial's model on MNIST for some epochs, or one with more layers like it.

    `answer`: `end`, or `every_step` for one that answers after each row.
    """
    data = load("mnist")
    splits = (data.train, data.valid, data.test)
    x_train, x_valid, x_test = (split.x / 255.0 for split in splits)
    every_step = answer == "every_step"
    y_train, y_valid, y_test = (
        np.repeat(split.y[:, np.newaxis], 28, axis=1) if every_step else split.y for split in splits
    )
    model = keras.Sequential([keras.Input((28, 28))])
    for layer in range(layers):
        recurrent = CELLS[cell](32, return_sequences=every_step or layer < layers - 1)
        model.add(keras.layers.Bidirectional(recurrent) if directions == 2 else recurrent)
    model.add(keras.layers.Dense(10, activation="softmax"))
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    times = EpochTimes()
    model.fit(
        x_train,
        y_train,
        batch_size=64,
        epochs=epochs,
        validation_data=(x_valid, y_valid),
        verbose=0,
        callbacks=[times],
    )
    _, accuracy = model.evaluate(x_test, y_test, verbose=0)
    print(json.dumps({"epochs": times.seconds, "accuracy": accuracy}))


if __name__ == "__main__":
    given = sys.argv[2:]
    cell, layers, directions, answer = [*given, *["simple_rnn", "1", "1", "end"][len(given) :]]
    main(int(sys.argv[1]), cell, int(layers), int(directions), answer)
