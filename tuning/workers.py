"""Processes that train trials, on this machine and on others, and the chief that they ask."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent import futures
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnn_tf.data import load, needs_tensorflow
from rnn_tf.errors import CheckFailed, InputError
from rnn_tf.startup import children, compile_cache, process, stderr, xla_flags

if TYPE_CHECKING:
    from tuning.oracles import Durable

# A trial has failed when this many workers have died while they trained it.
DEATHS = 2
# The search ends when this many workers have died without a trial: something else is wrong.
EARLY_DEATHS = 3
# A worker on another machine that sends no sign of life for this long is taken for dead. Seconds.
SILENCE = 120.0


def supervise(oracle: Durable, directory: Path, workers: int, address: str) -> None:
    """Have `workers` processes, and others that join, train the trials of the chief at `address`.

    Returns when there are no more. A worker that dies is started again, and its trial with it.
    However this ends, no worker is left. Raises `InputError` when a worker cannot write.
    """
    with children.terminated_like_interrupted():
        ChiefCrew(oracle, address, directory, workers).work()


@contextlib.contextmanager
def served(oracle: Durable, listen: str | None) -> Iterator[str]:
    """KerasTuner's chief for this oracle; gives its address, only of this machine without `listen`.

    Raises `InputError` when the address cannot be listened on.
    """
    import grpc
    from keras_tuner.src import protos
    from keras_tuner.src.distribute.oracle_chief import OracleServicer

    _send_quietly()
    host, port = address_of(listen or "127.0.0.1:0")
    # One request at a time: an oracle is not made for more. Without SO_REUSEPORT, with which two
    # searches would share a port and steal each other's workers.
    server = grpc.server(futures.ThreadPoolExecutor(1), options=(("grpc.so_reuseport", 0),))
    protos.get_service_grpc().add_OracleServicer_to_server(OracleServicer(oracle), server)
    with stderr.muted():  # gRPC writes what is wrong there, in its own words
        try:
            port = server.add_insecure_port(f"{host}:{port}")
        except RuntimeError:
            bound = False
        else:
            bound = True
    if not bound:
        raise InputError(
            f"cannot listen on {host}:{port}",
            got="a port in use, or an address that is not of this machine",
            fix="Choose another --listen.",
        )
    server.start()
    if listen is not None:
        print(f"others join with: python -m tuning.search --chief {host}:{port}", file=sys.stderr)
    try:
        yield f"{host}:{port}"
    finally:
        server.stop(None)


def _send_quietly() -> None:
    """Keep KerasTuner 1.4.8 from printing a value of each condition in the space that it sends."""
    from keras_tuner.src.engine import conditions

    conditions.print = lambda *_: None


def address_of(text: str) -> tuple[str, int]:
    """Split `HOST:PORT`. Raises `InputError` when it is not one."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise InputError("bad address", expected="HOST:PORT, such as 192.168.0.7:8470", got=text)
    return host, int(port)


class Crew:
    """The worker processes of one machine; one that dies is started again."""

    def __init__(
        self, address: str, directory: Path, settings: str, names: list[str], *, whole_loops: bool
    ) -> None:
        self.address = address
        self.directory = directory
        self.settings = settings
        self.names = names
        self.whole_loops = whole_loops  # how XLA compiles in each worker
        self.processes: dict[str, BaseProcess] = {}
        self.deaths: Counter[str] = Counter()  # what may be the cause -> how often
        # Spawned: a fork of a process in which TensorFlow runs does not work.
        self.context = multiprocessing.get_context("spawn")
        self.complaints = self.context.SimpleQueue()

    def work(self) -> None:
        """Run the workers until there is nothing left to do. However this ends, none is left."""
        try:
            for name in self.names:
                self.start(name)
            while self.check():
                sentinels = {process.sentinel: name for name, process in self.processes.items()}
                for sentinel in connection.wait(list(sentinels), timeout=1):
                    self._ended(sentinels[sentinel])  # type: ignore[index]
        finally:
            self._kill_all()

    def start(self, name: str) -> None:
        what = (name, self.address, str(self.directory), self.settings, self.whole_loops)
        process = self.context.Process(target=_work, args=(*what, self.complaints), name=name)
        process.start()
        self.processes[name] = process

    def check(self) -> bool:
        """Whether there is more to do. Called about once a second."""
        return bool(self.processes)

    def on_death(self, name: str, how: str) -> None:
        """Count a worker that has died. Raises `CheckFailed` when too many have."""
        self._count_early_death(how)

    def _count_early_death(self, how: str) -> None:
        self.deaths[""] += 1
        if self.deaths[""] >= EARLY_DEATHS:
            raise CheckFailed(f"{EARLY_DEATHS} workers died before they had a trial ({how})")

    def _ended(self, name: str) -> None:
        process = self.processes.pop(name)
        process.join()
        if not self.complaints.empty():
            raise InputError(self.complaints.get())
        code = process.exitcode or 0
        if code == 0:
            return
        from tuning.tuner import GROWN

        if code != GROWN:
            how = children.how_it_ended(process)
            print(f"{name} died ({how}); starting it again", file=sys.stderr)
            self.on_death(name, how)
        self.start(name)

    def _kill_all(self) -> None:
        """End the workers at once: what they have done is on disk, up to the last epoch."""
        children.kill(self.processes.values())
        self.processes.clear()


class ChiefCrew(Crew):
    """The workers beside the chief; it also gives the trials of lost workers to others."""

    def __init__(self, oracle: Durable, address: str, directory: Path, workers: int) -> None:
        names = [f"tuner{i}" for i in range(workers)]
        super().__init__(
            address, directory, oracle.settings, names, whole_loops=xla_flags.are_in_effect()
        )
        self.oracle = oracle

    def check(self) -> bool:
        if self.oracle.error is not None:
            raise self.oracle.error
        self._release_silent()
        if self.processes:
            return True
        if self.oracle._retry_queue and time.monotonic() < self.oracle.until:
            self.start(self.names[0])  # for the trials of workers that were lost
        elif self.oracle.ongoing_trials:
            time.sleep(1)  # others still train
        return bool(self.processes or self.oracle.ongoing_trials)

    def on_death(self, name: str, how: str) -> None:
        """Count a death to the trial that the worker had; too many, and the trial has failed."""
        trial = self.oracle.ongoing_trials.get(name)
        if trial is None:
            self._count_early_death(how)
            return
        self.deaths[trial.trial_id] += 1
        if self.deaths[trial.trial_id] >= DEATHS:
            self.oracle.give_up(trial, f"its process died {DEATHS} times ({how}); out of memory?")

    def _release_silent(self) -> None:
        """Have the trials of workers on other machines run again when those are silent."""
        for name in set(self.oracle.ongoing_trials) - set(self.names):
            if time.monotonic() - self.oracle.seen.get(name, 0.0) > SILENCE:
                print(f"nothing heard of {name}: its trial is run again", file=sys.stderr)
                self.oracle.requeue(name)


def _work(
    name: str, address: str, directory: str, settings: str, whole_loops: bool, complaints: Any
) -> None:
    """Be a worker process."""
    children.become_child()
    # Workers have all cores between them: more threads of each would wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        work_for(name, address, Path(directory), settings, whole_loops=whole_loops)
    except InputError as error:
        complaints.put(str(error))
        raise SystemExit(2) from None


def work_for(name: str, address: str, directory: Path, settings: str, *, whole_loops: bool) -> None:
    """Train trials of the chief at `address` until it has no more; their files in `directory`."""
    from tuning.settings import Settings

    known = Settings.from_dict(json.loads(settings))
    if needs_tensorflow(known):
        process.start(whole_loops=whole_loops)
    data = load(known)
    process.start(whole_loops=whole_loops)
    with stderr.muted():
        from tuning.tuner import RemoteTuner
    _send_quietly()
    _point_at(address, name)
    tuner = RemoteTuner(known.base(), data, directory)
    threading.Thread(target=tuner.say_alive, daemon=True).start()
    tuner.search()
    compile_cache.record()


def _point_at(address: str, name: str) -> None:
    """Say to KerasTuner where its chief is, and the name of this process there."""
    host, port = address_of(address)
    os.environ.update(
        KERASTUNER_TUNER_ID=name, KERASTUNER_ORACLE_IP=host, KERASTUNER_ORACLE_PORT=str(port)
    )


# --- on other machines ---
def join(address: str, workers: int, directory: Path) -> None:
    """Work for the search that listens at `address`, with this many processes.

    The files of the trials trained here go to `directory`; results go to the search. Raises
    `InputError` when nothing listens there.
    """
    if workers < 1:
        raise InputError("bad workers", expected="a whole number >= 1", got=workers)
    host, port = address_of(address)
    try:
        socket.create_connection((host, port), timeout=10).close()
    except OSError as error:
        raise InputError(
            f"no search listens at {address}", got=error.strerror or str(error),
            fix="Is it running, with --listen?",
        ) from error  # fmt: skip
    me = f"{socket.gethostname()}-{os.getpid()}"
    process.start()
    _point_at(address, me)
    from keras_tuner.src.distribute.oracle_client import OracleClient

    from tuning.oracles import SETTINGS, WHOLE_LOOPS
    from tuning.tuner import no_oracle

    answer = OracleClient(no_oracle()).get_trial(SETTINGS).hyperparameters.values
    names = [f"{me}-{i}" for i in range(workers)]
    whole_loops = bool(answer[WHOLE_LOOPS])
    with children.terminated_like_interrupted():
        Crew(address, directory, answer[SETTINGS], names, whole_loops=whole_loops).work()
