"""Processes that a command starts and ends: workers of a search, workers of a training."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess

from rnn_tf.startup import ownership


def become_child() -> None:
    """Be a process that only the one that started it ends, and that never outlives it."""
    ownership.claim()
    # Ctrl-C reaches every process of a terminal; the one that started this one ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def expect_kills() -> None:
    """Have Python clean up after killed processes without a warning about what they left.

    Call it before the first process is started.
    """
    name, before = "PYTHONWARNINGS", os.environ.get("PYTHONWARNINGS")
    os.environ[name] = "ignore::UserWarning:multiprocessing.resource_tracker"
    try:
        # A process of its own, which keeps the environment that it starts in.
        resource_tracker.ensure_running()
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def kill(processes: Iterable[BaseProcess]) -> None:
    """End processes at once, and wait until they have."""
    processes = list(processes)
    for process in processes:
        process.kill()
    for process in processes:
        process.join()


def how_it_ended(process: BaseProcess) -> str:
    """`signal 9` or `exit code 1`."""
    code = process.exitcode or 0
    return f"signal {-code}" if code < 0 else f"exit code {code}"


@contextlib.contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """Take SIGTERM like Ctrl-C, so that it ends the child processes too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
