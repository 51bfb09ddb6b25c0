"""`python -m benchmarks.tuning`: trials per hour and memory, beside the usual KerasTuner search.

The same space, the same draws from it, the same number of trials and epochs, on MNIST, each search
a process of its own, one after the other. With `--space full` networks vary too: cells, layers,
directions and units; there nearly every trial has a program of its own to compile.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks import documents
from benchmarks.training import _call
from rnn_tf.command import arguments, parse
from rnn_tf.errors import InputError, one_line_errors
from rnn_tf.files.writing import write_text

# What benchmarks/plain_tuner.py declares in Python, in the same order: training SimpleRNN(32), and
# networks as well.
TRAINING: dict[str, Any] = {
    "recurrent_initializer": ["identity", "orthogonal"],
    "learning_rate": {"low": 1e-3, "high": 1e-2, "sampling": "log"},
}
SPACES: dict[str, dict[str, Any]] = {
    "small": TRAINING,
    "full": {
        "cell": ["simple_rnn", "lstm", "gru"],
        "layers": [1, 2],
        "bidirectional": [False, True],
        "units": {"low": 8, "high": 128, "sampling": "log"},
        **TRAINING,
    },
}
PLACES = {"small": "benchmarks.tuning", "full": "benchmarks.tuning, full"}


@dataclass(frozen=True)
class Way:
    """One way to search, and what it took."""

    name: str
    ended: list[float]  # seconds from the start of the command to the end of each trial
    resident: list[int]  # bytes that the process which trained it held at the end of each trial
    score: float  # validation accuracy of the best, 0 to 1

    @property
    def per_hour(self) -> float:
        """Trials per hour, the start of the command included."""
        return 3600 * len(self.ended) / self.ended[-1]

    @property
    def later(self) -> float:
        """Seconds of a trial after the first, the median."""
        return statistics.median(np.diff(self.ended))


@dataclass(frozen=True)
class Command:
    """Search MNIST by this package and by plain KerasTuner: trials per hour, memory, the best."""

    space: Literal["small", "full"] = "small"
    """How SimpleRNN(32) is trained, or the network as well."""
    trials: int = 20
    """Trials of each search, at least 2."""
    epochs: int = 10
    """Epochs of each trial."""
    seed: int = 0
    """Start of every random choice."""
    json: Path | None = None
    """Also write every figure here."""
    write: bool = False
    """Write the table into the documents of this checkout."""


@one_line_errors
def main(argv: Sequence[str] | None = None, prog: str = "python -m benchmarks.tuning") -> int:
    command = parse(Command, arguments(argv), prog)
    if command.trials < 2:
        raise InputError("bad trials", expected="a whole number >= 2", got=command.trials)
    ways = [
        plain("KerasTuner, build_model and fit on arrays", command),
        ours("tuning.search, same recipe", command, "tutorial"),
        ours("tuning.search, best preset", command, "best"),
    ]
    print(table(ways))
    if command.write:
        documents.put("docs/search.md", PLACES[command.space], markdown(ways))
    if command.json:
        write_text(command.json, json.dumps([vars(way) for way in ways], indent=2))
    return 0


def plain(name: str, command: Command) -> Way:
    print(name, file=sys.stderr)
    # The seed that our search gives KerasTuner, so that both draw the same trials.
    seed = int(np.random.SeedSequence(command.seed).generate_state(1)[0])
    line = ["benchmarks.plain_tuner", str(command.trials), str(command.epochs), str(seed)]
    line.append(command.space)
    return Way(name, **json.loads(_call(line, {}).splitlines()[-1]))


def ours(name: str, command: Command, preset: str) -> Way:
    """The command as a user runs it; its cache of compiled programs is empty at first."""
    print(name, file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        space, directory = Path(folder) / "space.json", Path(folder) / "search"
        space.write_text(json.dumps(SPACES[command.space]))
        line = ["tuning.search", "--tuner", "random", "--space", str(space), "--preset", preset]
        line += ["--trials", str(command.trials), "--epochs", str(command.epochs)]
        line += ["--seed", str(command.seed), "--dir", str(directory)]
        began = time.time()
        _call(line, {"RNN_TF_CACHE": f"{folder}/cache"})
        # The last thing that a trial writes.
        files = sorted(
            directory.glob("trial_*/metrics.json"), key=lambda file: file.stat().st_mtime
        )
        ended = [file.stat().st_mtime - began for file in files]
        resident = [json.loads(file.read_text())["resident"] for file in files]
        rows = json.loads((directory / "leaderboard.json").read_text())
    return Way(name, ended, resident, rows[0]["score"])


def markdown(ways: list[Way]) -> str:
    """The same for a document."""
    rows = []
    for way in ways:
        resident = (way.resident[i] / 2**20 for i in (0, len(way.resident) // 2, -1))
        rows.append(
            [
                way.name,
                f"{way.per_hour:,.0f}",
                f"{way.per_hour / ways[0].per_hour:.1f}x",
                f"{way.later:.1f} s",
                f"{ways[0].later / way.later:.1f}x",
                ", ".join(f"{each:,.0f}" for each in resident),
            ]
        )
    head = ["", "trials an hour", "ratio", "a later trial", "ratio",
            "resident MiB after the first, the middle, the last trial"]  # fmt: skip
    return documents.table(head, rows)


def table(ways: list[Way]) -> str:
    """Trials per hour, their ratio to the first way, and memory after 1, half and all trials."""
    width = max(len(way.name) for way in ways)
    lines = [
        f"{'':<{width}}  trials an hour  ratio  a later trial  ratio"
        "  resident MiB: first, middle, last  best validation"
    ]
    for way in ways:
        first, middle, last = (way.resident[i] / 2**20 for i in (0, len(way.resident) // 2, -1))
        lines.append(
            f"{way.name:<{width}}  {way.per_hour:14,.0f}  {way.per_hour / ways[0].per_hour:4.1f}x"
            f"  {way.later:11.1f} s  {ways[0].later / way.later:4.1f}x"
            f"  {first:19,.0f}, {middle:6,.0f}, {last:4,.0f}  {way.score:15.2%}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
