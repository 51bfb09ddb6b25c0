"""The charts of a search."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from rnn_tf.config import Objective
from rnn_tf.plots import TRAIN, VALID, save_figure


def plot_search(
    trials: list[dict[str, Any]],
    names: list[str],
    log_scaled: Collection[str],
    front: list[dict[str, Any]],
    path: Path,
    objective: Objective = "accuracy",
) -> None:
    """Scores of a search, as a PNG: over the trials, against size, and against each setting.

    `trials` are rows with `score` (0 to 1, or a loss), `parameters` and the settings `names`, in
    the order in which they ended; `front` those that no smaller one beats; `log_scaled` some
    of `names`.
    """
    columns = 4
    rows = -(-(len(names) + 2) // columns)
    figure = Figure(figsize=(4 * columns, 3.4 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten()
    loss = objective == "loss"
    factor, unit = (1, "") if loss else (100, " (%)")
    scores = factor * np.array([trial["score"] for trial in trials])
    over, size, *each = panels
    numbers = np.arange(1, len(scores) + 1)
    over.plot(numbers, scores, "o", color=TRAIN, markersize=4, label="trial")
    best = (np.minimum if loss else np.maximum).accumulate(scores)
    over.plot(numbers, best, color=VALID, drawstyle="steps-post", label="best so far")
    over.set(title="Over the trials", xlabel="trials ended")
    over.xaxis.get_major_locator().set_params(integer=True)
    over.legend(loc="lower right")
    size.plot([trial["parameters"] for trial in trials], scores, "o", color=TRAIN, markersize=4)
    size.plot(
        [trial["parameters"] for trial in front],
        [factor * trial["score"] for trial in front],
        "o-", color=VALID, label="no smaller one is better",
    )  # fmt: skip
    size.set(title="Against size", xlabel="parameters")
    size.legend(loc="lower right")
    for axes, name in zip(each, names, strict=False):
        _plot_setting(axes, name, [trial[name] for trial in trials], scores, name in log_scaled)
    for axes in each[len(names) :]:
        axes.set_visible(False)
    for axes in panels:
        axes.grid(alpha=0.3)
    for first in panels[::columns]:
        first.set_ylabel(f"validation {objective.replace('_', ' ')}{unit}")
    save_figure(figure, path)


def _plot_setting(axes: Any, name: str, values: list[Any], scores: np.ndarray, log: bool) -> None:
    axes.set_title(name)
    if not all(isinstance(value, str) for value in values):
        axes.plot(values, scores, "o", color=TRAIN, markersize=4)
        if log:
            axes.set_xscale("log")
            axes.tick_params(axis="x", which="minor", labelsize=7)
        return
    names = sorted(set(values))
    # Points of the same choice side by side, or they would hide each other.
    places = [
        names.index(value) + 0.3 * ((7 * i) % 11 / 10 - 0.5) for i, value in enumerate(values)
    ]
    axes.plot(places, scores, "o", color=TRAIN, markersize=4)
    axes.set_xticks(range(len(names)), names, parse_math=False)
    axes.set_xlim(-0.5, len(names) - 0.5)
