"""How long exporting and verifying take, whole commands, phase by phase.

    python -m benchmarks.export_time                   # the default model, and one of 784 steps
    git worktree add ../old COMMIT
    python -m benchmarks.export_time --against ../old  # beside another version of this package

Trains the models, for one epoch, then runs `rnn-tf export` and `rnn-tf verify` on each, the two
versions in turn. A phase ends where the command says that the next one begins. With --write the
table goes into docs/bundle.md.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.documents import ROOT, put, table
from rnn_tf.data import load

# What a command says when a phase begins; the first begins with the command.
PHASES = {
    "start, data": "",
    "files": "writing ",
    "Keras, formulas": "verifying: keras",
    "formats": "verifying: ",
}
HERE, AGAINST = "this version", "the other"
DEFAULT, LONG = MODELS = ("default", "784 steps")
# Of the one that reads a digit pixel by pixel.
PIXELS, EXAMPLES = 784, {"train": 2_000, "valid": 500, "test": 10_000}


def phases(lines: Iterable[tuple[float, str]], end: float) -> dict[str, float]:
    """The seconds of each phase of a command that said these lines, each at its time, until `end`.

    A phase that the command does not have is left out.
    """
    began = {next(iter(PHASES)): 0.0}
    for at, line in lines:
        for phase, beginning in PHASES.items():
            if beginning and line.startswith(beginning):
                began.setdefault(phase, at)
                break
    ends = [*list(began.values())[1:], end]
    return {name: end - at for (name, at), end in zip(began.items(), ends, strict=True)}


def timed(module: str, arguments: Sequence[object], package: Path) -> dict[str, float]:
    """The seconds of each phase of a command of the package in a folder."""
    began, lines = time.perf_counter(), []
    with subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=package,  # which Python looks in first
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        for line in process.stderr or ():
            lines.append((time.perf_counter() - began, line))
        code = process.wait()
    if code:
        raise subprocess.CalledProcessError(code, module, stderr="".join(line for _, line in lines))
    return phases(lines, time.perf_counter() - began)


def pixel_by_pixel(path: Path) -> Path:
    """Write MNIST's digits as sequences of 784 pixels, all of the test split and some others."""
    data, arrays = load("mnist"), {}
    for name, count in EXAMPLES.items():
        split = getattr(data, name)
        arrays[f"x_{name}"] = split.x[:count].reshape(-1, PIXELS, 1)
        arrays[f"y_{name}"] = split.y[:count]
    np.savez(path, **arrays)
    return path


def train(model: str, folder: Path) -> Path:
    """A run of a model, by what the table calls it."""
    run = folder / model.replace(" ", "_")
    more = ["--dataset", str(pixel_by_pixel(folder / "pixels.npz"))] if model == LONG else []
    command = ["-m", "rnn_tf.train", "--epochs", "1", "--run-dir", str(run), *more]
    subprocess.run([sys.executable, *command], check=True, capture_output=True)  # noqa: S603
    return run


def measure(
    run: Path, packages: dict[str, Path], rounds: int, folder: Path
) -> dict[tuple[str, str], list[dict[str, float]]]:
    """The phases of every round, by command and package."""
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for number in range(rounds + 1):
        for name, package in packages.items():
            out = folder / f"{run.name}-{list(packages).index(name)}"
            export = timed("export", [run, "--out", out], package)
            verify = timed("export.verify", [out], package)
            if number:  # the first fills the cache of the disk
                found.setdefault(("export", name), []).append(export)
                found.setdefault(("verify", name), []).append(verify)
    return found


def row(
    model: str, command: str, package: str, rounds: list[dict[str, float]], first: float | None
) -> list[str]:
    """A line of the table: medians, and how many times as fast as `first` seconds in all."""
    total = statistics.median(sum(each.values()) for each in rounds)
    cells = [
        f"{statistics.median(each[phase] for each in rounds):.2f}" if phase in rounds[0] else ""
        for phase in PHASES
    ]
    ratio = "" if first is None else f"{first / total:.2f}x"
    return [model, command, package, *cells, f"{total:.2f} s", ratio]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.export_time", description=__doc__)
    parser.add_argument("--against", type=Path, help="a checkout of another version")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--write", action="store_true", help="write the table into docs/bundle.md")
    options = parser.parse_args(argv)
    # The other first: what follows is compared with it.
    other = {} if options.against is None else {AGAINST: options.against.resolve()}
    packages = {**other, HERE: ROOT}
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model in options.models:
            found = measure(train(model, folder), packages, options.rounds, folder)
            for command in ("export", "verify"):
                firsts = found[command, next(iter(packages))]
                first = statistics.median(sum(each.values()) for each in firsts)
                for package in packages:
                    compared = first if package == HERE and other else None
                    rows.append(row(model, command, package, found[command, package], compared))
    head = ["model", "command", "", *PHASES, "in all", "faster"]
    text = table(head, rows)
    if options.write:
        put("docs/bundle.md", "benchmarks.export_time", text)
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
