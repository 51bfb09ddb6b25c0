"""`rnn-tf benchmark BUNDLE`: how fast, how large and how good each format is.

Each format runs in a process of its own, so that its load time and memory are its own, and all
are asked in turn, round after round, so that a machine whose speed drifts is the same for all.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import re
import resource
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from export import peers
from export.bundle import Bundle, find_bundle, load_test
from export.formats.format import Runtime
from export.runtimes import open_runtime
from rnn_tf.command import arguments, parse
from rnn_tf.data import Split
from rnn_tf.errors import CheckFailed, InputError, one_line_errors
from rnn_tf.files.writing import write_text
from rnn_tf.startup import stderr

BATCHES = (1, 64, 1024)
# Different inputs in turn, so that no cache holds an answer or one lucky input decides.
INPUTS = 8
# What libraries read when they are loaded: how many threads they may use.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")


@dataclass
class Measured:
    """One format or peer, and what it took."""

    name: str
    load_seconds: float | None  # from its files to the first answer; None for a peer
    bytes: int | None  # of its files; None for a peer
    accuracy: float  # test split, 0 to 1
    peak_bytes: int = 0  # largest resident memory of its process, libraries included
    seconds: dict[int, list[float]] = field(default_factory=dict)  # batch -> of every call
    medians: dict[int, list[float]] = field(default_factory=dict)  # batch -> seconds, of each round

    def summary(self) -> dict[str, Any]:
        batches = {
            str(batch): {
                "p50_us": 1e6 * statistics.median(calls),
                "p99_us": 1e6 * float(np.quantile(calls, 0.99)),
                "examples_per_second": batch / statistics.median(calls),
                "calls": len(calls),
                "rounds_us": [1e6 * median for median in self.medians.get(batch, [])],
            }
            for batch, calls in self.seconds.items()
        }
        return {**vars(self), "seconds": None, "medians": None, "batches": batches}


def benchmark(
    bundle: Bundle,
    *,
    source: str | None = None,
    threads: int = 1,
    rounds: int = 5,
    seconds: float = 0.2,
) -> list[Measured]:
    """Measure every format of a bundle, and every peer that is installed, side by side.

    Inputs are those of the bundle's test split, or of that of `source`.
    """
    test = load_test(bundle, source)
    with loaded(bundle, test, peers.installed(), threads) as (workers, _):
        return measure(workers, rounds, seconds)


@contextlib.contextmanager
def loaded(
    bundle: Bundle, test: Split, names: Iterable[str], threads: int
) -> Iterator[tuple[list[Worker], dict[str, str]]]:
    """A worker for each format of the bundle and each of the peers `names`, until the block ends.

    Also gives the peers that cannot run, and why. Raises `CheckFailed` for a format that cannot.
    """
    workers: list[Worker] = []
    left_out: dict[str, str] = {}
    try:
        for name in (*bundle.formats, *names):
            print(f"loading {name}", file=sys.stderr)
            try:
                workers.append(Worker(bundle, test, name, threads))
            except CheckFailed as error:
                if name in bundle.formats:
                    raise
                # Not every model can be had in PyTorch; the others are still worth comparing.
                print(f"left out: {error}", file=sys.stderr)
                left_out[name] = str(error).removeprefix(f"{name}: ")
        yield workers, left_out
    finally:
        for worker in workers:
            worker.process.kill()


def measure(workers: Sequence[Worker], rounds: int, seconds: float) -> list[Measured]:
    """Ask all workers in turn, round after round, and let them end."""
    for number in range(rounds):
        print(f"round {number + 1}/{rounds}", file=sys.stderr)
        for batch in BATCHES:
            for worker in workers:
                worker.measure(batch, seconds)
    return [worker.finish() for worker in workers]


class Worker:
    """A process that runs one format or peer, and measures it when it is told to."""

    def __init__(self, bundle: Bundle, test: Split, name: str, threads: int) -> None:
        # Spawned, not forked: nothing of this process is in the memory it reports.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(theirs, bundle, test, name, threads), daemon=True
        )
        self.process.start()
        theirs.close()
        self.measured = Measured(name, **self._receive(name))

    def measure(self, batch: int, seconds: float) -> None:
        times = self._ask((batch, seconds))
        self.measured.seconds.setdefault(batch, []).extend(times)
        self.measured.medians.setdefault(batch, []).append(statistics.median(times))

    def finish(self) -> Measured:
        self.measured.peak_bytes = self._ask(None)
        self.process.join()
        return self.measured

    def _ask(self, request: tuple[int, float] | None) -> Any:
        # A process that has died is named below: what it sent before it did is still to be read.
        with contextlib.suppress(BrokenPipeError):
            self.pipe.send(request)
        return self._receive(self.measured.name)

    def _receive(self, name: str) -> Any:
        try:
            answer = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            raise CheckFailed(f"{name}: its process died") from None
        if isinstance(answer, Exception):
            raise CheckFailed(f"{name}: {answer}") from answer
        return answer


def _serve(pipe: Connection, bundle: Bundle, test: Split, name: str, threads: int) -> None:
    """What a worker does: load, then measure on demand, then say how much memory it took."""
    for variable in THREAD_VARIABLES:
        os.environ[variable] = str(threads)
    try:
        with stderr.muted():
            _measure_on_demand(pipe, bundle, test, name, threads)
    except Exception as error:
        pipe.send(CheckFailed(str(error) or type(error).__name__))


def _measure_on_demand(
    pipe: Connection, bundle: Bundle, test: Split, name: str, threads: int
) -> None:
    began = time.perf_counter()
    runtime = _open(bundle, name, threads)
    runtime.predict(*_inputs(test.take(slice(1))))
    loaded = time.perf_counter() - began
    blocks = [test.take(slice(i, i + 1000)) for i in range(0, len(test.y), 1000)]
    right, of = np.sum(
        [_right(runtime.predict(*_inputs(block)), block) for block in blocks], axis=0
    )
    ours = name in bundle.formats
    pipe.send(
        {
            "load_seconds": loaded if ours else None,
            "bytes": bundle.size(name) if ours else None,
            "accuracy": float(right / of),
        }
    )
    while request := pipe.recv():
        pipe.send(call_times(runtime, _inputs(test), *request))
    pipe.send(peak_bytes())


def _right(probabilities: np.ndarray, split: Split) -> tuple[int, int]:
    """How many answers are right, and how many there are with a label."""
    best = probabilities.argmax(axis=-1)
    labels = split.y if best.ndim == 1 else split.step_labels
    return int((best == labels).sum()), int((labels >= 0).sum())


def _open(bundle: Bundle, name: str, threads: int) -> Runtime:
    peer = peers.PEERS.get(name)
    return peer(bundle, threads) if peer else open_runtime(bundle, name, threads)


def _inputs(split: Split) -> tuple[np.ndarray, ...]:
    """What `Runtime.predict` is given: the sequences, and their lengths where these vary."""
    return (split.x,) if split.lengths is None else (split.x, split.lengths)


def call_times(
    runtime: Runtime, examples: tuple[np.ndarray, ...], batch: int, seconds: float
) -> list[float]:
    """Seconds of each call with `batch` examples, as many as fit into `seconds`, after warm-up.

    `examples` are what `Runtime.predict` is given.
    """
    x, *lengths = examples
    rows = np.arange(INPUTS * batch).reshape(INPUTS, batch) % len(x)
    inputs = [(x[row].astype(np.float32), *(each[row] for each in lengths)) for row in rows]
    for given in inputs[:3]:
        runtime.predict(*given)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or (times and time.perf_counter() < end):
        given = inputs[len(times) % INPUTS]
        began = time.perf_counter()
        runtime.predict(*given)
        times.append(time.perf_counter() - began)
    return times


def peak_bytes() -> int:
    """The largest resident memory of this process so far."""
    status = Path("/proc/self/status")
    # On Linux getrusage says at least what the process took that started this one.
    own = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    if own:
        return 1024 * int(own[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def table(measured: Sequence[Measured]) -> str:
    """A line for each format and peer."""
    width = max(len(each.name) for each in measured)
    head = "".join(f"{f'batch {batch:,}: p50':>18} {'p99':>8}" for batch in BATCHES)
    lines = [
        f"{'':<{width}}{head}  examples/s      load      size    memory  accuracy",
    ]
    for each in measured:
        cells = "".join(
            f"{1e6 * statistics.median(calls):15,.0f} us {1e6 * np.quantile(calls, 0.99):8,.0f}"
            for calls in each.seconds.values()
        )
        rate = max(batch / statistics.median(calls) for batch, calls in each.seconds.items())
        size = "" if each.bytes is None else f"{each.bytes / 1024:,.1f} KB"
        load = "" if each.load_seconds is None else f"{each.load_seconds:.3f} s"
        lines.append(
            f"{each.name:<{width}}{cells}  {rate:10,.0f}  {load:>8}  {size:>8}  "
            f"{each.peak_bytes / 2**20:5,.0f} MB  {each.accuracy:8.2%}"
        )
    return "\n".join(lines)


def ratios(measured: Sequence[Measured]) -> str:
    """How many times faster ONNX is than each of the others, batch by batch."""
    own = next((each for each in measured if each.name == "onnx"), None)
    if own is None:
        return ""
    lines = ["onnx is so many times as fast as"]
    width = max(len(each.name) for each in measured)
    for each in measured:
        if each is not own:
            times = (
                f"{statistics.median(calls) / statistics.median(own.seconds[batch]):8.2f}x"
                for batch, calls in each.seconds.items()
            )
            lines.append(f"  {each.name:<{width}}{''.join(times)}")
    return "\n".join(lines)


@dataclass(frozen=True)
class Command:
    """Measure every format of a bundle beside Keras, other ways to ONNX, and PyTorch."""

    path: tyro.conf.Positional[Path]
    """A bundle, or a run that has one."""
    data: str | None = None
    """Another data set of the same specification: mnist, tfds:<name> or <file>.npz."""
    threads: int = 1
    """CPU threads of each runtime."""
    rounds: int = 5
    """How often each is measured in turn."""
    seconds: float = 0.2
    """Time of one measurement: many calls of one format with one batch size."""
    json: Path | None = None
    """Also write every figure here."""
    picture: Path | None = None
    """Where the bar chart goes. Default: benchmark.png in the current folder."""


@one_line_errors
def main(argv: Sequence[str] | None = None, prog: str = "python -m export.benchmark") -> int:
    command = parse(Command, arguments(argv), prog)
    check_positive(command, "threads", "rounds", "seconds")
    bundle = find_bundle(command.path)
    bundle.check()
    measured = benchmark(
        bundle,
        source=command.data,
        threads=command.threads,
        rounds=command.rounds,
        seconds=command.seconds,
    )
    print(table(measured), ratios(measured), sep="\n\n")
    picture = command.picture or Path("benchmark.png")
    plot(measured, picture)
    print(f"\nchart  {picture}")
    if command.json:
        write_text(command.json, json.dumps([each.summary() for each in measured], indent=2))
    return 0


def check_positive(command: Any, *names: str) -> None:
    for name in names:
        if not getattr(command, name) > 0:
            raise InputError(f"bad {name}", expected="more than 0", got=getattr(command, name))


def plot(measured: Sequence[Measured], path: Path) -> None:
    from rnn_tf.plots import plot_latencies

    latencies = {
        each.name: {b: 1e6 * statistics.median(t) / b for b, t in each.seconds.items()}
        for each in measured
    }
    own = [each.name for each in measured if each.bytes is not None]
    plot_latencies({"": latencies}, own, path)


if __name__ == "__main__":
    raise SystemExit(main())
