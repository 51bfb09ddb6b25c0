"""The whole job of a training, data in, run out: for the command and for each trial of a search."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from rnn_tf.config import LEAST_EPOCHS, MOST_EPOCHS, UPDATES, TrainConfig
from rnn_tf.data import SequenceData, Split, describe, load, needs_tensorflow
from rnn_tf.errors import InputError
from rnn_tf.run import Run, check_not_training, check_place, holds_run, lock_run, new_folder
from rnn_tf.startup import compile_cache, forms, process
from rnn_tf.training.backend import Backend, choose_backend
from rnn_tf.training.cluster import Cluster
from rnn_tf.training.keras import devices
from rnn_tf.training.recorder import Fitted

if TYPE_CHECKING:
    import keras

    from rnn_tf.scores import Scores
    from rnn_tf.training.keras.workers import Workers


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a training; `path` is the folder of its run."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path


def train(
    config: TrainConfig | None = None,
    run_dir: Path | str | None = None,
    *,
    data: SequenceData | None = None,
    resume: bool = False,
    overwrite: bool = False,
    evaluate: bool = True,
    progress: bool = True,
    verbose: bool = False,
    backend: Backend | None = None,
) -> Run:
    """Train, evaluate once, and keep all of it in a run directory.

    Without `config`, the `best` preset (or, with `resume`, what the run was begun with); without
    `run_dir`, a new folder under `runs/`; without `data`, what `config.dataset` names; without
    `backend`, the one that `config.backend` names.
    `resume` goes on with an interrupted run, begins one where there is none, and gives a finished
    one back as it is; `overwrite` replaces one. Without `evaluate`, the test split is not read and
    may be empty; `metrics.json` then has the validation scores of the best epoch alone.
    Raises `InputError` for bad input and when another process trains in the same folder,
    `CheckFailed` when training gives nothing.
    """
    began = time.perf_counter()
    path = Path(run_dir) if run_dir is not None else None
    run = None
    helper = helps_another(config)
    if resume and path is None:
        raise InputError("--resume needs the folder of a run", fix="Add --run-dir.")
    if path is not None and not helper:
        # What is in the folder is looked at again under its lock; here, so that nobody waits for
        # TensorFlow to be refused.
        check_not_training(path)
        run = find_run(path, config, resume=resume, overwrite=overwrite)
    elif path is not None and resume and holds_run(path):
        run = Run.open(path)  # the chief's, where both see the same folder
    if run is not None and run.complete:
        return run
    config = run.config if run else config or TrainConfig()
    data = data or load_while_tensorflow_starts(config, verbose)
    start(config, verbose)
    backend = backend or choose_backend(config.backend)
    # What cannot be trained is refused before anything is written.
    _check_trainable(config, data, backend)
    if helper:
        return _help(config, data, backend)
    if config.strategy == "multi_worker":
        _workers().agree(config, data)
    trained = train_run(
        path or new_folder(config),
        config,
        data,
        backend,
        resume=resume,
        overwrite=overwrite,
        evaluate=evaluate,
        progress=progress,
        began=began,
    )
    if config.strategy == "multi_worker":
        _workers().end()
    compile_cache.record()
    return trained


def helps_another(config: TrainConfig | None) -> bool:
    """Whether this process is a worker that is not the chief, and so keeps no run.

    Raises `InputError` when `config` needs several workers and `TF_CONFIG` does not name them.
    """
    if config is None or config.strategy != "multi_worker":
        return False
    return not Cluster.from_environment().is_chief


def _help(config: TrainConfig, data: SequenceData, backend: Backend) -> Run:
    """Train as a worker that is not the chief, in a folder that is gone when this returns."""
    with tempfile.TemporaryDirectory(prefix="rnn-tf-worker-") as folder:
        _workers().agree(config, data)
        run = train_run(Path(folder) / "run", config, data, backend, evaluate=False)
        _workers().end()
    return run


def _workers() -> Workers:
    from rnn_tf.training.keras import workers

    return workers.joined()


def start(config: TrainConfig, verbose: bool = False) -> None:
    """Start TensorFlow for what `config` trains."""
    whole_loops = forms.whole_loops(config) if config.backend == "keras" else None
    join = _join if config.strategy == "multi_worker" else None
    process.start(whole_loops=whole_loops, verbose=verbose, join=join)


def _join() -> None:
    from rnn_tf.training.keras import workers

    workers.join(Cluster.from_environment())


def load_while_tensorflow_starts(
    config: TrainConfig, verbose: bool = False, load: Callable[..., SequenceData] = load
) -> SequenceData:
    """What `load(config, to_train=True)` gives, and TensorFlow started for what `config` trains."""
    if needs_tensorflow(config):
        start(config, verbose)
        return load(config, to_train=True)
    # Reading the data is native code for the most part, and importing TensorFlow is not.
    with ThreadPoolExecutor(1) as beside:
        loading = beside.submit(load, config, to_train=True)
        start(config, verbose)
        return loading.result()


def train_run(
    path: Path,
    config: TrainConfig,
    data: SequenceData,
    backend: Backend,
    *,
    resume: bool = False,
    overwrite: bool = False,
    evaluate: bool = True,
    progress: bool = False,
    began: float | None = None,
    wait: float = 0.0,
) -> Run:
    """Train `config` on `data` in the folder `path`, under its lock.

    With `evaluate`, every split is scored at the end, the test split for the only time, and
    pictures are drawn. Without, `metrics.json` has the validation scores of the best epoch alone.
    `began` is the `time.perf_counter()` from which the run's seconds count, `wait` how many
    seconds to wait for another process that trains in `path`. The rest, and what is raised, is
    as for `train`; an interrupted training raises `Interrupted`.
    """
    began = time.perf_counter() if began is None else began
    try:
        with lock_run(path, wait):
            run = find_run(path, config, resume=resume, overwrite=overwrite)
            if run is not None and run.complete:
                return run
            # A run that goes on keeps its own.
            normalize = run.spec.normalize if run else config.normalize
            data = data.answering(config.answer).normalized(normalize)
            if run is not None and run.spec != data.spec:
                raise InputError(
                    f"the data are not those that the run was begun with: {config.dataset}"
                )
            if resume and run is None and progress:
                print(f"nothing to resume in {path}: a new run begins", file=sys.stderr)
            if run is None or run.finished:  # finished, but its model is gone
                run = Run.create(path, config, data.spec)
            run.tidy()
            _train(run, data, backend, evaluate=evaluate, progress=progress, began=began)
    except KeyboardInterrupt:
        raise Interrupted(path) from None
    return run


def evaluated(trained: Run, path: Path, data: SequenceData, backend: Backend) -> Run:
    """What `train` with `evaluate` gives in the folder `path`, of a run `trained` without.

    In place of any run that is there. `data` is what it was trained on, with a test split. Raises
    `InputError` when another process trains in `path`.
    """
    with lock_run(path), ThreadPoolExecutor(1) as beside:
        run = Run.create(path, trained.config, trained.spec)
        trained.copy_training(run)
        metrics = trained.metrics
        fitted = Fitted(
            trained.load_model(), trained.history, metrics["best_epoch"], metrics["stopped"]
        )
        data = data.answering(run.config.answer).normalized(run.spec.normalize)
        scores = _score_and_draw(run, data, backend, fitted, beside)
        run.save_metrics({**metrics, **scores})
    return run


def find_run(
    path: Path, config: TrainConfig | None, *, resume: bool, overwrite: bool
) -> Run | None:
    """The run in `path` to go on with, or to give back if it is complete; None to begin one.

    Raises `InputError` when `path` holds what may not be replaced, or when the run to resume was
    begun with other settings than `config`.
    """
    check_place(path)
    if not holds_run(path) or (overwrite and not resume):
        return None
    run = Run.open(path)
    if not resume:
        raise _occupied(run)
    run.require_no_failure()
    if config is not None and config != run.config:
        name = next(
            field.name
            for field in dataclasses.fields(config)
            if getattr(config, field.name) != getattr(run.config, field.name)
        )
        raise InputError(
            f"the run was begun with another {name}",
            expected=repr(getattr(run.config, name)),
            got=repr(getattr(config, name)),
            fix="Leave the setting out, or begin a new run in another --run-dir.",
        )
    return run


def _occupied(run: Run) -> InputError:
    state, fix = "a finished run", "Add --overwrite to replace it, or choose another --run-dir."
    if run.failed:
        state = "a run that ended without a model"
    elif not run.finished:
        state, fix = "an unfinished run", f"Add --resume to go on with it. {fix}"
    return InputError(f"the folder already holds {state}: {run.path}", fix=fix)


def _check_trainable(config: TrainConfig, data: SequenceData, backend: Backend) -> None:
    """Raise `InputError` for what only Keras, or the backend, knows to be impossible."""
    from rnn_tf.model.classifier import build_model

    build_model(config, data.answering(config.answer).spec)
    backend.describe(config, data)
    backend.precision(config)


def _train(
    run: Run, data: SequenceData, backend: Backend, *, evaluate: bool, progress: bool, began: float
) -> None:
    """From the last epoch of the run, or the start, to its `metrics.json`."""
    from rnn_tf.training.callbacks import after_first_epoch

    keep_profile = functools.cache(lambda: _keep_profile(run, data))
    with devices.random_numbers_put_back(), ThreadPoolExecutor(1) as beside:
        devices.seed_everything(run.config)
        tasks: list[Callable[[], None]] = [keep_profile]
        if evaluate:
            tasks.append(_import_plots)
        callback = after_first_epoch(lambda: [beside.submit(task) for task in tasks])
        scorer = beside if evaluate else None
        fitted = _fit(run, data, backend, callback, scorer, progress=progress)
        run.save_model(fitted.model)
        if evaluate:
            scores = _score_and_draw(run, data, backend, fitted, beside)
        else:
            scores = {"valid": _best_validation(fitted, data)}
        # If there was no epoch to do it in; raises what was raised there.
        beside.submit(keep_profile).result()
    run.save_metrics(
        {
            "parameters": fitted.model.count_params(),
            "seconds": round(time.perf_counter() - began, 3),
            "best_epoch": fitted.best_epoch,
            "precision": backend.precision(run.config),
            "stopped": fitted.stopped,
            "ended_early": fitted.ended_early,
            "resident": psutil.Process().memory_info().rss,  # bytes
            **scores,
        }
    )


def _fit(
    run: Run,
    data: SequenceData,
    backend: Backend,
    callback: keras.callbacks.Callback,
    scorer: Executor | None,
    *,
    progress: bool,
) -> Fitted:
    """Train, and show how far it is; meanwhile `scorer` gets ready for what it will do."""
    callbacks = [callback]
    with contextlib.ExitStack() as at_the_end:
        if progress:
            print(describe(data), file=sys.stderr)
            print(_what_begins(run, data, backend), file=sys.stderr)
            from rnn_tf.training.progress import ProgressBar

            epochs = run.config.epochs_for(len(data.train.y))
            balanced = run.config.objective == "balanced_accuracy"
            bar = ProgressBar(
                epochs,
                len(run.history),
                waiting=backend.first_epoch,
                score="balanced_accuracy" if balanced else "accuracy",
            )
            # Also after Ctrl-C: a bar that is not closed leaves a terminal without its cursor.
            callbacks.append(at_the_end.enter_context(contextlib.closing(bar)))
        return backend.fit(run, data, callbacks, scorer)


def _what_begins(run: Run, data: SequenceData, backend: Backend) -> str:
    """`training on mnist (10 epochs, 8,600 updates of 64 examples; ...)`: how long, and how."""
    config, examples = run.config, len(data.train.y)
    epochs = config.epochs_for(examples)
    updates = (
        f"{epochs * config.updates_an_epoch(examples):,} updates of "
        f"{config.batch_size_for(examples):,} examples"
    )
    bounds = {LEAST_EPOCHS: "the fewest", MOST_EPOCHS: "the most"}
    length = f"{epochs:,} epoch{'s' if epochs > 1 else ''}, {updates}"
    if config.epochs == "auto":
        why = f"{bounds[epochs]} of" if epochs in bounds else f"for {UPDATES:,} updates by"
        length = f"{epochs:,} epochs, {why} --epochs auto, {updates}"
    how, precision = backend.describe(config, data), backend.precision(config)
    settings = config.resolved(run.spec, examples)
    how += f", {precision}, learning rate {settings.learning_rate:.2g}"
    for name in ("dropout", "noise"):
        if value := getattr(settings, name):
            how += f", {name} {value:.2g}"
    return f"training on {config.dataset} ({length}; {how})"


def _best_validation(fitted: Fitted, data: SequenceData) -> dict[str, Any]:
    """The validation scores of the best epoch, as they were when it ended."""
    best = fitted.history[fitted.best_epoch - 1]
    names = ("accuracy", "balanced_accuracy", "last_step_accuracy", "sequence_accuracy", "loss")
    found = {name: best[f"val_{name}"] for name in names if f"val_{name}" in best}
    return {**found, "examples": len(data.valid.y)}


def _import_plots() -> None:
    importlib.import_module("rnn_tf.plots")


def _keep_profile(run: Run, data: SequenceData) -> None:
    from rnn_tf.data.profile import measure

    measure(data).save(run.profile_file)


def _score_and_draw(
    run: Run, data: SequenceData, backend: Backend, fitted: Fitted, beside: Executor
) -> dict[str, Any]:
    """Draw while `beside` scores what no picture waits for: scoring leaves Python mostly idle.

    The test split before that, since a thread that asks for Python, as scoring does now and then,
    waits long for one that draws. Nor does `beside` draw: Matplotlib opens its fonts once for each
    thread that does, and never closes them.
    """
    from rnn_tf import plots
    from rnn_tf.scores import score_in_parts, score_split

    def score(part: Split) -> Scores:
        return score_split(backend.probabilities(run, fitted.model, part), part)

    def scored(split: Split) -> Scores:
        return score_in_parts(score, split, run.spec)

    test = beside.submit(scored, data.test).result()  # after what it has got ready
    train, valid = (beside.submit(scored, split) for split in (data.train, data.valid))
    plots.plot_curves(fitted.history, fitted.best_epoch, run.curves_file)
    title = f"Test split: {test.accuracy:.2%} of {test.examples:,} {test.unit} right"
    plots.plot_confusion(test.confusion, data.spec.labels, title, run.confusion_file)
    scores = {"train": train.result(), "valid": valid.result(), "test": test}
    return {name: of_split.summary() for name, of_split in scores.items()}
