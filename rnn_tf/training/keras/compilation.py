"""How XLA compiles the training of a run, kept with it, since its last bits depend on that."""

from __future__ import annotations

import importlib.metadata
import json
import os
import warnings
from typing import Any

from rnn_tf.config import TrainConfig
from rnn_tf.errors import InputError
from rnn_tf.files.writing import write_text
from rnn_tf.run import Run
from rnn_tf.startup import forms, ownership, xla_flags


def describe(config: TrainConfig) -> str:
    """What the first line of the output says of it; empty where it is what XLA does by default."""
    if xla_flags.are_in_effect():
        return ", loops compiled whole"
    if forms.whole_loops(config) and not xla_flags.are_known():
        version = importlib.metadata.version("tensorflow")
        return f", without XLA's flags for small layers: not known for TensorFlow {version}"
    return ""


def warn_if_unusual(config: TrainConfig) -> None:
    """Warn when this process cannot compile the run as the command would.

    Says nothing where the user has chosen it: by `XLA_FLAGS`, or a plain start.
    """
    chosen = ownership.is_plain() or _own_flags() is not None
    usual = forms.whole_loops(config) and xla_flags.are_known()
    if chosen or xla_flags.are_in_effect() == usual:
        return
    how = "whole" if xla_flags.are_in_effect() else "as it does by default"
    warnings.warn(
        f"XLA compiles loops {how} in this process, settled by what it compiled first: the weights "
        "will differ in their last bits from those of rnn-tf train, and training may be slower. "
        "For the same bits, train in a Python started anew, or with rnn-tf train",
        stacklevel=2,
    )


def keep(run: Run) -> None:
    """Keep in `compiled.json` how XLA compiles the run; warn when it goes on compiled otherwise.

    Raises `InputError` when the file of a run that goes on cannot be read.
    """
    now = {
        "tensorflow": importlib.metadata.version("tensorflow"),
        "whole_loops": xla_flags.are_in_effect(),
        xla_flags.VARIABLE: _own_flags(),
    }
    then = _read(run) if run.checkpoint_file.exists() else None
    if then is None:
        write_text(run.compiled_file, json.dumps(now, indent=2) + "\n")
    elif then != now:
        changes = [
            f"{name} was {then.get(name)} and is {now[name]}"
            for name in now
            if then.get(name) != now[name]
        ]
        warnings.warn(
            f"the run goes on compiled otherwise than it was begun ({', '.join(changes)}): its "
            "weights will differ in their last bits from those of a run without the break",
            stacklevel=2,
        )


def _own_flags() -> str | None:
    """The user's own flags for XLA, if there are any."""
    flags = os.environ.get(xla_flags.VARIABLE)
    return None if flags == xla_flags.FLAGS else flags


def _read(run: Run) -> dict[str, Any] | None:
    """What the file says; None for a run that an older version began, without one."""
    try:
        return dict(json.loads(run.compiled_file.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"cannot read {run.compiled_file}", got=str(error)) from error
