"""Keras models kept with their compiled programs, for the next training of the same process.

XLA never forgets what it has compiled, and a new model for each training would have it compile, and
keep, the same again.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rnn_tf.config import Source, TrainConfig
from rnn_tf.data.spec import SequenceData
from rnn_tf.startup import forms
from rnn_tf.training.keras.optimizer import learning_rate
from rnn_tf.training.order import Order

if TYPE_CHECKING:
    from rnn_tf.training.keras.training_model import TrainingSequential

# Settings that change values of variables or the data, but no program. Shapes of the data that they
# change are compared as such.
FREE = {
    *(field.name for field in dataclasses.fields(Source)),
    "recurrent_initializer", "normalize", "epochs", "patience", "class_weights", "batch_size",
    "learning_rate", "schedule", "warmup", "clip_norm", "seed",
}  # fmt: skip


class KeptModels:
    """The models that were used last, `most` of them, each by what its programs depend on.

    What a program reads from variables may differ from training to training: weights,
    normalization, learning rate, schedule, clipping. A training with a kept model gives what it
    would have given with one of its own.
    """

    def __init__(self, most: int = 8) -> None:
        self.most = most
        self._models: dict[Any, TrainingSequential] = {}  # the one used last comes last

    @contextlib.contextmanager
    def lent(self, model: TrainingSequential, key: Any) -> Iterator[TrainingSequential]:
        """A kept model that now has the variables of `model`; `model` itself if there is none.

        While it is lent, nobody else gets it, another thread for instance.
        """
        kept = self._models.pop(key, model)
        if kept is not model:
            for old, new in zip(_variables(kept), _variables(model), strict=True):
                old.assign(new)
            kept.reset_metrics()
            kept.stop_training = False
        try:
            yield kept
        finally:  # also after a training that was broken off: what is left of it is overwritten
            self._models[key] = kept
            while len(self._models) > self.most:
                self._models.pop(next(iter(self._models)), None)


# For all trainings of this process.
KEPT = KeptModels()


def programs_of(
    config: TrainConfig, data: SequenceData, precision: str, *, fused: bool
) -> tuple[Any, ...]:
    """What the programs that train `config`, resolved, on `data` depend on.

    Not the number of examples, but that of the batches that one program trains; not what was
    learned to normalize them, but of how many numbers it is.
    """
    settings = {k: v for k, v in dataclasses.asdict(config).items() if k not in FREE}
    soap = config.optimizer == "soap"
    clip = config.clip_norm > 0 if soap else config.clip_norm
    a_number = isinstance(learning_rate(config, 1), float)  # and no schedule's numbers
    spec, train = data.spec, data.train
    scale, shift = spec.normalization.arrays()
    normalized = (scale.shape, None if shift is None else shift.shape) if fused else None
    batch_size = config.batch_size_for(len(train.y))
    order = Order.of(train, batch_size, every_step=spec.every_step)
    batches = (order.batches, order.pieces > 1) if fused else None
    batch = (batch_size, *train.x.shape[1:])
    answers = (spec.classes, spec.every_step, train.labelled_by_step)
    shapes = (batches, *batch, train.x.dtype.str, spec.longest, spec.varies, *answers, normalized)
    return (*settings.items(), clip, a_number, precision, fused, forms.form(), *shapes)


def _variables(model: TrainingSequential) -> list[Any]:
    return [*model.variables, *model.optimizer.variables, *model.learned]
