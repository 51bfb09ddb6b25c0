"""`rnn-tf train --workers N`: the workers of one training, all on this machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from rnn_tf.errors import CheckFailed
from rnn_tf.startup import children
from rnn_tf.training import cluster

# How long the chief may take to end by itself, and say why, when another worker has. Seconds.
GRACE = 20.0


def train_with_workers(
    count: int, command: Callable[..., int], argv: Sequence[str], prog: str
) -> int:
    """Run `command`, the function of `prog`, with `argv` in so many processes, each a worker.

    The first is the chief, whose exit code this gives: it alone shows progress, and keeps the run.
    However this ends, no process is left. Raises `CheckFailed` when one dies.
    """
    # Spawned: a fork of a process in which TensorFlow runs does not work.
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="rnn-tf-workers-") as folder:
        workers = [
            spawn.Process(target=_work, args=(index, command, list(argv), prog, config, folder))
            for index, config in enumerate(cluster.on_this_machine(count))
        ]
        children.expect_kills()
        with children.terminated_like_interrupted():
            try:
                for worker in workers:
                    worker.start()
                return _watch(workers, Path(folder))
            finally:
                children.kill(worker for worker in workers if worker.pid is not None)


def _watch(workers: Sequence[BaseProcess], folder: Path) -> int:
    """Wait for all workers, or until one has not ended well; gives the chief's exit code."""
    chief = workers[0]
    running = list(workers)
    while running:
        connection.wait([worker.sentinel for worker in running])
        ended = [worker for worker in running if not worker.is_alive()]
        running = [worker for worker in running if worker not in ended]
        for worker in ended:
            if not worker.exitcode:
                continue
            if worker.exitcode > 0:
                # It was not killed: it found something wrong, and so does the chief.
                chief.join(GRACE)
                if (chief.exitcode or 0) > 0:
                    return int(chief.exitcode or 0)
            index = workers.index(worker)
            raise CheckFailed(
                f"worker {index} of {len(workers)} died ({children.how_it_ended(worker)}) and the "
                f"others were ended{_last_words(folder, index)}"
            )
    return 0


def _work(
    index: int, command: Callable[..., int], argv: list[str], prog: str, config: str, folder: str
) -> None:
    """Be a worker process."""
    children.become_child()
    os.environ.update({cluster.VARIABLE: config, "TMPDIR": folder})
    if index:
        with _log(Path(folder), index).open("wb") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
    sys.argv = [prog, *argv]  # the process is the command's own
    raise SystemExit(command(prog=prog))


def _log(folder: Path, index: int) -> Path:
    """What a worker other than the chief prints."""
    return folder / f"worker_{index}.log"


def _last_words(folder: Path, index: int) -> str:
    lines: list[str] = []
    with contextlib.suppress(OSError):
        lines = _log(folder, index).read_text(errors="replace").split("\n")
    said = [line for line in lines if line.strip()]
    return f"; it said: {said[-1][:300]}" if said else ""
