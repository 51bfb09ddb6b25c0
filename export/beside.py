"""A second process, which does its share of an export or of a verification beside this one.

It is a copy of a command's process, made before TensorFlow first computes: from then on TensorFlow
has threads, which a copy lacks. Where there can be none, this process does everything itself.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import ParamSpec, TypeVar

from rnn_tf.errors import CheckFailed
from rnn_tf.startup import children, ownership, process, stderr

P = ParamSpec("P")
T = TypeVar("T")


class Beside:
    """Where work can be left for another process, which does one thing after the other.

    `leave` and `share` give a function that returns the result, or raises what went wrong.
    """

    @staticmethod
    def start_tensorflow() -> None:
        """Start TensorFlow, to compute in this process."""
        process.start()

    def leave(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Callable[[], T]:
        """Have it done there, after what was left before; at once where there is no other."""
        result = function(*args, **kwargs)
        return lambda: result

    def share(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Callable[[], T]:
        """Have it done there, or here if it has not begun when its result is wanted."""
        return functools.cache(functools.partial(function, *args, **kwargs))


class BesideProcess(Beside):
    """The same where there is another process."""

    def __init__(self, other: ProcessPoolExecutor, queue: ThreadPoolExecutor) -> None:
        self.other, self.queue = other, queue

    @staticmethod
    def start_tensorflow(*, gpus: bool = True) -> None:
        process.start(devices=False)
        import tensorflow as tf

        if not gpus:
            tf.config.set_visible_devices([], "GPU")
        # The other cores are for the other process.
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        with stderr.muted():
            process.start()

    def leave(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Callable[[], T]:
        return self._in_turn(functools.partial(function, *args, **kwargs)).result

    def share(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Callable[[], T]:
        todo = functools.partial(function, *args, **kwargs)
        there = self._in_turn(todo)
        return functools.cache(lambda: todo() if there.cancel() else there.result())

    def _in_turn(self, todo: Callable[[], T]) -> Future[T]:
        """Have it done there. What waits for its turn waits here, where it can be cancelled."""
        return self.queue.submit(self._there, todo)

    def _there(self, todo: Callable[[], T]) -> T:
        try:
            return self.other.submit(todo).result()
        except BrokenProcessPool as error:
            raise CheckFailed(
                "the process that does half of the work was killed, for want of memory perhaps. "
                f"Set {ownership.PLAIN_START}=1: one process does everything then."
            ) from error


@contextlib.contextmanager
def beside(prepare: Callable[[], object] = int) -> Iterator[Beside]:
    """Another process where there can be one, which first does `prepare`.

    It has what this one has imported. It ends with the block, and where that fails, at once.
    """
    if not _can_be_copied():
        yield Beside()
        return
    other = ProcessPoolExecutor(
        1, multiprocessing.get_context("fork"), initializer=children.become_child
    )
    queue = ThreadPoolExecutor(1)
    try:
        other.submit(prepare)  # the process is copied now
        yield BesideProcess(other, queue)
    except BaseException:
        children.kill(multiprocessing.active_children())
        raise
    finally:
        queue.shutdown(cancel_futures=True)
        other.shutdown()


def _can_be_copied() -> bool:
    """Whether this is a command's process on Linux where nothing has been computed yet."""
    return (
        ownership.is_command()
        and not ownership.is_plain()
        and not process.computes()
        and sys.platform == "linux"
        and len(os.sched_getaffinity(0)) > 1
    )
