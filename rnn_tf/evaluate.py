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
from rnn_tf.errors import InputError, one_line_errors
from rnn_tf.run import Run
from rnn_tf.scores import Scores, score
from rnn_tf.startup import process

# Kinds of mistake that are listed when the whole matrix is wider than the terminal.
MISTAKES_SHOWN = 20


# What the data of a model must have in common with those that it was trained on, beside lengths.
COMPARED = ("features",)


def evaluate(run: Run, source: str | None = None) -> Scores:
    """Score a run's best model on a test split: its own data set's, or that of `source`.

    All of `source` is scored where it has no test split. Raises `InputError` when the run is not
    finished, or `source` has another specification.
    """
    run.require_finished()
    where = run.config if source is None else elsewhere(run.config, source, run.spec.labels)
    if needs_tensorflow(where):
        process.start()
    data = load(where)
    check_fits(run.spec, data.spec, where.dataset)
    process.start()
    from rnn_tf.training.keras.backend import probabilities

    test = as_read(data, run.spec)
    return score(probabilities(run.load_model(), test, run.spec), test.y)


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
    classes = _classes(spec, data.spec, "the data")
    split = data.test._replace(y=classes[data.test.y])
    if not spec.varies:
        return split
    examples, steps, _ = split.x.shape
    lengths = np.full(examples, steps, np.int32) if split.lengths is None else split.lengths
    return split._replace(
        x=np.pad(split.x, ((0, 0), (0, spec.longest - steps), (0, 0))), lengths=lengths
    )


@dataclass(frozen=True)
class Command:
    """Score a model on the whole test split: overall, class by class, and what it mistakes."""

    run: tyro.conf.Positional[Path]
    """The folder of a finished run."""
    data: str | None = None
    """Another data set of the same specification, in any of the forms that training takes."""
    json: bool = False
    """Print one JSON object instead of tables."""


@one_line_errors
def main(argv: Sequence[str] | None = None, prog: str = "python -m rnn_tf.evaluate") -> int:
    command = parse(Command, arguments(argv), prog)
    run = Run.open(command.run)
    scores = evaluate(run, command.data)
    print(as_json(scores, run.spec) if command.json else as_tables(scores, run.spec))
    return 0


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
            f"accuracy  {scores.accuracy:.2%} of {scores.examples:,} examples",
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


def _class_by_class(scores: Scores, spec: SequenceSpec) -> list[str]:
    names = _aligned(("class", *spec.labels))
    return [
        f"{names[0]}  precision   recall       F1  examples",
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
    examples = ["examples", *(f"{counts[pair]:,}" for pair in pairs)]
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
