"""Python's garbage collector, kept from the million objects that importing TensorFlow makes."""

from __future__ import annotations

import atexit
import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def nothing_collected() -> Iterator[None]:
    """Keep the collector from what is made here: objects that stay until the process ends.

    It would search them for garbage again and again: while they are made, during training, and
    when the process ends, which takes a second.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        atexit.register(gc.freeze)
        if collecting:
            gc.enable()
