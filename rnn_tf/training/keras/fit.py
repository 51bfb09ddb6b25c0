"""The training loop: Keras `fit`, a whole epoch as one compiled program where possible."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rnn_tf.config import TrainConfig
from rnn_tf.data.normalize import Normalize
from rnn_tf.data.spec import SequenceData, SequenceSpec, Split
from rnn_tf.errors import InputError
from rnn_tf.model.classifier import build_model, recurrent_layers
from rnn_tf.run import Run
from rnn_tf.startup import forms, xla_flags
from rnn_tf.training.callbacks import after_first_epoch
from rnn_tf.training.class_weights import class_weights
from rnn_tf.training.keras.batches import (
    Inputs,
    batches,
    endless_rows,
    evaluation_batch,
    evaluation_batches,
    normalizer,
    parts_of_batches,
    pieces,
    rows_in_order,
)
from rnn_tf.training.keras.chance import draw_quickly
from rnn_tf.training.keras.kept_models import KeptModels, programs_of
from rnn_tf.training.keras.layers import answer_all_steps, fits_at_once, loop_over_time
from rnn_tf.training.keras.optimizer import build_optimizer
from rnn_tf.training.keras.replicas import (
    ReplicatedSequential,
    distributed,
    kept_by_each_replica,
    update_in_each_replica,
)
from rnn_tf.training.keras.scores import (
    BalancedAccuracy,
    SequenceMean,
    all_are_right,
    last_is_right,
)
from rnn_tf.training.keras.shares import shared_step
from rnn_tf.training.keras.tracing import new_programs_expected
from rnn_tf.training.keras.training_model import TrainingSequential, rolled
from rnn_tf.training.order import Order
from rnn_tf.training.recorder import Fitted, Recorder

# Written out, the steps of a simple cell run 1.5 times as fast as in a loop that XLA does not
# compile whole, but compile time grows with length: sequences longer than this are looped over. So
# are gated cells, whose many small operations XLA compiles badly when written out (GRU on MNIST:
# 12 s an epoch, looped 1.4 s).
UNROLL_TIMESTEPS = 64
# What a history calls the scores that Keras gives, and what Keras calls them.
SAID = {
    "loss": "crossentropy",
    **{
        name: name
        for name in ("accuracy", "balanced_accuracy", "last_step_accuracy", "sequence_accuracy")
    },
}
# Plain fit: weight updates between two returns to Python.
PLAIN_STEPS = 32


class FusedSequential(TrainingSequential):
    """A Sequential whose training step is a whole epoch, or a piece of one: a loop of Keras steps.

    Keras compiles the training step; when that is one batch, most of the time goes into
    starting it. Here the loop over batches is inside what is compiled. An element of its
    training data is one of `batches.pieces`, one of its validation data `(x, y)` or
    `(x, y, weight)`; x is raw, and where lengths vary `(x, lengths)`.
    """

    def __init__(
        self,
        layers: list[keras.Layer],
        normalize: Normalize,
        noise: np.ndarray | None = None,
        *,
        shares: int = 1,
        whole: bool = False,
    ) -> None:
        super().__init__(layers, noise)
        numbers = (self.learn(each) for each in normalize.arrays() if each is not None)
        self.normalize = normalizer(*numbers)
        self.shares, self.whole = shares, whole
        # A call into TensorFlow takes a tenth of an epoch of a small set: one each, and not one for
        # every number.
        self._reset_metrics, self._metrics_result, self._learning_rate = (
            tf.function(each, autograph=False)
            for each in (super().reset_metrics, super().get_metrics_result, super().learning_rate)
        )

    def reset_metrics(self) -> None:
        self._reset_metrics()

    def get_metrics_result(self) -> dict[str, tf.Tensor]:
        result: dict[str, tf.Tensor] = self._metrics_result()
        return result

    def learning_rate(self) -> tf.Tensor:
        return self._learning_rate()

    def train_step(
        self, piece: tuple[Inputs, tf.Tensor, tf.Tensor, *tuple[tf.Tensor, ...]]
    ) -> dict[str, tf.Tensor]:
        *data, steps = piece if len(piece) > 3 else (*piece, piece[-1].shape[0])
        train_batch: Callable[[Any, tf.Tensor], None] = self._train_batch
        if self.shares > 1:
            train_batch = shared_step(self, self.shares, self.normalize, whole=self.whole)

        def step(i: tf.Tensor) -> tuple[tf.Tensor]:
            train_batch(data, i)
            return (i + 1,)

        tf.while_loop(lambda i: i < steps, step, (tf.constant(0),))
        result: dict[str, tf.Tensor] = self.get_metrics_result()
        return result

    def _train_batch(self, batches: Any, i: tf.Tensor) -> None:
        x, y, weight = tf.nest.map_structure(lambda each: each[i], batches)
        # One batch is normalized at a time: the epoch stays uint8 where the data is.
        super().train_step((self.normalize(x), y, weight))

    def test_step(
        self, data: tuple[Inputs, tf.Tensor, *tuple[tf.Tensor, ...]]
    ) -> dict[str, tf.Tensor]:
        x, *labels = data
        # Thousands of sequences are evaluated at a time: a loop is as fast, and sooner compiled.
        with rolled(self):
            evaluate = super().test_step
            if self.shares > 1:
                evaluate = tf.function(evaluate, jit_compile=True, autograph=False)
            result: dict[str, tf.Tensor] = evaluate((self.normalize(x), *labels))
        return result


def why_not_fused(
    config: TrainConfig, data: SequenceData, strategy: tf.distribute.Strategy | None
) -> str | None:
    """Why epochs cannot run as one compiled program; None when they can."""
    if not config.fused:
        return "--no-fused"
    if strategy is not None:
        return f"{strategy.num_replicas_in_sync} replicas"
    if config.deterministic and tf.config.list_physical_devices("GPU"):
        return "--deterministic on a GPU"
    return None


def order_of(config: TrainConfig, train: Split, spec: SequenceSpec) -> Order:
    """The order in which a training meets the examples of `train`."""
    batch_size = config.batch_size_for(len(train.y))
    return Order.of(train, batch_size, config.seed, every_step=spec.every_step)


def fit(
    config: TrainConfig,
    data: SequenceData,
    run: Run,
    *,
    precision: str = "float32",
    strategy: tf.distribute.Strategy | None = None,
    callbacks: list[keras.callbacks.Callback] | None = None,
    kept: KeptModels | None = None,
    get_ready: Callable[[keras.Sequential], None] = lambda model: None,
) -> Fitted:
    """Train, keeping checkpoint and history in `run`, at most once in a second.

    Goes on from the checkpoint when the run has one, and then ends with the weights and the
    history that it would have had without the break. `kept` saves compiling again when the same
    process trains models of the same shapes. `get_ready` is called after the first epoch, with the
    model that is given in the end, its weights not yet trained. Raises `CheckFailed` when the loss
    is NaN in the very first epoch, `InputError` when the run cannot be written.
    """
    examples = len(data.train.y)
    config = config.resolved(data.spec, examples)
    fused = why_not_fused(config, data, strategy) is None
    noise = float(config.noise) * data.deviation() if config.noise else None
    steps = config.updates_an_epoch(examples) * config.epochs_for(examples)
    with contextlib.ExitStack() as meanwhile:
        meanwhile.enter_context(new_programs_expected())
        with (strategy or tf.distribute.get_strategy()).scope():
            if strategy is None:
                model = _compiled(config, data, precision, noise, fused=fused, steps=steps)
            else:
                model = _replicated(config, data, precision, noise, steps=steps)
            if kept is not None:
                key = programs_of(config, data, precision, fused=fused)
                model = meanwhile.enter_context(kept.lent(model, key))
        # After the one that trains, which so draws the same seeds whoever asks for this one.
        answering = build_model(config, data.spec, precision=precision)
        callbacks = [*(callbacks or []), after_first_epoch(lambda: get_ready(answering))]
        recorder = _fit(model, config, data, run, callbacks, fused=fused, strategy=strategy)
    return recorder.best(answering)


def _fit(
    model: keras.Sequential,
    config: TrainConfig,
    data: SequenceData,
    run: Run,
    callbacks: list[keras.callbacks.Callback],
    *,
    fused: bool,
    strategy: tf.distribute.Strategy | None,
) -> Recorder:
    epochs = config.epochs_for(len(data.train.y))
    recorder = Recorder(run, epochs, data.valid)
    keep = Keep(recorder, model)
    first = keep.restore()
    clock = EpochClock(first)
    learned, held_out = (split.labelled_for(data.spec) for split in (data.train, data.valid))
    weights = class_weights(config.class_weights, learned.y, data.spec.classes)
    order = order_of(config, learned, data.spec)
    if strategy is not None:
        train, valid = _shared_out(strategy, order, held_out, data.spec, first, weights)
    else:
        valid = evaluation_batches(held_out, data.spec, raw=fused)
        if fused:
            train = pieces(order, first, epochs, class_weights=weights)
        else:
            train = batches(order, data.spec, clock.now, class_weights=weights)
    one_step = strategy is not None  # an epoch, and a validation
    if not recorder.over:
        with contextlib.ExitStack() as reading:
            for stored in (data.train.stored, data.valid.stored):
                if stored is not None:
                    reading.enter_context(stored.damage_named())
            model.fit(
                train,
                initial_epoch=first,
                epochs=epochs,
                steps_per_epoch=1 if one_step else order.pieces if fused else None,
                validation_data=valid,
                validation_steps=1 if one_step else None,
                shuffle=False,
                verbose=0,
                callbacks=[clock, keep, *callbacks],
            )
    return recorder


def _shared_out(
    strategy: tf.distribute.Strategy,
    order: Order,
    held_out: Split,
    spec: SequenceSpec,
    first: int,
    weights: np.ndarray | None,
) -> tuple[Any, Any]:
    """Training and validation data for the replicas of a strategy, from epoch `first` on."""
    rows = endless_rows(order, first)
    rows_held_out = rows_in_order(held_out, evaluation_batch(spec))

    def to_learn(*parts: Any) -> tf.data.Dataset:
        return parts_of_batches(order.split, spec, rows, *parts, class_weights=weights)

    def to_validate(*parts: Any) -> tf.data.Dataset:
        return parts_of_batches(held_out, spec, rows_held_out, *parts)

    return distributed(strategy, to_learn), distributed(strategy, to_validate)


def _replicated(
    config: TrainConfig,
    data: SequenceData,
    precision: str,
    noise: np.ndarray | None,
    *,
    steps: int,
) -> ReplicatedSequential:
    """The model for a strategy, in whose scope this is called."""
    model = ReplicatedSequential(
        _quick_to_train(config, data, precision).layers,
        noise,
        steps=config.updates_an_epoch(len(data.train.y)),
        validation_steps=-(-len(data.valid.y) // evaluation_batch(data.spec)),
        compiled=_may_compile(config),
    )
    with tf.variable_creator_scope(kept_by_each_replica):
        optimizer = _optimizer(config, steps, precision)
        update_in_each_replica(optimizer)
        model.compile(optimizer, _loss(), weighted_metrics=_metrics(config, data))
        _build_variables(model, data.spec)
    return model


def _compiled(
    config: TrainConfig,
    data: SequenceData,
    precision: str,
    noise: np.ndarray | None,
    *,
    fused: bool,
    steps: int,
) -> keras.Sequential:
    layers = _quick_to_train(config, data, precision).layers
    if fused:
        batch_size = config.batch_size_for(len(data.train.y))
        count = forms.shares(batch_size) if _may_share(config, data.spec.longest) else 1
        possible = _compiles_loops_whole(config)
        whole = possible and forms.is_whole(config, possible=possible)
        model = FusedSequential(layers, data.spec.normalization, noise, shares=count, whole=whole)
    else:
        model = TrainingSequential(layers, noise)
    model.compile(
        optimizer=_optimizer(config, steps, precision),
        loss=_loss(),
        weighted_metrics=_metrics(config, data),
        # Programs run side by side only outside of another.
        jit_compile=_may_compile(config) and not (fused and model.shares > 1),
        steps_per_execution=1 if fused else PLAIN_STEPS,
    )
    _build_variables(model, data.spec)
    return model


def _optimizer(config: TrainConfig, steps: int, precision: str) -> keras.optimizers.Optimizer:
    optimizer = build_optimizer(config, steps)
    # On one device there is nothing to add up, and replicas have done so. Keras 3.15 does so
    # anyway, by a custom gradient, which TensorFlow keeps for ever, and the whole training program
    # with it.
    optimizer._all_reduce_sum_gradients = list
    if precision == "mixed_float16":
        # Small gradients are zero in float16 unless the loss is scaled up first.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer


def _loss() -> keras.losses.Loss:
    """The mean over the answers that count, at every step those of all sequences alike.

    What fills the last batch, pads a sequence or has no label has weight 0.
    """
    return keras.losses.SparseCategoricalCrossentropy(reduction="mean_with_sample_weight")


def _metrics(config: TrainConfig, data: SequenceData) -> list[keras.metrics.Metric | str]:
    # Keras's own "loss" weighs the last batch like a full one; this one weighs answers.
    metrics = ["accuracy", keras.metrics.SparseCategoricalCrossentropy(name="crossentropy")]
    if config.objective == "balanced_accuracy":
        metrics.append(BalancedAccuracy(data.spec.classes))
    if data.spec.every_step:
        metrics.append(SequenceMean(last_is_right, "last_step_accuracy"))
    if data.train.labelled_by_step:
        metrics.append(SequenceMean(all_are_right, "sequence_accuracy"))
    return metrics


def _quick_to_train(config: TrainConfig, data: SequenceData, precision: str) -> keras.Sequential:
    """The model, its time steps in the form that XLA makes the fastest program of."""
    whole_loops = _compiles_loops_whole(config)
    whole = forms.is_whole(config, possible=whole_loops)
    model = build_model(config, data.spec, precision=precision)
    layers = [(n, layer) for n, each in enumerate(recurrent_layers(model)) for layer in each]
    at_once = (
        not whole and _may_compile(config) and not tf.config.list_physical_devices("GPU")
        and all(fits_at_once(layer, data.spec.longest, config.largest_batch) for _, layer in layers)
    )  # fmt: skip
    short = config.cell == "simple_rnn" and data.spec.longest <= UNROLL_TIMESTEPS
    # A loop may end at the longest sequence of a batch; steps that are written out are all done.
    unroll = short and not (at_once or data.spec.varies or (whole_loops and whole))
    for number, layer in layers:
        draw_quickly(layer)
        layer.unroll = unroll
        if at_once or (whole_loops and not unroll):
            loop_over_time(layer, of_input=number > 0, at_once=at_once)
        elif unroll and not (config.dropout or config.recurrent_dropout):
            _trace_once(layer.cell)
    if whole_loops and data.spec.every_step:
        answer_all_steps(model.layers[-1])
    return model


def _trace_once(cell: keras.Layer) -> None:
    """Make each time step written out a call of one traced function, and not a trace of its own.

    A compiler puts the function's body back where it is called. Not for dropout: its masks are
    tensors of one program, which a function that serves several cannot hold.
    """
    cell.call = tf.function(cell.call, autograph=False)


def _may_share(config: TrainConfig, timesteps: int) -> bool:
    """Whether the cores share a batch out: where that pays. A GPU has no use for it."""
    gpu = tf.config.list_physical_devices("GPU")
    return _may_compile(config) and not gpu and forms.is_shared_out(config, timesteps)


def _compiles_loops_whole(config: TrainConfig) -> bool:
    """Whether XLA compiles the loops of this training whole, of which a GPU knows nothing."""
    gpu = tf.config.list_physical_devices("GPU")
    return xla_flags.are_in_effect() and _may_compile(config) and not gpu


def _may_compile(config: TrainConfig) -> bool:
    """Whether XLA may compile a training step: unless a GPU must repeat exactly.

    Also without fusing: TensorFlow's own graph rewrites break on `elu`.
    """
    exact = config.deterministic and tf.config.list_physical_devices("GPU")
    return not exact


def _build_variables(model: keras.Sequential, spec: SequenceSpec) -> None:
    """Make the variables of optimizer and metrics: a program that makes some is traced twice."""
    model.optimizer.build(model.trainable_variables)
    answers = (1, spec.longest) if spec.every_step else (1,)
    model.compute_metrics(
        x=None,
        y=np.zeros(answers, np.int32),
        y_pred=np.full((*answers, spec.classes), 1 / spec.classes, np.float32),
        sample_weight=np.ones(answers, np.float32),
    )
    model.reset_metrics()


class EpochClock(keras.callbacks.Callback):
    """Tells the plain pipeline which epoch it is shuffling."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.epoch = epoch

    def now(self) -> np.ndarray:
        return np.array(self.epoch, np.int64)


class Keep(keras.callbacks.Callback):
    """Hands each epoch to the recorder, and stops when that says it was the last."""

    def __init__(self, recorder: Recorder, model: TrainingSequential) -> None:
        super().__init__()
        self.recorder = recorder
        self.set_model(model)

    def restore(self) -> int:
        """Take over the checkpoint of the run, if any; the number of epochs it has behind it."""
        state = self.recorder.restore()
        if state is not None:
            for kind, variables in self._variables().items():
                for i, variable in enumerate(variables):
                    variable.assign(state[f"{kind}/{i}"])
        return len(self.recorder.history)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self.recorder.begin()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.recorder.begin_epoch()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if not logs or "crossentropy" not in logs:
            # Keras takes some errors for the end of the data, XLA's full disk among them.
            raise InputError(
                f"epoch {epoch + 1} ended before it began",
                fix="Is the disk of the cache full? Set RNN_TF_CACHE to another folder.",
            )
        scores = {
            f"{split}{name}": float(logs[f"{split}{said}"])
            for split in ("", "val_")
            for name, said in SAID.items()
            if f"{split}{said}" in logs
        }
        scores["learning_rate"] = float(self.model.learning_rate())
        self.recorder.end_epoch(scores, self.model.get_weights, self._state)
        if self.recorder.over:
            self.model.stop_training = True

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        self.recorder.end()

    def _variables(self) -> dict[str, list[keras.Variable]]:
        return {"model": self.model.variables, "optimizer": self.model.optimizer.variables}

    def _state(self) -> dict[str, np.ndarray]:
        return {
            f"{kind}/{i}": variable.numpy()
            for kind, variables in self._variables().items()
            for i, variable in enumerate(variables)
        }
