"""What every format is asked: families of inputs, in batches of several sizes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from export.check import limits
from export.formats.format import Runtime
from rnn_tf.data import Split

LARGEST_BATCH = 1000
# Sizes of batches, and how many of each are asked.
BATCHES = {1: 100, 2: 50, 7: 20, 64: 5, 1000: 1}
MIXED = (1, 64, 2, 7, 1, 64, 64, 1)
NOISE_EXAMPLES = 100
# Times the largest value of the data, the first at which float32 itself still answers.
MAGNITUDES = (1e6, 1e4, 1e2, 1.0)


@dataclass(frozen=True)
class Family:
    """Inputs of one kind, and the batches in which they are asked."""

    name: str
    x: np.ndarray  # (n, timesteps, features), raw
    batches: tuple[int, ...]  # sizes, n in all
    y: np.ndarray | None = None  # (n,) class indices, where they are known
    asked_before: np.ndarray | None = None  # (n,) where the same examples are in the test split


def families(test: Split, keras: Runtime, oracle: Runtime) -> list[Family]:
    """What is asked: the test split, noise, extremes, every batch size, and the same again."""
    x, shape = test.x, test.x.shape[1:]
    low, high = float(x.min()), float(x.max())
    noise = np.random.default_rng(0).uniform(low, high, (NOISE_EXAMPLES, *shape))
    whole = Family("test split", x, _even(len(x), LARGEST_BATCH), test.y, np.arange(len(x)))

    def again(name: str, rows: np.ndarray, batches: tuple[int, ...]) -> Family:
        rows = rows % len(x)  # a small split is gone through more than once
        return Family(name, x[rows], batches, asked_before=rows)

    return [
        whole,
        Family("uniform noise", noise.astype(np.float32), _even(NOISE_EXAMPLES, 64)),
        Family("all zero", np.zeros((1, *shape), np.float32), (1,)),
        Family("all max", np.full((1, *shape), high, np.float32), (1,)),
        _large(shape, max(abs(low), abs(high)), keras, oracle),
        *(
            again(f"batches of {size}", np.arange(size * calls), (size,) * calls)
            for size, calls in BATCHES.items()
        ),
        again("repeated calls", np.tile(np.arange(7), 4), (7,) * 4),
        again("mixed batches", np.arange(sum(MIXED)), MIXED),
    ]


def _large(shape: tuple[int, ...], most: float, keras: Runtime, oracle: Runtime) -> Family:
    """Values far beyond the data: one feature of each time step, of either sign.

    One, because the sum of several would leave to the rounding of float32 what is left of them
    when they cancel, in any runtime. The magnitude is the largest at which Keras itself answers
    as the formulas do: an activation may grow beyond float32.
    """
    random = np.random.default_rng(1)
    timesteps, features = shape
    place = random.integers(0, features, (NOISE_EXAMPLES, timesteps, 1))
    sign = random.choice([-1.0, 1.0], place.shape)
    for magnitude in MAGNITUDES:
        x = np.zeros((NOISE_EXAMPLES, timesteps, features), np.float32)
        np.put_along_axis(x, place, (sign * magnitude * most).astype(np.float32), 2)
        family = Family(f"{magnitude:.0f} times max", x, _even(NOISE_EXAMPLES, 64))
        difference = np.abs(answer(keras, family) - answer(oracle, family)).max()
        if difference <= limits.MOST_DIFFERENCE / 2:
            break
    return family


def answer(runtime: Runtime, family: Family) -> np.ndarray:
    """What a runtime says of a family: `(n, classes)`."""
    ends = np.cumsum(family.batches)
    parts = [runtime.predict(part) for part in np.split(family.x, ends[:-1])]
    return np.concatenate(parts)


def _even(examples: int, size: int) -> tuple[int, ...]:
    """Batches of `size`, the last one smaller where it must be."""
    whole, rest = divmod(examples, size)
    return (size,) * whole + ((rest,) if rest else ())
