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
# more than this share.
MOST_OF_ONE = 0.1
# A share is a quotient, rounded in its last digits.
LAST_DIGITS = 1e-12


def most_lost(share: float, examples: int) -> float:
    """The share of a test split that may be lost where `share` may be lost of a large one."""
    return max(share, min(1 / examples, MOST_OF_ONE)) + LAST_DIGITS
