"""`python -m rnn_tf.evaluate RUN`: how good a trained model is, class by class."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.cells import cell_len

from rnn_tf.command import arguments, parse
from rnn_tf.data import SequenceData, SequenceSpec, Split, elsewhere, load, needs_tensorflow
from rnn_tf.data.spec import UNLABELLED
from rnn_tf.errors import InputError, one_line_errors
from rnn_tf.run import Run
from rnn_tf.scores import Scores, StepScores, score_in_parts, score_split
from rnn_tf.startup import process

# Kinds of mistake that are listed when the whole matrix is wider than the terminal.
MISTAKES_SHOWN = 20

# The accuracy of early answers, unless another is said.
PROMISE = 0.95

# What the data of a model must have in common with those that it was trained on, beside lengths.
COMPARED = ("features",)


def evaluate(run: Run, source: str | None = None) -> Scores:
    """Score a run's best model on a test split: its own data set's, or that of `source`.

    All of `source` is scored where it has no test split. Raises `InputError` when the run is not
    finished, or `source` has another specification.
    """
    data = load_data(run, source)
    process.start()
    from rnn_tf.training.keras.backend import probabilities

    model = run.load_model()

    def score(part: Split) -> Scores:
        read = _as_read(part, data.spec, run.spec)
        return score_split(probabilities(model, read, run.spec), read)

    return score_in_parts(score, data.test, run.spec)


def load_data(run: Run, source: str | None = None) -> SequenceData:
    """Load a finished run's own data set, or that of `source`, which its model can be asked about.

    Raises `InputError` when the run is not finished, or `source` has another specification.
    """
    run.require_finished()
    where = run.config if source is None else elsewhere(run.config, source, run.spec.labels)
    if needs_tensorflow(where):
        process.start()
    data = load(where)
    check_fits(run.spec, data.spec, where.dataset)
    return data


def check_fits(trained: SequenceSpec, given: SequenceSpec, source: str) -> None:
    """Raise `InputError` unless a model for `trained` can be evaluated on `given`."""
    facts: list[tuple[str, object, object]] = []
    if trained.varies:
        if given.longest > trained.longest:
            facts.append(("longest", trained.longest, given.longest))
    else:
        steps = f"up to {given.longest}" if given.varies else given.timesteps
        facts.append(("timesteps", trained.timesteps, steps))
    facts += [(name, getattr(trained, name), getattr(given, name)) for name in COMPARED]
    said = given.normalize
    if said is not None and trained.normalization.origin == said.origin == "source":
        # Raw values in another unit.
        facts.append(("scale", trained.normalization.scale[0], said.scale[0]))
    for name, expected, got in facts:
        if expected != got:
            raise InputError(
                f"{source} is not of the run's specification",
                expected=f"{name} {expected}",
                got=got,
            )
    _classes(trained, given, source)


def _classes(trained: SequenceSpec, given: SequenceSpec, source: str) -> np.ndarray:
    """The class that a model of `trained` has for each class of `given`: int32 `(classes,)`.

    Raises `InputError` where it does not know one.
    """
    place = {label: i for i, label in enumerate(trained.labels)}
    if set(given.labels) <= set(place):
        return np.array([place[label] for label in given.labels], np.int32)
    # Classes without names are called by their numbers.
    if given.labels == tuple(map(str, range(trained.classes))):
        return np.arange(trained.classes, dtype=np.int32)
    raise InputError(
        f"{source} has other labels than the run", expected=", ".join(trained.labels),
        got=", ".join(given.labels),
    )  # fmt: skip


def as_read(data: SequenceData, spec: SequenceSpec) -> Split:
    """The test split of data that fit a model of `spec`, as the model takes it.

    It is as wide as the model reads, with lengths if they vary there, and with the model's classes.
    """
    return _as_read(data.test, data.spec, spec)


def _as_read(split: Split, given: SequenceSpec, spec: SequenceSpec) -> Split:
    classes = _classes(spec, given, "the data")
    y = np.where(split.y < 0, UNLABELLED, classes[split.y])
    split = split._replace(y=y)
    if not spec.varies:
        return split
    examples, steps, _ = split.x.shape
    lengths = np.full(examples, steps, np.int32) if split.lengths is None else split.lengths
    after = (0, spec.longest - steps)
    if split.labelled_by_step:
        y = np.pad(y, ((0, 0), after), constant_values=UNLABELLED)
    return split._replace(x=np.pad(split.x, ((0, 0), after, (0, 0))), y=y, lengths=lengths)


@dataclass(frozen=True)
class Command:
    """Score a model on the whole test split: overall, class by class, and what it mistakes."""

    run: tyro.conf.Positional[Path]
    """The folder of a finished run."""
    data: str | None = None
    """Another data set of the same specification, in any of the forms that training takes."""
    json: bool = False
    """Print one JSON object instead of tables."""
    stream: bool = False
    """Play the test split as one long stream instead, a sequence after the other in a random order,
    and compare when the state is set to zero: never, at each sequence, every N steps. The run keeps
    the result as stream.json and stream.png."""
    reset_every: int | None = None
    """With --stream: that N. Default: the mean length of the training sequences."""
    gap: int | None = None
    """With --stream: play them again with so many steps of silence after each sequence: the median
    frame of the training data. 0: do not. Default: the mean length of the training sequences."""
    early: bool = False
    """Ask instead how right the model is after 10, 20, ... 100 % of each sequence, and find on the
    validation split the smallest probability at which an answer is final and keeps the accuracy
    of --promise. The run keeps the result as early.json and early.png, and its bundle the rule."""
    promise: float | None = None
    """With --early: the share of early answers that are to be right. Default: 0.95."""


@one_line_errors
def main(argv: Sequence[str] | None = None, prog: str = "python -m rnn_tf.evaluate") -> int:
    command = parse(Command, arguments(argv), prog)
    _check_options(command)
    run = Run.open(command.run)
    if command.stream:
        return _stream(run, command)
    if command.early:
        return _early(run, command)
    scores = evaluate(run, command.data)
    print(as_json(scores, run.spec) if command.json else as_tables(scores, run.spec))
    return 0


def _check_options(command: Command) -> None:
    """Raise `InputError` for options that do not go together."""
    if command.stream and command.early:
        raise InputError("--stream and --early are two questions", fix="Ask one after the other.")
    for question, options in (("stream", ("reset_every", "gap")), ("early", ("promise",))):
        for name in options:
            if getattr(command, name) is not None and not getattr(command, question):
                option = name.replace("_", "-")
                raise InputError(
                    f"--{option} means nothing without --{question}", fix=f"Add --{question}."
                )


def _stream(run: Run, command: Command) -> int:
    from rnn_tf.streams import job, report

    own, test = _own_and_test(run, command.data)
    process.start()
    found = job.compare_policies(run, own, test, every=command.reset_every, gap=command.gap)
    if command.data is None:
        job.keep_policies(run, found)
    if command.json:
        print(json.dumps(job.policies_as_json(found)))
    else:
        print(report.policies_as_text(found, len(test.x)))
    return 0


def _early(run: Run, command: Command) -> int:
    from rnn_tf.streams import job, report

    promise = PROMISE if command.promise is None else command.promise
    own, test = _own_and_test(run, command.data)
    process.start()
    found = job.answer_early(run, own, test, promise)
    if command.data is None:
        job.keep_early(run, found)
    print(json.dumps(found.to_dict()) if command.json else report.early_as_text(found))
    return 0


def _own_and_test(run: Run, source: str | None) -> tuple[SequenceData, Split]:
    """The data of a run, and the test split that is asked about: theirs, or that of `source`."""
    own = load_data(run)
    asked = own if source is None else load_data(run, source)
    return own.sampled(), as_read(asked.sampled(), run.spec)


def as_json(scores: Scores, spec: SequenceSpec) -> str:
    classes: list[dict[str, Any]] = [
        {
            "label": label,
            "precision": float(scores.precision[i]),
            "recall": float(scores.recall[i]),
            "f1": float(scores.f1[i]),
            "examples": int(scores.confusion[i].sum()),
        }
        for i, label in enumerate(spec.labels)
    ]
    return json.dumps(
        {**scores.summary(), "classes": classes, "confusion": scores.confusion.tolist()}
    )


def as_tables(scores: Scores, spec: SequenceSpec, width: int | None = None) -> str:
    """Overall scores, then a row a class, then what is mistaken for what, as text.

    `width` is that of the terminal in columns, if not given the one that there is: a confusion
    matrix that is wider is replaced by the most frequent mistakes.
    """
    width = width or shutil.get_terminal_size().columns
    matrix = _matrix(scores, spec)
    fits = max(map(cell_len, matrix)) <= width
    return "\n".join(
        (
            f"accuracy  {scores.accuracy:.2%} of {scores.examples:,} {scores.unit}",
            *(_sequence_by_sequence(scores) if isinstance(scores, StepScores) else ()),
            f"balanced  {scores.balanced_accuracy:.2%}, the mean recall of the classes",
            f"macro F1  {scores.macro_f1:.2%}",
            f"majority  {scores.most_frequent_share:.2%} by always answering "
            f"{spec.labels[scores.most_frequent]!r}",
            f"loss      {scores.loss:.4f}",
            "",
            *_class_by_class(scores, spec),
            "",
            *(matrix if fits else _mistakes(scores, spec)),
        )
    )


def _sequence_by_sequence(scores: StepScores) -> list[str]:
    lines = [f"last step {scores.last_step_accuracy:.2%} of {scores.sequences:,} sequences"]
    if scores.sequence_accuracy is not None:
        lines.append(f"sequences {scores.sequence_accuracy:.2%} without an error")
    return lines


def _class_by_class(scores: Scores, spec: SequenceSpec) -> list[str]:
    names = _aligned(("class", *spec.labels))
    return [
        f"{names[0]}  precision   recall       F1  {scores.unit:>8}",
        *(
            f"{name}  {scores.precision[i]:>9.2%}  {scores.recall[i]:>7.2%}  "
            f"{scores.f1[i]:>7.2%}  {scores.confusion[i].sum():>8,}"
            for i, name in enumerate(names[1:])
        ),
    ]


def _matrix(scores: Scores, spec: SequenceSpec) -> list[str]:
    """The confusion matrix: a row for each true class, a column for each predicted one."""
    names = _aligned(("class", *spec.labels))
    cell = max(cell_len(names[0]), len(str(scores.confusion.max()))) + 1
    headings = "".join(" " * (cell - cell_len(label)) + label for label in spec.labels)
    return [
        "confusion: row = true class, column = predicted",
        " " * cell_len(names[0]) + headings,
        *(
            name + "".join(f"{count:>{cell}}" for count in row)
            for name, row in zip(names[1:], scores.confusion.tolist(), strict=True)
        ),
    ]


def _mistakes(scores: Scores, spec: SequenceSpec) -> list[str]:
    """The pairs of classes that are mistaken most often, the most frequent first."""
    counts = scores.confusion.copy()
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[: np.count_nonzero(counts)]
    pairs = [divmod(int(place), len(counts)) for place in order[:MISTAKES_SHOWN]]
    shown = f"the {len(pairs)} most frequent" if len(pairs) < len(order) else "all"
    true = _aligned(("true", *(spec.labels[row] for row, _ in pairs)))
    predicted = _aligned(("predicted", *(spec.labels[column] for _, column in pairs)))
    examples = [scores.unit, *(f"{counts[pair]:,}" for pair in pairs)]
    return [
        f"confusion: {shown} of {len(order):,} kinds of mistake; --json has the whole matrix",
        *(f"{a}  {b}  {c:>8}" for a, b, c in zip(true, predicted, examples, strict=True)),
    ]


def _aligned(names: Sequence[str]) -> list[str]:
    """The names with spaces up to the same width on a terminal, where some characters take two."""
    width = max(map(cell_len, names))
    return [name + " " * (width - cell_len(name)) for name in names]


if __name__ == "__main__":
    raise SystemExit(main())
