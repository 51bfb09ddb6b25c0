"""What every format is asked: families of inputs, in batches of several sizes.

Where lengths vary, each sequence is also asked alone and in random company, with all kinds of
padding after it: neither may matter.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from export import oracle
from export.check import limits, rounding
from export.formats.format import Runtime
from export.network import BATCH_BYTES, Network
from rnn_tf.data import Split
from rnn_tf.data.normalize import Normalize
from rnn_tf.data.spec import SequenceSpec, valid_steps

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


# What the padding is filled with, where lengths vary; None: with noise like the data.
PADDING = {"zeros": 0.0, "noise": None, "infinity": np.inf, "NaN": np.nan}


@dataclass(frozen=True)
class Family:
    """Inputs of one kind, and the batches in which they are asked."""

    name: str
    x: np.ndarray  # (n, timesteps, features), raw
    batches: tuple[int, ...]  # sizes, n in all
    # (n,) class indices, or one for each answer, (n, timesteps); -1 where one is not known
    y: np.ndarray | None = None
    asked_before: np.ndarray | None = None  # (n,) where the same examples are in TEST_SPLIT
    lengths: np.ndarray | None = None  # (n,), int32; None where all are as long

    @property
    def inputs(self) -> tuple[np.ndarray, ...]:
        """What `Runtime.predict` is given."""
        return (self.x,) if self.lengths is None else (self.x, self.lengths)

    def in_rows(self, values: np.ndarray) -> np.ndarray:
        """What is said of each answer, one after the other: none of padding.

        Of `(n, ...)` where there is one of each sequence, or of `(n, timesteps, ...)`.
        """
        if self.lengths is None:
            return values.reshape(-1, *values.shape[2:])
        result: np.ndarray = values[valid_steps(self.lengths, values.shape[1])]
        return result


def families(test: Split, network: Network) -> list[Family]:
    """What is asked: the test split, noise, extremes, every batch size, and the same again.

    The test split is first, and whole unless it has too many time steps; then its examples are
    taken at even distances.
    """
    shape, spec = test.x.shape[1:], network.spec
    test = sample(test, _most_steps(network) // spec.longest)
    low, high = _ranges(test, spec.normalization)
    most = min(max(BATCHES), network.most_at_once)
    noise = np.random.default_rng(0).uniform(low, high, (min(NOISE_EXAMPLES, most), *shape))
    noise = noise.astype(np.float32)
    calls = max(LEAST_CALLS, CALL_STEPS // spec.longest)

    def again(name: str, rows: np.ndarray, batches: tuple[int, ...]) -> Family:
        rows = rows % len(test.y)  # a small split is gone through more than once
        same = test.take(rows)
        return Family(name, same.x, batches, asked_before=rows, lengths=same.lengths)

    def in_batches(name: str, sizes: tuple[int, ...]) -> Family:
        sizes = tuple(min(size, most) for size in sizes)
        return again(name, np.arange(sum(sizes)), sizes)

    def new(name: str, x: np.ndarray, batches: tuple[int, ...]) -> Family:
        return Family(name, x, batches, lengths=_lengths(spec, len(x)))

    sizes: dict[int, int] = {}
    for size, often in BATCHES.items():
        sizes.setdefault(min(size, most), min(often, calls))
    repeats = min(4, calls)
    seven = min(7, most)
    return [
        Family(
            TEST_SPLIT,
            test.x,
            _even(len(test.y), most),
            test.step_labels if spec.every_step else test.y,
            lengths=test.lengths,
        ),
        new("uniform noise", noise, _even(len(noise), min(64, most))),
        new("all zero", np.zeros((1, *shape), np.float32), (1,)),
        new("all max", np.broadcast_to(high, (1, *shape)).astype(np.float32), (1,)),
        _large(network, max(abs(low.min()), abs(high.max())), len(noise), min(64, most)),
        *(in_batches(f"batches of {size}", (size,) * often) for size, often in sizes.items()),
        again("repeated calls", np.tile(np.arange(seven), repeats), (seven,) * repeats),
        in_batches("mixed batches", MIXED[: 2 * calls]),
        *(_of_lengths(test, noise, most, calls) if spec.varies else []),
    ]


def _lengths(spec: SequenceSpec, examples: int) -> np.ndarray | None:
    """Lengths for so many sequences, the longest and the shortest first; None where none vary."""
    if not spec.varies:
        return None
    drawn = np.random.default_rng(2).integers(1, spec.longest, examples, np.int32, endpoint=True)
    drawn[:2] = (spec.longest, 1)[:examples]
    return drawn


def _of_lengths(test: Split, noise: np.ndarray, most: int, calls: int) -> list[Family]:
    """Each sequence alone, then in random company before every padding; lengths 1 and longest.

    `noise`, `(n, timesteps, features)`, is like the data. Of the sequences of `test`, `calls` are
    asked alone.
    """
    alone = np.linspace(0, len(test.y) - 1, min(calls, len(test.y))).astype(int)
    by_itself = test.take(alone)
    found = [
        Family(
            "each alone", by_itself.x, (1,) * len(alone),
            asked_before=alone, lengths=by_itself.lengths,
        )
    ]  # fmt: skip
    random = np.random.default_rng(3)
    for name, value in PADDING.items():
        rows = random.permutation(len(test.y))
        company = test.take(rows)
        padding = noise[rows % len(noise)] if value is None else np.float32(value)
        x = np.where(np.asarray(company.valid)[:, :, None], company.x, padding)
        found.append(
            Family(
                f"padding of {name}", x.astype(np.float32), _mixed(len(rows), most),
                asked_before=rows, lengths=company.lengths,
            )
        )  # fmt: skip
    ends = np.where(np.arange(len(noise)) % 2, 1, noise.shape[1]).astype(np.int32)
    found.append(Family("lengths 1 and longest", noise, _mixed(len(noise), most), lengths=ends))
    return found


def _mixed(examples: int, most: int) -> tuple[int, ...]:
    """Batches of the sizes of `MIXED`, over and over."""
    sizes: list[int] = []
    for size in itertools.cycle(MIXED):
        if not examples:
            return tuple(sizes)
        sizes.append(min(size, most, examples))
        examples -= sizes[-1]
    raise AssertionError("a cycle does not end")


def _ranges(test: Split, normalize: Normalize) -> tuple[np.ndarray, np.ndarray]:
    """The least and the largest value of each feature; of one that never changes, up to 1 more.

    That is 1 for the model, which must be asked about every weight.
    """
    steps = test.x.reshape(-1, test.x.shape[2]) if test.valid is None else test.x[test.valid]
    low, high = (np.asarray(of(steps, axis=0), np.float64) for of in (np.min, np.max))
    return low, np.where(high > low, high, low + 1 / np.asarray(normalize.scale))


def _most_steps(network: Network) -> int:
    """Of the test split; fewer where each has an answer for many classes, in float64."""
    if not network.every_step:
        return TEST_STEPS
    return min(TEST_STEPS, 4 * BATCH_BYTES // (8 * network.spec.classes))


def sample(split: Split, most: int) -> Split:
    """Examples, one at least, at even distances, since files are often sorted by class."""
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
        lengths = _lengths(spec, examples)
        family = Family(f"{magnitude:.0f} times max", x, _even(examples, batch), lengths=lengths)
        first = slice(rounding.most_tried(network))
        few, lengths = x[first], None if lengths is None else lengths[first]
        exact = oracle.probabilities(network, few, lengths)
        promised = rounding.limit(network, few, exact, lengths=lengths)
        if promised <= limits.FAR_ROUNDING:
            break
    return family


def answer(runtime: Runtime, family: Family) -> np.ndarray:
    """What a runtime says of a family: `(n, classes)`, or `(n, timesteps, classes)`."""
    ends = np.cumsum(family.batches)[:-1]
    parts = zip(*(np.split(each, ends) for each in family.inputs), strict=True)
    return np.concatenate([runtime.predict(*part) for part in parts])


def _even(examples: int, size: int) -> tuple[int, ...]:
    """Batches of `size`, the last one smaller where it must be."""
    whole, rest = divmod(examples, size)
    return (size,) * whole + ((rest,) if rest else ())
