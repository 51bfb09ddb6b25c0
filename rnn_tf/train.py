"""`python -m rnn_tf.train`: train a classifier and keep everything about it in a run."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import tyro

from rnn_tf.command import arguments, option, parse
from rnn_tf.config import TrainConfig, preset
from rnn_tf.data import SequenceData, Split, load, needs_tensorflow
from rnn_tf.errors import CheckFailed, InputError, one_line_errors
from rnn_tf.run import Run, holds_run, new_path
from rnn_tf.startup import compile_cache, process, xla_flags
from rnn_tf.training.keras import devices

if TYPE_CHECKING:
    import keras
    import numpy as np

    from rnn_tf.scores import Scores
    from rnn_tf.training.progress import ProgressBar
    from rnn_tf.training.recorder import Fitted


def train(
    config: TrainConfig | None = None,
    run_dir: Path | str | None = None,
    *,
    data: SequenceData | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    verbose: bool = False,
) -> Run:
    """Train, evaluate once, and keep all of it in a run directory.

    Without `config`, the `best` preset (or, with `resume`, what the run was begun with); without
    `run_dir`, a new folder under `runs/`; without `data`, what `config.dataset` names.
    `resume` goes on with an interrupted run and gives a finished one back as it is; `overwrite`
    replaces one. Raises `InputError` for bad input, `CheckFailed` when training gives nothing.
    """
    began = time.perf_counter()
    path = Path(run_dir) if run_dir is not None else new_path(config or TrainConfig())
    run = _to_resume(path, config) if resume else None
    if run is None:
        _refuse_to_replace(path, overwrite)
    elif run.finished:
        return run
    config = run.config if run else config or TrainConfig()
    data = data or _load_while_tensorflow_starts(config, verbose)
    start(config, verbose)
    from rnn_tf.model.classifier import build_model

    # What cannot be built is found out before anything on disk is touched.
    build_model(config, data.spec)
    if config.backend == "torch":
        importlib.import_module("rnn_tf.training.torch.fit")
    if run is None:
        run = Run.create(path, config, data.spec)
    elif run.spec != data.spec:
        raise InputError(f"the data are not those that the run was begun with: {config.dataset}")
    run.tidy()
    return _train(run, data, began, progress)


def start(config: TrainConfig, verbose: bool = False) -> None:
    """Start TensorFlow for what `config` trains."""
    whole_loops = xla_flags.is_small(config) if config.backend == "keras" else None
    process.start(whole_loops=whole_loops, verbose=verbose)


def _load_while_tensorflow_starts(config: TrainConfig, verbose: bool) -> SequenceData:
    if needs_tensorflow(config.dataset):
        start(config, verbose)
        return load(config.dataset)
    # Reading the data is native code for the most part, and importing TensorFlow is not.
    with ThreadPoolExecutor(1) as beside:
        loading = beside.submit(load, config.dataset)
        start(config, verbose)
        return loading.result()


def _train(run: Run, data: SequenceData, began: float, progress: bool) -> Run:
    import keras

    devices.seed_everything(run.config)
    way = (_in_torch if run.config.backend == "torch" else _in_keras)(run, data)
    with ThreadPoolExecutor(1) as beside:

        def import_plots(epoch: int, logs: dict[str, float]) -> None:
            # Python is idle while an epoch runs, but not in the first one, which it compiles.
            beside.submit(importlib.import_module, "rnn_tf.plots")

        callbacks = [keras.callbacks.LambdaCallback(on_epoch_end=import_plots)]
        with contextlib.ExitStack() as at_the_end:
            if progress:
                bar = _progress(run, way)
                # Also after Ctrl-C: a bar that is not closed leaves a terminal without its cursor.
                callbacks.append(at_the_end.enter_context(contextlib.closing(bar)))
            fitted = way.fit(callbacks)
        run.save_model(fitted.model)
        scores = _score_and_draw(run, data, way, fitted, beside)
    run.save_metrics(
        {
            "parameters": fitted.model.count_params(),
            "seconds": round(time.perf_counter() - began, 3),
            "best_epoch": fitted.best_epoch,
            "precision": way.precision,
            "stopped": fitted.stopped,
            **{name: split.summary() for name, split in scores.items()},
        }
    )
    compile_cache.record()
    return run


def _score_and_draw(
    run: Run, data: SequenceData, way: Way, fitted: Fitted, beside: ThreadPoolExecutor
) -> dict[str, Scores]:
    """Draw while `beside` scores the splits: scoring leaves Python, which drawing needs, idle.

    Not the other way round: Matplotlib opens its fonts once for each thread that draws, and never
    closes them.
    """
    from rnn_tf import plots
    from rnn_tf.scores import score

    def scored(split: Split) -> Scores:
        return score(way.probabilities(fitted.model, split), split.y)

    splits = {"test": data.test, "train": data.train, "valid": data.valid}
    scoring = {name: beside.submit(scored, split) for name, split in splits.items()}
    plots.plot_curves(fitted.history, fitted.best_epoch, run.curves_file)
    test = scoring["test"].result()
    plots.plot_confusion(test.confusion, data.spec.labels, test.accuracy, run.confusion_file)
    return {name: scoring[name].result() for name in ("train", "valid", "test")}


class Way(NamedTuple):
    """How a backend trains this run."""

    how: str  # for a person
    precision: str  # a Keras dtype policy
    fit: Callable[[list[keras.callbacks.Callback]], Fitted]
    probabilities: Callable[[keras.Sequential, Split], np.ndarray]  # (n, classes)
    waiting: str  # what goes on before the first epoch has ended


def _in_keras(run: Run, data: SequenceData) -> Way:
    from rnn_tf.evaluate import probabilities
    from rnn_tf.training.keras import compilation
    from rnn_tf.training.keras.fit import KEPT, fit, why_not_fused

    config = run.config
    compilation.warn_if_unusual(config)
    compilation.keep(run)
    precision = devices.choose_precision(config.precision)
    strategy = devices.choose_strategy(config)
    reason = why_not_fused(config, data, strategy)
    how = "each epoch one compiled program" if reason is None else f"plain Keras fit: {reason}"
    return Way(
        how=f"{how}{compilation.describe(config)}",
        precision=precision,
        fit=lambda callbacks: fit(
            config,
            data,
            run,
            precision=precision,
            strategy=strategy,
            callbacks=callbacks,
            kept=KEPT if strategy is None else None,
        ),
        probabilities=lambda model, split: probabilities(model, split, data.spec),
        waiting="compiling",
    )


def _in_torch(run: Run, data: SequenceData) -> Way:
    from rnn_tf.training.torch import fit as fit_torch

    config = run.config
    precision = fit_torch.choose_precision(config.precision)
    gradients = "written out" if fit_torch.writes_out(config, precision) else "by autograd"
    return Way(
        how=f"PyTorch on {fit_torch.choose_device().type}, gradients {gradients}",
        precision=precision,
        fit=lambda callbacks: fit_torch.fit(
            config, data, run, precision=precision, callbacks=callbacks
        ),
        probabilities=lambda model, split: fit_torch.probabilities(
            model, split, data.spec, precision=precision
        ),
        waiting="training",
    )


def _progress(run: Run, way: Way) -> ProgressBar:
    """Say which way training goes; the bar that shows how far it is."""
    from rnn_tf.training.progress import ProgressBar

    print(f"training on {run.config.dataset} ({way.how}, {way.precision})", file=sys.stderr)
    return ProgressBar(run.config.epochs, finished=len(run.history), waiting=way.waiting)


def _to_resume(path: Path, config: TrainConfig | None) -> Run | None:
    """The run to go on with; None when it was killed before there was one."""
    if not path.exists():
        raise InputError(f"no run to resume: {path}", fix="Leave --resume out to begin one.")
    if not holds_run(path):
        return None
    run = Run.open(path)
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


def _refuse_to_replace(path: Path, overwrite: bool) -> None:
    if overwrite or not holds_run(path):
        return
    state = "a finished run" if Run.open(path).finished else "an unfinished run"
    fix = "Add --overwrite to replace it, or choose another --run-dir"
    if state == "an unfinished run":
        fix = f"Add --resume to go on with it. {fix}"
    raise InputError(f"the folder already holds {state}: {path}", fix=f"{fix}.")


@dataclass(frozen=True)
class Command:
    """Train a small recurrent classifier, evaluate it once on the test split, keep it as a run.

    Without any option: MNIST, read row by row by SimpleRNN(32) and a softmax.
    """

    preset: str = "best"
    """Where the defaults of the settings come from: best or tutorial."""
    run_dir: Path | None = None
    """The folder for everything about this run. Default: a new one under runs/."""
    resume: bool = False
    """Go on with the interrupted run in --run-dir, with the settings it was begun with."""
    overwrite: bool = False
    """Replace the run in --run-dir."""
    verbose: bool = False
    """Let TensorFlow's own messages through."""
    settings: tyro.conf.OmitArgPrefixes[TrainConfig] = field(default_factory=TrainConfig)
    """What determines the result. All of it is kept in the run's config.json."""


@one_line_errors
def main(argv: Sequence[str] | None = None, prog: str = "python -m rnn_tf.train") -> int:
    argv = arguments(argv)
    command = parse(Command, argv, prog, default=_defaults(argv))
    resuming = command.resume
    if resuming and command.run_dir is None:
        raise InputError("--resume needs the folder of a run", fix="Add --run-dir.")
    run_dir = command.run_dir or new_path(command.settings)
    try:
        run = train(
            command.settings,
            run_dir,
            resume=resuming,
            overwrite=command.overwrite,
            verbose=command.verbose,
        )
    except KeyboardInterrupt:
        epochs = len(Run.open(run_dir).history) if holds_run(run_dir) else 0
        print(f"\nstopped after {epochs} whole epochs", file=sys.stderr)
        if epochs:
            print(f"go on with: {prog} --run-dir {run_dir} --resume", file=sys.stderr)
        return 130
    print(summary(run))
    if run.metrics["stopped"]:
        raise CheckFailed(f"{run.metrics['stopped']}; the best epoch before that was kept")
    return 0


def summary(run: Run) -> str:
    """Five lines: how good, how sure, how large, how long, where."""
    metrics = run.metrics
    test, valid = metrics["test"], metrics["valid"]
    return "\n".join(
        (
            f"accuracy    {test['accuracy']:.2%} test, {valid['accuracy']:.2%} validation",
            f"loss        {test['loss']:.4f} test, {valid['loss']:.4f} validation",
            f"parameters  {metrics['parameters']:,}",
            f"time        {metrics['seconds']:.1f} s, best epoch "
            f"{metrics['best_epoch']} of {len(run.history)}",
            f"run         {run.path}",
        )
    )


def _defaults(argv: Sequence[str]) -> Command:
    """What the options left out mean: a preset's values, or those of the run to resume."""
    name = option(argv, "--preset") or "best"
    run_dir = option(argv, "--run-dir")
    if "--resume" in argv and run_dir is not None and holds_run(Path(run_dir)):
        return Command(preset=name, settings=Run.open(run_dir).config)
    return Command(preset=name, settings=preset(name))


if __name__ == "__main__":
    raise SystemExit(main())
