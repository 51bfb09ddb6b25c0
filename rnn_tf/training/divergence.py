"""A training that diverges: when it does, and which setting helps."""

from __future__ import annotations

import dataclasses
import math

from rnn_tf.config import TrainConfig
from rnn_tf.data.spec import SequenceSpec
from rnn_tf.model.activations import BOUNDED

# The loss of a model that gives every class the same probability is ln(classes). An untrained one
# is at most a few times worse, and one that is wrong and sure of it may be.
TIMES_GUESSING = 10


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
        f"training diverges: the {name} of epoch {epoch} is {loss:.3g}, and guessing has "
        f"{guessing:.2g}. {advice(config, spec)}"
    )


def advice(config: TrainConfig, spec: SequenceSpec) -> str:
    """The setting to change when a training with `config` on data of `spec` diverges."""
    rate = config.resolved(spec).learning_rate
    auto = dataclasses.replace(config, learning_rate="auto").resolved(spec).learning_rate
    if rate > auto:
        return f"Set --learning-rate auto, which is {auto:.2g} here"
    if config.cell_activation not in BOUNDED:
        return "Set --activation tanh, which keeps the state within bounds"
    return f"Set --learning-rate {rate / 10:.2g}"
