"""Recurrent layers whose gradients XLA can compile whole, loop over time and all.

TensorFlow's gradient of a loop keeps every number that a time step computes, and writes and reads
all of it. Here a loop keeps the states, and of the cells in their usual form, whose gradients are
written out, the gates. Of another cell the loop back computes a step again where it needs more than
the states: that is less work, though it is one product of matrices more.

In a loop that is one function (see `xla_flags`), XLA writes out a product of matrices well only
where the rows of the one meet the columns of the other. TensorFlow's gradients of a product leave
a factor as it lies in memory and have it read the other way round, thirteen times as slowly. Here a
factor is turned first.

Where the lengths of a batch vary, the loops end at its longest sequence, and a state stays as it is
at steps beyond the end of its own: back in time, its gradient passes them unchanged.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from rnn_tf.training.keras.chance import is_for_share
from rnn_tf.training.keras.steps import SLOPES, Steps, before, steps_of

# What the steps of a batch may take where their products are computed at once.
AT_ONCE_BYTES = 4 * 2**30
MATMUL_GRADIENT, LOOP_GRADIENT = "RnnTfMatMul", "RnnTfLoop"

Tensors = list[tf.Tensor]
# (frame, states before, states after, what is kept, gradients of the states after)
# -> (gradients of the frame, of the states before, of the weights)
StepBack = Callable[
    [tf.Tensor, Tensors, Tensors, Tensors, Tensors], tuple[tf.Tensor | None, Tensors, Tensors]
]


class Step(NamedTuple):
    """A time step of a cell, and the way back through it."""

    # weights, frame, states -> states, and what is kept of the step
    forward: Callable[[Tensors, tf.Tensor, Tensors], tuple[Tensors, Tensors]]
    back: Callable[[Tensors], StepBack]  # weights -> what carries gradients back through a step
    kept: int = 0  # how many arrays that is, each of the shape of a state


def loop_over_time(layer: keras.layers.RNN, *, of_input: bool, at_once: bool = False) -> None:
    """Make `layer`, built and not unrolled, compute the same with gradients that compile well.

    Its variables stay its own. `of_input` says whether gradients for its input are needed: not
    for a layer that reads data. `at_once`, in training it has the products of all time steps at
    once, which `fits_at_once` must allow; answering, it stays Keras's then. A mask has to be that
    of right-padded sequences, `t < length`, and the layer raises `ValueError` when it is called
    with an initial state. One that gives or keeps its state is left as it is.
    """
    cell = layer.cell
    if layer.return_state or layer.stateful:
        return  # Keras's own: nothing here needs it
    # Not inside a call, where Keras hands variables out in the precision of the layer: gradients
    # are summed up over time in that of the variables.
    variables = [variable.value for variable in cell.trainable_variables]
    known = steps_of(layer)
    written_out, steps = known is not None, known if at_once else None
    in_keras = layer.call

    def read(
        sequence: tf.Tensor, mask: tf.Tensor | None, *weights: tf.Tensor, training: bool
    ) -> tf.Tensor:
        given = list(weights)
        lengths = None if mask is None else tf.reduce_sum(tf.cast(mask, tf.int32), axis=1)
        states = layer.get_initial_state(batch_size=tf.shape(sequence)[0])
        if training:
            sequence = _with_dropout_drawn(cell, sequence, states)
        what = (given, sequence, states, lengths)
        how = {
            "backwards": layer.go_backwards, "every": layer.return_sequences, "of_input": of_input,
        }  # fmt: skip
        if steps is not None:
            return run_at_once(steps(cell, given), *what, **how)
        if written_out:
            step, given[-1] = step_written_out(cell, given[-1], tf.shape(states[0])[0])
        else:
            step = step_of(cell, of_input=of_input, training=training)
        return run(step, *what, **how)

    # A graph of its own: there the gradients that `run` names are looked up.
    traced = tf.function(read, autograph=False)

    def call(
        sequence: tf.Tensor, initial_state: Any = None, mask: Any = None, training: bool = False
    ) -> tf.Tensor:
        if initial_state is not None:
            raise ValueError("a layer made to loop over time takes no initial_state")
        if steps is not None and not training:
            # Many sequences are answered at a time, and nothing of their steps need be kept.
            return in_keras(sequence, mask=mask, training=False)
        weights = map(tf.convert_to_tensor, variables)
        # What a share draws is in its own program, and no function can serve another.
        function = tf.function(read, autograph=False) if is_for_share() else traced
        return function(sequence, mask, *weights, training=bool(training))

    layer.call = call


def fits_at_once(layer: keras.layers.RNN, timesteps: int, examples: int) -> bool:
    """Whether the products of all steps of so many sequences can be computed at once.

    `layer` must have a cell whose steps are written out for that, and what is kept of the steps
    must not take too much memory: four numbers for each gate.
    """
    steps = steps_of(layer)
    if steps is None or layer.return_state or layer.stateful:
        return False
    gates: int = len(steps.sigmoids) * layer.cell.units
    return 4 * 4 * gates * timesteps * examples <= AT_ONCE_BYTES


def answer_all_steps(dense: keras.layers.Dense) -> None:
    """Make the softmax `dense`, built, answer all steps by products of matrices that compile well.

    Its variables stay its own. It then takes `(examples, timesteps, units)` only.
    """
    variables = [dense.kernel.value, dense.bias.value]

    def answer(states: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
        _, timesteps, units = states.shape
        steps = tf.reshape(states, (-1, units))
        with _turned_factors(steps):
            logits = steps @ kernel + bias
        return tf.reshape(logits, (-1, timesteps, kernel.shape[1]))

    # A graph of its own: there the gradients of products are looked up.
    traced = tf.function(answer, autograph=False)

    def call(states: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        logits = traced(tf.cast(states, dense.compute_dtype), *map(tf.convert_to_tensor, variables))
        # Not in there: from a softmax that it sees, Keras's loss takes the logits.
        return tf.nn.softmax(logits)

    dense.call = call


def _drops_input_once(cell: keras.Layer) -> bool:
    """Whether one mask drops the same inputs at every step: then it can before the loop.

    A GRU with dropout of its state has one for each gate.
    """
    return cell.dropout > 0 and getattr(cell, "dropout_mask_count", None) is None


def run(
    step: Step,
    weights: Tensors,
    sequence: tf.Tensor,
    initial: Tensors,
    lengths: tf.Tensor | None = None,
    *,
    backwards: bool,
    every: bool,
    of_input: bool,
) -> tf.Tensor:
    """The last state that a cell gives for a sequence, or every one in the order of reading.

    `sequence` is `(examples, timesteps, features)`, `initial` has the states before the first
    step, each `(examples, units)`; the result is `(examples, units)` or, if `every`,
    `(examples, timesteps, units)`. Of each sequence the first `lengths` steps are read, int32
    `(examples,)`, without `lengths` all: a state stays as it is at the others, of which some are
    left out, and a result there means nothing. With gradients for the weights, by back-propagation
    through time (Werbos 1990, "Backpropagation through time: what it does and how to do it"), and
    for the sequence if `of_input`.
    """
    timesteps = sequence.shape[1]
    reading = _Reading(timesteps, lengths, backwards=backwards)
    first, end = reading.first, reading.end
    inputs = reading.frames(sequence)

    def forward(
        t: tf.Tensor, states: Tensors, kept: list[tf.TensorArray], more: list[tf.TensorArray]
    ) -> tuple[Any, ...]:
        before = list(states)
        after, gates = step.forward(weights, inputs[reading.place(t)], before)
        states = reading.where(t, after, before)
        kept = [k.write(t + 1, s) for k, s in zip(kept, states, strict=True)]
        return t + 1, states, kept, [m.write(t, g) for m, g in zip(more, gates, strict=True)]

    kept = [_steps(timesteps + 1, state).write(first, state) for state in initial]
    more = [_steps(timesteps, initial[0]) for _ in range(step.kept)]
    start = (first, initial, kept, more)
    _, last, kept, more = tf.while_loop(lambda t, *_: t < end, forward, start)
    states = [each.stack() for each in kept]
    gates = [each.stack() for each in more]

    def gradients(of_result: tf.Tensor) -> list[tf.Tensor | None]:
        step_back = step.back(weights)
        of_each = tf.transpose(of_result, (1, 0, 2)) if every else None

        def backward(
            t: tf.Tensor, of_states: Tensors, of_weights: Tensors, *of_inputs: tf.TensorArray
        ) -> tuple[Any, ...]:
            of_states = list(of_states)
            if of_each is not None:
                of_states[0] += of_each[t]
            before, after = ([each[j] for each in states] for j in (t, t + 1))
            i = reading.place(t)
            of_read = reading.where(t, of_states, nothing)
            kept = [each[t] for each in gates]
            of_frame, of_before, more = step_back(inputs[i], before, after, kept, of_read)
            of_states = reading.where(t, of_before, of_states)
            of_weights = [old + add for old, add in zip(of_weights, more, strict=True)]
            return t - 1, of_states, of_weights, *(o.write(i, of_frame) for o in of_inputs)

        nothing = [tf.zeros_like(state) for state in initial]
        of_last = nothing if every else [of_result, *nothing[1:]]
        start = (end - 1, of_last, [tf.zeros_like(weight) for weight in weights])
        of_inputs = [_steps(timesteps, inputs[0])] if of_input else []
        _, _, of_weights, *of_inputs = tf.while_loop(
            lambda t, *_: t >= first, backward, (*start, *of_inputs)
        )
        of_sequence = [tf.transpose(each.stack(), (1, 0, 2)) for each in of_inputs]
        return [*(of_sequence or [None]), *of_weights]

    result = tf.transpose(states[0][1:], (1, 0, 2)) if every else last[0]
    return _with_gradients(result, [sequence, *weights], gradients)


def run_at_once(
    steps: Steps,
    weights: Tensors,
    sequence: tf.Tensor,
    initial: Tensors,
    lengths: tf.Tensor | None = None,
    *,
    backwards: bool,
    every: bool,
    of_input: bool,
) -> tf.Tensor:
    """What `run` gives, by `steps` of `weights`: the products of all time steps at once.

    The initial states must be zeros.
    """
    timesteps = sequence.shape[1]
    reading = _Reading(timesteps, lengths, backwards=backwards)
    first, end = reading.first, reading.end
    frames = reading.in_order(reading.frames(sequence))
    examples = initial[0].shape[0]
    nothing = [tf.zeros_like(state) for state in initial]

    def arrays(numbers: tuple[int, ...]) -> list[tf.TensorArray]:
        shapes = ((examples, n) for n in numbers)
        return [tf.TensorArray(tf.float32, timesteps, element_shape=each) for each in shapes]

    def forward(
        t: tf.Tensor, states: Tensors, kept: list[tf.TensorArray], more: list[tf.TensorArray]
    ) -> tuple[Any, ...]:
        def choose(new: tf.Tensor, old: tf.Tensor) -> tf.Tensor:
            return reading.where(t, [new], [old])[0]

        inputs, product = [each.read(t) for each in kept], steps.of_state(states[0])
        after, keep, add = steps.forward(inputs, product, list(states), choose)
        return t + 1, after, _write(t, kept, keep), _write(t, more, add)

    # A step overwrites its inputs with what is kept of it. Where none is read, these are of zeros,
    # and so zeros.
    start = (first, initial, _in_place(steps.inputs(frames)), arrays(steps.kept()))
    _, last, kept, more = tf.while_loop(lambda t, *_: t < end, forward, start)
    answers = steps.read(*([each.stack() for each in some] for some in (kept, more)))

    def gradients(of_result: tf.Tensor) -> list[tf.Tensor | None]:
        of_each = tf.transpose(of_result, (1, 0, 2)) if every else None

        def back(t: tf.Tensor, of_states: Tensors, kept: tf.TensorArray) -> tuple[Any, ...]:
            of_states = list(of_states)
            if of_each is not None:
                of_states[0] += of_each[t]
            of_read = reading.where(t, of_states, nothing)
            of_product, of_before, keep = steps.back(t, kept.read(t), of_read)
            if lengths is not None:
                missing = len(initial) - len(of_before)
                of_before = reading.where(t, [*nothing[:missing], *of_before], of_states)
            return of_product, of_before, kept.write(t, keep)

        def backward(
            t: tf.Tensor, of_product: tf.Tensor, of_before: Tensors, kept: tf.TensorArray
        ) -> tuple[Any, ...]:
            # The gradient of a product, computed in the step before it: in one step, XLA would
            # compute it a number at a time, in the shape that this product has it in.
            of_first = steps.to_state(of_product)
            of_states = list(of_before)
            if len(of_states) < len(initial):
                of_states.insert(0, of_first)
            else:
                of_states[0] += of_first
            return t - 1, *back(t, of_states, kept)

        of_last = nothing if every else [of_result, *nothing[1:]]
        (kept,) = _in_place([reading.zero_elsewhere(steps.to_keep())])
        start = (end - 2, *back(end - 1, of_last, kept))
        *_, kept = tf.while_loop(lambda t, *_: t >= first, backward, start)
        of_gates = steps.gradients(kept.stack())
        of_weights = steps.of_weights(frames, before(answers), of_gates)
        if not of_input:
            return [None, *of_weights]
        of_frames = reading.in_order(steps.of_frames(of_gates))
        return [tf.transpose(of_frames, (1, 0, 2)), *of_weights]

    result = tf.transpose(answers, (1, 0, 2)) if every else last[0]
    return _with_gradients(result, [sequence, *weights], gradients)


def _in_place(arrays: Tensors) -> list[tf.TensorArray]:
    """Arrays of steps that hold what is in those given."""
    return [
        tf.TensorArray(each.dtype, each.shape[0], element_shape=each.shape[1:]).unstack(each)
        for each in arrays
    ]


def _write(t: tf.Tensor, arrays: list[tf.TensorArray], steps: Tensors) -> list[tf.TensorArray]:
    return [array.write(t, step) for array, step in zip(arrays, steps, strict=True)]


class _Reading:
    """The order in which the steps of a batch are read, and which of them are there to read."""

    def __init__(self, timesteps: int, lengths: tf.Tensor | None, *, backwards: bool) -> None:
        self._timesteps, self._lengths, self._backwards = timesteps, lengths, backwards
        # Up to the end of the longest sequence, or, backwards, from there.
        self.first, self.end = 0, timesteps
        if lengths is not None:
            longest = tf.reduce_max(lengths)
            self.first, self.end = (timesteps - longest, timesteps) if backwards else (0, longest)

    def frames(self, sequence: tf.Tensor) -> tf.Tensor:
        """The frames of `sequence`, time first: a time step is one piece of memory."""
        if self._lengths is not None:
            # Whatever the padding holds: a gradient of 0 times infinity would be NaN.
            there = tf.sequence_mask(self._lengths, self._timesteps)[..., None]
            sequence = tf.where(there, sequence, 0)
        return tf.transpose(sequence, (1, 0, 2))

    def in_order(self, steps: tf.Tensor) -> tf.Tensor:
        """`steps`, time first, as they are read; or, as they are read, time first."""
        return tf.reverse(steps, [0]) if self._backwards else steps

    def zero_elsewhere(self, steps: tf.Tensor) -> tf.Tensor:
        """`steps`, in the order of reading, with zeros in those that are not read."""
        if self._lengths is None:
            return steps
        t = tf.reshape(tf.range(self._timesteps), (-1, *(1,) * (len(steps.shape) - 1)))
        return tf.where((t >= self.first) & (t < self.end), steps, 0)

    def place(self, t: tf.Tensor) -> tf.Tensor:
        """Where in the sequence the step is that is read as number `t`."""
        return self._timesteps - 1 - t if self._backwards else t

    def where(self, t: tf.Tensor, new: Tensors, old: Tensors) -> Tensors:
        """`new` for the sequences that have the step read at `t`, `old` for the others."""
        if self._lengths is None:
            return new
        has_step = (self.place(t) < self._lengths)[:, None]
        return [tf.where(has_step, one, other) for one, other in zip(new, old, strict=True)]


def _with_gradients(
    result: tf.Tensor, sources: Tensors, gradients: Callable[[tf.Tensor], list[tf.Tensor | None]]
) -> tf.Tensor:
    """`result`, whose gradients for `sources` are what `gradients` makes of its own.

    As `tf.custom_gradient` would have it; but that registers a gradient for every call, and keeps
    the graph for ever. Here one is registered, and the graph itself keeps what it calls.
    """
    graph = result.graph
    with graph.gradient_override_map({"IdentityN": LOOP_GRADIENT}):
        passed, *_ = tf.identity_n([result, *sources])
    if not hasattr(graph, LOOP_GRADIENT):
        setattr(graph, LOOP_GRADIENT, {})
    getattr(graph, LOOP_GRADIENT)[passed.op.name] = gradients
    passed_on: tf.Tensor = passed
    return passed_on


def _loop_gradient(operation: tf.Operation, of_result: tf.Tensor, *_: Any) -> list[Any]:
    gradients = getattr(operation.graph, LOOP_GRADIENT)[operation.name]
    return [None, *gradients(of_result)]


def _steps(timesteps: int, like: tf.Tensor) -> tf.TensorArray:
    return tf.TensorArray(like.dtype, timesteps, element_shape=like.shape)


def simple_step(
    activation: Callable[[tf.Tensor], tf.Tensor], slope: Callable[[tf.Tensor], tf.Tensor]
) -> Step:
    """`h' = activation(x @ kernel + h @ recurrent_kernel + bias)`, its gradients written out.

    `kernel` is `(features, units)`, `recurrent_kernel` `(units, units)`, `bias`
    `(examples, units)`; `slope` is that of the activation, from its value.
    """

    def forward(weights: Tensors, frame: tf.Tensor, states: Tensors) -> tuple[Tensors, Tensors]:
        kernel, recurrent_kernel, bias = weights
        return [activation(frame @ kernel + states[0] @ recurrent_kernel + bias)], []

    def back(weights: Tensors) -> StepBack:
        turned_kernel, turned_recurrent = map(tf.transpose, weights[:2])

        def step_back(
            frame: tf.Tensor, before: Tensors, after: Tensors, _: Tensors, of_after: Tensors
        ) -> tuple[tf.Tensor, Tensors, Tensors]:
            of_sum = of_after[0] * slope(after[0])
            of_kernels = [tf.transpose(factor) @ of_sum for factor in (frame, before[0])]
            return of_sum @ turned_kernel, [of_sum @ turned_recurrent], [*of_kernels, of_sum]

        return step_back

    return Step(forward, back)


def lstm_step() -> Step:
    """`c' = f c + i g`, `h' = o tanh(c')`, with tanh in g and sigmoids in the gates i, f and o.

    The weights are as for `simple_step`, their columns in the order i, f, g, o.
    """

    def forward(weights: Tensors, frame: tf.Tensor, states: Tensors) -> tuple[Tensors, Tensors]:
        kernel, recurrent_kernel, bias = weights
        sums = tf.split(frame @ kernel + states[0] @ recurrent_kernel + bias, 4, axis=1)
        i, f, o = (tf.sigmoid(sums[place]) for place in (0, 1, 3))
        g = tf.tanh(sums[2])
        c = f * states[1] + i * g
        return [o * tf.tanh(c), c], [i, f, g, o]

    def back(weights: Tensors) -> StepBack:
        turned_kernel, turned_recurrent = map(tf.transpose, weights[:2])

        def step_back(
            frame: tf.Tensor, before: Tensors, after: Tensors, kept: Tensors, of_after: Tensors
        ) -> tuple[tf.Tensor, Tensors, Tensors]:
            i, f, g, o = kept
            of_h, of_c = of_after
            squashed = tf.tanh(after[1])
            of_c += of_h * o * (1 - squashed * squashed)
            of_sums = [
                of_c * g * i * (1 - i),
                of_c * before[1] * f * (1 - f),
                of_c * i * (1 - g * g),
                of_h * squashed * o * (1 - o),
            ]
            of_sum = tf.concat(of_sums, 1)
            of_kernels = [tf.transpose(factor) @ of_sum for factor in (frame, before[0])]
            of_states = [of_sum @ turned_recurrent, of_c * f]
            return of_sum @ turned_kernel, of_states, [*of_kernels, of_sum]

        return step_back

    return Step(forward, back, kept=4)


def gru_step() -> Step:
    """`h' = z h + (1 - z) g`, `g = tanh(x + r p)`, with sigmoids in the gates z and r.

    x is of the frame, p of the state. The kernels are as for `simple_step`, their columns in the
    order z, r, g; `bias` is `(2, examples, 3 * units)`, that of the frame and that of the state.
    """

    def forward(weights: Tensors, frame: tf.Tensor, states: Tensors) -> tuple[Tensors, Tensors]:
        kernel, recurrent_kernel, bias = weights
        of_frame = tf.split(frame @ kernel + bias[0], 3, axis=1)
        of_state = tf.split(states[0] @ recurrent_kernel + bias[1], 3, axis=1)
        z, r = (tf.sigmoid(of_frame[gate] + of_state[gate]) for gate in (0, 1))
        p = of_state[2]
        g = tf.tanh(of_frame[2] + r * p)
        return [z * states[0] + (1 - z) * g], [z, r, p, g]

    def back(weights: Tensors) -> StepBack:
        turned_kernel, turned_recurrent = map(tf.transpose, weights[:2])

        def step_back(
            frame: tf.Tensor, before: Tensors, _: Tensors, kept: Tensors, of_after: Tensors
        ) -> tuple[tf.Tensor, Tensors, Tensors]:
            z, r, p, g = kept
            of_h = of_after[0]
            of_z = of_h * (before[0] - g) * z * (1 - z)
            of_x = of_h * (1 - z) * (1 - g * g)
            of_r, of_p = of_x * p * r * (1 - r), of_x * r
            of_frames, of_products = (tf.concat([of_z, of_r, each], 1) for each in (of_x, of_p))
            of_weights = [
                tf.transpose(frame) @ of_frames,
                tf.transpose(before[0]) @ of_products,
                tf.stack([of_frames, of_products]),
            ]
            of_state = of_h * z + of_products @ turned_recurrent
            return of_frames @ turned_kernel, [of_state], of_weights

        return step_back

    return Step(forward, back, kept=4)


def step_written_out(
    cell: keras.Layer, bias: tf.Tensor, examples: tf.Tensor
) -> tuple[Step, tf.Tensor]:
    """The step of a cell that `steps_of` knows, its gradients written out; and the bias for it.

    That has a row for each of the `examples`: what is summed up over them is summed up over time
    before.
    """
    if isinstance(cell, keras.layers.LSTMCell):
        step = lstm_step()
    elif isinstance(cell, keras.layers.GRUCell):
        step = gru_step()
    else:
        step = simple_step(cell.activation, SLOPES[cell.activation.__name__])
    rows = (*bias.shape[:-1], examples, bias.shape[-1])
    return step, tf.broadcast_to(bias[..., None, :], rows)


def step_of(cell: keras.Layer, *, of_input: bool, training: bool) -> Step:
    """A step of any cell of Keras; its gradients are TensorFlow's, of the step computed again."""

    def answer(weights: Tensors, frame: tf.Tensor, states: Tensors) -> Tensors:
        values = list(zip(cell.trainable_variables, weights, strict=True))
        with keras.StatelessScope(values), _turned_factors(frame), _input_is_dropped(cell):
            return list(cell(frame, states, training=training)[1])

    def forward(weights: Tensors, frame: tf.Tensor, states: Tensors) -> tuple[Tensors, Tensors]:
        return answer(weights, frame, states), []

    def back(weights: Tensors) -> StepBack:
        def step_back(
            frame: tf.Tensor, before: Tensors, _: Tensors, kept: Tensors, of_after: Tensors
        ) -> tuple[tf.Tensor | None, Tensors, Tensors]:
            # Tensors of this graph, by which gradients are to be found.
            weights_here, before, (frame,) = (
                [tf.identity(x) for x in group] for group in (weights, before, [frame])
            )
            after = answer(weights_here, frame, before)
            sources = [before, weights_here, [frame] if of_input else []]
            # A tape would not know of the factors that are turned.
            found = iter(tf.gradients(after, tf.nest.flatten(sources), of_after))
            of_before, of_weights, of_frame = ([next(found) for _ in each] for each in sources)
            return (of_frame[0] if of_input else None), of_before, of_weights

        return step_back

    return Step(forward, back)


@contextlib.contextmanager
def _input_is_dropped(cell: keras.Layer) -> Iterator[None]:
    """Have the cell drop no input of its own, where that has been done."""
    dropout = cell.dropout
    cell.dropout = 0.0 if _drops_input_once(cell) else dropout
    try:
        yield
    finally:
        cell.dropout = dropout


def _with_dropout_drawn(
    cell: keras.Layer, sequence: tf.Tensor, states: Sequence[tf.Tensor]
) -> tf.Tensor:
    """Draw the masks that `cell` then has in every step, and in the steps back, of a sequence.

    Gives the sequence, without the inputs that are dropped at every step alike.
    """
    cell.reset_dropout_mask()
    cell.reset_recurrent_dropout_mask()
    of_input = cell.get_dropout_mask(sequence[:, 0])
    cell.get_recurrent_dropout_mask(states[0])
    if not _drops_input_once(cell):
        return sequence
    cell.reset_dropout_mask()  # or the cell would apply it again
    return sequence * of_input[:, None]


def _matmul_gradient(operation: tf.Operation, of_product: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    left, right = operation.inputs
    # No cell of Keras has one; with one, the lines below would be wrong without a word.
    if operation.get_attr("transpose_a") or operation.get_attr("transpose_b"):
        raise NotImplementedError("the gradient of a product of transposed matrices")
    return of_product @ tf.transpose(right), tf.transpose(left) @ of_product


def _register(name: str, gradient: Callable[..., Any]) -> None:
    """Register a gradient once: TensorFlow refuses another, as when a notebook reloads a module."""
    with contextlib.suppress(KeyError):
        tf.RegisterGradient(name)(gradient)


# The functions are looked up when they are called: they are those of the reloaded module.
_register(MATMUL_GRADIENT, lambda *given: _matmul_gradient(*given))
_register(LOOP_GRADIENT, lambda *given: _loop_gradient(*given))


def _turned_factors(frame: tf.Tensor) -> contextlib.AbstractContextManager[Any]:
    """Where gradients of products turn a factor first; without a compiler they need not."""
    if tf.executing_eagerly():
        return contextlib.nullcontext()
    override: contextlib.AbstractContextManager[Any] = frame.graph.gradient_override_map(
        {"MatMul": MATMUL_GRADIENT}
    )
    return override
