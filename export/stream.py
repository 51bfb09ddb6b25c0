"""Answers while a sequence is still coming: `open_stream(bundle, "onnx").push(frames)`.

A stream keeps the state of its sessions between calls; the file that is run keeps none, so that any
number of streams share it. ONNX and TFLite need no TensorFlow.

`rnn-tf stream BUNDLE [FILE]` is one over lines of text, one line a frame.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
import tyro

from export.bundle import Bundle, find_bundle
from export.formats.format import StepRuntime, as_frames, check_states, is_finite
from export.network import STATE
from export.runtimes import open_step
from rnn_tf.command import arguments, parse
from rnn_tf.data.frames import END, read_frames
from rnn_tf.data.spec import SequenceSpec
from rnn_tf.errors import CheckFailed, InputError, one_line_errors
from rnn_tf.files.arrays import read_arrays
from rnn_tf.files.writing import writing
from rnn_tf.streams.early import EarlyRule

# The first of these whose step a bundle has answers: the fastest for a single frame.
PREFERRED = ("onnx", "tflite", "saved_model")
# The names in a saved state of what it is a state of, and of the answers that are final.
MODEL, FINAL = "model", "final"
# In the place of a class: no answer is final yet.
OPEN = -1


@dataclass(frozen=True)
class State:
    """What the sessions of a stream have kept of the frames so far."""

    model: str  # the fingerprint of the network that it is a state of
    arrays: tuple[np.ndarray, ...]  # float32 (sessions, units) each: h, of an LSTM also c, by layer
    # (sessions,) int32: the class that is final in each, -1 where none is yet; None: in no session.
    final: np.ndarray | None = None

    def save(self, path: Path | str) -> None:
        """Write it as `.npz`: `state_0`, `state_1`, ..., `final` if any, and `model`, a text."""
        named = {STATE.format(i): array for i, array in enumerate(self.arrays)}
        if self.final is not None:
            named[FINAL] = self.final
        with writing(Path(path)) as temporary, temporary.open("wb") as file:
            np.savez(file, **{MODEL: np.array(self.model)}, **named)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path | str) -> State:
        """Read what `save` has written; no pickle is. Raises `InputError` for anything else."""
        arrays = read_arrays(Path(path))
        model, final = arrays.pop(MODEL, None), arrays.pop(FINAL, None)
        names = [STATE.format(i) for i in range(len(arrays))]
        if model is None or model.dtype.kind != "U" or model.ndim or set(names) != set(arrays):
            raise InputError(
                f"not the state of a stream: {path}",
                expected=f"{MODEL}, {STATE.format(0)}, ...",
                got=", ".join([*arrays, *([] if model is None else [MODEL])])[:200],
            )
        return cls(str(model), tuple(arrays[name] for name in names), final)


class Stream:
    """Sessions that are answered frame by frame, all at once or some of them.

    Whoever has a server of many streams makes one `Stream` of as many sessions, and pushes the
    frames of those that have some in one call. `another` has sessions of its own over the same
    file.
    Not to be pushed to by two threads at once; two streams over one file may be.

    With `early`, the rule that a bundle has of `rnn-tf evaluate --early`, the first answer that is
    sure enough is final until the session is reset.
    """

    def __init__(
        self, runtime: StepRuntime, sessions: int = 1, early: EarlyRule | None = None
    ) -> None:
        if isinstance(sessions, bool) or not isinstance(sessions, int) or sessions < 1:
            raise InputError(
                "bad number of sessions", expected="a whole number >= 1", got=repr(sessions)
            )
        self.runtime, self.sessions, self.early = runtime, sessions, early
        self._run_frame = runtime.bind(sessions)
        self.model = str(json.loads(runtime.metadata().get(MODEL, '""')))
        self._states = self._zeros(sessions)
        self._final = np.full(sessions, OPEN, np.int32)

    @property
    def final(self) -> list[str | None]:
        """The label that is final in each session; None where none is yet, or without a rule."""
        labels = self.runtime.spec.labels
        return [None if place == OPEN else labels[place] for place in self._final]

    def push(
        self, frames: npt.ArrayLike, sessions: Sequence[int] | np.ndarray | None = None
    ) -> np.ndarray:
        """Read the next raw frames of the sessions; give the probabilities after each frame.

        Of `(sessions, steps, features)` it gives float32 `(sessions, steps, classes)`; a stream of
        one session also takes `(steps, features)` and gives `(steps, classes)`. With `sessions`,
        the numbers of some, the frames are of these, in that order, and no other is touched.

        Raises `InputError` for another shape or type, for values that are not finite, and for a
        session that there is not, and `CheckFailed` when a state grows beyond float32. Every
        session is then as it was.
        """
        frames = np.asarray(frames)
        alone = frames.ndim == 2 and self.sessions == 1
        given = as_frames(frames[np.newaxis] if alone else frames, self.runtime.spec)
        rows = None if sessions is None else self._rows(sessions)
        expected = self.sessions if rows is None else len(rows)
        if len(given) != expected:
            raise InputError(
                "the frames do not fit the stream",
                expected=f"shape ({expected}, steps, features): {expected} sessions are asked",
                got=f"shape {frames.shape}",
            )
        before = self._states if rows is None else [state[rows] for state in self._states]
        run = self._run_frame if rows is None and given.shape[1] == 1 else self.runtime.run
        probabilities, after = run(given, before)
        if not _are_answers(probabilities):
            raise CheckFailed(
                "the stream has no answer: its state has grown beyond float32. It is as before the "
                "call; reset it, as after each sequence of the training."
            )
        if rows is None:
            self._states = after
        else:
            for state, new in zip(self._writable(), after, strict=True):
                state[rows] = new
        self._note_final(probabilities, slice(None) if rows is None else rows)
        return probabilities[0] if alone else probabilities

    def reset(self, sessions: Sequence[int] | np.ndarray | None = None) -> None:
        """Begin a new sequence: in every session, or in those whose numbers are given."""
        if sessions is None:
            self._states = self._zeros(self.sessions)
            self._final[:] = OPEN
            return
        rows = self._rows(sessions)
        self._final[rows] = OPEN
        for state in self._writable():
            state[rows] = 0

    def another(self, sessions: int = 1) -> Stream:
        """A new stream over the same loaded file, whose sessions begin at zero."""
        return Stream(self.runtime, sessions, self.early)

    @property
    def state(self) -> State:
        """A copy of what the sessions have kept. Set it to go on from one that was saved.

        Setting raises `InputError` for a state of another model, and for arrays of another number,
        shape or type; the stream is then as it was.
        """
        arrays = tuple(state.copy() for state in self._states)
        return State(self.model, arrays, self._final.copy())

    @state.setter
    def state(self, state: State) -> None:
        if state.model != self.model:
            raise InputError(
                "the state is of another model", expected=f"{self.model[:12]}…",
                got=f"{state.model[:12]}…", fix="Restore it where it was saved, or begin at zero.",
            )  # fmt: skip
        check_states(state.arrays, self.sessions, self.runtime.units)
        final = np.full(self.sessions, OPEN, np.int32) if state.final is None else state.final
        self._check_final(final)
        self._states = [np.array(array, order="C") for array in state.arrays]
        self._final = final.astype(np.int32)

    def _note_final(self, probabilities: np.ndarray, rows: np.ndarray | slice) -> None:
        """Keep the first sure answer of each session at `rows` in which none is final yet."""
        if self.early is None:
            return
        sure = probabilities.max(axis=2) >= np.float32(self.early.confidence)
        first = sure.argmax(axis=1)
        classes = probabilities[np.arange(len(first)), first].argmax(axis=1)
        final = self._final[rows]
        self._final[rows] = np.where((final == OPEN) & sure.any(axis=1), classes, final)

    def _check_final(self, final: np.ndarray) -> None:
        classes = self.runtime.spec.classes
        fits = final.shape == (self.sessions,) and final.dtype.kind in "iu"
        if not fits or final.min() < OPEN or final.max() >= classes:
            raise InputError(
                "bad final answers in the state",
                expected=f"{self.sessions} whole numbers from {OPEN} to {classes - 1}",
                got=f"{final.dtype} of shape {final.shape}",
            )

    def _zeros(self, sessions: int) -> list[np.ndarray]:
        return [np.zeros((sessions, units), np.float32) for units in self.runtime.units]

    def _writable(self) -> list[np.ndarray]:
        """The states, in arrays of our own: those of a runtime may be read-only."""
        self._states = [state if state.flags.writeable else state.copy() for state in self._states]
        return self._states

    def _rows(self, sessions: Sequence[int] | np.ndarray) -> np.ndarray:
        rows = np.asarray(sessions)
        fits = rows.ndim == 1 and rows.size and rows.dtype.kind in "iu"
        if not fits or rows.min() < 0 or rows.max() >= self.sessions:
            raise InputError(
                "bad sessions", expected=f"numbers from 0 to {self.sessions - 1}",
                got=repr(sessions)[:80],
            )  # fmt: skip
        if len(np.unique(rows)) < len(rows):
            raise InputError("a session is asked twice in one call", got=repr(sessions)[:80])
        return rows


def _are_answers(probabilities: np.ndarray) -> bool:
    """Whether `(sessions, steps, classes)` are numbers, and so the states that they are made of."""
    # A softmax is NaN in every class or in none, and a state that is not finite stays so: for a
    # single session one number tells, in a fifth of the time.
    if len(probabilities) == 1:
        return math.isfinite(probabilities.item(-1))
    return is_finite(probabilities)


def open_stream(
    bundle: Bundle | Path | str, name: str = "auto", sessions: int = 1, threads: int | None = None
) -> Stream:
    """A stream over one of a bundle's formats: onnx, tflite, tflite_int8, saved_model.

    `auto` is the first of onnx, tflite and saved_model that there is. Where the bundle says when an
    answer is final (`rnn-tf evaluate --early`), the stream does, too. Raises `InputError` for a
    bundle or a format without a step, and for altered files.
    """
    bundle = bundle if isinstance(bundle, Bundle) else find_bundle(Path(bundle))
    if name == "auto":
        name = next((each for each in PREFERRED if each in bundle.steppers), bundle.formats[0])
    return Stream(open_step(bundle, name, threads), sessions, bundle.early)


@dataclass(frozen=True)
class Command:
    """Answer frame by frame: each line is a frame, the numbers of one time step.

    A line is CSV (0.1,0.2,0.3; under a line of names other columns are left out) or JSON
    ([0.1, 0.2, 0.3], or {"ax": 0.1, ...} where features have names), in the raw units of the
    training data. An empty line ends a sequence: the next frame is the first of a new one. A line
    is printed when the label or its probability changes; where the bundle knows when an answer is
    final (rnn-tf evaluate --early), that is said, too:

    tail -f sensor.csv | rnn-tf stream runs/gestures
    """

    bundle: tyro.conf.Positional[Path]
    """A bundle, or a run that has one."""
    file: tyro.conf.Positional[Path] = Path("-")
    """A file of frames; -, the default, is standard input."""
    format: str = "auto"
    """Which format answers: onnx, tflite, tflite_int8, tflite_float16, saved_model. auto: the
    first of onnx, tflite and saved_model that there is."""
    state: Path | None = None
    """Go on from the state in this file, if it is there, and keep it there at the end."""
    json: bool = False
    """Print one JSON object a frame, with the probability of every label."""


@one_line_errors
def main(argv: Sequence[str] | None = None, prog: str = "python -m export.stream") -> int:
    command = parse(Command, arguments(argv), prog)
    bundle = find_bundle(command.bundle)
    stream = open_stream(bundle, command.format)
    if command.state is not None and command.state.exists():
        stream.state = State.load(command.state)
    show = _as_json if command.json else _WhenItChanges()
    try:
        with _opened(command.file) as lines:
            _follow(stream, bundle.spec, lines, _name(command.file), show)
    except KeyboardInterrupt:
        return 130
    finally:
        if command.state is not None:
            stream.state.save(command.state)
    return 0


# From the number of a frame, what is said after it, the labels and the label that is final, if one
# is, to a line, or to none.
Show = Callable[[int, np.ndarray, SequenceSpec, str | None], str | None]


def _follow(stream: Stream, spec: SequenceSpec, lines: IO[str], name: str, show: Show) -> None:
    """Push the frames of `lines` one by one, and print what `show` makes of each answer at once."""
    frame = 0
    for number, values in read_frames(lines, spec, name):
        if values is END:
            stream.reset()
            continue
        try:
            (probabilities,) = stream.push(values[np.newaxis])
        except (InputError, CheckFailed) as error:
            raise type(error)(f"line {number} of {name}: {error}") from error
        line = show(frame, probabilities, spec, stream.final[0])
        frame += 1
        if line is not None:
            print(line, flush=True)


def _as_json(frame: int, probabilities: np.ndarray, spec: SequenceSpec, final: str | None) -> str:
    best = int(probabilities.argmax())
    return json.dumps(
        {
            "frame": frame,
            "label": spec.labels[best],
            "probability": float(probabilities[best]),
            "final": final,
            "probabilities": dict(zip(spec.labels, probabilities.tolist(), strict=True)),
        },
        ensure_ascii=False,
    )


class _WhenItChanges:
    """A line where label, probability in per cent or what is final is another than before."""

    def __init__(self) -> None:
        self.shown = ""

    def __call__(
        self, frame: int, probabilities: np.ndarray, spec: SequenceSpec, final: str | None
    ) -> str | None:
        best = int(probabilities.argmax())
        text = f"{spec.labels[best]}  {probabilities[best]:.0%}"
        text += "" if final is None else f"  final: {final}"
        if text == self.shown:
            return None
        self.shown = text
        return f"{frame}  {text}"


def _name(file: Path) -> str:
    return "standard input" if str(file) == "-" else str(file)


def _opened(file: Path) -> AbstractContextManager[IO[str]]:
    if str(file) == "-":
        return nullcontext(sys.stdin)
    if not file.is_file():
        raise InputError(f"not a file: {file}" if file.exists() else f"no such file: {file}")
    return file.open(encoding="utf-8", errors="replace")


if __name__ == "__main__":
    raise SystemExit(main())
