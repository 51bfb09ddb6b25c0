"""The flags with which XLA compiles a small recurrent layer well.

A time step of a small layer is a few microseconds of arithmetic, less than it takes XLA's runtime
to start the operations of the step one after the other. With these flags XLA compiles a loop with
all that is in it into one function, matrix products included, which runs on one core. Which layers
that pays for is in `forms.py`; the others XLA compiles as it does by default.


XLA reads its flags from the environment, once, when it compiles the first program of a process;
what is compiled later, another's programs too, is compiled with the same ones. Rounding depends on
them. So a process settles them once, and what a training needs is compared with what was settled.
"""

from __future__ import annotations

import importlib.metadata
import os

# XLA ends a process that gives it a flag it does not know: the flags are for these versions only.
VERSIONS = ("2.21.",)
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
        # What is the same in each round stays in the function that a loop becomes.
        "--xla_disable_hlo_passes=while-loop-invariant-code-motion",
    )
)

# Whether XLA compiles loops whole in this process; None before its flags are settled.
_whole_loops: bool | None = None


def are_known() -> bool:
    """Whether the flags are known to work with the TensorFlow that is installed."""
    return importlib.metadata.version("tensorflow").startswith(VERSIONS)


def are_in_effect() -> bool:
    """Whether XLA compiles loops whole in this process."""
    return bool(_whole_loops)


def are_settled() -> bool:
    """Whether XLA has read its flags for a training of ours, and cannot be given others."""
    return _whole_loops is not None


def offer(whole_loops: bool) -> None:
    """Put the flags into the environment if they are wanted; `XLA_FLAGS` of the user's own stand.

    No flags are offered to a TensorFlow that they are not known for.
    """
    if whole_loops and are_known() and VARIABLE not in os.environ:
        os.environ[VARIABLE] = FLAGS


def settle(*, unread: bool) -> None:
    """Find out how XLA compiles in this process, from now on.

    `unread` says that XLA has certainly compiled nothing yet and so will read what the environment
    says now. Else a small program is compiled, which has XLA read its flags if it has not, and
    shows which it has.
    """
    global _whole_loops
    offered = os.environ.get(VARIABLE) == FLAGS
    _whole_loops = offered if unread else _compiles_loops_whole()


def _compiles_loops_whole() -> bool:
    import tensorflow as tf

    def doubled(x: tf.Tensor) -> tf.Tensor:
        return tf.while_loop(lambda i, _: i < 3, lambda i, x: (i + 1, 2 * x), (0, x))[1]

    with tf.device("/CPU:0"):
        function = tf.function(doubled, jit_compile=True)
        # 64 KiB: by default, XLA compiles loops over up to a few hundred bytes whole.
        x = tf.zeros(2**14)
        program = function.experimental_get_compiler_ir(x)(stage="optimized_hlo")
    return "xla_cpu_small_call" in program
