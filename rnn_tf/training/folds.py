"""Cross-validation: a run for each fold, and what all of them say together.

The training and validation examples are dealt into K folds, stratified or by group. The run of a
fold is an ordinary one, with `fold` among its settings: that fold is its test split, read once at
its end, and validation, which chooses its epoch, is held out of the others. The test split of the
data themselves is not read.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rnn_tf.config import TrainConfig, parse_fold
from rnn_tf.data import SequenceData, load_to_fold
from rnn_tf.data.splits import fold_of
from rnn_tf.errors import InputError
from rnn_tf.files.writing import as_input_errors, write_text
from rnn_tf.run import Run, holds_run, new_folder
from rnn_tf.scores import Scores, pooled, score_split
from rnn_tf.training.backend import Backend, choose_backend
from rnn_tf.training.job import find_run, load_while_tensorflow_starts, start, train

SUMMARY, PICTURE = "folds.json", "confusion.png"
# What is reported as mean, spread and range over the folds.
REPORTED = (
    "accuracy", "last_step_accuracy", "sequence_accuracy", "balanced_accuracy", "macro_f1", "loss",
)  # fmt: skip


@dataclass(frozen=True)
class Folds:
    """Finished folds: their folder, their runs, and what they say together."""

    path: Path
    runs: list[Run]
    summary: dict[str, Any]  # what `folds.json` holds

    def as_text(self) -> str:
        """A line each: how good, as mean, spread and range over the folds, how large, where."""
        names = {
            "accuracy": "accuracy",
            "last_step_accuracy": "last step",
            "sequence_accuracy": "sequences",
            "balanced_accuracy": "balanced",
            "macro_f1": "macro F1",
        }
        lines = [
            f"{said:<11} {of['mean']:.2%} ± {of['std']:.2%} ({of['min']:.2%} to {of['max']:.2%})"
            for said, of in (
                (said, self.summary[name]) for name, said in names.items() if name in self.summary
            )
        ]
        loss, together = self.summary["loss"], self.summary["pooled"]
        majority = repr(self.summary["labels"][together["most_frequent_class"]])
        unit = "steps" if "sequences" in together else "examples"
        return "\n".join(
            (
                *lines,
                f"loss        {loss['mean']:.4f} ± {loss['std']:.4f} "
                f"({loss['min']:.4f} to {loss['max']:.4f})",
                f"majority    {together['most_frequent_share']:.2%} by always answering {majority}",
                f"folds       {len(self.runs)}, of {together['examples']:,} {unit} in all",
                f"runs        {self.path}, all together in {SUMMARY} and {PICTURE}",
            )
        )


def train_folds(
    count: int,
    config: TrainConfig,
    folder: Path | str | None = None,
    *,
    data: SequenceData | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    verbose: bool = False,
    backend: Backend | None = None,
) -> Folds:
    """Train `count` folds in `folder/fold_1`, ..., and keep `folds.json` and a picture beside them.

    Folds that are finished are given back as they are with `resume`, which goes on with those that
    were interrupted. The rest, and what is raised, is as for `rnn_tf.train`; `InputError` also for
    fewer than two folds, and where a class has fewer examples, or the data fewer groups, than that.
    """
    if config.fold:
        raise InputError("--folds trains every fold", got=f"--fold {config.fold}")
    if config.strategy == "multi_worker":
        raise InputError(
            "--folds trains in one process", expected="--strategy auto, none or mirrored",
            got=config.strategy,
        )  # fmt: skip
    if folder is None and resume:
        raise InputError("--resume needs the folder of the folds", fix="Add --run-dir.")
    parse_fold(f"1/{count}")
    configs = [dataclasses.replace(config, fold=f"{i}/{count}") for i in range(1, count + 1)]
    folder = None if folder is None else Path(folder)
    if folder is not None:
        _check_place(folder)
        for path, each in zip(_paths(folder, count), configs, strict=True):
            find_run(path, each, resume=resume, overwrite=overwrite)
    data = data or load_while_tensorflow_starts(config, verbose, load_to_fold)
    for each in configs:
        fold_of(data, each.fold)  # what cannot be trained is refused before anything is written
    start(config, verbose)
    folder = folder or new_folder(config)
    backend = backend or choose_backend(config.backend)
    runs, scores = [], []
    for each, path in zip(configs, _paths(folder, count), strict=True):
        if progress:
            print(f"fold {each.fold}", file=sys.stderr)
        split = fold_of(data, each.fold)
        run = train(
            each, path, data=split, resume=resume, overwrite=overwrite, progress=progress,
            verbose=verbose, backend=backend,
        )  # fmt: skip
        said = backend.probabilities(run, run.load_model(), split.test)
        runs.append(run)
        scores.append(score_split(said, split.test))
    return _kept(folder, runs, scores)


def _paths(folder: Path, count: int) -> list[Path]:
    return [folder / f"fold_{number}" for number in range(1, count + 1)]


def _check_place(folder: Path) -> None:
    """Raise `InputError` for a folder that is a run itself, or holds something else."""
    if holds_run(folder):
        raise InputError(f"the folder holds a run: {folder}", fix="Choose another --run-dir.")
    if folder.exists():
        with as_input_errors(folder):
            names = [entry.name for entry in folder.iterdir()]
        if names and not any(name.startswith("fold_") or name == SUMMARY for name in names):
            raise InputError(
                f"the folder is not empty and holds no folds: {folder}",
                fix="Choose another --run-dir.",
            )


def _kept(folder: Path, runs: list[Run], scores: list[Scores]) -> Folds:
    """Write what all folds say together, as JSON and as a picture."""
    from rnn_tf import plots

    together = pooled(scores)
    labels = runs[0].spec.labels
    summary = {
        "folds": [
            {
                "run": run.path.name,
                **each.summary(),
                **{name: run.metrics[name] for name in ("best_epoch", "seconds")},
            }
            for run, each in zip(runs, scores, strict=True)
        ],
        **{
            name: _spread([each.summary()[name] for each in scores])
            for name in REPORTED
            if name in together.summary()
        },
        "pooled": together.summary(),
        "labels": list(labels),
        "confusion": together.confusion.tolist(),
    }
    title = (
        f"{len(runs)} folds: {together.accuracy:.2%} of {together.examples:,} {together.unit} right"
    )
    plots.plot_confusion(together.confusion, labels, title, folder / PICTURE)
    write_text(folder / SUMMARY, json.dumps(summary, indent=2) + "\n")
    return Folds(folder, runs, summary)


def _spread(values: list[float]) -> dict[str, float]:
    """Mean, standard deviation (of a sample: n - 1) and range of a score over the folds."""
    return {
        "mean": statistics.fmean(values),
        "std": statistics.stdev(values),
        "min": min(values),
        "max": max(values),
    }
