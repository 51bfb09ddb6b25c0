"""What a step is asked: sequences pushed in every way in which a stream may be pushed.

Every answer on the way is held against the formulas. Sequences of the test split are pushed whole,
frame by frame and in random chunks, in batches of several sizes, interleaved at random in the
sessions of one stream, and across a restart; and all of them as one long sequence that is never
reset. What differs in nothing but the pushes must not differ in its answers.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export import oracle
from export.check import limits, rounding
from export.check.questions import Family, sample
from export.formats.format import StepRuntime
from export.network import BATCH_BYTES, Network
from export.stream import State, Stream
from rnn_tf.data import Split
from rnn_tf.data.spec import UNLABELLED

# Opens a runtime of a step.
OpenStep = Callable[[], StepRuntime]

# Time steps that are pushed in one family, all sequences together, and the most of one sequence
# where there is a call for each.
FRAMES, MOST_CALLS = 28_000, 256
# Sessions that are pushed together, and how many times over.
SESSIONS = {1: 8, 2: 5, 7: 3, 64: 2, 1000: 1}
INTERLEAVED, OF_EACH = 7, 4
LONGEST_CHUNK = 8
# A sequence that is never reset, and the longest chunk of it.
WITHOUT_RESET, LONG_CHUNK = 10_000, 256


@dataclass(frozen=True)
class Push:
    """One call: `steps` frames of each of some sequences, in some sessions of a stream."""

    rows: np.ndarray  # (n,) which sequences of the family
    starts: np.ndarray  # (n,) the first step of each
    steps: int
    sessions: np.ndarray | None = None  # (n,) where they are pushed; None: all sessions, in order
    reset: np.ndarray | None = None  # sessions that begin anew before it
    # Before it, the state is saved, the runtime closed, opened again, and the state restored.
    reopened: bool = False


@dataclass(frozen=True)
class StepFamily:
    """Sequences, the calls in which they are pushed, and what there is to know of their answers."""

    family: Family
    sessions: int
    pushes: tuple[Push, ...]
    exact: np.ndarray  # (n, timesteps, classes) by the formulas
    limit: float  # how far float32 may be off
    # What a model with rounded weights is not asked: its state may outgrow float32 before.
    of_these_weights: bool = False


def answer_by_step(open_: OpenStep, runtime: StepRuntime, asked: StepFamily) -> np.ndarray:
    """What a step says of every frame of a family: `(n, timesteps, classes)`.

    `open_` opens another `runtime` of it.
    """
    stream = Stream(runtime, asked.sessions)
    found = np.full(asked.exact.shape, np.nan, np.float32)
    for push in asked.pushes:
        if push.reopened:
            state = _through_a_file(stream.state)
            del stream
            stream = Stream(open_(), asked.sessions)
            stream.state = state
        if push.reset is not None:
            stream.reset(push.reset)
        rows, steps = push.rows[:, None], push.starts[:, None] + np.arange(push.steps)
        found[rows, steps] = stream.push(asked.family.x[rows, steps], push.sessions)
    return found


def _through_a_file(state: State) -> State:
    with tempfile.TemporaryDirectory() as folder:
        state.save(Path(folder) / "state.npz")
        return State.load(Path(folder) / "state.npz")


def step_families(test: Split, network: Network) -> list[StepFamily]:
    """What is asked. The first has the sequences of which the others push some or all again."""
    spec, random = network.spec, np.random.default_rng(4)
    frames = min(FRAMES, network.most_steps, BATCH_BYTES // (8 * spec.classes))
    test = sample(test, frames // spec.longest)
    test = test._replace(x=np.asarray(test.x, np.float32)[:, :frames])
    examples, longest = test.x.shape[:2]
    exact = oracle.probabilities_by_step(network, test.x)
    found = rounding.rounded(network, test.x)
    limit = rounding.limit(network, test.x, exact, found, test.lengths)
    y = _labels(test, every_step=network.every_step)

    def again(
        name: str, sessions: int, rows: np.ndarray, steps: int, pushes: Iterator[Push]
    ) -> StepFamily:
        lengths = None if test.lengths is None else np.minimum(test.lengths[rows], steps)
        family = Family(
            f"step: {name}", test.x[rows, :steps], (), asked_before=rows, lengths=lengths
        )
        return StepFamily(family, sessions, tuple(pushes), exact[rows, :steps], limit)

    most = min(max(SESSIONS), examples)
    every, some = np.arange(examples), np.arange(min(examples, INTERLEAVED * OF_EACH))
    few = min(longest, MOST_CALLS)
    whole = Family("step: whole sequences", test.x, (), y, lengths=test.lengths)
    asked = [
        StepFamily(whole, most, tuple(_together(examples, most, [longest])), exact, limit),
        again("frame by frame", most, every, few, _together(examples, most, [1] * few)),
        again("random chunks", most, every, few, _together(examples, most, _chunks(random, few))),
    ]
    for sessions, times in SESSIONS.items():
        steps = max(1, min(few, frames // (sessions * times)))
        rows = np.arange(sessions * times) % examples
        pushes = _together(len(rows), sessions, _chunks(random, steps))
        asked.append(again(f"{sessions} sessions", sessions, rows, steps, pushes))
    asked += [
        again("interleaved", INTERLEAVED, some, few, _interleaved(random, len(some), few)),
        again("restored", len(some), some, few, _restored(len(some), few)),
    ]
    asked = [each for each in asked if each.limit <= limits.MOST_ROUNDING]
    return [*asked, *_without_reset(test, network, random)]


def _labels(test: Split, *, every_step: bool) -> np.ndarray:
    """Those of every step that the model is asked for: of one that answers at the end, the last."""
    if every_step:
        return test.step_labels[:, : test.x.shape[1]]
    labels = np.full(test.x.shape[:2], UNLABELLED, np.int32)
    ends = test.x.shape[1] if test.lengths is None else np.minimum(test.lengths, test.x.shape[1])
    labels[np.arange(len(labels)), ends - 1] = test.y
    return labels


def _chunks(random: np.random.Generator, steps: int, longest: int = LONGEST_CHUNK) -> list[int]:
    """Lengths at random that are `steps` in all; two at least where there can be."""
    longest = min(longest, max(1, steps // 2))
    found: list[int] = []
    while steps:
        found.append(int(random.integers(1, min(longest, steps), endpoint=True)))
        steps -= found[-1]
    return found


def _together(sequences: int, sessions: int, chunks: list[int]) -> Iterator[Push]:
    """As many sequences at a time as there are sessions, chunk by chunk."""
    for first in range(0, sequences, sessions):
        rows = np.arange(first, min(first + sessions, sequences))
        taken = np.arange(len(rows))
        start = 0
        for steps in chunks:
            yield Push(
                rows, np.full(len(rows), start), steps,
                sessions=None if len(rows) == sessions else taken,
                reset=None if start else taken,
            )  # fmt: skip
            start += steps


def _interleaved(random: np.random.Generator, sequences: int, longest: int) -> Iterator[Push]:
    """Some sessions at a time, at random, each somewhere else in a sequence of its own.

    A session takes every so many-th sequence, and begins anew with each.
    """
    left = {
        session: [(row, 0) for row in range(session, sequences, INTERLEAVED)]
        for session in range(min(INTERLEAVED, sequences))
    }
    while left:
        asked = random.permutation(list(left))[: random.integers(1, len(left), endpoint=True)]
        rows, starts = np.array([left[int(session)][0] for session in asked]).T
        steps = min(int(random.integers(1, LONGEST_CHUNK)), longest - int(starts.max()))
        yield Push(rows, starts, steps, sessions=asked, reset=_or_none(asked[starts == 0]))
        for session, row, start in zip(asked.tolist(), rows, starts, strict=True):
            left[session][0] = (row, start + steps)
            if start + steps == longest:
                del left[session][0]
            if not left[session]:
                del left[session]


def _or_none(sessions: np.ndarray) -> np.ndarray | None:
    return sessions if sessions.size else None


def _restored(sequences: int, steps: int) -> Iterator[Push]:
    """The first half, a restart, and the other half."""
    rows, half = np.arange(sequences), (steps + 1) // 2
    yield Push(rows, np.zeros_like(rows), half)
    if half < steps:
        yield Push(rows, np.full_like(rows, half), steps - half, reopened=True)


def _without_reset(test: Split, network: Network, random: np.random.Generator) -> list[StepFamily]:
    """All sequences as one, as long as float32 can promise an answer; none if it never can.

    A state hands the rounding of each step on to the next. How much of it is left after so many
    depends on the model, and `rounding.promised` finds out.
    """
    valid = test.valid
    frames = test.x.reshape(-1, test.x.shape[2]) if valid is None else test.x[valid]
    answers = BATCH_BYTES // (8 * network.spec.classes)
    steps = max(1, min(WITHOUT_RESET, network.most_steps // rounding.DRAWS, answers))
    x = np.resize(frames, (1, steps, test.x.shape[2]))
    exact, limit = rounding.promised(network, x, limits.MOST_ROUNDING)
    steps = exact.shape[1]
    if not steps:
        return []
    family = Family(f"step: {steps:,} steps without reset", x[:, :steps], ())
    (zero,) = np.zeros((1, 1), int)
    starts = np.cumsum([0, *_chunks(random, steps, LONG_CHUNK)])
    pushes = tuple(
        Push(zero, zero + start, int(end - start)) for start, end in itertools.pairwise(starts)
    )
    return [StepFamily(family, 1, pushes, exact, limit, of_these_weights=True)]
