"""What every format is asked: families of inputs, in batches of several sizes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from export import oracle
from export.check import limits, rounding
from export.formats.format import Runtime
from export.network import Network
from rnn_tf.data import Split
from rnn_tf.data.normalize import Normalize

TEST_SPLIT = "test split"
# Sizes of batches, and how many of each are asked.
BATCHES = {1: 100, 2: 50, 7: 20, 64: 5, 1000: 1}
MIXED = (1, 64, 2, 7, 1, 64, 64, 1)
NOISE_EXAMPLES = 100
# Times the largest value of the data, the first at which float32 itself still answers.
MAGNITUDES = (1e6, 1e4, 1e2, 1.0)
# Long sequences are asked less, so that it takes no longer than for short ones: this many time
# steps of the test split, all examples together (MNIST has 280,000),
TEST_STEPS = 2**21
# and this many in the calls of one size of batch, but at least so many calls.
CALL_STEPS, LEAST_CALLS = 28_000, 2


@dataclass(frozen=True)
class Family:
    """Inputs of one kind, and the batches in which they are asked."""

    name: str
    x: np.ndarray  # (n, timesteps, features), raw
    batches: tuple[int, ...]  # sizes, n in all
    y: np.ndarray | None = None  # (n,) class indices, where they are known
    asked_before: np.ndarray | None = None  # (n,) where the same examples are in TEST_SPLIT


def families(test: Split, network: Network) -> list[Family]:
    """What is asked: the test split, noise, extremes, every batch size, and the same again.

    The test split is first, and whole unless it has too many time steps; then its examples are
    taken at even distances.
    """
    test = _sample(test, TEST_STEPS // network.spec.longest)
    x, shape = test.x, test.x.shape[1:]
    low, high = _ranges(x, network.spec.normalization)
    most = min(max(BATCHES), network.most_at_once)
    noise = np.random.default_rng(0).uniform(low, high, (min(NOISE_EXAMPLES, most), *shape))
    calls = max(LEAST_CALLS, CALL_STEPS // network.spec.longest)

    def again(name: str, rows: np.ndarray, batches: tuple[int, ...]) -> Family:
        rows = rows % len(x)  # a small split is gone through more than once
        return Family(name, x[rows], batches, asked_before=rows)

    def in_batches(name: str, sizes: tuple[int, ...]) -> Family:
        sizes = tuple(min(size, most) for size in sizes)
        return again(name, np.arange(sum(sizes)), sizes)

    sizes: dict[int, int] = {}
    for size, often in BATCHES.items():
        sizes.setdefault(min(size, most), min(often, calls))
    repeats = min(4, calls)
    seven = min(7, most)
    return [
        Family(TEST_SPLIT, x, _even(len(x), most), test.y),
        Family("uniform noise", noise.astype(np.float32), _even(len(noise), min(64, most))),
        Family("all zero", np.zeros((1, *shape), np.float32), (1,)),
        Family("all max", np.broadcast_to(high, (1, *shape)).astype(np.float32), (1,)),
        _large(network, max(abs(low.min()), abs(high.max())), len(noise), min(64, most)),
        *(in_batches(f"batches of {size}", (size,) * often) for size, often in sizes.items()),
        again("repeated calls", np.tile(np.arange(seven), repeats), (seven,) * repeats),
        in_batches("mixed batches", MIXED[: 2 * calls]),
    ]


def _ranges(x: np.ndarray, normalize: Normalize) -> tuple[np.ndarray, np.ndarray]:
    """The least and the largest value of each feature; of one that never changes, up to 1 more.

    That is 1 for the model, which must be asked about every weight.
    """
    low, high = (np.asarray(of(x, axis=(0, 1)), np.float64) for of in (np.min, np.max))
    return low, np.where(high > low, high, low + 1 / np.asarray(normalize.scale))


def _sample(split: Split, most: int) -> Split:
    """Examples at even distances, since files are often sorted by class."""
    most = max(1, most)
    if len(split.y) <= most:
        return split
    rows = np.linspace(0, len(split.y) - 1, most).astype(int)
    return split.take(rows)


def _large(network: Network, most: float, examples: int, batch: int) -> Family:
    """Values far beyond the data: one feature of each time step, of either sign.

    One, because the sum of several would leave to the rounding of float32 what is left of them
    when they cancel, in any runtime. The magnitude is the largest at which float32 can still
    promise an answer: an activation may grow beyond it.
    """
    random = np.random.default_rng(1)
    spec = network.spec
    place = random.integers(0, spec.features, (examples, spec.longest, 1))
    sign = random.choice([-1.0, 1.0], place.shape)
    for magnitude in MAGNITUDES:
        x = np.zeros((examples, spec.longest, spec.features), np.float32)
        np.put_along_axis(x, place, (sign * magnitude * most).astype(np.float32), 2)
        family = Family(f"{magnitude:.0f} times max", x, _even(examples, batch))
        few = x[: rounding.most_tried(network)]
        promised = rounding.limit(network, few, oracle.probabilities(network, few))
        if promised <= limits.FAR_ROUNDING:
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
