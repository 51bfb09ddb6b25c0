"""`python -m benchmarks.larger_than_memory`: train on more than fits, under a limit of the system.

MNIST's digits over and over, written into TFRecord shards. First a set of several gigabytes is
trained on by the command that users call, in a process that Linux lets allocate no more than the
limit (RLIMIT_DATA, which also counts what is allocated and never touched). Then a set that fits is
trained on from shards and from memory in turn, and its shards are read without training.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast

import numpy as np

from benchmarks import documents
from rnn_tf.command import arguments, parse
from rnn_tf.config import TrainConfig
from rnn_tf.data import SequenceData, Split, load
from rnn_tf.errors import CheckFailed, one_line_errors

DOCUMENT, PLACE = "docs/large-data.md", "benchmarks.larger_than_memory"
GIGABYTE = 10**9


@dataclass(frozen=True)
class Command:
    """Train on a generated set that is larger than a limit on memory, and compare with memory."""

    gigabytes: float = 5.0
    """Size of the set that is trained under the limit, in 10^9 bytes; 0: leave it out."""
    limit: float = 2.0
    """The limit, in GiB."""
    epochs: int = 2
    """Epochs under the limit."""
    compared: float = 0.3
    """Size of the set that is trained from memory too, in 10^9 bytes; 0: leave it out."""
    rounds: int = 2
    """Trainings of that from each, in turn, of four epochs."""
    folder: Path | None = None
    """Where the sets are written, and stay for the next time. Default: a temporary folder."""
    write: bool = False
    """Write what was measured into docs/large-data.md."""


@dataclass(frozen=True)
class Limited:
    """A training under a limit."""

    data_bytes: int
    limit_bytes: int
    peak_bytes: int  # resident, at most
    examples: int
    seconds: float  # of the last epoch

    def __str__(self) -> str:
        return (
            f"{self.examples:,} sequences of {self.data_bytes / GIGABYTE:.1f} GB, limit "
            f"{self.limit_bytes / 2**30:.3g} GiB: peak resident "
            f"{self.peak_bytes / 2**30:.2f} GiB, {self.seconds:.1f} s an epoch, "
            f"{self.examples / self.seconds:,.0f} sequences/s"
        )


@dataclass(frozen=True)
class Compared:
    """The same examples from shards and from memory."""

    examples: int
    from_memory: list[float]  # seconds of epochs, without the first, which compiles
    from_shards: list[float]
    only_read: float  # seconds to read an epoch, in its order, and train nothing

    @property
    def ratio(self) -> float:
        return statistics.median(self.from_shards) / statistics.median(self.from_memory)


class Digits:
    """The pictures of `split` over and over, in an order drawn once; stands for an array."""

    def __init__(self, split: Split, examples: int) -> None:
        self.split = split
        self.rows = np.random.default_rng(0).integers(0, len(split.y), examples)
        self.shape = (examples, *split.x.shape[1:])
        self.dtype, self.itemsize = split.x.dtype, split.x.itemsize
        self.nbytes = examples * split.x[0].nbytes

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Any) -> np.ndarray:
        pictures: np.ndarray = self.split.x[self.rows[rows]]
        return pictures


def digits(examples: int) -> SequenceData:
    """So many training examples, the pictures not in memory; valid and test of MNIST."""
    mnist = load("mnist")
    x = Digits(mnist.train, examples)
    train = Split(cast(np.ndarray, x), mnist.train.y[x.rows])
    return SequenceData(mnist.spec, train, mnist.valid, mnist.test)


def write_shards(folder: Path, examples: int) -> None:
    """Write `digits` into shards, unless they are there."""
    from rnn_tf.data.convert import write
    from rnn_tf.data.tfrecord import holds

    if not holds(folder):
        write(digits(examples), folder, progress=True)


def read_shards(folder: Path, epochs: int, seconds: Any) -> None:
    """Read epochs as a training does; put the seconds of each into a queue."""
    from rnn_tf.startup import process

    process.start()
    from rnn_tf.training.keras.batches import pieces
    from rnn_tf.training.order import Order

    data = load(f"tfrecord:{folder}")
    order = Order.of(data.train, TrainConfig().batch_size_for(len(data.train.y)))
    began = time.perf_counter()
    for number, _ in enumerate(pieces(order, 0, epochs), 1):
        if number % order.pieces == 0:
            seconds.put(time.perf_counter() - began)
            began = time.perf_counter()


def trained(
    dataset: str, run: Path, epochs: int, limit_bytes: int | None = None
) -> tuple[list[float], int]:
    """The seconds of each epoch of `rnn-tf train`, and how many bytes were resident at most."""

    def limited() -> None:
        if limit_bytes is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))

    arguments = ["--dataset", dataset, "--run-dir", str(run), "--epochs", str(epochs)]
    command = [sys.executable, "-m", "rnn_tf.train", *arguments, "--overwrite"]
    process = subprocess.Popen(command, preexec_fn=limited, stdout=sys.stderr)  # noqa: S603
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise CheckFailed(f"the training on {dataset} ended with {status}")
    lines = (run / "history.jsonl").read_text().splitlines()
    return [json.loads(line)["seconds"] for line in lines], usage.ru_maxrss * 1024


def under_limit(folder: Path, command: Command) -> Limited:
    """Train on more than the limit."""
    examples = int(command.gigabytes * GIGABYTE / 784)
    _beside(write_shards, folder / "large", examples)
    limit = int(command.limit * 2**30)
    dataset = f"tfrecord:{folder / 'large'}"
    seconds, peak = trained(dataset, folder / "run", command.epochs, limit)
    return Limited(examples * 784, limit, peak, examples, seconds[-1])


def compare(folder: Path, command: Command) -> Compared:
    """Train on what fits, from shards and from memory in turn."""
    examples = int(command.compared * GIGABYTE / 784)
    _beside(write_shards, folder / "small", examples)
    array = folder / "small.npz"
    if not array.exists():
        data = digits(examples)
        named = {name: getattr(data, name) for name in ("train", "valid", "test")}
        np.savez(
            array,
            scale=1 / 255,
            **{f"x_{name}": split.x[:] for name, split in named.items()},
            **{f"y_{name}": split.y for name, split in named.items()},
        )
    from_memory: list[float] = []
    from_shards: list[float] = []
    for _ in range(command.rounds):
        from_memory += trained(str(array), folder / "run", 4)[0][1:]
        from_shards += trained(f"tfrecord:{folder / 'small'}", folder / "run", 4)[0][1:]
    queue = get_context("spawn").Queue()
    _beside(read_shards, folder / "small", 3, queue)
    only_read = min(queue.get() for _ in range(3))
    return Compared(examples, from_memory, from_shards, only_read)


def _beside(function: Any, *arguments: Any) -> None:
    """Call in another process: this one stays small, and a child begins with its size."""
    process = get_context("spawn").Process(target=function, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise CheckFailed(f"{function.__name__} failed")


def as_text(limited: Limited | None, compared: Compared | None) -> str:
    """What was measured, in Markdown."""
    lines = [] if limited is None else [f"{limited}.", ""]
    if compared is not None:
        rows = []
        for name, seconds in (
            ("trained from memory", compared.from_memory),
            ("trained from shards", compared.from_shards),
            ("only read from shards", [compared.only_read]),
        ):
            middle = statistics.median(seconds)
            spread = f" ({min(seconds):.2f}-{max(seconds):.2f})" if len(seconds) > 1 else ""
            rows.append([name, f"{middle:.2f} s{spread}", f"{compared.examples / middle:,.0f}"])
        lines.append(
            documents.table([f"{compared.examples:,} sequences", "an epoch", "sequences/s"], rows)
        )
        lines += ["", f"From shards an epoch takes {compared.ratio:.2f} times as long."]
    return "\n".join(lines)


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    command = parse(Command, arguments(argv), "python -m benchmarks.larger_than_memory")
    with tempfile.TemporaryDirectory() as temporary:
        folder = command.folder or Path(temporary)
        limited = under_limit(folder, command) if command.gigabytes else None
        compared = compare(folder, command) if command.compared else None
    text = as_text(limited, compared)
    print(text)
    if command.write:
        documents.put(DOCUMENT, PLACE, text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
