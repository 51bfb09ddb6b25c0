"""`python -m export.verify BUNDLE`: is every format the same function as the trained model?

Each format answers families of inputs, in batches of several sizes, and is held against the
float64 formulas (`export.oracle`) and against Keras. What is the same function to float32 rounding
passes; what is quantized must keep the accuracy. NaN never passes.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from export.bundle import ARTEFACTS, QUANTIZED, Bundle, find_bundle, load_test
from export.graph import Twin, read_model
from export.runtimes import RUNTIMES, OracleRuntime, Runtime, load_keras, open_runtime
from rnn_tf.command import arguments, parse
from rnn_tf.data import Split
from rnn_tf.errors import CheckFailed, InputError, one_line_errors
from rnn_tf.run import write_text

# float32 rounding over 28 steps and a softmax: 3e-6 seen on MNIST, 9e-6 on noise for the default
# model, whose state is not bounded. A wrong constant, a swapped gate or a lost scale gives 1e-3
# to 1.
MOST_DIFFERENCE = 1e-5
# Of what is quantized.
MOST_ACCURACY_LOSS = 0.005
LEAST_AGREEMENT = 0.99

LARGEST_BATCH = 1000
# Sizes of batches, and how many of each are asked.
BATCHES = {1: 100, 2: 50, 7: 20, 64: 5, 1000: 1}
MIXED = (1, 64, 2, 7, 1, 64, 64, 1)
NOISE_EXAMPLES = 100
# Times the largest value of the data, the first at which float32 itself still answers.
MAGNITUDES = (1e6, 1e4, 1e2, 1.0)
# What a report calls the trained model in PyTorch, where the bundle has no file for that.
WITNESS = "pytorch"


# Is told, line by line, what is being done.
Say = Callable[[str], None]


@dataclass(frozen=True)
class Family:
    """Inputs of one kind, and the batches in which they are asked."""

    name: str
    x: np.ndarray  # (n, timesteps, features), raw
    batches: tuple[int, ...]  # sizes, n in all
    y: np.ndarray | None = None  # (n,) class indices, where they are known
    asked_before: np.ndarray | None = None  # (n,) where the same examples are in the test split


@dataclass(frozen=True)
class Row:
    """How one format answered one family. Differences are of probabilities, absolute."""

    format: str
    family: str
    examples: int
    max_difference: float  # from the oracle
    mean_difference: float
    max_difference_from_keras: float
    max_difference_from_itself: float  # asked the same in the test split, in other batches
    agreement: float  # share of examples with the oracle's most probable class, 0 to 1
    disagreements: int  # examples with another one though the oracle's two best are not tied
    accuracy: float | None  # share of right answers, 0 to 1, where labels are known
    failures: tuple[str, ...] = ()  # figure and limit of each rule that does not hold


@dataclass(frozen=True)
class Report:
    rows: list[Row]

    def failures(self, name: str | None = None) -> list[str]:
        """One line for each rule that does not hold, of one format or all."""
        return [
            f"{row.format}, {row.family}: {failure}"
            for row in self.rows
            if name in (None, row.format)
            for failure in row.failures
        ]

    def to_json(self) -> str:
        return json.dumps(
            {
                "passed": not self.failures(),
                "limits": {
                    "max_difference": MOST_DIFFERENCE,
                    "accuracy_loss": MOST_ACCURACY_LOSS,
                    "agreement": LEAST_AGREEMENT,
                },
                "rows": [_finite(asdict(row)) for row in self.rows],
            },
            indent=2,
            allow_nan=False,
        )

    def without(self, names: Sequence[str]) -> Report:
        return Report([row for row in self.rows if row.format not in names])


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN and no infinity: null stands for them."""
    wrong = {key for key, value in row.items() if isinstance(value, float) and not isfinite(value)}
    return {key: None if key in wrong else value for key, value in row.items()}


def verify(
    runtimes: Mapping[str, Runtime],
    keras: Runtime,
    oracle: Runtime,
    test: Split,
    say: Say = lambda line: None,
) -> Report:
    """Compare each runtime, and Keras itself, with the oracle. `test` gives data and labels.

    `say` is told which is being asked.
    """
    say("verifying: the formulas in float64")
    asked = families(test, keras, oracle)
    exact = [answer(oracle, family) for family in asked]
    reference = [answer(keras, family) for family in asked]
    rows = []
    for name, runtime in {"keras": keras, **runtimes}.items():
        say(f"verifying: {name}")
        answers = []
        for family in asked:
            with named(f"{name}, {family.name}"):
                answers.append(answer(runtime, family))
        for i, family in enumerate(asked):
            ideal = compare("oracle", family, exact[i], exact[i], reference[i], itself=exact[0])
            row = compare(name, family, answers[i], exact[i], reference[i], itself=answers[0])
            rows.append(replace(row, failures=failures(row, ideal, quantized=name in QUANTIZED)))
    return Report(rows)


def verify_bundle(
    bundle: Bundle, source: str | None = None, say: Say = lambda line: None
) -> Report:
    """Check a bundle's files, then compare its formats on its data set, or on `source`.

    Where PyTorch is installed and the bundle has no file for it, the reference's weights in PyTorch
    answer too, as `pytorch`.

    Raises `InputError` for files that are missing or altered, and data that do not fit.
    """
    bundle.check()
    test = load_test(bundle, source)
    keras = open_runtime(bundle, "keras")
    twin = read_model(load_keras(bundle.artefact("keras")), bundle.spec)
    runtimes = {}
    for name in bundle.formats:
        with named(name):
            runtimes[name] = open_runtime(bundle, name)
    if "torch" not in runtimes and all(map(find_spec, ("torch", "safetensors"))):
        with named(WITNESS):
            runtimes[WITNESS] = _in_pytorch(twin)
    return verify(runtimes, keras, OracleRuntime(twin), test, say)


def _in_pytorch(twin: Twin) -> Runtime:
    """The trained model in PyTorch, which shares no arithmetic with any format."""
    from export import pytorch  # optional, and slow to import

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ARTEFACTS["torch"]
        pytorch.write(twin, path)
        runtime: Runtime = RUNTIMES["torch"](path, twin.spec)
    return runtime


@contextlib.contextmanager
def named(what: str) -> Iterator[None]:
    """Name what fails, whatever it raises: runtimes share no kind of error."""
    try:
        yield
    except (InputError, CheckFailed):
        raise
    except Exception as error:
        raise CheckFailed(f"{what}: {error}") from error


def families(test: Split, keras: Runtime, oracle: Runtime) -> list[Family]:
    """What is asked: the test split, noise, extremes, every batch size, and the same again."""
    x, shape = test.x, test.x.shape[1:]
    low, high = float(x.min()), float(x.max())
    noise = np.random.default_rng(0).uniform(low, high, (NOISE_EXAMPLES, *shape))
    whole = Family("test split", x, _even(len(x), LARGEST_BATCH), test.y, np.arange(len(x)))

    def again(name: str, rows: np.ndarray, batches: tuple[int, ...]) -> Family:
        rows = rows % len(x)  # a small split is gone through more than once
        return Family(name, x[rows], batches, asked_before=rows)

    return [
        whole,
        Family("uniform noise", noise.astype(np.float32), _even(NOISE_EXAMPLES, 64)),
        Family("all zero", np.zeros((1, *shape), np.float32), (1,)),
        Family("all max", np.full((1, *shape), high, np.float32), (1,)),
        _large(shape, max(abs(low), abs(high)), keras, oracle),
        *(
            again(f"batches of {size}", np.arange(size * calls), (size,) * calls)
            for size, calls in BATCHES.items()
        ),
        again("repeated calls", np.tile(np.arange(7), 4), (7,) * 4),
        again("mixed batches", np.arange(sum(MIXED)), MIXED),
    ]


def _large(shape: tuple[int, ...], most: float, keras: Runtime, oracle: Runtime) -> Family:
    """Values far beyond the data: one feature of each time step, of either sign.

    One, because the sum of several would leave to the rounding of float32 what is left of them
    when they cancel, in any runtime. The magnitude is the largest at which Keras itself answers
    as the formulas do: an activation may grow beyond float32.
    """
    random = np.random.default_rng(1)
    timesteps, features = shape
    place = random.integers(0, features, (NOISE_EXAMPLES, timesteps, 1))
    sign = random.choice([-1.0, 1.0], place.shape)
    for magnitude in MAGNITUDES:
        x = np.zeros((NOISE_EXAMPLES, timesteps, features), np.float32)
        np.put_along_axis(x, place, (sign * magnitude * most).astype(np.float32), 2)
        family = Family(f"{magnitude:.0f} times max", x, _even(NOISE_EXAMPLES, 64))
        if np.abs(answer(keras, family) - answer(oracle, family)).max() <= MOST_DIFFERENCE / 2:
            break
    return family


def answer(runtime: Runtime, family: Family) -> np.ndarray:
    """What a runtime says of a family: `(n, classes)`."""
    ends = np.cumsum(family.batches)
    parts = [runtime.predict(part) for part in np.split(family.x, ends[:-1])]
    return np.concatenate(parts)


def compare(
    name: str,
    family: Family,
    got: np.ndarray,
    exact: np.ndarray,
    reference: np.ndarray,
    itself: np.ndarray,
) -> Row:
    """Hold `got` against the oracle's `exact`, Keras's `reference` and `itself` on the test split.

    All are probabilities `(n, classes)`. Raises `CheckFailed` when a format gives another shape.
    """
    if got.shape != exact.shape:
        raise CheckFailed(f"{name}, {family.name}: shape {got.shape}, expected {exact.shape}")
    difference = _difference(got, exact)
    best = got.argmax(axis=1)
    second, first = np.sort(exact, axis=1)[:, -2:].T
    other = best != exact.argmax(axis=1)
    before = got if family.asked_before is None else itself[family.asked_before]
    return Row(
        format=name,
        family=family.name,
        examples=len(exact),
        max_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        max_difference_from_keras=float(_difference(got, reference).max()),
        max_difference_from_itself=float(_difference(got, before).max()),
        agreement=float(1 - other.mean()),
        disagreements=int((other & (first - second > MOST_DIFFERENCE)).sum()),
        accuracy=None if family.y is None else float((best == family.y).mean()),
    )


def _difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Element by element; NaN, silently, where both are infinite."""
    with np.errstate(invalid="ignore"):
        result: np.ndarray = np.abs(a - b)
    return result


def failures(row: Row, exact: Row, *, quantized: bool) -> tuple[str, ...]:
    """The rules that `row` breaks, each with its figure and its limit; `exact` is the oracle's."""
    most = [("|dp| from itself in other batches", row.max_difference_from_itself, MOST_DIFFERENCE)]
    least = []
    if not quantized:
        most += [
            ("|dp| from the oracle", row.max_difference, MOST_DIFFERENCE),
            ("|dp| from Keras", row.max_difference_from_keras, MOST_DIFFERENCE),
            ("other answers", row.disagreements, 0),
        ]
    else:
        # How far a probability may be off is not said, but a number it must be.
        most.append(("|dp| from the oracle", row.max_difference, 1))
        if row.accuracy is not None and exact.accuracy is not None:
            most.append(("accuracy lost", exact.accuracy - row.accuracy, MOST_ACCURACY_LOSS))
            least.append(("agreement", row.agreement, LEAST_AGREEMENT))
    # NaN is neither above nor below a limit: it breaks every rule that says what must hold.
    return tuple(
        [
            f"{what} {figure:.3g}, limit {limit:g}"
            for what, figure, limit in most
            if not figure <= limit
        ]
        + [
            f"{what} {figure:.3g}, at least {limit:g}"
            for what, figure, limit in least
            if not figure >= limit
        ]
    )


def _even(examples: int, size: int) -> tuple[int, ...]:
    """Batches of `size`, the last one smaller where it must be."""
    whole, rest = divmod(examples, size)
    return (size,) * whole + ((rest,) if rest else ())


def table(report: Report) -> str:
    """A line for each format and family."""
    width = max(len(row.family) for row in report.rows)
    lines = [
        f"{'':<14} {'':<{width}} examples  max |dp|  mean |dp|  from Keras  agreement  accuracy"
    ]
    shown = None
    for row in report.rows:
        name, shown = ("" if row.format == shown else row.format), row.format
        accuracy = "" if row.accuracy is None else f"{row.accuracy:.2%}"
        lines.append(
            f"{name:<14} {row.family:<{width}} {row.examples:>8,}  {row.max_difference:8.1e}  "
            f"{row.mean_difference:9.1e}  {row.max_difference_from_keras:10.1e}  "
            f"{row.agreement:9.2%}  {accuracy:>8}{'  FAILED' if row.failures else ''}"
        )
    return "\n".join(lines)


@dataclass(frozen=True)
class Command:
    """Show that every format of a bundle is the function that was trained, or where it is not."""

    path: tyro.conf.Positional[Path]
    """A bundle, or a run that has one."""
    data: str | None = None
    """Another data set of the same specification: mnist, tfds:<name> or <file>.npz."""
    json: bool = False
    """Print one JSON object instead of a table."""


@one_line_errors
def main(argv: Sequence[str] | None = None, prog: str = "python -m export.verify") -> int:
    command = parse(Command, arguments(argv), prog)
    bundle = find_bundle(command.path)
    report = verify_bundle(bundle, command.data, say=lambda line: print(line, file=sys.stderr))
    if command.data is None:  # what the bundle says of itself is about its own data
        write_text(bundle.verification_file, report.to_json() + "\n")
    print(report.to_json() if command.json else table(report))
    broken = report.failures()
    if broken:
        raise CheckFailed("; ".join(broken))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
