"""What XLA is told so that it compiles a small recurrent layer well. Before TensorFlow is imported.

A time step of a small layer is a few microseconds of arithmetic, less than it takes XLA's runtime
to start the operations of the step one after the other. Told so, XLA compiles a loop with all that
is in it into one function, matrix products included. That function runs on one core: a large layer
does better with products that all cores share, and is compiled as XLA would by itself.
"""

from __future__ import annotations

import importlib.metadata
import os

from rnn_tf.config import TrainConfig

# XLA ends a process that gives it a flag it does not know: only these versions are told anything.
VERSIONS = ("2.21.",)
# Multiplications of states in a time step up to which one core, told so, is faster than two that
# are not, for every cell: those of 64 units and 64 examples, or of 32 and 256.
SMALL = 2**18

VARIABLE = "XLA_FLAGS"
_EXTRA = ",".join(
    (
        # Loops over up to this many bytes become functions: all.
        f"xla_cpu_small_while_loop_byte_threshold={2**40}",
        # In such a function, products that are written out are only made of small matrices ...
        "xla_force_enable_experimental_llvm_ir_gemm",
        # ... and in pieces of 11 rows, 9 terms and one vector of columns. Two vectors wide, each
        # number of a row is read half as often, and fewer rows leave room for that in registers.
        "xla_llvm_ir_gemm_tile_size=6:8:2*vectwidth",
        # LLVM unrolls short loops before it looks for vectors in them, and then finds none.
        "xla_cpu_disable_loop_unrolling",
    )
)
FLAGS = " ".join(
    (
        f"--xla_backend_extra_options={_EXTRA}",
        # Products written out, and not calls of a library that shares them between cores.
        "--xla_cpu_multi_thread_eigen=false",
        "--xla_cpu_experimental_ynn_fusion_type=",
        # Where a processor has vectors of 512 bits, LLVM uses 256 of them if it is not asked.
        "--xla_cpu_prefer_vector_width=512",
    )
)


def suit(config: TrainConfig) -> None:
    """Tell XLA if the layer that `config` describes is small."""
    if is_small(config):
        tell()


def tell() -> None:
    """Set the flags, unless the user has set some or TensorFlow may not know them.

    They hold for the process: what else it trains, large layers too, is compiled with them.
    """
    version = importlib.metadata.version("tensorflow")
    if version.startswith(VERSIONS) and VARIABLE not in os.environ:
        os.environ[VARIABLE] = FLAGS


def are_set() -> bool:
    """Whether this process has the flags."""
    return os.environ.get(VARIABLE) == FLAGS


def is_small(config: TrainConfig) -> bool:
    """Whether loops compiled whole suit this layer and these batches."""
    return config.batch_size * config.units**2 <= SMALL
