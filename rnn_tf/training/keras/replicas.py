"""Training by several replicas of a model, each on its part of every batch.

A replica is a device of this process (`MirroredStrategy`) or of another (`MultiWorkerMirrored-
Strategy`). In a step, each computes the gradients of its own examples in a program that XLA
compiles; the strategy adds them up, with the weights that they count by, in one collective; then
each makes the same update, in a second program. Collectives do not run inside of XLA's programs on
a CPU, so an epoch is a loop of such steps, in one call from Python.

Every example of a batch counts as it does in a single process: the loss is the mean over all
answers of the batch, wherever they are.
"""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import keras
import tensorflow as tf

from rnn_tf.errors import InputError
from rnn_tf.training.keras.training_model import TrainingSequential, rolled

Batch = tuple[Any, tf.Tensor, tf.Tensor]

# The Keras whose `fit` is gone around here, in methods of which one is private.
VERSIONS = ("3.15.",)


class ReplicatedSequential(TrainingSequential):
    """A Sequential that a strategy trains; to Keras's `fit`, an epoch is one step.

    Made, built and compiled in the scope of the strategy. Its training and validation data are
    distributed datasets without an end, of `(x, y, weight)` for each replica: an epoch takes
    `steps` of them, a validation `validation_steps`. `compiled`: whether XLA compiles.

    `fit` of Keras 3 cannot train with `MultiWorkerMirroredStrategy` as it is (keras issue 20585):
    it builds the model from a batch that it cannot take the mean of, and reduces scalar logs along
    an axis. `_maybe_symbolic_build` leaves out the first, `make_train_function` and
    `make_test_function` the second.
    """

    def __init__(
        self,
        layers: list[keras.Layer],
        noise: Any = None,
        *,
        steps: int,
        validation_steps: int,
        compiled: bool = True,
    ) -> None:
        super().__init__(layers, noise)
        self.steps = steps
        self.validation_steps = validation_steps
        self.compiled = compiled

    def train_step(self, data: Batch) -> None:
        """Make one step, as one of the replicas."""
        _, y, weight = data
        context = tf.distribute.get_replica_context()
        answers = weight.shape.num_elements() * context.num_replicas_in_sync
        # A program of its own for each replica: it is made for the replica's variables.
        logits, *parts = self._program(self.gradients_of_part)(*data, answers=answers)
        sums = context.all_reduce(tf.distribute.ReduceOp.SUM, parts)
        # Each replica counts the loss of all, which leaves the mean as it is.
        self._program(self.update)(y, weight, logits, sums, answers=answers)

    def test_step(self, data: Batch) -> None:
        """Count one batch in the scores, as one of the replicas."""
        self._program(self._score)(*data)

    def make_train_function(self, force: bool = False) -> None:
        if force or getattr(self, "train_function", None) is None:
            self.train_function = self._pass_over(self.train_step, self.steps)

    def make_test_function(self, force: bool = False) -> None:
        if force or getattr(self, "test_function", None) is None:
            self.test_function = self._pass_over(self.test_step, self.validation_steps)

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Build nothing: all is built when `fit` begins."""

    def _pass_over(
        self, step: Callable[[Batch], None], steps: int
    ) -> Callable[[Iterable[Any]], dict[str, Any]]:
        strategy = self.distribute_strategy

        def loop(batches: Any) -> None:
            def body(i: tf.Tensor) -> tuple[tf.Tensor]:
                strategy.run(step, args=(next(batches),))
                return (i + 1,)

            # One after the other: a collective is known by its place in the program.
            tf.while_loop(lambda i: i < steps, body, (tf.constant(0),), parallel_iterations=1)

        program = tf.function(loop, autograph=False)

        def whole_pass(batches: Any) -> dict[str, Any]:
            program(batches)
            # Read outside of the replicas, the counts of a metric are the sums over all of them.
            scores: dict[str, Any] = self.get_metrics_result()
            return scores

        return whole_pass

    def _program(self, function: Callable[..., Any]) -> Callable[..., Any]:
        program: Callable[..., Any] = tf.function(
            function, jit_compile=self.compiled or None, autograph=False
        )
        return program

    def _score(self, x: Any, y: tf.Tensor, weight: tf.Tensor) -> None:
        # Large batches: a loop is as fast, and sooner compiled.
        with rolled(self):
            answers = self(x, training=False)
        loss = self.compute_loss(x=x, y=y, y_pred=answers, sample_weight=weight)
        self._loss_tracker.update_state(loss, sample_weight=y.shape[0])
        self.compute_metrics(x=None, y=y, y_pred=answers, sample_weight=weight)


def kept_by_each_replica(next_creator: Callable[..., Any], **options: Any) -> Any:
    """A `tf.variable_creator_scope` in which each replica updates its own copy of a variable.

    Keras would have the first replica send its count of iterations to all others.
    """
    if options.get("aggregation") == tf.VariableAggregation.ONLY_FIRST_REPLICA:
        options["aggregation"] = tf.VariableAggregation.NONE
    return next_creator(**options)


def update_in_each_replica(optimizer: keras.optimizers.Optimizer) -> None:
    """Have an optimizer apply reduced gradients within a replica, as on a single device.

    All replicas are given the same and so do the same. Keras's TensorFlow optimizers would reduce
    once more, and leave the replica for each variable, which no program of XLA can.
    """
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer._tf_apply = optimizer._common_apply
        optimizer = optimizer.inner_optimizer
    plain = next(
        kind for kind in type(optimizer).__mro__ if kind.__name__ == "BaseOptimizer"
    )  # what is the same for all of Keras's backends
    for name in ("_backend_update_step", "_apply_weight_decay"):
        setattr(optimizer, name, types.MethodType(getattr(plain, name), optimizer))


def describe(strategy: tf.distribute.Strategy, batch_size: int) -> str:
    """How replicas train, for a person. Warns of a Keras that this is not known to work with.

    Raises `InputError` when a replica would have no example.
    """
    if not keras.__version__.startswith(VERSIONS):
        known = ", ".join(version.rstrip(".") for version in VERSIONS)
        warnings.warn(
            f"several replicas are known to train with Keras {known}, and this is "
            f"{keras.__version__}; if they fail, pip install 'keras=={VERSIONS[-1]}*'",
            stacklevel=3,
        )
    count = strategy.num_replicas_in_sync
    if batch_size < count:
        raise InputError(
            f"a batch of {batch_size} is too small for {count} replicas",
            expected="an example for each",
            fix=f"Raise --batch-size to {count} or more.",
        )
    return f"{count} replicas, an epoch one call, gradients and update of a step compiled"


def distributed(
    strategy: tf.distribute.Strategy, parts: Callable[[int, range], tf.data.Dataset]
) -> Any:
    """The dataset whose elements have for each replica its part of a batch.

    `parts(replicas, mine)` gives those of the replicas `mine` of a worker, in turn.
    """

    def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
        replicas = context.num_replicas_in_sync
        count = replicas // context.num_input_pipelines
        first = context.input_pipeline_id * count
        return parts(replicas, range(first, first + count))

    return strategy.distribute_datasets_from_function(of_worker)
