"""What an answer may be off by. For float32 that follows from rounding: see `rounding`."""

from __future__ import annotations

# Beyond this, nothing is verified by comparing: rounding decides what the model says.
MOST_ROUNDING = 0.01
# Values far beyond the data are asked where float32 still promises this.
FAR_ROUNDING = 1e-5
# Of what is quantized: shares of the test split.
MOST_ACCURACY_LOSS = 0.005
LEAST_AGREEMENT = 0.99
# In a split too small to show such shares, one example may be answered otherwise, unless that is
# more than this share, or probabilities differ by more than this on average (int8 of models that
# are right: 8e-4 on MNIST, 3e-3 on ItalyPowerDemand; with two biases exchanged: 7e-2).
MOST_OF_ONE, MOST_MEAN_OF_ONE = 0.1, 0.02
# A share is a quotient, rounded in its last digits.
LAST_DIGITS = 1e-12


def most_lost(share: float, examples: int, mean_difference: float) -> float:
    """The share of a test split that may be lost where `share` may be lost of a large one."""
    one = min(1 / examples, MOST_OF_ONE) if mean_difference <= MOST_MEAN_OF_ONE else 0.0
    return max(share, one) + LAST_DIGITS
