"""What a Keras user writes for sequences of different lengths: `Masking` and `model.fit`.

    python -m benchmarks.plain_keras_masking EPOCHS FILE CELL

FILE is what `benchmarks.lengths` writes. Prints one JSON object.
"""

from __future__ import annotations

import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from benchmarks.plain_keras import EpochTimes


def main(epochs: int, file: str, cell: str) -> None:
    """Train for some epochs."""
    with np.load(file) as arrays:
        data = {name: arrays[name] for name in arrays.files}
    cells = {
        "simple_rnn": keras.layers.SimpleRNN,
        "lstm": keras.layers.LSTM,
        "gru": keras.layers.GRU,
    }
    # The padding is 0, and no step of a sequence is 0 in all features.
    model = keras.Sequential([
        keras.Input(data["x_train"].shape[1:]),
        keras.layers.Masking(),
        cells[cell](32),
        keras.layers.Dense(int(data["y_train"].max()) + 1, activation="softmax"),
    ])  # fmt: skip
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    times = EpochTimes()
    model.fit(
        data["x_train"],
        data["y_train"],
        batch_size=64,
        epochs=epochs,
        validation_data=(data["x_valid"], data["y_valid"]),
        verbose=0,
        callbacks=[times],
    )
    _, accuracy = model.evaluate(data["x_test"], data["y_test"], verbose=0)
    print(json.dumps({"epochs": times.seconds, "accuracy": accuracy}))


if __name__ == "__main__":
    epochs, file, cell = sys.argv[1:]
    main(int(epochs), file, cell)
