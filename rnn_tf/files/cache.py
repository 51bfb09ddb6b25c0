"""Where the package keeps what can be made again: decoded data sets, compiled programs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(kind: str) -> Path:
    """The folder for one kind of cached file; not made here.

    Under `$RNN_TF_CACHE`, else `$XDG_CACHE_HOME/rnn_tf`, else `~/.cache/rnn_tf`.
    """
    own = os.environ.get("RNN_TF_CACHE")
    shared = os.environ.get("XDG_CACHE_HOME")
    home = Path(own) if own else (Path(shared) if shared else Path.home() / ".cache") / "rnn_tf"
    return home / kind
