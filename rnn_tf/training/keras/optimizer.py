"""The optimizer of a run: its kind, its learning-rate schedule and its clipping. Pure Keras 3."""

from __future__ import annotations

from typing import get_args

import keras
import numpy as np

from rnn_tf.config import Schedule, TrainConfig
from rnn_tf.training.keras.soap import Soap

FALLS = get_args(Schedule)


def build_optimizer(config: TrainConfig, steps: int) -> keras.optimizers.Optimizer:
    """The optimizer for a run of `steps` weight updates in all."""
    rate = learning_rate(config, steps)
    optimizer = _optimizer(config, rate)
    if isinstance(rate, WarmUpThenFall):
        # Among the optimizer's variables, which are then all that a compiled step depends on.
        optimizer.schedule = rate.numbers
    return optimizer


def _optimizer(config: TrainConfig, rate: float | WarmUpThenFall) -> keras.optimizers.Optimizer:
    clip = config.clip_norm or None
    decay = config.weight_decay or None
    if config.optimizer == "adam":
        return keras.optimizers.Adam(rate, global_clipnorm=clip)
    if config.optimizer == "adamw":
        optimizer = keras.optimizers.AdamW(
            rate, weight_decay=config.weight_decay, global_clipnorm=clip
        )
    elif config.optimizer == "muon":
        optimizer = keras.optimizers.Muon(rate, weight_decay=decay, global_clipnorm=clip)
    else:
        optimizer = Soap(rate, weight_decay=decay, clip_norm=clip)
    # Decay makes functions simpler by shrinking slopes; a bias is an offset.
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


def learning_rate(config: TrainConfig, steps: int) -> float | WarmUpThenFall:
    """A linear rise over the first `warmup` share of the steps, then the schedule down to zero.

    Raises `TypeError` for settings that are not resolved: `auto` depends on the data.
    """
    peak = config.learning_rate
    if isinstance(peak, str):
        raise TypeError("the learning rate is auto; expected settings from TrainConfig.resolved")
    if config.schedule == "constant" and config.warmup == 0:
        return peak
    return WarmUpThenFall(config.schedule, peak, round(config.warmup * steps), steps)


class WarmUpThenFall(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up to `peak`, then `constant`, `linear` or `cosine` to zero at `steps`.

    Cosine as in Loshchilov and Hutter, "SGDR" (2017), one period without restarts:
    peak * (1 + cos(pi * t)) / 2, t the share of the steps after the warm-up.
    """

    def __init__(self, fall: str, peak: float, warmup_steps: int, steps: int) -> None:
        self.fall = fall
        self.peak = peak
        self.warmup_steps = warmup_steps
        self.steps = steps
        # In a variable, so that one compiled program serves every rate and schedule.
        rise, span = 1 / max(1, warmup_steps), 1 / max(1, steps - warmup_steps)
        numbers = [peak, warmup_steps, rise, span, FALLS.index(fall)]
        self.numbers = keras.Variable(numbers, dtype="float32", trainable=False, name="schedule")

    def __call__(self, step):  # type: ignore[no-untyped-def]  # any backend's scalar tensor
        peak, warmup_steps, rise, span, fall = keras.ops.unstack(self.numbers.value)
        step = keras.ops.cast(step, "float32")
        done = keras.ops.clip((step - warmup_steps) * span, 0.0, 1.0)
        cosine = 0.5 * (1.0 + keras.ops.cos(np.pi * done))
        share = keras.ops.where(fall == FALLS.index("cosine"), cosine, 1.0 - done)
        share = keras.ops.where(fall == FALLS.index("constant"), 1.0, share)
        return peak * keras.ops.minimum((step + 1.0) * rise, 1.0) * share

    def get_config(self) -> dict[str, object]:
        return {
            "fall": self.fall,
            "peak": self.peak,
            "warmup_steps": self.warmup_steps,
            "steps": self.steps,
        }
