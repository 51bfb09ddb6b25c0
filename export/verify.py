"""`python -m export.verify BUNDLE`: is every format the same function as the trained model?

Each format answers families of inputs, in batches of several sizes, and is held against the
float64 formulas (`export.oracle`) and against Keras. What is the same function to float32 rounding
passes; what is quantized must keep the accuracy. NaN never passes.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import tyro

from export.bundle import Bundle, find_bundle, load_test
from export.check.compare import Report, compare, failures
from export.check.questions import answer, families
from export.formats.format import Runtime
from export.formats.registry import FORMATS, file_of
from export.network import Network, read_model
from export.runtimes import OracleRuntime, load_keras, open_file, open_runtime
from rnn_tf.command import arguments, parse
from rnn_tf.data import Split
from rnn_tf.errors import CheckFailed, InputError, one_line_errors
from rnn_tf.files.writing import write_text

# What a report calls the trained model in PyTorch, where the bundle has no file for that.
WITNESS = "pytorch"
QUANTIZED = [name for name, each in FORMATS.items() if each.quantized]

# Is given, line by line, what is being done.
Say = Callable[[str], None]


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
    network = read_model(load_keras(bundle.artefact("keras")), bundle.spec)
    runtimes = {}
    for name in bundle.formats:
        with named(name):
            runtimes[name] = open_runtime(bundle, name)
    if "torch" not in runtimes and all(map(find_spec, ("torch", "safetensors"))):
        with named(WITNESS):
            runtimes[WITNESS] = _in_pytorch(network)
    return verify(runtimes, keras, OracleRuntime(network), test, say)


def _in_pytorch(network: Network) -> Runtime:
    """The trained model in PyTorch, which shares no arithmetic with any format."""
    from export.formats import pytorch  # optional, and slow to import

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / file_of("torch")
        pytorch.write(network, path)
        runtime: Runtime = open_file("torch", path, network.spec)
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
