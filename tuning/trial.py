"""One trial: a configuration trained as `rnn_tf.train` trains it, and scored on validation."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from rnn_tf.config import TrainConfig
from rnn_tf.data import SequenceData, Split
from rnn_tf.errors import CheckFailed, InputError
from rnn_tf.run import Run, holds_run
from rnn_tf.training.keras import devices

if TYPE_CHECKING:
    from rnn_tf.training.keras.fit import CompiledModels

# Models that stay on disk, the best ones.
KEEP = 3


def without_test(data: SequenceData) -> SequenceData:
    """The data with an empty test split: a search cannot read what it has not got."""
    return dataclasses.replace(data, test=Split(data.test.x[:0], data.test.y[:0]))


def train_trial(
    config: TrainConfig, data: SequenceData, path: Path, kept: CompiledModels | None = None
) -> dict[str, Any]:
    """Train a trial in the folder `path` and say how good it is; a finished one is not run again.

    Returns `val_accuracy`, of its best epoch, `parameters`, `seconds` and `best_epoch`; its
    `metrics.json` also has `resident`, the bytes of memory that the process then held. A trial
    that was interrupted goes on from its last epoch. Raises `CheckFailed` when the loss becomes
    NaN, and whatever else may go wrong with a configuration.
    """
    began = time.perf_counter()
    run = _begun(config, data, path) or Run.create(path, config, data.spec)
    if not run.finished:
        _train(run, data, began, kept)
    told = ("val_accuracy", "parameters", "seconds", "best_epoch")
    return {name: run.metrics[name] for name in told}


def _begun(config: TrainConfig, data: SequenceData, path: Path) -> Run | None:
    """The run that is in `path` already, if it is of this trial."""
    run = Run.open(path) if holds_run(path) else None
    return run if run and (run.config, run.spec) == (config, data.spec) else None


def _train(run: Run, data: SequenceData, began: float, kept: CompiledModels | None) -> None:
    import keras

    from rnn_tf.training.keras import compilation
    from rnn_tf.training.keras.fit import fit

    config = run.config
    run.tidy()
    compilation.keep(run)
    devices.seed_everything(config)
    precision = devices.choose_precision(config.precision)
    strategy = devices.choose_strategy(config)
    try:
        fitted = fit(config, data, run, precision=precision, strategy=strategy, kept=kept)
        if fitted.stopped:
            raise CheckFailed(fitted.stopped)
    except Exception:
        run.drop_checkpoint()  # a trial that failed is not gone on with
        raise
    run.save_model(fitted.model)
    best = fitted.history[fitted.best_epoch - 1]
    run.save_metrics(
        {
            "parameters": fitted.model.count_params(),
            "seconds": round(time.perf_counter() - began, 3),
            "best_epoch": fitted.best_epoch,
            "precision": precision,
            "val_accuracy": best["val_accuracy"],
            "val_loss": best["val_loss"],
            "resident": psutil.Process().memory_info().rss,
        }
    )
    drop_models(run.path.parent)
    # Keras counts the names it has given, and graphs refer to each other in circles.
    keras.utils.clear_session(free_memory=False)
    gc.collect()


def drop_models(folder: Path) -> None:
    """Keep the models of the best trials in `folder` only. The records of all stay."""
    found = []
    for model in folder.glob("trial_*/model.keras"):
        # Another worker may be dropping models too, or just be writing its own.
        with contextlib.suppress(OSError, ValueError, KeyError):
            metrics = json.loads((model.parent / "metrics.json").read_text())
            found.append(((-metrics["val_accuracy"], metrics["parameters"], str(model)), model))
    for _, model in sorted(found)[KEEP:]:
        model.unlink(missing_ok=True)


def check_trials(folder: Path, ended: set[str]) -> None:
    """Raise `InputError` for a trial whose files are damaged: which file, and what is not lost.

    `ended` are the trials whose result the search itself remembers.
    """
    for path in sorted(folder.glob("trial_*")):
        if not holds_run(path):
            continue
        try:
            run = Run.open(path)
            run.history  # noqa: B018 - reading it is the check
            if run.finished:
                run.metrics["val_accuracy"]
        except (InputError, KeyError) as error:
            name = path.name.removeprefix("trial_")
            lost = "its result is kept" if name in ended else "it is trained again"
            raise InputError(
                f"trial {name} is damaged: {error}",
                fix=f"Delete {path} and go on with --resume: {lost}, and no other trial is lost.",
            ) from error
