"""Whose process this is: a command's, or that of a program that calls this package.

A command may do with its process what makes it start sooner and print less. A call from someone's
program leaves the process as it was.
"""

from __future__ import annotations

import os

# Set to anything but 0, it turns off all that `rnn_tf.startup` does beyond importing TensorFlow.
PLAIN_START = "RNN_TF_PLAIN_START"

_command = False


def claim() -> None:
    """Say that the process runs one of our commands, and nothing else."""
    global _command
    _command = True


def is_command() -> bool:
    """Whether the process runs one of our commands."""
    return _command


def is_plain() -> bool:
    """Whether the user wants TensorFlow as it is, without flags, cache and shortcuts."""
    return os.environ.get(PLAIN_START, "0") not in ("", "0")
