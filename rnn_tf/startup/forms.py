"""In which form a layer of some size is trained on a CPU: how compiled, and on how many cores.

Its loops over time are compiled whole, each one function that runs on one core, or XLA runs what is
in them one operation after the other (see `xla_flags`). And a batch is trained as one, or shared
out between the cores (see `rnn_tf/training/keras/shares.py`). The bounds were measured on two cores
with vectors of 512 bits; `python -m benchmarks.shapes --forms` compares all forms of a layer.
"""

from __future__ import annotations

import os
from typing import Literal, get_args

from rnn_tf.config import TrainConfig
from rnn_tf.errors import InputError
from rnn_tf.model.cells import CELLS

# A layer is small where a time step is little work, in multiplications of the states of one gate:
# those of 64 units and 64 examples, or of 32 and 256 ...
SMALL_STEP = 2**18
# ... and the weights that each step multiplies them by are few: those of 64 units without gates, or
# of 32 with four. These 16 KiB stay in the first cache of a core, beside what they are multiplied
# with; the function reads more of them from further away, once for every few examples.
SMALL_KERNEL = 2**12
# Larger layers have whole loops where each core runs them for its share of a batch, up to weights
# that fill the second cache of a core, 1 MiB. Those of 256 units with four gates take 1.3 times as
# long so, of other numbers about as long: 0.9 to 1.1 times for 272 to 400 units with gates.
LARGE_KERNEL = 2**18
# From how many multiplications of states in all time steps a batch is worth sharing out. To start
# two programs, to wait for both and to add up what they found takes 0.2 ms. That is all that is
# saved for 32 units, 64 examples and 28 steps without gates, or for 16 with four.
LEAST_WORK = 2**21
# What a share has at least: products of fewer rows are slow, as each reads all of the weights.
EXAMPLES = 32
# In the environment, one of these: how layers are trained, whatever their size.
FORM = "RNN_TF_FORM"
Form = Literal["whole", "shared", "both"]
FORMS: tuple[Form, ...] = get_args(Form)


def form() -> Form | None:
    """How layers are trained whatever their size, if the environment says so.

    Raises `InputError` where it says anything but one of `FORMS`.
    """
    said = os.environ.get(FORM)
    if said is None:
        return None
    if said not in FORMS:
        expected = f"one of {', '.join(FORMS)}"
        raise InputError(f"bad {FORM}", expected=expected, got=said, fix=f"Unset {FORM}.")
    return said


def is_small(config: TrainConfig) -> bool:
    """Whether the layer and its batches are so small that one core does best with loops whole."""
    small_step = config.largest_batch * config.units**2 <= SMALL_STEP
    return small_step and kernel(config) <= SMALL_KERNEL


def whole_loops(config: TrainConfig) -> bool:
    """Whether a process that trains this has XLA compile its loops whole.

    Or the environment says so. Raises `InputError` where that says anything else.
    """
    return is_whole(config, possible=_keeps_cores_busy(config))


def is_whole(config: TrainConfig, *, possible: bool) -> bool:
    """Whether the layer's loops are to be whole: where it is small, or large and it is `possible`.

    That is, in a process that compiles loops so. Raises as `form` does.
    """
    said = form()
    if said is not None:
        return said in ("whole", "both")
    return is_small(config) or (possible and kernel(config) < LARGE_KERNEL)


def is_shared_out(config: TrainConfig, timesteps: int) -> bool:
    """Whether a batch of sequences of so many steps is trained sooner in shares.

    Or the environment says so.
    """
    said = form()
    if said is not None:
        return said in ("shared", "both")
    return config.largest_batch * timesteps * kernel(config) >= LEAST_WORK


def shares(batch_size: int) -> int:
    """The number of shares of a batch: one for each core, unless they would be too small."""
    return max(1, min(cores(), batch_size // EXAMPLES))


def cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not everywhere
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def kernel(config: TrainConfig) -> int:
    """The number of weights that a state is multiplied by in a step."""
    return len(CELLS[config.cell].gates) * config.units**2


def _keeps_cores_busy(config: TrainConfig) -> bool:
    """Whether batches are shared out between all cores."""
    one_device = config.strategy in ("auto", "none") and config.fused
    return one_device and shares(config.largest_batch) == cores()
