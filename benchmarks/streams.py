"""`python -m benchmarks.streams`: when to reset the state of a stream, and how soon to answer.

Three generated tasks, each of which wants another policy, and MNIST, row by row: trained, then
asked what `rnn-tf evaluate --stream` and `--early` ask.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import documents
from rnn_tf import TrainConfig, load, train
from rnn_tf.command import arguments, parse
from rnn_tf.data import SequenceData, SequenceSpec, Split
from rnn_tf.data.spec import UNLABELLED
from rnn_tf.errors import one_line_errors
from rnn_tf.run import Run
from rnn_tf.streams import job
from rnn_tf.streams.early import SHARES, EarlyResult
from rnn_tf.streams.resets import AT_EACH_SEQUENCE, NEVER, PolicyScores

DOCUMENT = "docs/streams.md"
EXAMPLES = {"train": 2_000, "valid": 200, "test": 400}
# Of a sequence of a generated task.
STEPS = 40
NOISE = 0.1
# Pulses that a sequence has on average.
PULSES = 3
# Steps of a period of each oscillation, and after how many on average another one begins.
PERIODS, CHANGE = (5, 8, 13), 30

PROMISES = (0.8, 0.9, 0.95)
# For the picture: what is promised, and which test digit goes by.
PROMISE, DIGIT = 0.9, 241


@dataclass(frozen=True)
class Command:
    """Train on generated streams and on MNIST; print what resets and early answers do."""

    write: bool = False
    """Write the tables and pictures into the documents of this checkout."""


@one_line_errors
def main(argv: Sequence[str] | None = None, prog: str = "python -m benchmarks.streams") -> int:
    command = parse(Command, arguments(argv), prog)
    policies: dict[str, list[PolicyScores]] = {}
    early: dict[str, list[EarlyResult]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, makers in TASKS.items():
            data = generated(*makers)
            run = _train(GENERATED, folder, name, data)
            policies[name] = job.compare_policies(run, data, data.test, gap=0, every=STEPS)
        data = load("mnist")
        for name, config in DIGITS.items():
            run = _train(config, folder, name, data)
            policies[name] = job.compare_policies(run, data, data.test, gap=0)
            early[name] = [job.answer_early(run, data, data.test, each) for each in PROMISES]
        if command.write:
            _draw(run, data)
    tables = {"resets": resets_table(policies), "early": early_table(early)}
    for name, text in tables.items():
        print(f"{text}\n")
        if command.write:
            documents.put(DOCUMENT, f"benchmarks.streams {name}", text)
    return 0


def _train(config: TrainConfig, folder: str, name: str, data: SequenceData) -> Run:
    print(f"training: {name}", file=sys.stderr)
    return train(config, Path(folder) / name, data=data, progress=False)


def _draw(run: Run, data: SequenceData) -> None:
    """The pictures of the document: of all test digits, and one of them going by."""
    from rnn_tf.model.stepwise import read_along
    from rnn_tf.streams.pictures import plot_answers, plot_early

    found = job.answer_early(run, data, data.test, PROMISE)
    plot_early(found, documents.ROOT / "docs" / "early.png")
    rows = run.spec.normalization(data.test.x[DIGIT])
    _, probabilities = read_along(run.load_model(), rows)
    path = documents.ROOT / "docs" / "answers.png"
    plot_answers(rows, probabilities, run.spec.labels, found.rule, path)


# --- what is trained ---
GENERATED = TrainConfig(cell="gru", epochs=20, answer="every_step")
DIGITS = {
    "MNIST, `--answer end`": TrainConfig(),
    "MNIST, `--answer every_step`": TrainConfig(answer="every_step"),
}


def counting(random: np.random.Generator, n: int) -> Split:
    """How many pulses have there been in a sequence so far: 0, 1, 2, 3 or more?"""
    x, y = _pulses(random, n)
    return Split(x.reshape(n, STEPS, 2), y.reshape(n, STEPS))


def windows(random: np.random.Generator, n: int) -> Split:
    """The same as a stream, in windows that begin anywhere and are twice as long as a sequence.

    What comes before the first beginning in a window has no label: nobody could know it.
    """
    x, y = _pulses(random, n)
    places = random.integers(0, (n - 2) * STEPS, (n, 1)) + np.arange(2 * STEPS)
    known = np.maximum.accumulate(places % STEPS == 0, axis=1)
    return Split(x[places], np.where(known, y[places], UNLABELLED))


def _pulses(random: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """A stream of sequences, raw `(steps, 2)`, and how many pulses each has had so far.

    Channel 0 has the pulses; in channel 1 there is one where a sequence begins.
    """
    pulses = random.random((n, STEPS)) < PULSES / STEPS
    begins = np.broadcast_to(np.arange(STEPS) == 0, (n, STEPS))
    x = np.stack([pulses, begins], axis=2).reshape(-1, 2) + random.normal(0, NOISE, (n * STEPS, 2))
    y = np.minimum(np.cumsum(pulses, axis=1), PULSES).ravel()
    return x, y


def oscillating(random: np.random.Generator, n: int) -> Split:
    """Which of three oscillations is it now? Windows, cut anywhere, of one that changes."""
    steps = n * STEPS
    changes = np.cumsum(random.random(steps) < 1 / CHANGE)
    kinds = random.integers(0, len(PERIODS), steps)[changes]
    x = np.sin(np.cumsum(2 * np.pi / np.array(PERIODS)[kinds])) + random.normal(0, NOISE, steps)
    return Split(x.reshape(n, STEPS, 1), kinds.reshape(n, STEPS))


# What makes the examples of training and validation, and those of the test.
Make = Callable[[np.random.Generator, int], Split]
TASKS: dict[str, tuple[Make, Make]] = {
    "count pulses": (counting, counting),
    "count pulses, trained on windows": (windows, counting),
    "tell oscillations apart": (oscillating, oscillating),
}


def generated(make_train: Make, make_test: Make) -> SequenceData:
    random = np.random.default_rng(0)
    made = {
        name: (make_test if name == "test" else make_train)(random, n)
        for name, n in EXAMPLES.items()
    }
    longest = max(split.x.shape[1] for split in made.values())
    splits = {name: _padded(split, longest) for name, split in made.items()}
    labels = tuple(map(str, range(1 + max(int(split.y.max()) for split in splits.values()))))
    features = splits["train"].x.shape[2]
    spec = SequenceSpec(None, features, labels, longest=longest, answer="every_step")
    return SequenceData(spec, splits["train"], splits["valid"], splits["test"])


def _padded(split: Split, longest: int) -> Split:
    n, steps, _ = split.x.shape
    after = ((0, 0), (0, longest - steps))
    return Split(
        np.pad(split.x, (*after, (0, 0))).astype(np.float32),
        np.pad(split.y, after, constant_values=UNLABELLED).astype(np.int32),
        np.full(n, steps, np.int32),
    )


# --- tables ---
def resets_table(found: Mapping[str, Sequence[PolicyScores]]) -> str:
    """A row for each model; for each policy the accuracy of each step, and at the end."""
    names = {NEVER: "never reset", AT_EACH_SEQUENCE: "at each sequence"}
    head = [names.get(each.policy, "every so many steps") for each in next(iter(found.values()))]
    rows = [
        [
            name,
            *(f"{each.accuracy:.1%}, {each.accuracy_at_end:.1%}" for each in scores),
            _state(scores),
        ]
        for name, scores in found.items()
    ]
    return documents.table(["", *head, "largest state, never reset"], rows)


def _state(scores: Sequence[PolicyScores]) -> str:
    largest = {each.policy: each.largest_state for each in scores}
    if not math.isfinite(largest[NEVER]):
        return "overflows"
    return f"{largest[NEVER]:.3g} ({largest[AT_EACH_SEQUENCE]:.3g} when reset)"


def early_table(found: Mapping[str, Sequence[EarlyResult]]) -> str:
    """Accuracy on the test split along its sequences, then what each promise takes."""
    along = [
        [name, *(f"{results[0].accuracy_at['test'][percent]:.1%}" for percent in SHARES)]
        for name, results in found.items()
    ]
    promises = [
        [
            name, f"{each.rule.promise:.0%}", f"{each.rule.confidence:.4f}",
            f"{each.test.steps:.1f} ({each.test.share:.0%})", f"{each.test.accuracy:.2%}",
        ]
        for name, results in found.items()
        for each in results
    ]  # fmt: skip
    shares = [f"{percent} %" for percent in SHARES]
    kept = ["", "promise", "confidence", "rows needed (test)", "accuracy (test)"]
    return f"{documents.table(['rows read', *shares], along)}\n\n{documents.table(kept, promises)}"


if __name__ == "__main__":
    raise SystemExit(main())
