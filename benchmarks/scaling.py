"""Where training on several workers stops paying, from measured step times and message sizes.

    python -m benchmarks.scaling

Measures how long a step takes here in one process, for a SimpleRNN of 2 thousand and one of 2
million parameters (that of 200 million is projected from the operations of the latter), and in two
worker processes of this machine, which gives what a hop costs; then works out, for two networks,
the number of workers that is fastest:

    T(N) = step / N + 2 (N - 1) (hop + bytes / (N * bandwidth))

its share of the arithmetic, then a ring all-reduce (Patarasuk and Yuan, "Bandwidth optimal
all-reduce algorithms", 2009). Writes the table into docs/scaling.md.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.documents import put, table
from rnn_tf.run import Run

BATCH, TIMESTEPS, FEATURES, CLASSES = 64, 28, 28, 10
MOST_WORKERS = 64
# Units of the SimpleRNN, examples that the measurement trains on in an epoch.
MEASURED = {32: 60_000, 1_396: 256}
PROJECTED = 14_120


# Bytes a second.
NETWORKS = {"1 Gbit/s": 1.25e8, "10 Gbit/s": 1.25e9}


def parameters(units: int) -> int:
    """The weights of a SimpleRNN of so many units and its softmax."""
    return units * (FEATURES + units + 1) + CLASSES * (units + 1)


def operations(units: int) -> int:
    """The floating-point operations of a step: each weight twice forward, four times backward."""
    return 6 * parameters(units) * TIMESTEPS * BATCH


@dataclass(frozen=True)
class Step:
    """A step of a training: what it takes in one process, and what workers would exchange."""

    seconds: float
    message: int  # bytes
    hop: float  # seconds that a message takes from a worker to the next, beside its bytes

    def of(self, workers: int, bandwidth: float) -> float:
        """The seconds that it takes so many workers, over so many bytes a second."""
        exchange = self.hop + self.message / (workers * bandwidth)
        return self.seconds / workers + 2 * (workers - 1) * exchange

    def fastest(self, bandwidth: float) -> int:
        """The number of workers, up to 64, that takes the least time."""
        return min(range(1, MOST_WORKERS + 1), key=lambda workers: self.of(workers, bandwidth))


def measured_step(units: int, examples: int, folder: Path, *more: str) -> float:
    """The seconds of a step of the command, the best of several epochs."""
    data = folder / f"random_{examples}.npz"
    if not data.exists():
        _write(data, examples)
    run = folder / "-".join(("run", str(units), *more))
    arguments = (
        *("--dataset", data, "--run-dir", run, "--units", units, "--batch-size", BATCH),
        *("--epochs", 4, "--optimizer", "adam", "--activation", "tanh", "--noise", 0),
        *("--dropout", 0, *more),
    )
    command = [sys.executable, "-m", "rnn_tf.train", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - our own command
    best = min(record["seconds"] for record in Run.open(run).history)
    return float(best) / -(-examples // BATCH)


def _write(path: Path, examples: int) -> None:
    random = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for split, count in (("train", examples), ("valid", 64), ("test", 64)):
        arrays[f"x_{split}"] = random.normal(size=(count, TIMESTEPS, FEATURES)).astype(np.float32)
        arrays[f"y_{split}"] = np.arange(count) % CLASSES
    np.savez(path, **arrays)  # type: ignore[arg-type]


def row(units: int, step: Step, how: str) -> list[str]:
    """A line of the table: what a step takes, and the number of workers that pays."""
    time, message = f"{1e3 * step.seconds:,.3g} ms ({how})", f"{step.message / 1e6:,.3g} MB"
    cells = [f"{parameters(units):,}", time, message]
    for bandwidth in NETWORKS.values():
        best = step.fastest(bandwidth)
        gain = step.seconds / step.of(best, bandwidth)
        at_most = " or more" if best == MOST_WORKERS else ""
        cells.append("1: never pays" if best == 1 else f"{best}{at_most} ({gain:,.1f} times)")
    return cells


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        one = {units: measured_step(units, n, folder) for units, n in MEASURED.items()}
        small, large = MEASURED
        two = measured_step(small, MEASURED[small], folder, "--workers", "2")
    # What two workers take beyond their half of the arithmetic, for the two hops of a message.
    hop = max(0.0, two - one[small] / 2) / 2
    one[PROJECTED] = one[large] * operations(PROJECTED) / operations(large)
    rows = [
        row(units, Step(step, 4 * parameters(units), hop), how)
        for (units, step), how in zip(
            one.items(), ("measured", "measured", "projected"), strict=True
        )
    ]
    head = ["parameters", "step, one process", "message", *(f"over {name}" for name in NETWORKS)]
    text = table(head, rows) + (
        f"\n\nMeasured on this machine with {parameters(small):,} parameters: a step takes "
        f"{1e3 * one[small]:.2f} ms in one process and {1e3 * two:.2f} ms in two workers on two "
        f"cores, so a hop {1e3 * hop:.2f} ms.\n"
    )
    put("docs/scaling.md", "benchmarks.scaling", text)
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
