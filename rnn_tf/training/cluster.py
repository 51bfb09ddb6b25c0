"""The workers that train one model together, as `TF_CONFIG` names them. Needs no TensorFlow.

The format is TensorFlow's, see "Multi-worker training with Keras" in its documentation:

    {"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}

with the same `cluster` for each worker, and its own `task`. The first worker is the chief, unless
`cluster` names one beside the others.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from dataclasses import dataclass
from typing import Any, Self

from rnn_tf.errors import InputError

VARIABLE = "TF_CONFIG"
CHIEF, WORKER = "chief", "worker"
# How long a worker waits for the others to start, in seconds; and its environment variable.
WAIT, WAIT_VARIABLE = 300, "RNN_TF_JOIN_SECONDS"
# How long one that calls the chief may take to say who it is, in seconds; and what it then hears.
HELLO, ALL_HERE = 5, b"all here"
_FORMAT = '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'


@dataclass(frozen=True)
class Cluster:
    """Who trains, and which of them this process is. The chief is worker 0."""

    addresses: tuple[str, ...]  # host:port of each worker
    index: int
    has_chief: bool = False  # whether the chief has a job of its own, beside the workers'

    @property
    def is_chief(self) -> bool:
        return self.index == 0

    @classmethod
    def from_environment(cls) -> Self:
        """What `TF_CONFIG` says. Raises `InputError` when it says nothing, or not that."""
        text = os.environ.get(VARIABLE)
        if not text:
            raise InputError(
                f"--strategy multi_worker needs {VARIABLE}",
                expected=_FORMAT,
                got="none",
                fix="Set it for each worker, or have rnn-tf train --workers N do so on this "
                "machine.",
            )
        try:
            config = json.loads(text)
        except ValueError as error:
            raise InputError(f"{VARIABLE} is not JSON", expected=_FORMAT, got=text) from error
        jobs = _entry(config, "cluster", dict)
        task = _entry(config, "task", dict)
        unknown = sorted({*jobs, str(_entry(task, "type", str))} - {CHIEF, WORKER})
        if unknown:
            raise InputError(
                f"{VARIABLE} names a job that takes no part in training: {unknown[0]}",
                expected=f"{CHIEF} and {WORKER}",
            )
        chief = _addresses(jobs, CHIEF) if CHIEF in jobs else ()
        workers = _addresses(jobs, WORKER) if WORKER in jobs or not chief else ()
        if len(chief) > 1:
            raise InputError(f"{VARIABLE} names {len(chief)} chiefs", expected="one")
        mine = chief if task["type"] == CHIEF else workers
        index = _entry(task, "index", int)
        if not 0 <= index < len(mine):
            raise InputError(
                f"{VARIABLE} names a task that its cluster does not have",
                expected=f"a {task['type']} with an index below {len(mine)}",
                got=index,
            )
        first = 0 if task["type"] == CHIEF else len(chief)
        return cls((*chief, *workers), first + index, bool(chief))

    def name(self, index: int) -> str:
        """How messages call a worker: `worker 1 (10.0.0.2:8470)`."""
        return f"worker {index} ({self.addresses[index]})"

    def meet(self, seconds: float) -> None:
        """Return when all workers are there, at the same time in each.

        TensorFlow, which they start after that, would wait for ever, and not be interrupted. The
        chief listens at its address meanwhile, and the others call. Raises `InputError` when
        something else listens where this worker is to, or after so many `seconds`, with the
        workers that are missing.
        """
        until = time.monotonic() + seconds
        with contextlib.ExitStack() as connections:
            mine = connections.enter_context(self._listen())
            if self.is_chief:
                self._wait_for_others(mine, until, connections)
            else:
                mine.close()  # it was free, and is for TensorFlow
                self._call_chief(until)

    def _listen(self) -> socket.socket:
        host, port = _host_and_port(self.addresses[self.index])
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.socket(family)
        # As servers do: a port that has only just been closed is free.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("", port))
            listening.listen(len(self.addresses))
        except OSError as error:
            listening.close()
            raise InputError(
                f"{self.name(self.index)} cannot listen on its port",
                got=error.strerror or str(error),
                fix=f"End the process that uses it, or name another port in {VARIABLE}.",
            ) from error
        return listening

    def _wait_for_others(
        self, listening: socket.socket, until: float, connections: contextlib.ExitStack
    ) -> None:
        here: dict[int, socket.socket] = {}
        missing = set(range(1, len(self.addresses)))
        while missing:
            listening.settimeout(max(0.01, until - time.monotonic()))
            try:
                caller = connections.enter_context(listening.accept()[0])
                caller.settimeout(HELLO)
                index = int(caller.recv(16) or b"0")
            except TimeoutError:
                if time.monotonic() < until:
                    continue  # it called, and said nothing
                raise self._absent(missing) from None
            except (OSError, ValueError):
                continue  # it is no worker
            missing.discard(index)
            here[index] = caller
        for caller in here.values():
            with contextlib.suppress(OSError):  # TensorFlow will miss it
                caller.sendall(ALL_HERE)

    def _call_chief(self, until: float) -> None:
        answered = False
        while time.monotonic() < until:
            try:
                with socket.create_connection(_host_and_port(self.addresses[0]), 2) as chief:
                    answered = True
                    chief.sendall(str(self.index).encode())
                    # The chief says who is missing, when its own time is over.
                    chief.settimeout(max(0.01, until + HELLO - time.monotonic()))
                    if chief.recv(len(ALL_HERE)) == ALL_HERE:
                        return
            except OSError:
                pass
            time.sleep(0.1)
        if answered:
            raise InputError("the chief has waited in vain for another worker; it says for which")
        raise self._absent({0})

    def _absent(self, missing: set[int]) -> InputError:
        names = ", ".join(self.name(index) for index in sorted(missing))
        return InputError(
            f"not all workers have come in time; missing: {names}",
            fix=f"Start each with the same cluster in {VARIABLE}, or raise {WAIT_VARIABLE}.",
        )

    def silent(self) -> list[str]:
        """The names of the other workers at whose address nothing answers now."""
        others = (i for i in range(len(self.addresses)) if i != self.index)
        return [self.name(i) for i in others if not _answers(self.addresses[i])]


def on_this_machine(workers: int) -> list[str]:
    """`TF_CONFIG` for each of so many workers on free ports of this machine."""
    with contextlib.ExitStack() as until_all_are_chosen:
        addresses = []
        for _ in range(workers):
            listening = until_all_are_chosen.enter_context(socket.socket())
            listening.bind(("127.0.0.1", 0))
            addresses.append(f"127.0.0.1:{listening.getsockname()[1]}")
    return [
        json.dumps({"cluster": {WORKER: addresses}, "task": {"type": WORKER, "index": index}})
        for index in range(workers)
    ]


def seconds_to_wait() -> int:
    """How long to wait for the others. Raises `InputError` when the setting is no number."""
    text = os.environ.get(WAIT_VARIABLE, str(WAIT))
    if not text.isdigit() or int(text) < 1:
        raise InputError(f"bad {WAIT_VARIABLE}", expected="seconds, a whole number >= 1", got=text)
    return int(text)


def _entry(config: Any, key: str, kind: type) -> Any:
    if not isinstance(config, dict) or key not in config:
        raise InputError(f"{VARIABLE} lacks {key!r}", expected=_FORMAT)
    if not isinstance(config[key], kind) or isinstance(config[key], bool):
        raise InputError(f"bad {key!r} in {VARIABLE}", expected=_FORMAT, got=config[key])
    return config[key]


def _addresses(jobs: dict[str, Any], job: str) -> tuple[str, ...]:
    addresses = _entry(jobs, job, list)
    for address in addresses:
        _host_and_port(address)
    for address in addresses:
        if addresses.count(address) > 1:
            raise InputError(f"{VARIABLE} names an address twice", got=address)
    return tuple(addresses)


def _host_and_port(address: Any) -> tuple[str, int]:
    host, _, port = str(address).rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise InputError(f"bad address in {VARIABLE}", expected="host:port", got=address)
    return host.strip("[]"), int(port)


def _answers(address: str) -> bool:
    try:
        socket.create_connection(_host_and_port(address), timeout=2).close()
    except OSError:
        return False
    return True
