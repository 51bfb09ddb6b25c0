"""`python -m rnn_tf.predict RUN FILE...`: what a trained model says of pictures and sequences."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import tyro

from rnn_tf.command import arguments, parse
from rnn_tf.config import Missing, Source
from rnn_tf.data import SequenceSpec
from rnn_tf.data.inputs import Block, Inputs
from rnn_tf.data.novelty import at_one_length
from rnn_tf.data.profile import DataProfile
from rnn_tf.data.spec import Split, checked
from rnn_tf.errors import InputError, one_line_errors
from rnn_tf.run import Run, holds_run
from rnn_tf.startup import process

if TYPE_CHECKING:
    import keras


class Classifier(Protocol):
    """A trained model as a function."""

    def __call__(self, x: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        """Probabilities `(n, classes)` of raw sequences `(n, timesteps, features)`.

        `(n, timesteps, classes)` from a model that answers at every step; beyond the end of a
        sequence they mean nothing.
        `lengths`, int32 `(n,)`, are for models of sequences of different lengths, and only those.
        """


@dataclass(frozen=True)
class Prediction:
    """What the model says of one sequence; at its end, if it answers at every step."""

    name: str
    label: str
    probability: float  # of that label, 0 to 1
    probabilities: dict[str, float]  # of every label
    unusual: float | None  # share of validation examples that are less so; None: not known
    # Label and probability at each step, from a model that answers there.
    steps: list[dict[str, Any]] | None = None


def predict(run: Run, x: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
    """Apply the run's best model to raw sequences `(n, timesteps, features)`.

    A model of sequences of different lengths is told the length of each by `lengths`, int32
    `(n,)`; whatever `x` holds beyond it does not matter. Returns the probabilities, float32
    `(n, classes)`, or `(n, timesteps, classes)` from a model that answers at every step: beyond the
    end of a sequence they mean nothing. Raises `InputError` for an unfinished run, and for lengths
    that do not fit.
    """
    return classifier(run)(x, lengths)


def classifier(run: Run) -> Classifier:
    """The run's best model as a function of raw sequences; TensorFlow starts at its first call.

    Raises `InputError` for an unfinished run.
    """
    run.require_finished()
    loaded: list[keras.Sequential] = []

    def classify(x: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        examples = checked(Split(x, np.zeros(len(x), np.int32), lengths), "the input", run.spec)
        process.start()
        from rnn_tf.training.keras.backend import probabilities

        if not loaded:
            loaded.append(run.load_model())
        return probabilities(loaded[0], examples, run.spec)

    return classify


def draw_reading(run: Run, x: np.ndarray, path: Path) -> None:
    """Draw how the run's model reads one raw sequence `(timesteps, features)` as a PNG.

    It has no padding: where lengths vary, it is as long as it is.
    """
    process.start()
    from rnn_tf.model.stepwise import read_along
    from rnn_tf.plots import plot_reading

    # Normalized, so that features of different units can be seen side by side.
    x = run.spec.normalization(x)
    states, probabilities = read_along(run.load_model(), x)
    plot_reading(x, states, probabilities, run.spec.labels, path)


def answers(
    block: Block, classify: Classifier, spec: SequenceSpec, profile: DataProfile | None
) -> Iterator[Prediction]:
    """What the model says of each sequence of a block, and how unusual it is."""
    unusual = [None] * len(block.x)
    if profile:
        unusual = profile.novelty.unusual(at_one_length(block.x, block.lengths)).tolist()
    said = classify(block.x, block.lengths)
    ends = np.full(len(said), block.x.shape[1]) if block.lengths is None else block.lengths
    for name, share, answer, end in zip(block.names, unusual, said, ends, strict=True):
        if answer.ndim == 1:
            yield _prediction(name, answer, spec, share)
        else:
            yield _prediction(name, answer[end - 1], spec, share, answer[:end])


def _prediction(
    name: str,
    answer: np.ndarray,
    spec: SequenceSpec,
    unusual: float | None,
    steps: np.ndarray | None = None,
) -> Prediction:
    """An answer `(classes,)` in words, and those at each step `(timesteps, classes)`, if any."""
    label, probability = _most_probable(answer, spec)
    probabilities = dict(zip(spec.labels, answer.tolist(), strict=True))
    of_steps = None
    if steps is not None:
        found = (_most_probable(step, spec) for step in steps)
        of_steps = [{"label": of_step, "probability": p} for of_step, p in found]
    return Prediction(name, label, probability, probabilities, unusual, of_steps)


def _most_probable(answer: np.ndarray, spec: SequenceSpec) -> tuple[str, float]:
    best = int(answer.argmax())
    return spec.labels[best], float(answer[best])


def answer(inputs: Inputs, classify: Classifier, *, as_json: bool) -> int:
    """Print a line for each sequence, block by block.

    Returns the exit code: 0, or 1 when something could not be read, or 2 when nothing could.
    """
    answered = False
    for block in inputs:
        for found in answers(block, classify, inputs.spec, inputs.profile):
            print(_json(found) if as_json else _line(found))
        answered = True
    return (1 if answered else 2) if inputs.failed else 0


def _json(found: Prediction) -> str:
    return json.dumps({key: value for key, value in vars(found).items() if value is not None})


def _line(found: Prediction) -> str:
    line = f"{found.name}  {found.label}  {found.probability:.2%}"
    if found.unusual is None:
        return line
    return f"{line}  more unusual than {found.unusual:.1%} of the validation examples"


@dataclass(frozen=True, kw_only=True)
class InputOptions:
    """How the files are read and the answers printed, whatever gives the answers."""

    as_is: bool = False
    """Do not bring pictures into the form of the training pictures: paper and ink, size, centre."""
    invert: bool = False
    """Turn light pictures dark and dark ones light, where paper and ink are not told apart."""
    json: bool = False
    """Print one JSON object a sequence, with the probability of every label, and the answer at each
    step of a model that has one."""
    id: str | None = None
    """Table: the column that says which sequence a row belongs to. None: as in training, else the
    one with a usual name (id, sample, recording, ...); a table without one is one sequence."""
    time: str | None = None
    """Table: the column that orders the steps of a sequence. None: as in training, else the one
    with a usual name (time, timestamp, step, ...), else the order of the rows."""
    missing: Missing | None = None
    """Table or .ts: what happens where a value is missing (refuse, interpolate, zero). None: as in
    training, else refuse."""

    def inputs(
        self,
        files: Sequence[Path],
        spec: SequenceSpec,
        profile: DataProfile | None,
        source: Source | None = None,
    ) -> Inputs:
        """The sequences of some files; `source` is how the training data were read, if known."""
        source = Source(**(source or Source()).source())
        said = {name: getattr(self, name) for name in ("id", "time", "missing")}
        said = {name: value for name, value in said.items() if value is not None}
        return Inputs(
            files, spec, profile, as_is=self.as_is, invert=self.invert,
            source=replace(source, **said),
        )  # fmt: skip


@dataclass(frozen=True)
class Command(InputOptions):
    """Classify pictures (PNG, JPEG) or sequences (arrays, tables, .ts files) with a run's model.

    Beside its probability, an answer says how unusual the input is: a network answers anything,
    also what is like nothing that it was trained on.
    """

    run: tyro.conf.Positional[Path]
    """The folder of a finished run."""
    files: tyro.conf.Positional[tuple[Path, ...]]
    """Pictures, arrays (.npy, .npz with one), tables (.csv, .tsv, .parquet: a row a time step)
    or .ts files, in the raw units of the run's data, or folders of them."""
    picture: Path | None = None
    """Also draw how the model reads the first sequence, step by step, as this PNG."""


@one_line_errors
def main(argv: Sequence[str] | None = None, prog: str = "python -m rnn_tf.predict") -> int:
    command = parse(Command, arguments(argv), prog)
    run = _open(command.run)
    run.require_finished()
    profile = run.profile
    inputs = command.inputs(command.files, run.spec, profile, run.config)
    classify = classifier(run)
    if command.picture is not None:
        classify = _drawing_the_first(run, classify, command.picture)
    return answer(inputs, classify, as_json=command.json)


def _open(path: Path) -> Run:
    if (path / "manifest.json").is_file() and not holds_run(path):
        raise InputError(
            f"a bundle, not a run: {path}", fix=f"Ask it with: rnn-tf predict {path} FILE..."
        )
    return Run.open(path)


def _drawing_the_first(run: Run, classify: Classifier, path: Path) -> Classifier:
    """The same function, which also draws how the first sequence that it gets is read."""
    drawn = False

    def classify_and_draw(x: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        nonlocal drawn
        if not drawn:
            draw_reading(run, x[0] if lengths is None else x[0, : lengths[0]], path)
            drawn = True
        return classify(x, lengths)

    return classify_and_draw


if __name__ == "__main__":
    raise SystemExit(main())
