"""What was found along streams and before the ends of sequences, as text for a person."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rnn_tf.streams.early import SHARES, EarlyResult, EarlyScores
from rnn_tf.streams.resets import PolicyScores

SPLITS = {"valid": "validation", "test": "test"}


def policies_as_text(found: Sequence[PolicyScores], sequences: int) -> str:
    """A row for each policy, and what its columns mean."""
    first = "state is reset"
    width = max(len(first), *(len(each.policy) for each in found))
    gaps = max(3, *(len(f"{each.gap:,}") for each in found))
    head = f"{first:<{width}}  {'gap':>{gaps}}  each step   at end  delay  largest state"
    rows = [
        f"{each.policy:<{width}}  {each.gap:>{gaps},}  {each.accuracy:>9.2%}  "
        f"{each.accuracy_at_end:>7.2%}  {_delay(each)}  {_state(each):>13}"
        for each in found
    ]
    return "\n".join(
        (
            f"test sequences, one after the other in a random order: {sequences:,}",
            "",
            head,
            *rows,
            "",
            "gap: steps of silence after each sequence. each step, at end: accuracy.",
            "delay: steps until the answer is right and stays so, of sequences right at the end.",
        )
    )


def _delay(scores: PolicyScores) -> str:
    return f"{'-' if scores.delay is None else format(scores.delay, '.1f'):>5}"


def _state(scores: PolicyScores) -> str:
    size = scores.largest_state
    return f"{size:.3g}" if math.isfinite(size) else "overflows"


def early_as_text(found: EarlyResult) -> str:
    """Accuracy along the sequences, then the rule and what it kept."""
    along = found.accuracy_at
    rule, test = found.rule, found.test
    kept = "yes" if found.held else f"no, {100 * (rule.promise - test.accuracy):.2f} points below"
    return "\n".join(
        (
            f"{'read':<10}" + "".join(f"  {percent:>5} %" for percent in SHARES),
            *(
                f"{name:<10}" + "".join(f"  {along[split][percent]:>7.2%}" for percent in SHARES)
                for split, name in SPLITS.items()
            ),
            "",
            f"rule        an answer is final when a probability reaches {rule.confidence:.6g}",
            f"validation  {_kept(found.valid)}",
            f"test        {_kept(test)}",
            f"promise     {rule.promise:.2%}; kept on the test split: {kept}",
        )
    )


def _kept(scores: EarlyScores) -> str:
    return (
        f"{scores.accuracy:.2%} of {scores.examples:,} right, after {scores.share:.1%} of a "
        f"sequence, {scores.steps:.1f} steps"
    )
