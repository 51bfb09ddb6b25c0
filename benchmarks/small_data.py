"""`python -m benchmarks.small_data`: what the defaults reach on small sets, beside others.

Each cell with the settings of the command, logistic regression on the flattened sequences, and the
recurrent classifiers of sktime (PyTorch) with their defaults, all on the official splits.
"""

from __future__ import annotations

import functools
import importlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from benchmarks import documents
from rnn_tf import TrainConfig, load, train
from rnn_tf.command import arguments, parse
from rnn_tf.config import Cell
from rnn_tf.data import SequenceData
from rnn_tf.errors import InputError, one_line_errors
from rnn_tf.files.writing import write_text, writing

# Of timeseriesclassification.com; the first is small enough to be among the tests.
ARCHIVE = ("JapaneseVowels", "BasicMotions", "ItalyPowerDemand")
# scikit-learn's, 8 rows of 8 numbers. For the test the last 360 of its 1,797, which are unlike the
# others and the harder question, or 360 drawn at random, with this seed.
DIGITS = {"digits": None, "digits, drawn": 42}
SETS = (*ARCHIVE, *DIGITS)
WITH_THE_TESTS = documents.ROOT / "tests" / "data" / "files" / "ts"
DIGITS_TEST = 360

# Logistic regression on the flattened sequences, and with each of the numbers standardised before.
LOGISTIC = {"logistic regression": False, "logistic regression, standardised": True}
# What they are called here, and where they are found.
SKTIME = {
    "sktime SimpleRNN, PyTorch": (
        "sktime.classification.deep_learning.rnn", "SimpleRNNClassifierTorch",
    ),
    "sktime GRU, PyTorch": ("sktime.classification.deep_learning.gru", "GRUClassifier"),
}  # fmt: skip


@dataclass(frozen=True)
class Result:
    """One training."""

    accuracy: float  # on the test split, 0 to 1
    parameters: int
    seconds: float  # of the training, without imports


# Trains on a data set with a seed.
Way = Callable[[SequenceData, int], Result]
# By set and way, a result for each seed.
Found = dict[str, dict[str, list[Result]]]


@dataclass(frozen=True)
class Command:
    """Train on small sets with several seeds; print mean test accuracies, ranges and times."""

    data: Path = WITH_THE_TESTS
    """The folder with the .ts files of the sets. Those that are not there are left out."""
    sets: tuple[str, ...] = SETS
    """Which sets."""
    seeds: int = 5
    """Seeds 1 to this."""
    json: Path | None = None
    """Also write every figure here, after each training. What is there already is not measured
    again, so that a long measurement may be broken off."""
    write: bool = False
    """Write the table into the documents of this checkout."""


@one_line_errors
def main(argv: Sequence[str] | None = None, prog: str = "python -m benchmarks.small_data") -> int:
    command = parse(Command, arguments(argv), prog)
    for name in command.sets:
        if name not in SETS:
            raise InputError(f"unknown set {name!r}", expected=f"some of {', '.join(SETS)}")
    if command.seeds < 1:
        raise InputError("bad seeds", expected="a whole number >= 1", got=command.seeds)
    ways, left_out = all_ways()
    with tempfile.TemporaryDirectory() as folder:
        sources, missing = _sources(command, Path(folder))
        if not sources:
            raise InputError("no data", got=_listed(missing), fix="Say --data.")
        left_out |= missing
        before = _read(command.json)
        found: Found = {name: before.get(name, {}) for name in sources}
        for name, path in sources.items():
            for way in _measure(name, load(path), found[name], ways, command):
                print(f"{name}, {way}", file=sys.stderr)
                if command.json:
                    _write(command.json, before | found, left_out)
    print(text(found, left_out))
    if command.write:
        documents.put("docs/small-data.md", "benchmarks.small_data", markdown(found, left_out))
    return 0


def _read(path: Path | None) -> Found:
    """What an earlier measurement has written."""
    if path is None or not path.exists():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))["found"]
    return {
        name: {way: [Result(**each) for each in results] for way, results in rows.items()}
        for name, rows in found.items()
    }


def _write(path: Path, found: Found, left_out: Mapping[str, str]) -> None:
    figures = {
        name: {way: [vars(each) for each in results] for way, results in rows.items()}
        for name, rows in found.items()
    }
    write_text(path, json.dumps({"found": figures, "left_out": dict(left_out)}, indent=2))


def _sources(command: Command, folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Where each set is, and why some are not; what is made of them is written into `folder`."""
    found, missing = {}, {}
    for name in command.sets:
        file = command.data / f"{name}_TRAIN.ts"
        if name in DIGITS:
            found[name] = str(_write_digits(folder / f"{name}.npz", DIGITS[name]))
        elif file.is_file():
            found[name] = str(file)
        else:
            missing[name] = f"no {file.name} in {command.data}"
    return found, missing


def _write_digits(path: Path, seed: int | None) -> Path:
    """Write scikit-learn's digits, the test drawn at random where there is a seed."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    x_train, x_test, y_train, y_test = train_test_split(
        digits.images.astype(np.float32), digits.target,
        test_size=DIGITS_TEST, shuffle=seed is not None, random_state=seed,
    )  # fmt: skip
    with writing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return path


def _measure(
    name: str,
    data: SequenceData,
    rows: dict[str, list[Result]],
    ways: Mapping[str, Way],
    command: Command,
) -> Iterator[str]:
    """Add to `rows` what is not in them yet; says each training that was added."""
    for way, trained in ways.items():
        results = rows.setdefault(way, [])
        for seed in range(len(results) + 1, command.seeds + 1):
            results.append(trained(data, seed))
            yield f"{way}, seed {seed}: {results[-1].accuracy:.2%}"


# --- ways ---
def all_ways() -> tuple[dict[str, Way], dict[str, str]]:
    """Every way to train that can be had here, by its name, and why others cannot."""
    ways: dict[str, Way] = {
        f"rnn_tf --cell {cell}": functools.partial(train_ours, TrainConfig(cell=cell))
        for cell in get_args(Cell)
    }
    both_ways = TrainConfig(cell="gru", bidirectional=True)
    ways["rnn_tf --cell gru --bidirectional"] = functools.partial(train_ours, both_ways)
    for name, standardised in LOGISTIC.items():
        ways[name] = functools.partial(train_logistic, standardised)
    left_out = {}
    for name, (module, kind) in SKTIME.items():
        try:
            ways[name] = functools.partial(
                train_sktime, getattr(importlib.import_module(module), kind)
            )
        except ImportError as error:
            left_out[name] = str(error)
    return ways, left_out


def train_ours(config: TrainConfig, data: SequenceData, seed: int) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        run = train(replace(config, seed=seed), Path(folder) / "run", data=data, progress=False)
        metrics = run.metrics
    return Result(metrics["test"]["accuracy"], metrics["parameters"], metrics["seconds"])


def train_logistic(standardised: bool, data: SequenceData, seed: int) -> Result:
    """Sequences padded with zeros and flattened. Nothing in it is random: seeds are the same."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = whole_training(data)
    before = StandardScaler() if standardised else None
    model = make_pipeline(before, LogisticRegression(max_iter=10_000, random_state=seed))
    began = time.perf_counter()
    model.fit(x.reshape(len(x), -1), y)
    seconds = time.perf_counter() - began
    accuracy = model.score(data.test.x.reshape(len(data.test.x), -1), data.test.y)
    return Result(float(accuracy), model[-1].coef_.size + model[-1].intercept_.size, seconds)


def train_sktime(kind: Callable[..., Any], data: SequenceData, seed: int) -> Result:
    """A classifier of sktime with its defaults, on sequences padded with zeros: it has no mask."""
    x, y = whole_training(data)
    model = kind(random_state=seed)
    began = time.perf_counter()
    model.fit(x.transpose(0, 2, 1), y)  # its arrays are (n, features, steps)
    seconds = time.perf_counter() - began
    said = model.predict(data.test.x.transpose(0, 2, 1))
    parameters = sum(each.numel() for each in model.network.parameters())
    return Result(float((said == data.test.y).mean()), parameters, seconds)


def whole_training(data: SequenceData) -> tuple[np.ndarray, np.ndarray]:
    """The official training split, `(n, longest, features)` and `(n,)`, validation included."""
    parts = (data.train, data.valid)
    x, y = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    return x.astype(np.float32), y


# --- what is printed ---
def text(found: Found, left_out: Mapping[str, str]) -> str:
    """A row a set and way."""
    rows = _rows(found)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, *_notes(left_out)])


def markdown(found: Found, left_out: Mapping[str, str]) -> str:
    """The same for a document."""
    head, *rows = _rows(found)
    notes = "".join(f"\n\n{note[0].upper()}{note[1:]}." for note in _notes(left_out))
    return documents.table(head, rows) + notes


def _rows(found: Found) -> list[list[str]]:
    rows = [["set", "", "test accuracy (min-max)", "parameters", "seconds"]]
    for name, ways in found.items():
        for way, results in ways.items():
            accuracy = [each.accuracy for each in results]
            rows.append(
                [
                    name,
                    way,
                    f"{statistics.mean(accuracy):.2%} ({min(accuracy):.2%}-{max(accuracy):.2%})",
                    f"{results[0].parameters:,}",
                    f"{statistics.median(each.seconds for each in results):.2f}",
                ]
            )
    return rows


def _notes(left_out: Mapping[str, str]) -> list[str]:
    return [f"left out: {_listed(left_out)}"] if left_out else []


def _listed(left_out: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in left_out.items())


if __name__ == "__main__":
    raise SystemExit(main())
