"""Pictures of answers along streams, and of answers before a sequence has ended."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from rnn_tf.plots import TRAIN, VALID, save_figure
from rnn_tf.streams.early import EarlyResult, EarlyRule
from rnn_tf.streams.report import SPLITS
from rnn_tf.streams.resets import PolicyScores

POLICY_COLOURS = (VALID, TRAIN, "#54a24b")
POLICY_LINES = ("--", "-", ":")
# So many times along a picture it is shown how far it is read.
MOMENTS = 7


def plot_policies(found: Sequence[PolicyScores], path: Path) -> None:
    """Accuracy by step since a sequence began, a line for each policy, as a PNG.

    A panel for each length of the gaps.
    """
    gaps = list(dict.fromkeys(each.gap for each in found))
    figure = Figure(figsize=(5.5 * len(gaps), 3.8), layout="constrained")
    for panel, gap in zip(_panels(figure, len(gaps)), gaps, strict=True):
        rows = [each for each in found if each.gap == gap]
        for scores, colour, line in zip(rows, POLICY_COLOURS, POLICY_LINES, strict=True):
            steps = np.arange(1, len(scores.by_step) + 1)
            label = f"reset {scores.policy}" if scores.policy != "never" else "never reset"
            panel.plot(steps, scores.by_step, color=colour, linestyle=line, label=label)
        panel.set_title(f"Gaps of {gap:,} steps" if gap else "Without gaps")
        panel.set(xlabel="step of a sequence", ylabel="answers that are right", ylim=(0, 1))
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.yaxis.set_major_formatter(PercentFormatter(1))
        panel.legend(loc="upper left")
        panel.grid(alpha=0.3)
    save_figure(figure, path)


def plot_early(found: EarlyResult, path: Path) -> None:
    """Accuracy by how much of each sequence was read, and where early answers lie, as a PNG."""
    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.subplots()
    scores = {"valid": found.valid, "test": found.test}
    for (split, name), colour in zip(SPLITS.items(), (VALID, TRAIN), strict=True):
        along = found.accuracy_at[split]
        shares = np.array(list(along)) / 100
        axes.plot(shares, list(along.values()), color=colour, marker="o", markersize=3, label=name)
        early = scores[split]
        axes.plot(early.share, early.accuracy, color=colour, marker="*", markersize=13, ls="")
    axes.axhline(found.rule.promise, color="grey", linestyle=":", label="promise")
    star = f"answer at a probability of {found.rule.confidence:.4g}"
    axes.plot([], [], color="0.3", marker="*", markersize=11, ls="", label=star)
    axes.set(xlabel="share of each sequence that was read", ylabel="accuracy", ylim=(0, 1.02))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    axes.legend(loc="best")
    axes.grid(alpha=0.3)
    save_figure(figure, path)


def plot_answers(
    rows: np.ndarray,
    probabilities: np.ndarray,
    labels: Sequence[str],
    rule: EarlyRule,
    path: Path,
) -> None:
    """A picture's rows going by, and the answer with its confidence changing, as a PNG.

    Above, the `rows` `(steps, columns)` that have been read at some moments, and the answer then;
    below, the `probabilities` `(steps, classes)` of the classes that are an answer at some step,
    and where the answer is final by `rule`.
    """
    steps = len(rows)
    moments = np.linspace(0, steps, MOMENTS + 1).round().astype(int)[1:]
    figure = Figure(figsize=(11, 5), layout="constrained")
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=(1, 1.5))[:, 0]
    for panel, read in zip(_panels(above, MOMENTS), moments.tolist(), strict=True):
        seen = np.where(np.arange(steps)[:, None] < read, rows, np.nan)
        panel.imshow(seen, cmap="Greys", vmin=rows.min(), vmax=rows.max())
        panel.axhline(read - 0.5, color=TRAIN)
        panel.set(xticks=[], yticks=[])
        best = int(probabilities[read - 1].argmax())
        panel.set_title(f"{labels[best]}: {probabilities[read - 1, best]:.0%}")
        panel.set_xlabel(f"{read} rows")
    axes = below.subplots()
    time = np.arange(1, steps + 1)
    for label in np.unique(probabilities.argmax(axis=1)):
        (line,) = axes.plot(time, probabilities[:, label], label=labels[label])
        peak = int(probabilities[:, label].argmax())
        axes.annotate(
            labels[label], (time[peak], probabilities[peak, label]), xytext=(0, 4),
            textcoords="offset points", ha="center", color=line.get_color(), weight="bold",
        )  # fmt: skip
    axes.axhline(rule.confidence, color="grey", ls=":")
    axes.text(0.7, rule.confidence + 0.02, f"sure enough: {rule.confidence:.0%}", color="0.4")
    sure = np.flatnonzero(probabilities.max(axis=1) >= np.float32(rule.confidence))
    if sure.size:
        final = int(sure[0])
        axes.plot(time[final], probabilities[final].max(), "*", color="black", markersize=13)
        text = f"final after {time[final]} rows"
        place = (time[final], probabilities[final].max())
        axes.annotate(text, place, (10, -14), textcoords="offset points")
    axes.set(xlabel="rows read", ylabel="probability", ylim=(0, 1.12), xlim=(0.5, steps + 0.5))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    save_figure(figure, path)


def _panels(figure: Any, count: int) -> list[Any]:
    return list(figure.subplots(1, count, sharey=True, squeeze=False)[0])
