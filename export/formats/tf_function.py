"""The network as a `tf.function`: what SavedModel, TFLite and tf2onnx are made from."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from export.network import NEXT_STATE, OUTPUT, Layer, Network, Recurrence
from export.signatures import STEPS, Signature, classify
from export.signatures import step as step_signature
from rnn_tf.data.normalize import Normalize
from rnn_tf.model.cells import Cell

if TYPE_CHECKING:
    import tensorflow as tf

# Up to this many time steps a graph has them written out: converters and runtimes optimise
# straight lines. Beyond, the graph itself would be what is slow to convert and load.
MOST_UNROLLED = 64
# Steps that a turn of a loop has written out, where the states of all steps are wanted: TFLite
# copies all of them whenever some are added.
STEPS_A_TURN = 32

State = tuple["tf.Tensor", ...]
# (x W + b of the step (batch, g*u), state, None for zeros) -> next state, (batch, u) each
Step = Callable[["tf.Tensor", State | None], State]
# What there is of a time step: x W + b, and where lengths vary, whether it is in the sequence.
Frame = tuple["tf.Tensor", ...]


@dataclass(frozen=True)
class Lengths:
    """How long the sequences of a batch are, where that varies."""

    each: tf.Tensor  # int32 (batch,), from 1 on
    longest: tf.Tensor  # int32 ()
    valid: tf.Tensor  # bool (batch, timesteps, 1): the step is in the sequence, and no padding


def inference_function(network: Network, *, unroll: bool | None = None, fold: bool = True) -> Any:
    """The network as a `tf.function`, weights as constants, for SavedModel and the converters.

    It maps raw float32 `sequence` `(batch, timesteps, features)`, any batch, to a dictionary with
    float32 `probabilities` `(batch, classes)`, or, where it answers at every step, `(batch,
    timesteps, classes)`. Where lengths vary, its second input is int32
    `lengths` `(batch,)`; loops then end with the longest sequence. `unroll` writes the time steps
    out, by default as many as are worth it. `fold` puts the normalization into the weights of the
    first layer. Weights that are to be rounded are better off without it: features may be of very
    different size.
    """
    import tensorflow as tf

    spec = network.spec
    unroll = spec.longest <= MOST_UNROLLED if unroll is None else unroll

    @tf.function(  # type: ignore[untyped-decorator]
        input_signature=_input_signature(classify(spec)), autograph=False
    )
    def function(sequence: tf.Tensor, lengths: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        *before, last = network.raw_layers if fold else network.layers
        known = None if lengths is None else _known(lengths, spec.longest)
        frames = sequence if fold else _normalized(sequence, spec.normalization)
        read = functools.partial(_read_layer, lengths=known, unroll=unroll)
        for layer in before:
            frames = tf.concat(read(layer, frames, every=True), axis=2)
        if not network.every_step:
            state = tf.concat(read(last, frames, every=False), axis=1)
            return {OUTPUT: _answer(network, state)}
        states = tf.concat(read(last, frames, every=True), axis=2)
        answers = _answer(network, tf.reshape(states, (-1, last.width)))
        return {OUTPUT: tf.reshape(answers, (-1, spec.longest, spec.classes))}

    return function


def step_function(network: Network, *, one: bool, fold: bool = True) -> Any:
    """The step of a network that reads forward, as a `tf.function`, weights as constants.

    It maps raw float32 `frames` `(batch, steps, features)` and the states before them, `(batch,
    units)` each, to a dictionary with the `probabilities` after each, `(batch, steps, classes)`,
    and the states after the last. With `one`, steps is 1, and nothing but what that needs is in the
    graph; else any number, in a loop. `fold` is as above.
    """
    import tensorflow as tf

    spec, units = network.spec, network.state_units
    signature = step_signature(spec, units, 1 if one else STEPS)
    layers = [each.forward for each in (network.raw_layers if fold else network.layers)]

    @tf.function(  # type: ignore[untyped-decorator]
        input_signature=_input_signature(signature), autograph=False
    )
    def function(frames: tf.Tensor, *states: tf.Tensor) -> dict[str, tf.Tensor]:
        frames = frames if fold else _normalized(frames, spec.normalization)
        read = _reader(layers)
        if one:
            # Reshaped, not sliced: XNNPACK, which computes the rest, takes that too.
            top, after = read(tf.reshape(frames, (-1, spec.features)), states)
            answers = tf.reshape(_answer(network, top), (-1, 1, spec.classes))
        else:
            by_time, after = _read_in_a_loop(read, frames, states)
            answers = _answer(network, tf.reshape(by_time, (-1, layers[-1].units)))
            shape = tf.concat([tf.shape(by_time)[:2], [spec.classes]], 0)
            answers = tf.transpose(tf.reshape(answers, shape), (1, 0, 2))
        named = {NEXT_STATE.format(i): state for i, state in enumerate(after)}
        return {OUTPUT: answers, **named}

    return function


# Reads a frame (batch, features) in the states of all layers; gives the output and all states.
Reader = Callable[["tf.Tensor", State], tuple["tf.Tensor", State]]


def _reader(layers: list[Recurrence]) -> Reader:
    """One step of all layers, each of which reads what the one before gives."""
    import tensorflow as tf

    steps = [step(weights) for weights in layers]
    kernels = [(tf.constant(each.kernel), tf.constant(each.input_bias)) for each in layers]

    def read(frame: tf.Tensor, states: State) -> tuple[tf.Tensor, State]:
        after: list[tf.Tensor] = []
        each = len(states) // len(layers)
        for i, (one_step, (kernel, bias)) in enumerate(zip(steps, kernels, strict=True)):
            new = one_step(frame @ kernel + bias, states[i * each : (i + 1) * each])
            after += new
            frame = new[0]
        return frame, tuple(after)

    return read


def _read_in_a_loop(read: Reader, frames: tf.Tensor, states: State) -> tuple[tf.Tensor, State]:
    """What `read` gives of each frame, `(steps, batch, units)`, and the states after the last."""
    import tensorflow as tf

    by_time = tf.transpose(frames, (1, 0, 2))
    end, units = tf.shape(by_time)[0], states[-1].shape[1]

    def turn(t: tf.Tensor, found: Any, states: State) -> tuple[tf.Tensor, Any, State]:
        top, after = read(by_time[t], states)
        return t + 1, found.write(t, top), after

    found = tf.TensorArray(tf.float32, size=end, element_shape=(None, units))
    _, found, after = tf.while_loop(lambda t, *_: t < end, turn, (tf.constant(0), found, states))
    return found.stack(), after


def _input_signature(signature: Signature) -> list[tf.TensorSpec]:
    import tensorflow as tf

    return [
        tf.TensorSpec(
            [axis if isinstance(axis, int) else None for axis in each.axes], each.dtype, each.name
        )
        for each in signature.inputs
    ]


def _answer(network: Network, states: tf.Tensor) -> tf.Tensor:
    """The softmax of `states` `(rows, width)`."""
    import tensorflow as tf

    # Here, so that weights are constants of the graph; outside they would be further inputs.
    dense_kernel, dense_bias = map(tf.constant, (network.dense_kernel, network.dense_bias))
    return tf.nn.softmax(states @ dense_kernel + dense_bias, name=OUTPUT)


def _known(lengths: tf.Tensor, longest: int) -> Lengths:
    """What follows from the input `lengths`, brought to 1 and up to `longest` whatever it holds."""
    import tensorflow as tf

    each = tf.clip_by_value(lengths, 1, longest)
    steps = tf.constant(np.arange(longest, dtype=np.int32)[None, :, None])
    return Lengths(each, tf.reduce_max(each), steps < tf.reshape(each, (-1, 1, 1)))


def _normalized(sequence: tf.Tensor, normalize: Normalize) -> tf.Tensor:
    scale, shift = normalize.arrays()
    scaled = sequence * scale
    return scaled if shift is None else scaled + shift


def _read_layer(
    layer: Layer, frames: tf.Tensor, lengths: Lengths | None, *, unroll: bool, every: bool
) -> list[tf.Tensor]:
    """What each direction has read of `frames` `(batch, timesteps, inputs)`.

    With `every` its states after every step, `(batch, timesteps, units)`, else the final one,
    `(batch, units)`.
    """
    read = _unrolled if unroll else _looped
    found = [read(layer.forward, _projected(layer.forward, frames), lengths, every)]
    if layer.backward is not None:
        turned = _reversed(_projected(layer.backward, frames), lengths)
        states = read(layer.backward, turned, lengths, every)
        found.append(_reversed(states, lengths) if every else states)
    return found


def _reversed(frames: tf.Tensor, lengths: Lengths | None) -> tf.Tensor:
    """`(batch, timesteps, ...)` from the last step to the first; the padding stays where it is."""
    import tensorflow as tf

    if lengths is None:
        return tf.reverse(frames, axis=[1])
    return tf.reverse_sequence(frames, lengths.each, seq_axis=1, batch_axis=0)


def _projected(weights: Recurrence, frames: tf.Tensor) -> tf.Tensor:
    """x W + b of all time steps, one product: only what needs the state has to wait for it."""
    import tensorflow as tf

    kernel, bias = tf.constant(weights.kernel), tf.constant(weights.input_bias)
    rows = tf.reshape(frames, (-1, weights.inputs)) @ kernel + bias
    return tf.reshape(rows, (-1, frames.shape[1], rows.shape[1]))


def step(weights: Recurrence) -> Step:
    """One step of a recurrence, in the graph that is being made."""
    return _STEPS[weights.cell](weights)


def _read(step: Step, frame: Frame, state: State | None) -> State:
    """The state after a frame: of a sequence that has ended, the one before it.

    By a selection: padding may be NaN, which would come through any product.
    """
    import tensorflow as tf

    new = step(frame[0], state)
    if state is None or len(frame) == 1:  # every sequence has a first step
        return new
    return tuple(tf.where(frame[1], *each) for each in zip(new, state, strict=True))


def _unrolled(
    weights: Recurrence, inputs: tf.Tensor, lengths: Lengths | None, every: bool
) -> tf.Tensor:
    """Every step of `inputs` `(batch, timesteps, g*u)` written out."""
    import tensorflow as tf

    # Unstacked at once: a slice for every step would triple the time in TFLite.
    parts = (inputs,) if lengths is None else (inputs, lengths.valid)
    frames = list(zip(*(tf.unstack(part, axis=1) for part in parts), strict=True))
    states = _written_out(step(weights), frames, None)
    return tf.stack([state[0] for state in states], axis=1) if every else states[-1][0]


def _written_out(step: Step, frames: list[Frame], state: State | None) -> list[State]:
    """The states after each of `frames`, the first read in `state`."""
    states = []
    for frame in frames:
        state = _read(step, frame, state)
        states.append(state)
    return states


def _looped(
    weights: Recurrence, inputs: tf.Tensor, lengths: Lengths | None, every: bool
) -> tf.Tensor:
    """The same as a loop that needs no list of tensors, which TFLite does not have."""
    import tensorflow as tf

    one_step, timesteps = step(weights), inputs.shape[1]
    parts = (inputs,) if lengths is None else (inputs, lengths.valid)
    by_time = [tf.transpose(part, (1, 0, 2)) for part in parts]
    end = timesteps if lengths is None else lengths.longest

    def at(t: tf.Tensor | int) -> Frame:
        return tuple(tf.gather(part, t) for part in by_time)

    if not every:
        _, state = tf.while_loop(
            lambda t, state: t < end,
            lambda t, state: (t + 1, _read(one_step, at(t), state)),
            (tf.constant(1), one_step(by_time[0][0], None)),
        )
        return state[0]
    # The first turn, outside the loop, also takes the steps that do not fill one.
    steps = min(STEPS_A_TURN, timesteps)
    first = timesteps % steps + steps
    frames = list(zip(*(tf.unstack(part[:first]) for part in by_time), strict=True))
    states = _written_out(one_step, frames, None)
    begun = tf.stack([state[0] for state in states])
    if first == timesteps:
        return tf.transpose(begun, (1, 0, 2))
    turns = (timesteps - first) // steps
    # Rounded up: what is read of the last turn may be padding.
    last = turns if lengths is None else (end - first + steps - 1) // steps
    later = [tf.reshape(part[first:], (turns, steps, -1, part.shape[2])) for part in by_time]

    def turn(t: tf.Tensor, state: State, found: tf.Tensor) -> tuple[tf.Tensor, State, tf.Tensor]:
        frames = list(zip(*(tf.unstack(tf.gather(part, t)) for part in later), strict=True))
        states = _written_out(one_step, frames, state)
        made = tf.stack([state[0] for state in states])
        found = tf.tensor_scatter_nd_update(found, tf.reshape(t, (1, 1)), made[None])
        return t + 1, states[-1], found

    empty = tf.zeros_like(tf.tile(begun[None, :steps], (turns, 1, 1, 1)))
    _, _, found = tf.while_loop(lambda t, *_: t < last, turn, (tf.constant(0), states[-1], empty))
    rest = tf.reshape(found, (turns * steps, -1, weights.units))
    return tf.transpose(tf.concat([begun, rest], axis=0), (1, 0, 2))


def activation(name: str) -> Callable[[tf.Tensor], tf.Tensor]:
    """An activation of Keras, where needed in a form that TFLite computes well.

    Its converter makes log(1 + e^x) of softplus, which is infinite from 89 on; of squareplus
    nothing would be left below zero by cancellation. And tf2onnx knows neither erfc nor expm1.
    """
    import keras
    import tensorflow as tf

    def softplus(x: tf.Tensor) -> tf.Tensor:
        return tf.nn.relu(x) + tf.math.log(1.0 + tf.exp(-tf.abs(x)))

    def squareplus(x: tf.Tensor) -> tf.Tensor:
        total = tf.abs(x) + tf.sqrt(x * x + 4.0)
        return tf.where(x > 0, total / 2.0, 2.0 / total)

    def mish(x: tf.Tensor) -> tf.Tensor:
        # x tanh(softplus(x)) in powers of e^-|x|, so that the error of no tanh is multiplied by x.
        power = tf.exp(-tf.abs(x))
        n = tf.where(x > 0, 1.0 + 2.0 * power, power * (power + 2.0))
        return x * n / tf.where(x > 0, n + 2.0 * power * power, n + 2.0)

    def gelu(x: tf.Tensor) -> tf.Tensor:
        return 0.5 * x * (1.0 + tf.math.erf(x * np.float32(1 / math.sqrt(2))))

    stable = {
        "celu": tf.nn.elu,  # the same, and an operator of every format
        "gelu": gelu,
        "softplus": softplus,
        "log_sigmoid": lambda x: -softplus(-x),
        "mish": mish,
        "squareplus": squareplus,
    }
    function: Callable[[tf.Tensor], tf.Tensor] = stable.get(name) or keras.activations.get(name)
    return function


def _simple_rnn(weights: Recurrence) -> Step:
    import tensorflow as tf

    f = activation(weights.activation)
    u = tf.constant(weights.recurrent_kernel)

    def step(x: tf.Tensor, state: State | None) -> State:
        return (f(x if state is None else x + state[0] @ u),)

    return step


def _lstm(weights: Recurrence) -> Step:
    import tensorflow as tf

    f, s = activation(weights.activation), activation(weights.recurrent_activation)
    u = tf.constant(weights.recurrent_kernel)

    def step(x: tf.Tensor, state: State | None) -> State:
        i, forget, g, o = tf.split(x if state is None else x + state[0] @ u, 4, axis=1)
        c = s(i) * f(g) if state is None else s(forget) * state[1] + s(i) * f(g)
        return s(o) * f(c), c

    return step


def _gru(weights: Recurrence) -> Step:
    import tensorflow as tf

    f, s = activation(weights.activation), activation(weights.recurrent_activation)
    u, bias = tf.constant(weights.recurrent_kernel), tf.constant(weights.state_bias)
    gates = 2 * weights.units

    def step(x: tf.Tensor, state: State | None) -> State:
        h = bias if state is None else state[0] @ u + bias
        z, r = tf.split(s(x[:, :gates] + h[..., :gates]), 2, axis=1)
        g = f(x[:, gates:] + r * h[..., gates:])
        return ((1 - z) * g if state is None else z * state[0] + (1 - z) * g,)

    return step


_STEPS: dict[Cell, Callable[[Recurrence], Step]] = {
    "simple_rnn": _simple_rnn, "lstm": _lstm, "gru": _gru,
}  # fmt: skip
