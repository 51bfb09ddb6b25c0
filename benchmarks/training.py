"""`python -m benchmarks.training`: training time, beside what a user would write otherwise.

Each way runs as a whole command in a process of its own, in turn, round after round, so that a
machine whose speed drifts is the same for all. An epoch includes its validation, everywhere.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks import documents, lengths
from rnn_tf.command import arguments, parse
from rnn_tf.errors import CheckFailed, one_line_errors
from rnn_tf.files.writing import write_text
from rnn_tf.model.cells import CELLS, Cell
from rnn_tf.run import Run

# MNIST without its validation split, read row by row by SimpleRNN(32) and a softmax of 10.
EXAMPLES, STEPS, FEATURES, UNITS, CLASSES = 55_000, 28, 28, 32, 10

PLAIN_TORCH = "plain PyTorch loop"

# Layers of 32 units and directions that `--stacks` times, of every cell.
STACKS = {"2 layers": (2, 1), "1 layer in both directions": (1, 2)}
# Cells that `--gated` times.
GATED_CELLS: tuple[Cell, ...] = ("lstm", "gru")
# Above the lines of a document's table.
HEAD = ["", "steady epoch (min-max)", "ratio", "first epoch", "whole command (min-max)", "ratio",
        "test accuracy"]  # fmt: skip
# Cells that `--lengths` and `--every-step` time.
TIMED_CELLS: tuple[Cell, ...] = ("gru", "simple_rnn")


@dataclass
class Way:
    """One way to train, and what it took."""

    name: str
    run: Callable[[int], tuple[list[float], float]]  # epochs -> seconds of each, accuracy
    command: list[float] = field(default_factory=list)  # seconds, whole command
    first: list[float] = field(default_factory=list)  # seconds, first epoch
    steady: list[float] = field(default_factory=list)  # seconds, every later epoch
    accuracy: list[float] = field(default_factory=list)  # test, 0 to 1

    def measure(self, epochs: int) -> None:
        began = time.perf_counter()
        seconds, accuracy = self.run(epochs)
        self.command.append(time.perf_counter() - began)
        self.first.append(seconds[0])
        self.steady.extend(seconds[1:])
        self.accuracy.append(accuracy)


@dataclass(frozen=True)
class Command:
    """Time training on MNIST: this package, plain Keras fit, and PyTorch and JAX if installed.

    That is SimpleRNN(32), or instead what some of the flags name.
    """

    rounds: int = 3
    """How often each way is run."""
    epochs: int = 10
    """Epochs of each run, at least 2."""
    gated: bool = False
    """LSTM and GRU in PyTorch, beside the loop with a `DataLoader`."""
    stacks: bool = False
    """Stacked and bidirectional layers of every cell."""
    lengths: bool = False
    """Sequences of different lengths, and the same of one length."""
    every_step: bool = False
    """Answers at every step."""
    json: Path | None = None
    """Also write every figure here."""
    chart: Path | None = None
    """Also draw a bar chart here, a PNG."""
    write: bool = False
    """Write the table of SimpleRNN(32), or of --gated, into the documents of this checkout."""


@one_line_errors
def main(argv: Sequence[str] | None = None, prog: str = "python -m benchmarks.training") -> int:
    command = parse(Command, arguments(argv), prog)
    with tempfile.TemporaryDirectory() as folder:
        gated = ways_to_train_gated(Path(folder)) if command.gated else {}
        groups = dict(gated)
        groups |= ways_to_train_stacks(Path(folder)) if command.stacks else {}
        groups |= ways_to_train_lengths(Path(folder)) if command.lengths else {}
        groups |= ways_to_train_every_step(Path(folder)) if command.every_step else {}
        ways = [] if groups else ways_to_train(Path(folder))
        for number in range(command.rounds):
            for way in (*ways, *itertools.chain(*groups.values())):
                way.measure(command.epochs)
                seconds = f"{statistics.median(way.steady):.3f} s an epoch"
                print(
                    f"round {number + 1}/{command.rounds}: {way.name}: {seconds}", file=sys.stderr
                )
    rate = matrix_product_rate() if ways else 0.0
    if ways:
        print(table(ways, rate))
    for title, group in groups.items():
        print("\n".join(["", title, *rows(group)]))
    if command.write and ways:
        documents.put("docs/training-speed.md", "benchmarks.training", markdown(ways, rate))
    if command.write and gated:
        text = documents.table(HEAD, list(itertools.chain(*map(cells, gated.values()))))
        documents.put("docs/pytorch.md", "benchmarks.training, gated", text)
    ways += itertools.chain(*groups.values())
    if command.json:
        write_text(command.json, json.dumps([{**vars(w), "run": None} for w in ways], indent=2))
    if command.chart:
        from rnn_tf.plots import plot_times

        plot_times({way.name: (way.steady, way.command) for way in ways}, command.chart)
        print(f"\nchart  {command.chart}")
    return 0


def ways_to_train(folder: Path) -> list[Way]:
    """What is compared; the first is what the others are measured against."""
    ways = [
        Way("plain Keras fit on arrays", _script("benchmarks.plain_keras")),
        Way("rnn_tf, tutorial preset, nothing cached", _ours(folder, "tutorial", cached=False)),
        Way("rnn_tf, tutorial preset", _ours(folder, "tutorial")),
        Way("rnn_tf, best preset", _ours(folder, "best")),
        Way("rnn_tf, tutorial preset, --no-fused", _ours(folder, "tutorial", "--no-fused")),
    ]
    if importlib.util.find_spec("torch"):
        in_torch = ("--backend", "torch")
        ways += [
            Way(PLAIN_TORCH, _script("benchmarks.plain_torch", "RNN")),
            Way("rnn_tf --backend torch, tutorial preset", _ours(folder, "tutorial", *in_torch)),
            Way("rnn_tf --backend torch, best preset", _ours(folder, "best", *in_torch)),
        ]
    if importlib.util.find_spec("jax"):
        ways.append(Way("JAX, lax.scan by hand", _script("benchmarks.jax_scan")))
    return ways


def ways_to_train_gated(folder: Path) -> dict[str, list[Way]]:
    """Training in PyTorch, by cell; empty without PyTorch."""
    if not importlib.util.find_spec("torch"):
        return {}
    groups = {}
    for cell in GATED_CELLS:
        title = CELLS[cell].torch_layer
        options = ("--cell", cell, "--backend", "torch")
        groups[title] = [
            Way(f"{PLAIN_TORCH}, {title}", _script("benchmarks.plain_torch", title)),
            Way(f"rnn_tf --backend torch, {title}", _ours(folder, "tutorial", *options)),
        ]
    return groups


def ways_to_train_stacks(folder: Path) -> dict[str, list[Way]]:
    """The same comparison for each cell and each of `STACKS`, by what is trained."""
    groups = {}
    for cell, kind in CELLS.items():
        for shape, (layers, directions) in STACKS.items():
            plain = (cell, str(layers), str(directions))
            options = ["--cell", cell, "--layers", str(layers), "--activation", "tanh"]
            options += ["--bidirectional"] if directions == 2 else []
            title = f"{kind.keras_layer}, {shape}"
            groups[title] = [
                Way(f"plain Keras fit, {title}", _script("benchmarks.plain_keras", *plain)),
                Way(f"rnn_tf, {title}", _ours(folder, "tutorial", *options)),
            ]
            if not importlib.util.find_spec("torch"):
                continue
            for threads in sorted({1, os.cpu_count() or 1}):
                script = _script("benchmarks.plain_torch_arrays", *plain, str(threads))
                name = f"plain PyTorch on arrays, {threads} threads, {title}"
                groups[title].append(Way(name, script))
            in_torch = _ours(folder, "tutorial", *options, "--backend", "torch")
            groups[title].append(Way(f"rnn_tf --backend torch, {title}", in_torch))
    return groups


def ways_to_train_lengths(folder: Path) -> dict[str, list[Way]]:
    """The comparison for sequences of different lengths, by what is trained.

    Also ours on as many sequences of one length: of the longest, and of the mean.
    """
    shortest, longest = lengths.SHORTEST, lengths.LONGEST
    mean = (shortest + longest) // 2
    varying = lengths.write(folder / "varying.npz")
    of_one_length = {
        each: lengths.write(folder / f"{each}.npz", each, each) for each in (longest, mean)
    }
    groups = {}
    for cell in TIMED_CELLS:
        title = f"{CELLS[cell].keras_layer}, {shortest} to {longest} steps"
        options = ("--cell", cell, "--dataset")
        groups[title] = [
            Way(
                f"plain Keras fit with Masking, {title}",
                _script("benchmarks.plain_keras_masking", str(varying), cell),
            ),
            Way(f"rnn_tf, {title}", _ours(folder, "tutorial", *options, str(varying))),
            *(
                Way(
                    f"rnn_tf, {CELLS[cell].keras_layer}, {steps} steps each",
                    _ours(folder, "tutorial", *options, str(file)),
                )
                for steps, file in of_one_length.items()
            ),
        ]
        if not importlib.util.find_spec("torch"):
            continue
        for threads in sorted({1, os.cpu_count() or 1}):
            script = _script("benchmarks.plain_torch_packed", str(varying), cell, str(threads))
            name = f"plain PyTorch, packed, {threads} threads, {title}"
            groups[title].append(Way(name, script))
        in_torch = _ours(folder, "tutorial", "--backend", "torch", *options, str(varying))
        groups[title].append(Way(f"rnn_tf --backend torch, {title}", in_torch))
    return groups


def ways_to_train_every_step(folder: Path) -> dict[str, list[Way]]:
    """The comparison for models that answer after each row, by what is trained."""
    groups = {}
    for cell in TIMED_CELLS:
        title = f"{CELLS[cell].keras_layer}, an answer at every step"
        plain = _script("benchmarks.plain_keras", cell, "1", "1", "every_step")
        options = ("--cell", cell, "--answer", "every_step")
        groups[title] = [
            Way(f"plain Keras fit, {title}", plain),
            Way(f"rnn_tf, tutorial preset, {title}", _ours(folder, "tutorial", *options)),
            Way(f"rnn_tf, best preset, {title}", _ours(folder, "best", *options)),
        ]
        if importlib.util.find_spec("torch"):
            in_torch = _ours(folder, "tutorial", *options, "--backend", "torch")
            groups[title].append(Way(f"rnn_tf --backend torch, {title}", in_torch))
    return groups


def table(ways: list[Way], rate: float) -> str:
    """Medians, spreads and ratios to the first way, as text, and how far each is from the floor.

    That is the arithmetic alone, at `rate`, in operations a second.
    """
    floor = epoch_operations() / rate
    lines = [
        *rows(ways),
        "",
        f"arithmetic floor: {epoch_operations() / 1e9:.1f} GFLOP an epoch at {rate / 1e9:.0f} "
        f"GFLOP/s (a large float32 matrix product, all cores): {floor:.3f} s",
        *(
            f"{way.name}: {statistics.median(way.steady) / floor:.1f} times the floor"
            for way in ways
        ),
    ]
    return "\n".join([*lines, *_ratios_in_torch(ways)])


def rows(ways: list[Way]) -> list[str]:
    """A head and a line for each way: medians, spreads, and ratios to the first."""
    base = ways[0]
    width = max(len(way.name) for way in ways)
    head = (
        f"{'':<{width}}  steady epoch (min-max)     ratio  first epoch  whole command (min-max)"
        "  ratio  accuracy"
    )
    lines = [head]
    for way in ways:
        steady, command = statistics.median(way.steady), statistics.median(way.command)
        lines.append(
            f"{way.name:<{width}}  {steady:6.3f} s ({min(way.steady):.3f}-{max(way.steady):.3f})"
            f"  {statistics.median(base.steady) / steady:6.1f}x"
            f"  {statistics.median(way.first):9.2f} s"
            f"  {command:7.1f} s {f'({min(way.command):.1f}-{max(way.command):.1f})':>13}"
            f"  {statistics.median(base.command) / command:4.1f}x"
            f"  {statistics.mean(way.accuracy):7.2%}"
        )
    return lines


def cells(ways: list[Way]) -> list[list[str]]:
    """The same lines for a table of a document, below `HEAD`."""
    base, rows = ways[0], []
    for way in ways:
        steady, command = statistics.median(way.steady), statistics.median(way.command)
        rows.append(
            [
                way.name,
                f"{steady:.3f} s ({min(way.steady):.3f}-{max(way.steady):.3f})",
                f"{statistics.median(base.steady) / steady:.1f}x",
                f"{statistics.median(way.first):.2f} s",
                f"{command:.1f} s ({min(way.command):.1f}-{max(way.command):.1f})",
                f"{statistics.median(base.command) / command:.1f}x",
                f"{statistics.mean(way.accuracy):.1%}",
            ]
        )
    return rows


def markdown(ways: list[Way], rate: float) -> str:
    """What a document says of `ways`: the same, the floor as a sentence below a table."""
    floor = (
        f"The arithmetic alone, {epoch_operations() / 1e9:.1f} GFLOP an epoch at the speed of a "
        f"large matrix product on all cores, would take {epoch_operations() / rate:.3f} s."
    )
    return "\n".join([documents.table(HEAD, cells(ways)), "", floor])


def _ratios_in_torch(ways: list[Way]) -> list[str]:
    """How much faster PyTorch trains here than in the loop that its users write."""
    peer = next((way for way in ways if way.name == PLAIN_TORCH), None)
    if peer is None:
        return []
    epoch, command = statistics.median(peer.steady), statistics.median(peer.command)
    return [
        f"{way.name}: an epoch {epoch / statistics.median(way.steady):.1f} times, the command "
        f"{command / statistics.median(way.command):.1f} times as fast as the {PLAIN_TORCH}"
        for way in ways
        if "--backend torch" in way.name
    ]


def epoch_operations(
    examples: int = EXAMPLES,
    steps: int = STEPS,
    features: int = FEATURES,
    units: int = UNITS,
    gates: int = 1,
) -> float:
    """Floating-point operations of one epoch's matrix products, forward and backward.

    2 for each multiplication and addition. Forward: input and state products of each step, of each
    gate. Backward: the gradients of both kernels and of the state; none of the input.
    """
    wide = gates * units
    forward = steps * wide * (features + units)
    backward = steps * wide * (features + units + units)
    return 2.0 * examples * (forward + backward + 3 * units * CLASSES)


def matrix_product_rate(size: int = 2048, repeats: int = 7) -> float:
    """Operations a second in float32 matrix products of this size, the best of some."""
    a = np.ones((size, size), np.float32)
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        a @ a
        seconds.append(time.perf_counter() - began)
    return float(2 * size**3 / min(seconds))


def _script(module: str, *options: str) -> Callable[[int], tuple[list[float], float]]:
    def run(epochs: int) -> tuple[list[float], float]:
        found = json.loads(_call([module, str(epochs), *options], {}).splitlines()[-1])
        return found["epochs"], found["accuracy"]

    return run


def _ours(
    folder: Path, preset: str, *options: str, cached: bool = True
) -> Callable[[int], tuple[list[float], float]]:
    """The command as a user runs it; its cache of compiled programs is this benchmark's own."""

    def run(epochs: int) -> tuple[list[float], float]:
        with tempfile.TemporaryDirectory(dir=folder) as own:
            path = Path(own) / "run"
            cache = folder / "cache" if cached else Path(own) / "cache"
            line = ["rnn_tf.train", "--preset", preset, "--run-dir", str(path)]
            _call([*line, "--epochs", str(epochs), *options], {"RNN_TF_CACHE": str(cache)})
            found = Run.open(path)
            return [r["seconds"] for r in found.history], found.metrics["test"]["accuracy"]

    return run


def _call(module: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(  # noqa: S603 - our own modules
        [sys.executable, "-m", *module],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise CheckFailed(f"python -m {' '.join(module)}: {done.stderr[-500:]}")
    return done.stdout


if __name__ == "__main__":
    raise SystemExit(main())
