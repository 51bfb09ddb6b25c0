"""What a search has found: a table, a picture, and logs for TensorBoard."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnn_tf.config import Objective, TrainConfig
from rnn_tf.files.writing import write_text
from rnn_tf.run import Run
from tuning.space import FOR, configure, parameters

if TYPE_CHECKING:
    from tuning.oracles import Durable

# A row of the leaderboard: column -> value, None where there is none.
Row = dict[str, Any]


def leaderboard(oracle: Durable, base: TrainConfig) -> list[Row]:
    """A row a trial, the best first; of equals the smaller model, then the earlier trial.

    `trial`, every setting that the search varies, `score` (the objective of the best epoch on the
    validation split: accuracy 0 to 1, or loss), `parameters`, `seconds`, and `status`: completed,
    running, or failed and why.
    """
    names = varied(oracle)
    rows = []
    for name, trial in oracle.trials.items():
        config = config_of(oracle, name, base)
        settings = {setting: getattr(config, setting) for setting in names}
        row: Row = {"trial": name, **settings, "score": None}
        row["parameters"] = parameters(config, oracle.spec)
        row["seconds"] = None
        row["status"] = trial.status.lower()
        if trial.status == "COMPLETED":
            row["score"] = float(f"{trial.score:.6g}")  # float32 has no more digits
            row["seconds"] = round(trial.metrics.get_last_value("seconds"), 3)
        elif trial.status == "FAILED":
            row["status"] = f"failed: {trial.message}"
        rows.append(row)
    return sorted(rows, key=lambda row: _rank(row, base.objective))


def _rank(row: Row, objective: Objective) -> tuple[Any, ...]:
    if row["score"] is None:
        return (1, row["status"] != "running", row["trial"])
    return (0, -_goodness(row, objective), row["parameters"], row["trial"])


def _goodness(row: Row, objective: Objective) -> float:
    """The score of a row, turned so that more is better."""
    score = float(row["score"])
    return -score if objective == "loss" else score


def said(score: float, objective: Objective) -> str:
    """A score for a person."""
    return f"{score:.4f}" if objective == "loss" else f"{score:.2%}"


def varied(oracle: Durable) -> list[str]:
    """The settings that the search varies; hyperband says how long each trial is trained too."""
    names = [hp.name.partition(FOR)[0] for hp in oracle.hyperparameters.space]
    budget = ["epochs"] if hasattr(oracle, "max_epochs") else []
    return [*dict.fromkeys(names), *budget]


def config_of(oracle: Durable, trial: str, base: TrainConfig) -> TrainConfig:
    """What a trial trains."""
    return configure(oracle.trials[trial].hyperparameters.values, base)


def write_leaderboard(rows: list[Row], directory: Path) -> None:
    """`leaderboard.csv` and `leaderboard.json`, each written whole."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write_text(directory / "leaderboard.csv", text.getvalue())
    write_text(directory / "leaderboard.json", json.dumps(rows, indent=2) + "\n")


def write_report(
    rows: list[Row], oracle: Durable, directory: Path, objective: Objective = "accuracy"
) -> None:
    """`report.png` and the TensorBoard logs of a search with at least one scored trial."""
    from tuning.charts import plot_search

    scored = [row for row in rows if row["score"] is not None]
    order = sorted(scored, key=lambda row: oracle.end_order.index(row["trial"]))
    front = pareto(scored, objective)
    plot_search(
        order, varied(oracle), log_scaled(oracle), front, directory / "report.png", objective
    )
    write_hparams(scored, varied(oracle), directory / "hparams", objective)


def log_scaled(oracle: Durable) -> set[str]:
    """The settings that are searched by order of magnitude."""
    return {
        hp.name.partition(FOR)[0]
        for hp in oracle.hyperparameters.space
        if getattr(hp, "sampling", None) == "log"
    }


def pareto(rows: list[Row], objective: Objective = "accuracy") -> list[Row]:
    """The rows that no other beats in score without more parameters, by parameters."""

    def goodness(row: Row) -> float:
        return _goodness(row, objective)

    front: list[Row] = []
    for row in sorted(rows, key=lambda row: (row["parameters"], -goodness(row))):
        if not front or goodness(row) > goodness(front[-1]):
            front.append(row)
    return front


def write_hparams(
    rows: list[Row], names: list[str], directory: Path, objective: Objective = "accuracy"
) -> None:
    """The trials for TensorBoard's HParams page, in place of those of an earlier report."""
    import tensorflow as tf
    from tensorboard.plugins.hparams import api

    shutil.rmtree(directory, ignore_errors=True)
    with tf.summary.create_file_writer(str(directory)).as_default():
        metrics = [
            api.Metric("score", display_name=f"validation {objective.replace('_', ' ')}"),
            api.Metric("parameters"),
        ]
        api.hparams_config(hparams=[api.HParam(name) for name in names], metrics=metrics)
    for row in rows:
        writer = tf.summary.create_file_writer(str(directory / f"trial_{row['trial']}"))
        with writer.as_default(step=0):
            api.hparams({name: row[name] for name in names}, trial_id=row["trial"])
            for metric in ("score", "parameters"):
                tf.summary.scalar(metric, row[metric])
        writer.close()


def table(rows: list[Row], most: int = 10) -> str:
    """The first rows of the leaderboard as text."""
    head = list(rows[0])
    cells = [head, *([_cell(row[name]) for name in head] for row in rows[:most])]
    widths = [max(len(line[i]) for line in cells) for i in range(len(head))]
    lines = [
        "  ".join(f"{cell:>{w}}" for cell, w in zip(line, widths, strict=True)) for line in cells
    ]
    if len(rows) > most:
        lines.append(f"… and {len(rows) - most} more")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def summary(directory: Path, best: Run) -> str:
    """The table, how good the winner is, and where everything is."""
    rows = json.loads((directory / "leaderboard.json").read_text())
    metrics = best.metrics
    return "\n".join(
        (
            table(rows),
            "",
            f"best      {metrics['valid']['accuracy']:.2%} validation, "
            f"{metrics['test']['accuracy']:.2%} test, {metrics['parameters']:,} parameters",
            f"run       {best.path}",
            f"trials    {directory / 'leaderboard.csv'}",
            f"picture   {directory / 'report.png'}",
        )
    )
