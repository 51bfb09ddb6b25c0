"""In which form a layer of some size is trained on a CPU: how compiled, and on how many cores.

Its loops over time are compiled whole, each one function that runs on one core, or XLA runs what is
in them one operation after the other (see `xla_flags`). And a batch is trained as one, or shared
out between the cores (see `rnn_tf/training/keras/shares.py`). The bounds were measured on two cores
with vectors of 512 bits: the gradients of 32 and of 128 examples, in both forms.
"""

from __future__ import annotations

import os

from rnn_tf.config import TrainConfig
from rnn_tf.errors import InputError
from rnn_tf.model.cells import CELLS, Cell

# A layer is small where a time step is little work, in multiplications of the states of one gate:
# those of 64 units and 64 examples, or of 32 and 256 ...
SMALL_STEP = 2**18
# ... and the weights that each step multiplies them by are few: those of 64 units without gates, or
# of 32 with four. These 16 KiB stay in the first cache of a core, beside what they are multiplied
# with; the function reads more of them from further away, once for every few examples.
SMALL_KERNEL = 2**12
# A gated cell has so much to do beside its products, that one function is faster for larger layers
# too, if each core runs it for a share of the batch: here up to 64 units with four gates, and at
# least up to 256 with three. Without gates it is as fast as XLA's default.
LARGEST_KERNEL: dict[Cell, int] = {"simple_rnn": 0, "lstm": 2**14, "gru": 3 * 2**16}
# Weights of the state from which a gated layer's batch is worth sharing out: those of 19 units with
# three gates. To start two programs for a batch, and to wait for both, takes 0.15 ms. A simple
# layer that is compiled whole is so fast that this is all that is saved.
LEAST_KERNEL = 2**10
# What a share has at least: products of fewer rows are slow, as each reads all of the weights.
EXAMPLES = 32
# In the environment, `whole` or `shared`: how layers are trained, whatever their size.
FORM = "RNN_TF_FORM"
FORMS = ("whole", "shared")


def form() -> str | None:
    """How layers are trained whatever their size, if the environment says so.

    Raises `InputError` where it says anything but one of `FORMS`.
    """
    said = os.environ.get(FORM)
    if said is not None and said not in FORMS:
        raise InputError(f"bad {FORM}", expected=" or ".join(FORMS), got=said, fix=f"Unset {FORM}.")
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
        return said == "whole"
    return is_small(config) or (possible and kernel(config) <= LARGEST_KERNEL[config.cell])


def is_shared_out(config: TrainConfig) -> bool:
    """Whether a batch is trained sooner in shares. `RNN_TF_FORM=whole`: none is shared out."""
    said = form()
    if said is not None:
        return said == "shared"
    gated = len(CELLS[config.cell].gates) > 1
    return not is_small(config) or (gated and kernel(config) >= LEAST_KERNEL)


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


def draws(config: TrainConfig) -> bool:
    """Whether a batch is trained with chance, which is drawn for all of it.

    `auto` counts as none: it stands for some only where examples are few, which take no time.
    """
    rates = (config.dropout, config.recurrent_dropout, config.noise)
    return any(rate not in (0, "auto") for rate in rates)


def _keeps_cores_busy(config: TrainConfig) -> bool:
    """Whether batches are shared out between all cores."""
    one_device = config.strategy in ("auto", "none") and config.fused
    return one_device and not draws(config) and shares(config.largest_batch) == cores()
