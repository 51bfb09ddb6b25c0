"""Sequences of different lengths, made for the benchmarks: which feature is a little higher?"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rnn_tf.files.writing import writing

SHORTEST, LONGEST, FEATURES = 7, 29, 12
EXAMPLES = {"train": 20_000, "valid": 2_000, "test": 2_000}


def write(path: Path, shortest: int = SHORTEST, longest: int = LONGEST) -> Path:
    """Write an .npz of sequences of `shortest` to `longest` steps, each length as frequent.

    Right-padded with zeros up to `longest`, with their lengths; without any where all are as long.
    """
    random = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for split, count in EXAMPLES.items():
        lengths = random.integers(shortest, longest + 1, count)
        y = random.integers(0, FEATURES, count)
        x = random.normal(size=(count, longest, FEATURES)) + 0.4 * np.eye(FEATURES)[y][:, None]
        x[np.arange(longest) >= lengths[:, None]] = 0
        arrays |= {f"x_{split}": x.astype(np.float32), f"y_{split}": y}
        if shortest < longest:
            arrays[f"lengths_{split}"] = lengths
    with writing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    return path
