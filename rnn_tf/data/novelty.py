"""How unlike the training data an example is, measured against examples held out from training.

Two measurements of an example, whatever it is a sequence of:

- its *distance*: minus the log density, up to constants, under a Gaussian with few free directions
  (probabilistic PCA: M. E. Tipping and C. M. Bishop, 1999, "Probabilistic Principal Component
  Analysis"). Large for noise, letters, another unit;
- its *spread* over time. Small for a blank page and for a sensor that is stuck, whose distance is
  small, as nothing is near the middle of everything.

Where lengths vary, a sequence is first brought to one length (`at_one_length`): what is measured is
its course, whatever time it takes.

How unusual a measurement is follows from its rank among those of the validation split, so no
threshold is chosen by hand (a conformal p-value: V. Vovk, A. Gammerman and G. Shafer, 2005,
"Algorithmic Learning in a Random World"). Only NumPy is needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rnn_tf.data.spec import Split

# Directions in which examples are taken to vary freely.
DIRECTIONS = 16
# Numbers by which an example is described, at most: 28x28 pixels are described one by one, a
# sequence of 10,000 steps by means and deviations over parts of it.
MOST_NUMBERS = 1024
# Training examples that the directions are found from: more change nothing to speak of.
MOST_EXAMPLES = 2000
# Measurements of validation examples that are kept, evenly over their ranks.
MOST_RANKS = 1000
# Numbers in all examples that are looked at, at most: 64 MiB as float32, however long they are.
SAMPLE = 1 << 24
# Numbers in one block of examples that are measured at once.
BLOCK = 1 << 22


@dataclass(frozen=True)
class Novelty:
    """What tells an unusual example, in less than 50 KB whatever the data."""

    mean: np.ndarray  # (features,) float32: of the raw training values, over time
    deviation: np.ndarray  # (features,) float32, > 0: likewise
    centre: np.ndarray  # (numbers,) float32: mean description of a training example
    directions: np.ndarray  # (numbers, k) float16, orthonormal columns
    variances: np.ndarray  # (k,) float32: along the directions
    noise: np.ndarray  # () float32: variance along every other direction
    distances: np.ndarray  # (ranks,) float32, sorted: of validation examples
    spreads: np.ndarray  # (ranks,) float32, sorted: likewise

    def unusual(self, x: np.ndarray) -> np.ndarray:
        """The share of validation examples that are less unusual than each of raw `x`.

        `x` is `(n, timesteps, features)`, the result float64 `(n,)`, 0 to 1. An example like those
        of training exceeds a value v with a probability of at most 1 - v.
        """
        distance, spread = self._measure(x)
        far = len(self.distances) - np.searchsorted(self.distances, distance, side="left")
        flat = np.searchsorted(self.spreads, spread, side="right")
        # The chance that one of the validation examples, or of their kind, is as extreme. Twice,
        # since the more extreme of two measurements is taken.
        chance = 2 * (np.minimum(far, flat) + 1) / (len(self.distances) + 1)
        return np.maximum(0.0, 1 - chance)

    def _measure(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distance and spread of each example of raw `x`, both float32 `(n,)`."""
        examples = max(1, BLOCK // (x.shape[1] * x.shape[2]))
        parts = [self._measure_block(x[i : i + examples]) for i in range(0, len(x), examples)]
        distance, spread = (np.concatenate(part) for part in zip(*parts, strict=True))
        return distance, spread

    def _measure_block(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        standard = (x.astype(np.float32) - self.mean) / self.deviation
        offset = _describe(standard) - self.centre
        along = offset @ self.directions.astype(np.float32)
        beside = np.maximum((offset**2).sum(1) - (along**2).sum(1), 0)
        distance = (along**2 / self.variances).sum(1) + beside / self.noise
        return distance, standard.std(axis=1).mean(axis=1)


def measure_novelty(train: Split, valid: Split, *, one_unit: bool) -> Novelty:
    """Learn what is usual from `train`, and how usual from `valid`.

    `one_unit`: all features are of one kind, as the pixels of a picture are, and are not scaled to
    the same deviation, which would make the most of those that hardly ever change.
    """
    some = sample(train, MOST_EXAMPLES).astype(np.float32)
    mean = some.mean((0, 1))
    deviation = np.full_like(mean, some.std()) if one_unit else some.std((0, 1))
    # A feature that never changes, rounding aside, is measured by its own size.
    size = np.maximum(np.abs(mean), 1)
    deviation = np.where(deviation > 1e-6 * size, deviation, size)
    described = _describe((some - mean) / deviation)
    centre = described.mean(axis=0)
    directions, variances, noise = _principal(described - centre)
    none = np.zeros(0, np.float32)
    novelty = Novelty(mean, deviation, centre, directions, variances, noise, none, none)
    distance, spread = novelty._measure(sample(valid, MOST_RANKS))
    return Novelty(
        mean, deviation, centre, directions, variances, noise, np.sort(distance), np.sort(spread)
    )


def _describe(x: np.ndarray) -> np.ndarray:
    """Standardised sequences `(n, T, F)` as at most `MOST_NUMBERS` numbers each.

    All values where there are few; else mean and deviation of each feature over parts of the time.
    """
    examples, timesteps, features = x.shape
    if features > MOST_NUMBERS // 2:
        # Neighbours are averaged: pixels of a row, bands of a spectrum.
        edges = np.linspace(0, features, MOST_NUMBERS // 2 + 1).astype(int)[:-1]
        x = _means(x, edges, axis=2)
        features = x.shape[2]
    if timesteps * features <= MOST_NUMBERS:
        return x.reshape(examples, -1)
    parts = max(1, MOST_NUMBERS // (2 * features))
    edges = np.linspace(0, timesteps, parts + 1).astype(int)[:-1]
    means = _means(x, edges, axis=1)
    squares = _means(x * x, edges, axis=1)
    deviations = np.sqrt(np.maximum(squares - means**2, 0))
    return np.concatenate([means, deviations], axis=1).reshape(examples, -1)


def _means(x: np.ndarray, edges: np.ndarray, axis: int) -> np.ndarray:
    """Means over the parts of an axis that begin at `edges`."""
    counts = np.diff(edges, append=x.shape[axis]).astype(x.dtype)
    shape = [-1 if i == axis else 1 for i in range(x.ndim)]
    result: np.ndarray = np.add.reduceat(x, edges, axis=axis) / counts.reshape(shape)
    return result


def _principal(offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Directions of most variance, the variances along them, and the mean of all others.

    By subspace iteration from random directions (N. Halko, P. G. Martinsson and J. A. Tropp, 2011,
    "Finding Structure with Randomness"): 30 times as fast as all directions at once.
    """
    examples, numbers = offsets.shape
    count = min(DIRECTIONS, examples // 2, numbers // 2)
    total = float((offsets**2).sum()) / examples
    # Some more than are kept make the kept ones accurate.
    start = np.random.default_rng(0).normal(size=(numbers, min(numbers, count + 8)))
    basis = np.linalg.qr(start)[0].astype(np.float32)
    for _ in range(3):
        basis = np.linalg.qr(offsets.T @ (offsets @ basis))[0]
    along = offsets @ basis
    values, vectors = np.linalg.eigh(along.T @ along / examples)  # the largest last
    variances, vectors = values[::-1][:count], vectors[:, ::-1][:, :count]
    noise = max((total - float(variances.sum())) / max(numbers - count, 1), 1e-6)
    directions = (basis @ vectors).astype(np.float16)
    return directions, np.maximum(variances, noise).astype(np.float32), np.array(noise, np.float32)


def at_one_length(x: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
    """Right-padded `x` `(n, T, F)` with each sequence drawn out over all T steps.

    Steps are repeated, none is left out. `lengths` `(n,)`; None: all are T long already.
    """
    if lengths is None:
        return x
    places = np.arange(x.shape[1]) * lengths[:, np.newaxis] // x.shape[1]
    return np.take_along_axis(x, places[..., np.newaxis], axis=1)


def sample(split: Split, most: int) -> np.ndarray:
    """At most `most` examples, and `SAMPLE` numbers, taken evenly over a split, at one length."""
    most = min(most, max(1, SAMPLE // (split.x.shape[1] * split.x.shape[2])))
    rows: slice | np.ndarray = slice(None)
    if len(split.y) > most:
        rows = np.linspace(0, len(split.y) - 1, most).astype(int)
    split = split.take(rows)
    return at_one_length(split.x, split.lengths)
