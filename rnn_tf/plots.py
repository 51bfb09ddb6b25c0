"""Pictures of a run: the curves of its training and where it confuses classes."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rnn_tf.files.writing import writing

# One colour for what is trained on, one for what is not; told apart also in grey.
TRAIN, VALID = "#4c78a8", "#e45756"
# More classes than this make the numbers in the cells unreadable.
CLASSES_WITH_NUMBERS = 20


def plot_curves(history: list[dict[str, Any]], best_epoch: int, path: Path) -> None:
    """Loss, accuracy and learning rate over the epochs, the best epoch marked, as a PNG."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    loss, accuracy, rate = figure.subplots(1, 3)
    epochs = [record["epoch"] for record in history]
    for axes, name, factor in ((loss, "loss", 1), (accuracy, "accuracy", 100)):
        for key, label, colour in ((name, "train", TRAIN), (f"val_{name}", "validation", VALID)):
            values = [record[key] * factor for record in history]
            axes.plot(epochs, values, color=colour, marker="o", markersize=3, label=label)
        axes.axvline(best_epoch, color="grey", linestyle=":", label=f"best epoch: {best_epoch}")
    loss.set(title="Loss (cross-entropy)", yscale="log")
    accuracy.set(title="Accuracy (%)")
    accuracy.legend(loc="lower right")
    rate.plot(epochs, [record["learning_rate"] for record in history], color="black", marker=".")
    rate.set(title="Learning rate at the end of the epoch")
    for axes in (loss, accuracy, rate):
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    _save(figure, path)


def plot_confusion(
    confusion: np.ndarray, labels: tuple[str, ...], accuracy: float, path: Path
) -> None:
    """The confusion matrix `(classes, classes)` as a PNG: row = true class, colour = its share."""
    classes = len(labels)
    side = min(12.0, 3.0 + 0.4 * classes)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    # Almost everything is on the diagonal: a root brings the few mistakes out.
    image = axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)
    if classes <= CLASSES_WITH_NUMBERS:
        for (row, column), count in np.ndenumerate(confusion):
            if count:
                colour = "white" if shares[row, column] > 0.4 else "black"
                axes.text(column, row, str(count), ha="center", va="center", color=colour, size=8)
        upright = max(map(len, labels)) <= 3
        # A label is a name, also when it has dollar signs.
        axes.set_xticks(range(classes), labels, rotation=0 if upright else 90, parse_math=False)
        axes.set_yticks(range(classes), labels, parse_math=False)
    axes.set(
        xlabel="predicted",
        ylabel="true",
        title=f"Test split: {accuracy:.2%} of {confusion.sum():,} right",
    )
    bar = figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true class")
    ticks = np.array([0, 0.01, 0.1, 0.5, 1])
    bar.set_ticks(np.sqrt(ticks).tolist(), labels=[f"{tick:.0%}" for tick in ticks])
    _save(figure, path)


def plot_reading(
    x: np.ndarray,
    states: np.ndarray,
    probabilities: np.ndarray,
    labels: tuple[str, ...],
    path: Path,
) -> None:
    """A sequence as the model reads it, time from top to bottom, as a PNG.

    Left the input `(timesteps, features)`, then the hidden state `(timesteps, units)`, of two
    directions the one that reads forwards first, then what
    the model would answer if the sequence ended there, `(timesteps, classes)`.
    """
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    axes = figure.subplots(1, 3)
    limit = float(np.abs(states).max()) or 1.0
    for panel, values, colours, low, high in (
        (axes[0], x, "Greys", None, None),
        (axes[1], states, "RdBu_r", -limit, limit),
        (axes[2], probabilities, "Blues", 0, 1),
    ):
        image = panel.imshow(values, aspect="auto", cmap=colours, vmin=low, vmax=high)
        figure.colorbar(image, ax=panel, shrink=0.8)
    axes[0].set(title="Input, a row a time step", xlabel="feature", ylabel="time step")
    axes[1].set(title="Hidden state after the step", xlabel="unit")
    final = probabilities[-1]
    answer = f"{labels[int(final.argmax())]} ({final.max():.1%})"
    axes[2].set_title(f"Answer after the step; at the end: {answer}", parse_math=False)
    axes[2].set_xlabel("class")
    if len(labels) <= CLASSES_WITH_NUMBERS:
        upright = max(map(len, labels)) <= 3
        turn = 0 if upright else 90
        axes[2].set_xticks(range(len(labels)), labels, rotation=turn, parse_math=False)
    _save(figure, path)


def plot_times(ways: dict[str, tuple[list[float], list[float]]], path: Path) -> None:
    """Seconds of a later epoch and of the whole command, for each way to train, as a PNG.

    Bars are medians, lines reach from the fastest to the slowest; names with rnn_tf are ours.
    """
    figure = Figure(figsize=(12, 1.2 + 0.4 * len(ways)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    names = list(ways)
    colours = [TRAIN if "rnn_tf" in name else VALID for name in names]
    for panel, which, title in zip(panels, (0, 1), ("A later epoch", "Whole command"), strict=True):
        medians = np.array([np.median(ways[name][which]) for name in names])
        low = medians - [min(ways[name][which]) for name in names]
        high = [max(ways[name][which]) for name in names] - medians
        bars = panel.barh(names, medians, xerr=[low, high], color=colours, ecolor="0.3")
        panel.bar_label(bars, [f"{value:.3g}" for value in medians], padding=3, size=8)
        panel.set(title=title, xlabel="seconds")
        panel.margins(x=0.15)
        panel.grid(axis="x", alpha=0.3)
    panels[0].invert_yaxis()
    _save(figure, path)


def plot_latencies(
    models: dict[str, dict[str, dict[int, float]]], own: Collection[str], path: Path
) -> None:
    """Microseconds per example of each runtime, as a PNG: a row for each model.

    `models` maps a model's name to its runtimes' latency per example at each batch size, a panel
    each; runtimes in `own` are coloured as ours.
    """
    heights = [1.2 + 0.4 * len(latencies) for latencies in models.values()]
    figure = Figure(figsize=(12, sum(heights)), layout="constrained")
    rows = figure.subfigures(len(models), 1, squeeze=False, height_ratios=heights)[:, 0]
    for row, (name, latencies) in zip(rows, models.items(), strict=True):
        row.suptitle(name)
        _plot_latencies(row, latencies, own)
    _save(figure, path)


def _plot_latencies(row: Any, latencies: dict[str, dict[int, float]], own: Collection[str]) -> None:
    names = list(latencies)
    batches = list(next(iter(latencies.values())))
    panels = row.subplots(1, len(batches), sharey=True, squeeze=False)[0]
    for panel, batch in zip(panels, batches, strict=True):
        values = [latencies[name][batch] for name in names]
        bars = panel.barh(names, values, color=[TRAIN if name in own else VALID for name in names])
        figures = [f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in values]
        panel.bar_label(bars, figures, padding=3, size=8)
        # From microseconds to milliseconds: on a linear axis only the slowest would be seen.
        panel.set(title=f"Batch {batch:,}", xlabel="µs per example", xscale="log")
        panel.set_xlim(min(values) / 2, max(values) * 5)
    panels[0].invert_yaxis()


def plot_search(
    trials: list[dict[str, Any]],
    names: list[str],
    log_scaled: Collection[str],
    front: list[dict[str, Any]],
    path: Path,
) -> None:
    """Scores of a search, as a PNG: over the trials, against size, and against each setting.

    `trials` are rows with `score` (0 to 1), `parameters` and the settings `names`, in the order
    in which they ended; `front` those that no smaller one beats; `log_scaled` some of `names`.
    """
    columns = 4
    rows = -(-(len(names) + 2) // columns)
    figure = Figure(figsize=(4 * columns, 3.4 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten()
    scores = 100 * np.array([trial["score"] for trial in trials])
    over, size, *each = panels
    numbers = np.arange(1, len(scores) + 1)
    over.plot(numbers, scores, "o", color=TRAIN, markersize=4, label="trial")
    best = np.maximum.accumulate(scores)
    over.plot(numbers, best, color=VALID, drawstyle="steps-post", label="best so far")
    over.set(title="Over the trials", xlabel="trials ended")
    over.xaxis.get_major_locator().set_params(integer=True)
    over.legend(loc="lower right")
    size.plot([trial["parameters"] for trial in trials], scores, "o", color=TRAIN, markersize=4)
    size.plot(
        [trial["parameters"] for trial in front],
        [100 * trial["score"] for trial in front],
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
        first.set_ylabel("validation accuracy (%)")
    _save(figure, path)


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


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    with writing(path) as temporary, warnings.catch_warnings():
        # A character that the font lacks is drawn as a box, which says enough.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(temporary, dpi=110, format="png")
