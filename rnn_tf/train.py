"""`python -m rnn_tf.train`: train a classifier and keep everything about it in a run."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

from rnn_tf.command import arguments, option, parse, without_options
from rnn_tf.config import TrainConfig, preset
from rnn_tf.errors import CheckFailed, InputError, one_line_errors
from rnn_tf.run import Run, holds_run, new_folder
from rnn_tf.training import divergence
from rnn_tf.training.job import Interrupted, helps_another, train
from rnn_tf.training.launch import train_with_workers

__all__ = ["main", "summary", "train"]


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
    """Go on with the interrupted run in --run-dir, with the settings it was begun with, or begin
    one if there is none."""
    overwrite: bool = False
    """Replace the run in --run-dir."""
    folds: int | None = None
    """Cross-validation: train so many models, each tested on another part of the training and
    validation examples, in --run-dir/fold_1 and so on; says their mean and spread. The test split
    is left alone. Parts are stratified by class; groups stay together."""
    workers: int | None = None
    """Train in so many processes on this machine, each with its part of every batch: --strategy
    multi_worker, with a TF_CONFIG for each."""
    verbose: bool = False
    """Let TensorFlow's own messages through."""
    settings: tyro.conf.OmitArgPrefixes[TrainConfig] = field(default_factory=TrainConfig)
    """What determines the result. All of it is kept in the run's config.json."""


@one_line_errors
def main(argv: Sequence[str] | None = None, prog: str = "python -m rnn_tf.train") -> int:
    argv = arguments(argv)
    command = parse(Command, argv, prog, default=_defaults(argv))
    if command.workers is not None:
        return _train_with_workers(command, command.workers, argv, prog)
    if command.folds is not None:
        return _train_folds(command, command.folds, prog)
    try:
        run = train(
            command.settings,
            command.run_dir,
            resume=command.resume,
            overwrite=command.overwrite,
            verbose=command.verbose,
        )
    except KeyboardInterrupt as stop:
        path = stop.path if isinstance(stop, Interrupted) else command.run_dir
        return _stopped(path, prog)
    if helps_another(run.config):
        return 0
    print(summary(run))
    if said := no_better_than_guessing(run):
        print(said, file=sys.stderr)
    if run.metrics["stopped"]:
        raise CheckFailed(
            f"{run.metrics['stopped']}; the best epoch before that was kept. For a better one, "
            f"{divergence.advice(run.config, run.spec)}"
        )
    return 0


def _stopped(path: Path | None, prog: str) -> int:
    """Say how far an interrupted training has come, and how to go on with it."""
    epochs = len(Run.open(path).history) if path and holds_run(path) else 0
    print(f"\nstopped after {epochs} whole epochs", file=sys.stderr)
    if epochs:
        print(f"go on with: {prog} --run-dir {path} --resume", file=sys.stderr)
    return 130


def _train_with_workers(command: Command, workers: int, argv: Sequence[str], prog: str) -> int:
    """Have several processes train, each by this command with `--strategy multi_worker`."""
    settings = command.settings
    if workers < 1:
        raise InputError("bad workers", expected="a whole number >= 1", got=workers)
    if command.folds is not None:
        raise InputError("--workers trains one model", fix="Leave out --workers or --folds.")
    if settings.strategy not in ("auto", "multi_worker"):
        raise InputError(
            "--workers needs another strategy", expected="multi_worker", got=settings.strategy,
            fix="Leave --strategy out.",
        )  # fmt: skip
    dataclasses.replace(settings, strategy="multi_worker")  # refuses what it cannot be with
    # Chosen here, to be known whatever happens to the processes.
    path = command.run_dir or new_folder(settings)
    rest = without_options(argv, "--workers", "--strategy", "--run-dir")
    theirs = [*rest, "--run-dir", str(path), "--strategy", "multi_worker"]
    try:
        return train_with_workers(workers, main, theirs, prog)
    except KeyboardInterrupt:
        return _stopped(path, f"{prog} --workers {workers}")
    except CheckFailed as failed:
        go_on = f"{prog} --workers {workers} --run-dir {path} --resume"
        raise CheckFailed(f"{str(failed).rstrip('.')}. Go on with: {go_on}") from None
    finally:
        if command.run_dir is None:
            with contextlib.suppress(OSError):  # a run is in it
                path.rmdir()


def _train_folds(command: Command, count: int, prog: str) -> int:
    from rnn_tf.training.folds import train_folds

    try:
        folds = train_folds(
            count,
            command.settings,
            command.run_dir,
            resume=command.resume,
            overwrite=command.overwrite,
            verbose=command.verbose,
        )
    except KeyboardInterrupt as stop:
        folder = stop.path.parent if isinstance(stop, Interrupted) else command.run_dir
        go_on = f"{prog} --folds {count} --run-dir {folder} --resume"
        print(f"\nstopped; go on with: {go_on}" if folder else "\nstopped", file=sys.stderr)
        return 130
    print(folds.as_text())
    for run in folds.runs:
        if run.metrics["stopped"]:
            raise CheckFailed(
                f"{run.metrics['stopped']} in {run.path}; its best epoch before that was kept"
            )
    return 0


# The shares of what is right that a summary has, by the names that `metrics.json` has for them.
SHARES = (
    ("accuracy", "accuracy", ""),
    ("last step", "last_step_accuracy", ""),
    ("sequences", "sequence_accuracy", " without an error"),
)


def summary(run: Run) -> str:
    """A line each: how good, also if classes count alike, how sure, how large, how long, where.

    Without test scores where the run has none: it was trained and not evaluated. Without balanced
    scores where an older version has trained it.
    """
    metrics = run.metrics
    splits = {"test": "test", "valid": "validation"}
    scored = [(said, metrics[name]) for name, said in splits.items() if name in metrics]

    def share(name: str) -> str:
        return ", ".join(f"{of[name]:.2%} {said}" for said, of in scored if name in of)

    shares = (f"{said:<12}{share(name)}{of_what}" for said, name, of_what in SHARES if share(name))
    return "\n".join(
        (
            *shares,
            *_balanced(metrics.get("test", {})),
            # z: a loss of -0.0, or one that rounding makes so, is zero.
            "loss        " + ", ".join(f"{of['loss']:z.4f} {said}" for said, of in scored),
            f"parameters  {metrics['parameters']:,}",
            f"time        {metrics['seconds']:.1f} s, best epoch "
            f"{metrics['best_epoch']} of {len(run.history)}{_ended_early(run)}",
            f"run         {run.path}",
        )
    )


def _balanced(test: dict[str, Any]) -> list[str]:
    """How good it is where a frequent class counts no more than others, beside knowing nothing."""
    if "balanced_accuracy" not in test:
        return []
    return [
        f"balanced    {test['balanced_accuracy']:.2%} test, macro F1 {test['macro_f1']:.2%}; "
        f"the most frequent class alone {test['most_frequent_share']:.2%}"
    ]


def _ended_early(run: Run) -> str:
    patience = run.config.patience
    return f", ended by --patience {patience}" if run.metrics.get("ended_early") else ""


def no_better_than_guessing(run: Run) -> str | None:
    """What to say when the test accuracy is that of one answer for all examples, or below."""
    # A trial of a search has no test scores, and a run of an older version does not say which
    # class is the most frequent.
    test = run.metrics.get("test", {})
    if "most_frequent_share" not in test or test["accuracy"] > test["most_frequent_share"]:
        return None
    label = run.spec.labels[test["most_frequent_class"]]
    return (
        f"the model is no better on the test split than always answering {label!r} "
        f"({test['most_frequent_share']:.2%})"
    )


def _defaults(argv: Sequence[str]) -> Command:
    """What the options left out mean: a preset's values, or those of the run to resume."""
    name = option(argv, "--preset") or "best"
    run_dir = option(argv, "--run-dir")
    if "--resume" in argv and run_dir is not None:
        if holds_run(Path(run_dir)):
            return Command(preset=name, settings=Run.open(run_dir).config)
        first = Path(run_dir) / "fold_1"
        if option(argv, "--folds") is not None and holds_run(first):
            settings = dataclasses.replace(Run.open(first).config, fold="")
            return Command(preset=name, settings=settings)
    return Command(preset=name, settings=preset(name))


if __name__ == "__main__":
    raise SystemExit(main())
