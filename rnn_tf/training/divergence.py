"""A training that diverges: when it does, and which setting helps."""

from __future__ import annotations

import dataclasses
import math

from rnn_tf.config import TrainConfig
from rnn_tf.data.spec import SequenceSpec
from rnn_tf.model.activations import BOUNDED

# The loss of a model that gives every class the same probability is ln(classes). One that is wrong
# and sure of it may have 20 times that, for an epoch, and still learn; one that diverges soon has
# more than any number.
TIMES_GUESSING = 100


class DivergenceWarning(UserWarning):
    """The loss is far above that of guessing."""


def warning(epoch: int, scores: dict[str, float], config: TrainConfig, spec: SequenceSpec) -> str:
    """What to say of an epoch, counted from 1, with `loss` and `val_loss`; nothing if all is well.

    Both losses are means in nats.
    """
    guessing = math.log(spec.classes)
    name, loss = max(
        (("loss", scores["loss"]), ("validation loss", scores["val_loss"])),
        key=lambda each: each[1],
    )
    if loss <= TIMES_GUESSING * guessing:
        return ""
    return (
        f"training diverges: the {name} of epoch {epoch} is {loss:.3g}, {loss / guessing:,.0f} "
        f"times that of guessing. If it stays so: {advice(config, spec)}"
    )


def advice(config: TrainConfig, spec: SequenceSpec) -> str:
    """The setting to change when a training with `config` on data of `spec` diverges."""
    rate = config.learning_rate_for(spec)
    auto = dataclasses.replace(config, learning_rate="auto").learning_rate_for(spec)
    if rate > auto:
        return f"set --learning-rate auto, which is {auto:.2g} here"
    if config.normalize == "none":
        return "set --normalize standard"
    if config.cell_activation not in BOUNDED:
        return "set --activation tanh, which keeps the state within bounds"
    return f"set --learning-rate {rate / 10:.2g}"
