"""Pictures of a run: the curves of its training and where it confuses classes."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import font_manager, ft2font
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.cells import cell_len

from rnn_tf.files.writing import writing

# One colour for what is trained on, one for what is not; told apart also in grey.
TRAIN, VALID = "#4c78a8", "#e45756"
# More classes than this make the numbers in the cells unreadable.
CLASSES_WITH_NUMBERS = 20
# Wider labels are written below the picture, and numbered at its axes.
LONGEST_TICK = 24
# Characters in a line there.
KEY_WIDTH = 66


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
    save_figure(figure, path)


def plot_confusion(confusion: np.ndarray, labels: tuple[str, ...], title: str, path: Path) -> None:
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
        names = _names(labels)
        axes.set_xticks(range(classes), names.ticks, rotation=names.turn, **names.style)
        axes.set_yticks(range(classes), names.ticks, **names.style)
        _add_key(figure, names)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true class")
    ticks = np.array([0, 0.01, 0.1, 0.5, 1])
    bar.set_ticks(np.sqrt(ticks).tolist(), labels=[f"{tick:.0%}" for tick in ticks])
    save_figure(figure, path)


def plot_reading(
    x: np.ndarray,
    states: np.ndarray,
    probabilities: np.ndarray,
    labels: tuple[str, ...],
    path: Path,
) -> None:
    """A sequence as the model reads it, time from top to bottom, as a PNG.

    Left the normalized input `(timesteps, features)`, then the hidden state `(timesteps, units)`,
    of two directions the one that reads forwards first, then what the model would answer if the
    sequence ended there, `(timesteps, classes)`.
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
        for axis in (panel.xaxis, panel.yaxis):  # steps, features and units are whole numbers
            axis.set_major_locator(MaxNLocator(integer=True))
    axes[0].set(title="Input, a row a time step", xlabel="feature", ylabel="time step")
    axes[1].set(title="Hidden state after the step", xlabel="unit")
    names = _names(labels)
    final = probabilities[-1]
    answer = f"{names.ticks[int(final.argmax())]} ({final.max():.1%})"
    axes[2].set_title(f"Answer after the step; at the end: {answer}", **names.style)
    axes[2].set_xlabel("class")
    if len(labels) <= CLASSES_WITH_NUMBERS:
        axes[2].set_xticks(range(len(labels)), names.ticks, rotation=names.turn, **names.style)
        _add_key(figure, names)
    save_figure(figure, path)


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
    save_figure(figure, path)


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
    save_figure(figure, path)


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


@dataclass(frozen=True)
class _Names:
    """How classes are called in a picture: by their labels if these can be drawn and have room."""

    ticks: list[str]
    key: list[str]  # lines that say which number is which label; empty where no number is used
    style: dict[str, Any]  # of any text with a label in it

    @property
    def turn(self) -> int:
        """Degrees by which ticks below an axis are turned to have room."""
        return 0 if max(map(len, self.ticks)) <= 3 else 90


def _names(labels: Sequence[str]) -> _Names:
    labels = [" ".join(label.split()) for label in labels]
    families = _families(frozenset("".join(labels)))
    # A label is a name, also when it has dollar signs.
    style: dict[str, Any] = {"parse_math": False, "fontfamily": families}
    if families and max(map(cell_len, labels)) <= LONGEST_TICK:
        return _Names(labels, [], style)
    numbers = [str(number) for number in range(len(labels))]
    if not families:
        note = "Classes are numbered in the order of their labels: no font here has all of these."
        return _Names(numbers, [note], {})
    lines = [
        line
        for number, label in enumerate(labels)
        for line in textwrap.wrap(
            f"{number}: {label}", KEY_WIDTH, subsequent_indent="    ", max_lines=3
        )
    ]
    return _Names(numbers, lines, style)


def _add_key(figure: Figure, names: _Names) -> None:
    """Write below everything which number is which label, on a figure made higher for that."""
    if names.key:
        figure.set_figheight(figure.get_figheight() + 0.16 * (len(names.key) + 1))
        text = "\n".join(names.key)
        figure.supxlabel(text, x=0.02, ha="left", size=8, **names.style)


@functools.cache
def _families(characters: frozenset[str]) -> list[str]:
    """Fonts that have all of these characters together; none if there are no such fonts.

    Matplotlib's own has Latin, Greek, Cyrillic and more; for others, the fonts of the system.
    """
    own = font_manager.FontProperties(family="DejaVu Sans")
    missing = {ord(one) for one in characters if not one.isspace()}
    missing -= _characters(font_manager.findfont(own))
    if not missing:
        return ["DejaVu Sans"]
    for font in font_manager.fontManager.ttflist:
        if font.style == "normal" and font.weight == 400 and missing <= _characters(font.fname):
            return ["DejaVu Sans", font.name]
    return []


def _characters(path: str) -> set[int]:
    """The characters that a font file can draw; none if it has no outlines, or cannot be read."""
    try:
        font = ft2font.FT2Font(path)
    except (OSError, RuntimeError):
        return set()
    # The fonts named so have a box for every character.
    boxes = font.family_name.startswith("Last Resort")
    return set() if boxes or not font.scalable else set(font.get_charmap())


def save_figure(figure: Figure, path: Path) -> None:
    """Write the figure as a PNG, whole. Raises `InputError` when it cannot be written."""
    FigureCanvasAgg(figure)
    with writing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
