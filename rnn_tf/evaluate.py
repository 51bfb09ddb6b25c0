"""`python -m rnn_tf.evaluate RUN`: how good a trained model is, class by class."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tyro

from rnn_tf.command import arguments, parse
from rnn_tf.data import SequenceSpec, Split, load, needs_tensorflow
from rnn_tf.errors import InputError, one_line_errors
from rnn_tf.run import Run
from rnn_tf.scores import Scores, score
from rnn_tf.startup import process

if TYPE_CHECKING:
    import keras


def probabilities(model: keras.Sequential, split: Split, spec: SequenceSpec) -> np.ndarray:
    """The model's probabilities for every example of a split: float32 `(n, classes)`."""
    from rnn_tf.training.keras.batches import evaluation_batches
    from rnn_tf.training.keras.tracing import new_programs_expected

    with new_programs_expected():
        result: np.ndarray = model.predict(evaluation_batches(split, spec), verbose=0)
    return result


def evaluate(run: Run, source: str | None = None) -> Scores:
    """Score a run's best model on a test split: its own data set's, or that of `source`.

    Raises `InputError` when the run is not finished, or `source` has another specification.
    """
    run.require_finished()
    source = source or run.config.dataset
    if needs_tensorflow(source):
        process.start()
    data = load(source)
    check_fits(run.spec, data.spec, source)
    process.start()
    return score(probabilities(run.load_model(), data.test, data.spec), data.test.y)


def check_fits(trained: SequenceSpec, given: SequenceSpec, source: str) -> None:
    """Raise `InputError` unless a model for `trained` can be evaluated on `given`."""
    for name in ("timesteps", "features", "classes", "scale"):
        expected, got = getattr(trained, name), getattr(given, name)
        if expected != got:
            raise InputError(
                f"{source} is not of the run's specification",
                expected=f"{name} {expected}",
                got=got,
            )
    # Numbers are what classes are called when nobody has named them.
    numbers = tuple(map(str, range(given.classes)))
    if given.labels not in (trained.labels, numbers):
        raise InputError(
            f"{source} has other labels than the run, or in another order",
            expected=", ".join(trained.labels),
            got=", ".join(given.labels),
        )


@dataclass(frozen=True)
class Command:
    """Score a model on the whole test split: overall, class by class, and what it mistakes."""

    run: tyro.conf.Positional[Path]
    """The folder of a finished run."""
    data: str | None = None
    """Another data set of the same specification: mnist, tfds:<name> or <file>.npz."""
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


def as_tables(scores: Scores, spec: SequenceSpec) -> str:
    """Overall scores, then a row a class, then the confusion matrix, as text."""
    name = max(5, *map(len, spec.labels))
    cell = max(name, len(str(scores.confusion.max()))) + 1
    lines = [
        f"accuracy  {scores.accuracy:.2%} of {scores.examples:,} examples",
        f"loss      {scores.loss:.4f}",
        "",
        f"{'class':<{name}}  precision  recall      F1  examples",
    ]
    lines += [
        f"{label:<{name}}  {scores.precision[i]:>9.2%}  {scores.recall[i]:>6.2%}  "
        f"{scores.f1[i]:>6.2%}  {scores.confusion[i].sum():>8,}"
        for i, label in enumerate(spec.labels)
    ]
    lines += [
        "",
        "confusion: row = true class, column = predicted",
        " " * name + "".join(f"{label:>{cell}}" for label in spec.labels),
    ]
    lines += [
        f"{label:<{name}}" + "".join(f"{count:>{cell}}" for count in row)
        for label, row in zip(spec.labels, scores.confusion.tolist(), strict=True)
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
