"""Which epoch of a training is kept.

The validation scores of many epochs differ by chance, the more so the fewer examples there are: the
highest is the luckiest of those that are as good. A learning rate that falls to the end settles the
weights, so of the epochs that validation cannot tell apart the last is the one to keep. That is the
one-standard-error rule (Breiman et al., "Classification and Regression Trees", 1984) with the order
of epochs in place of simplicity, and with a confidence interval, which also holds where no error
was made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from rnn_tf.config import Objective, TrainConfig
from rnn_tf.data.spec import UNLABELLED, Split

# Standard errors to each side of a 95 % confidence interval.
Z = 1.96


def highest_epoch(history: Sequence[dict[str, Any]], objective: Objective) -> int:
    """The epoch, from 1, with the most of the objective; of equals, the one of the lowest loss."""
    return int(max(history, key=lambda record: _goodness(record, objective))["epoch"])


def best_epoch(history: Sequence[dict[str, Any]], config: TrainConfig, examples: float) -> int:
    """The epoch, from 1, whose weights are kept: the last one that is as good as the highest.

    `examples` are those of validation, from `effective_examples`. Where the learning rate is
    constant, a later epoch has nothing over an earlier one, and from the mean of a loss alone no
    interval follows: then it is the highest.
    """
    highest = highest_epoch(history, config.objective)
    if config.objective == "loss" or config.schedule == "constant":
        return highest
    score = f"val_{config.objective}"
    # Keras counts in float32: a share may be a rounding above 1, or below the bound that it is at.
    least = lower_bound(min(history[highest - 1][score], 1.0), examples) - 1e-6
    as_good = (record for record in reversed(history) if record[score] >= least)
    return int(next(as_good)["epoch"])


def lower_bound(share: float, examples: float) -> float:
    """The lower end of the 95 % confidence interval of a share, 0 to 1, of so many examples.

    Wilson, "Probable inference, the law of succession, and statistical inference" (1927): the
    least true share of which the one seen is not more than `Z` standard errors away.
    """
    spread = Z * math.sqrt(share * (1 - share) / examples + (Z / (2 * examples)) ** 2)
    return (share + Z**2 / (2 * examples) - spread) / (1 + Z**2 / examples)


def effective_examples(split: Split, objective: Objective) -> float:
    """Of how many independent examples the accuracy has the variance that the objective has.

    The steps of one sequence are right or wrong together: it counts once. Balanced accuracy is the
    mean of the recalls of K classes. Where those are alike, r, its variance is
    r (1 - r) sum(1 / examples of a class) / K^2, and so that of K^2 / sum(1 / examples) examples.
    """
    labels = split.sequence_labels
    counts = np.unique(labels[labels != UNLABELLED], return_counts=True)[1]
    if objective == "balanced_accuracy":
        return float(len(counts) ** 2 / (1 / counts).sum())
    return float(counts.sum())


def _goodness(record: dict[str, Any], objective: Objective) -> tuple[float, ...]:
    if objective == "loss":
        return (-record["val_loss"],)
    return (record[f"val_{objective}"], -record["val_loss"])
