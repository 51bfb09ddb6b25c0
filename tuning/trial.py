"""One trial: a configuration trained as `rnn_tf.train` trains it, and scored on validation."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
from pathlib import Path
from typing import Any

from rnn_tf.config import TrainConfig
from rnn_tf.data import SequenceData
from rnn_tf.errors import CheckFailed, InputError
from rnn_tf.run import Run, holds_run
from rnn_tf.training.backend import Backend
from rnn_tf.training.job import train_run

# Models that stay on disk, the best ones.
KEEP = 3
# How long a trial waits for a process that still trains it: the worker of a search that was killed
# takes a moment to notice. Seconds.
ENDING = 30.0


def without_test(data: SequenceData) -> SequenceData:
    """The data with an empty test split, so that a search cannot read it."""
    return dataclasses.replace(data, test=data.test.take(slice(0)))


def train_trial(
    config: TrainConfig, data: SequenceData, path: Path, backend: Backend
) -> dict[str, Any]:
    """Train a trial in the folder `path` and say how good it is; a finished one is not run again.

    Returns `val_accuracy`, or what else the objective is, of its best epoch, `parameters`,
    `seconds` and `best_epoch`. A trial
    that was interrupted goes on from its last epoch. Raises `CheckFailed` when the loss becomes
    NaN, and whatever else may go wrong with a configuration.
    """
    run = _begun(config, data, path)
    if run is None or not run.finished:
        run = train_run(
            path,
            config,
            data,
            backend,
            resume=run is not None,
            overwrite=True,
            evaluate=False,
            wait=ENDING,
        )
        drop_models(path.parent)
        _forget_graphs()
    if run.metrics["stopped"]:
        raise CheckFailed(run.metrics["stopped"])
    names = ("parameters", "seconds", "best_epoch")
    return {f"val_{config.objective}": score_of(run), **{name: run.metrics[name] for name in names}}


def _begun(config: TrainConfig, data: SequenceData, path: Path) -> Run | None:
    """The run that is in `path` already, if it is of this trial."""
    run = Run.open(path) if holds_run(path) else None
    if run is None or run.config != config:
        return None
    spec = data.answering(config.answer).normalized(run.spec.normalize).spec
    return run if run.spec == spec else None


def finished(config: TrainConfig, data: SequenceData, path: Path) -> Run | None:
    """The trial in the folder `path`, if it is there with its model."""
    run = _begun(config, data, path)
    return run if run is not None and run.complete else None


def score_of(run: Run) -> float:
    """The objective of the best epoch of a finished run, on validation, as training saw it."""
    best = run.history[run.metrics["best_epoch"] - 1]
    return float(best[f"val_{run.config.objective}"])


def _forget_graphs() -> None:
    import keras

    # Keras counts the names it has given, and graphs refer to each other in circles.
    keras.utils.clear_session(free_memory=False)
    gc.collect()


def drop_models(folder: Path) -> None:
    """Keep the models of the best trials in `folder` only. The records of all stay.

    A trial that a user has trained again, and evaluated, keeps its model.
    """
    found = []
    for model in folder.glob("trial_*/model.keras"):
        # Another worker may be dropping models too, or just be writing its own.
        with contextlib.suppress(InputError, KeyError, IndexError):
            run = Run.open(model.parent)
            if "test" not in run.metrics:
                score = score_of(run)
                worse = score if run.config.objective == "loss" else -score
                rank = (worse, run.metrics["parameters"], str(model))
                found.append((bool(run.metrics["stopped"]), rank, model))
    for _, _, model in sorted(found)[KEEP:]:
        model.unlink(missing_ok=True)


def check_trials(folder: Path, ended: set[str]) -> None:
    """Raise `InputError` for a trial whose files are damaged; it says which, and what is lost.

    `ended` are the trials whose result the search itself remembers.
    """
    for path in sorted(folder.glob("trial_*")):
        if not holds_run(path):
            continue
        try:
            run = Run.open(path)
            run.history  # noqa: B018 - to read it is the check
            if run.finished:
                score_of(run)
        except (InputError, KeyError, IndexError, TypeError) as error:
            name = path.name.removeprefix("trial_")
            lost = "its result is kept" if name in ended else "it is trained again"
            raise InputError(
                f"trial {name} is damaged: {error}",
                fix=f"Delete {path} and go on with --resume: {lost}, and no other trial is lost.",
            ) from error
