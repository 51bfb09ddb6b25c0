"""Weights rounded to int8 so that what they compute on training data changes least.

GPTQ (Frantar et al., 2022; the update is that of Hassibi and Stork's optimal brain surgeon, 1993),
in float64 NumPy, with one addition: the bias, which stays float, takes up what rounding leaves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from export import oracle
from export.network import Layer, Network, Recurrence
from rnn_tf.model.cells import CELLS

LARGEST = 127  # of int8, the same below and above zero
# Time steps of training data that the rounding looks at; more change nothing.
CALIBRATION_STEPS = 20_000
# Added to the diagonal, as a share of its mean: inputs that are always zero make it singular.
DAMPING = 0.01


@dataclass(frozen=True)
class Rounded:
    """A matrix as int8 `values` `(rows, columns)` times a float32 `scale` `(columns,)`."""

    values: np.ndarray
    scale: np.ndarray

    @property
    def matrix(self) -> np.ndarray:
        """What it stands for: float32 `(rows, columns)`."""
        result: np.ndarray = (self.values * self.scale).astype(np.float32)
        return result


# Sequences of one length, `(n, timesteps, ...)`.
Block = np.ndarray


def round_to_int8(
    network: Network, x: np.ndarray, lengths: np.ndarray | None = None
) -> tuple[Network, list[Rounded]]:
    """Round every matrix of a network, calibrated on raw `x` `(n, timesteps, features)`.

    Where they vary, `lengths` `(n,)` says how many steps of each are read. Returns a network that
    computes with the rounded matrices, of normalized input as before, and the matrices themselves,
    each kernel before its recurrent kernel, the dense kernel last.
    """
    blocks = _calibration(network, x, lengths)
    matrices, layers = [], []
    for layer in network.layers:
        states = [oracle.layer_states(layer, frames) for frames in blocks]
        directions = []
        for direction, after, order in zip(
            layer.directions, zip(*states, strict=True), oracle.ORDERS, strict=False
        ):
            rounded, of_direction = _round_recurrence(
                direction,
                [frames[:, ::order] for frames in blocks],
                [states[:, ::order] for states in after],
            )
            directions.append(rounded)
            matrices += of_direction
        layers.append(Layer(*directions))
        blocks = [np.concatenate(each, axis=2) for each in states]
    if network.every_step:  # the softmax reads every state of the last layer
        read = [states.reshape(-1, network.layers[-1].width) for states in blocks]
    else:  # and else the one after the last step of each direction
        read = [
            np.concatenate(
                [of[:, ::order][:, -1] for of, order in zip(each, oracle.ORDERS, strict=False)],
                axis=1,
            )
            for each in states
        ]
    (dense,), dense_bias = _round(
        [network.dense_kernel], [np.concatenate(read)], network.dense_bias
    )
    rounded_network = replace(
        network, layers=tuple(layers), dense_kernel=dense.matrix, dense_bias=dense_bias
    )
    return rounded_network, [*matrices, dense]


def enough(examples: int, longest: int, lengths: np.ndarray | None) -> int:
    """How many of the first of so many examples the rounding looks at; `lengths` are theirs."""
    steps = np.full(examples, longest) if lengths is None else lengths
    return min(examples, int(np.searchsorted(np.cumsum(steps), CALIBRATION_STEPS)) + 1)


def _calibration(network: Network, x: np.ndarray, lengths: np.ndarray | None) -> list[Block]:
    """As many examples as have `CALIBRATION_STEPS`, normalized, those of each length together."""
    few = slice(enough(len(x), network.spec.longest, lengths))
    x, lengths = x[few], None if lengths is None else lengths[few]
    return [
        oracle.normalized(network, x[rows, :length])
        for rows, length in oracle.of_one_length(lengths, *x.shape[:2])
    ]


def _round_recurrence(
    weights: Recurrence, frames: list[Block], after: list[Block]
) -> tuple[Recurrence, list[Rounded]]:
    """Round one direction that reads `frames` in their order, in the state `after` each of them."""
    inputs = np.concatenate([block.reshape(-1, weights.inputs) for block in frames])
    before = np.concatenate([_before(block).reshape(-1, weights.units) for block in after])
    if CELLS[weights.cell].biases == 2:
        # Its reset gate stands between the two products, so that neither can mend the other.
        (kernel,), input_bias = _round([weights.kernel], [inputs], weights.input_bias)
        (recurrent,), state_bias = _round([weights.recurrent_kernel], [before], weights.state_bias)
        bias = np.stack([input_bias, state_bias])
    else:
        both = [weights.kernel, weights.recurrent_kernel]
        (kernel, recurrent), bias = _round(both, [inputs, before], weights.bias)
    rounded = replace(weights, kernel=kernel.matrix, recurrent_kernel=recurrent.matrix, bias=bias)
    return rounded, [kernel, recurrent]


def _before(after: Block) -> Block:
    """The state before each step, from that after it: zeros before the first."""
    return np.concatenate([np.zeros_like(after[:, :1]), after[:, :-1]], axis=1)


def _round(
    matrices: list[np.ndarray], inputs: list[np.ndarray], bias: np.ndarray
) -> tuple[list[Rounded], np.ndarray]:
    """Round `matrices` for the least change of `sum(inputs @ matrices) + bias`.

    Row by row, the one with the largest input first. The rows that are still to come make up for
    its error as far as their inputs go with it, and at last the bias does. Returns the rounded
    matrices and the new bias.
    """
    # In units in which every input is about 1: damping would drown those that are small.
    sizes = [float(np.sqrt(np.mean(np.square(values)))) or 1.0 for values in inputs]
    scales = [
        (np.maximum(np.abs(matrix).max(axis=0), 1e-30) / LARGEST).astype(np.float32)
        for matrix in matrices
    ]
    step = np.concatenate(
        [
            np.broadcast_to(scale.astype(np.float64) * size, matrix.shape)
            for matrix, scale, size in zip(matrices, scales, sizes, strict=True)
        ]
    )
    rows = len(step)
    whole = [values / size for values, size in zip(inputs, sizes, strict=True)]
    design = np.concatenate([*whole, np.ones((len(inputs[0]), 1))], axis=1)
    hessian = design.T @ design / len(design)
    energy = hessian.diagonal()[:rows].copy()
    # If all inputs are zero any rounding will do.
    hessian[np.diag_indices(rows)] += DAMPING * (energy.mean() or 1.0)
    order = np.append(np.argsort(-energy, kind="stable"), rows)  # the bias last
    inverse = np.linalg.cholesky(np.linalg.inv(hessian[np.ix_(order, order)])).T
    sized = [matrix * size for matrix, size in zip(matrices, sizes, strict=True)]
    left = np.concatenate([*sized, bias[None]]).astype(np.float64)[order]
    values = np.empty((rows, left.shape[1]), np.int8)
    for k, row in enumerate(order[:-1]):
        values[row] = np.clip(np.rint(left[k] / step[row]), -LARGEST, LARGEST)
        error = (left[k] - values[row] * step[row]) / inverse[k, k]
        left[k + 1 :] -= np.outer(inverse[k, k + 1 :], error)
    ends = np.cumsum([len(matrix) for matrix in matrices])[:-1]
    parts = np.split(values, ends)
    rounded = [Rounded(part, scale) for part, scale in zip(parts, scales, strict=True)]
    return rounded, left[-1].astype(np.float32)
