"""`python -m benchmarks.accuracy`: what presets and cells reach on MNIST, over several seeds.

With `--runs`, what the recipes of those runs reach: is the winner of a search, which was chosen
with one seed, better with others too?
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import documents
from rnn_tf import load, train
from rnn_tf.command import arguments, parse
from rnn_tf.config import TrainConfig, preset
from rnn_tf.errors import one_line_errors
from rnn_tf.files.writing import write_text
from rnn_tf.run import Run

RECIPES: dict[str, TrainConfig] = {
    "best": preset("best"),
    "tutorial": preset("tutorial"),
    "best, --cell lstm": dataclasses.replace(preset("best"), cell="lstm"),
    "best, --cell gru": dataclasses.replace(preset("best"), cell="gru"),
}


# What the documents call them.
NAMES = {
    "best": "`best` (default): SimpleRNN(32)",
    "tutorial": "`--preset tutorial`: SimpleRNN(32)",
    "best, --cell lstm": "`--cell lstm`: LSTM(32)",
    "best, --cell gru": "`--cell gru`: GRU(32)",
}


@dataclass(frozen=True)
class Command:
    """Train each preset and cell on MNIST with several seeds; print means and spreads."""

    runs: tuple[Path, ...] = ()
    """Folders of runs or trials. Their recipes, on their data, instead of presets and cells."""

    seeds: int = 5
    """Seeds 1 to this."""
    json: Path | None = None
    """Also write every figure here."""
    write: bool = False
    """Write the table into the documents of this checkout."""


@one_line_errors
def main(argv: Sequence[str] | None = None, prog: str = "python -m benchmarks.accuracy") -> int:
    command = parse(Command, arguments(argv), prog)
    recipes = {str(path): Run.open(path).config for path in command.runs} or RECIPES
    found = {name: [] for name in recipes}  # type: dict[str, list[dict[str, Any]]]
    for name, config in recipes.items():
        data = load(config)
        for seed in range(1, command.seeds + 1):
            with tempfile.TemporaryDirectory() as folder:
                seeded = dataclasses.replace(config, seed=seed)
                run = train(seeded, Path(folder) / "run", data=data, progress=False)
                seconds = statistics.median(record["seconds"] for record in run.history)
                found[name].append({**run.metrics, "seed": seed, "epoch_seconds": seconds})
            test = found[name][-1]["test"]["accuracy"]
            print(f"{name}, seed {seed}: {test:.2%}", file=sys.stderr)
    print(table(found))
    if command.write:
        documents.put("README.md", "benchmarks.accuracy", markdown(found))
    if command.json:
        write_text(command.json, json.dumps(found, indent=2))
    return 0


def markdown(found: dict[str, list[dict[str, Any]]]) -> str:
    """The same for a document."""
    rows = []
    for name, runs in found.items():
        test = [run["test"]["accuracy"] for run in runs]
        valid = statistics.mean(run["valid"]["accuracy"] for run in runs)
        spread = f"{statistics.mean(test):.2%} ({min(test):.2%}-{max(test):.2%})"
        rows.append([NAMES.get(name, name), f"{runs[0]['parameters']:,}", spread, f"{valid:.2%}"])
    return documents.table(["", "parameters", "test accuracy", "validation"], rows)


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    """A row a recipe: mean, lowest and highest test accuracy, mean validation accuracy, time."""
    width = max(map(len, found))
    lines = [f"{'':<{width}}  parameters  test accuracy (min-max)   validation  seconds an epoch"]
    for name, runs in found.items():
        test = [run["test"]["accuracy"] for run in runs]
        valid = statistics.mean(run["valid"]["accuracy"] for run in runs)
        lines.append(
            f"{name:<{width}}  {runs[0]['parameters']:>10,}  {statistics.mean(test):.2%} "
            f"({min(test):.2%}-{max(test):.2%})  {valid:>10.2%}  "
            f"{statistics.median(run['epoch_seconds'] for run in runs):.2f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
