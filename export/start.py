"""TensorFlow for the runtimes that need it, with as many threads as were asked for."""

from __future__ import annotations

from typing import Any

from rnn_tf.errors import InputError
from rnn_tf.startup import process


def start_tensorflow(threads: int | None) -> Any:
    """The module `tensorflow`, started quietly.

    Its threads belong to the process and are counted once, when TensorFlow first computes. Raises
    `InputError` when that was done with another number than `threads`.
    """
    if threads is not None:
        import tensorflow as tf

        pools = tf.config.threading
        if pools.get_intra_op_parallelism_threads() != threads:
            try:
                pools.set_intra_op_parallelism_threads(threads)
                pools.set_inter_op_parallelism_threads(threads)
            except RuntimeError as error:
                raise InputError(
                    "TensorFlow already computes in this process with other threads",
                    expected=f"{threads}",
                    got=pools.get_intra_op_parallelism_threads() or "as many as there are cores",
                    fix="Open it in a new process, or leave threads out.",
                ) from error
    process.start()
    import tensorflow as tf

    return tf
