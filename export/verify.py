"""`rnn-tf verify BUNDLE`: is every format the same function as the trained model?

Each format answers families of inputs, in batches of several sizes, and is held against the
float64 formulas (`export.oracle`) and against Keras. What is the same function to float32 rounding
passes (`export.check.rounding` has the limit); what is quantized must keep the accuracy. NaN never
passes.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import tyro

from export import oracle
from export.beside import Beside, beside
from export.bundle import Bundle, find_bundle, load_test
from export.check import limits, rounding
from export.check.compare import Report, Row, compare, failures
from export.check.questions import Family, answer, families
from export.check.steps import OpenStep, StepFamily, answer_by_step, step_families
from export.formats.format import AGAIN, Runtime
from export.formats.registry import FORMATS, file_of
from export.network import Network, read_model
from export.runtimes import load_keras, open_file, open_runtime, open_step
from rnn_tf.command import arguments, parse
from rnn_tf.data import Split
from rnn_tf.errors import CheckFailed, InputError, one_line_errors

# What a report calls the trained model in PyTorch, where the bundle has no file for that.
WITNESS = "pytorch"
QUANTIZED = [name for name, each in FORMATS.items() if each.quantized]

# Is given, line by line, what is being done.
Say = Callable[[str], None]
# Opens a runtime.
Open = Callable[[], Runtime]


@dataclass(frozen=True)
class Known:
    """What there is to know of a family before a format is asked."""

    family: Family
    exact: np.ndarray  # (n, classes) probabilities by the formulas, or (n, timesteps, classes)
    reference: np.ndarray  # and by the trained model in Keras
    limit: float  # how far float32 may be off


def verify(
    runtimes: Mapping[str, Open],
    keras: Runtime,
    network: Network,
    test: Split,
    say: Say = lambda line: None,
    steps: Mapping[str, OpenStep] | None = None,
    other: Beside | None = None,
) -> Report:
    """Hold Keras and each runtime against the formulas of `network`; `test` has data and labels.

    `steps` opens those of the runtimes, by the same names, that answer frame by frame. Runtimes are
    opened one after the other; those that need no TensorFlow in the `other` process, if that is
    given. `say` is told which is being asked. Raises `CheckFailed` when float32 can promise no
    answers to the test split that could be compared.
    """
    other, steps = other or Beside(), steps or {}
    say("verifying: keras and the formulas in float64")
    by_step = other.share(step_families, test, network) if steps else list
    whole, *others = _known(families(test, network), keras, network, other)
    if not whole.limit <= limits.MOST_ROUNDING:
        raise CheckFailed(
            f"the model depends on float32 rounding, which may move a probability of the test "
            f"split by {whole.limit:.2g}, limit {limits.MOST_ROUNDING:g}. No format could be shown "
            "equal: train it again, with another seed, a lower learning rate or fewer time steps."
        )
    asked = [whole, *(each for each in others if each.limit <= limits.MOST_ROUNDING)]
    not_asked = {each.family.name: each.limit for each in others if each not in asked}
    for name, limit in not_asked.items():
        say(f"not asked: {name}, where rounding may move a probability by {limit:.2g}")
    opened = {name: (open_, steps.get(name)) for name, open_ in runtimes.items()}
    here = {name: opened.pop(name) for name in runtimes if in_tensorflow(name)}
    for name in opened:
        say(f"verifying: {name}")
    there = other.leave(_rows_of, opened, asked, by_step())
    for name in here:
        say(f"verifying: {name}")
    found = {
        "keras": _rows("keras", [each.reference for each in asked], asked),
        **_rows_of(here, asked, by_step()),
        **there(),
    }
    rows = [row for name in ("keras", *runtimes) for row in found[name]]
    return Report(rows, len(test.y), not_asked)


def in_tensorflow(name: str) -> bool:
    """Whether a runtime is TensorFlow."""
    return name in FORMATS and FORMATS[name].in_tensorflow


def _known(asked: Sequence[Family], keras: Runtime, network: Network, other: Beside) -> list[Known]:
    found: list[Callable[[], Known]] = []
    for family in asked:
        with named(f"keras, {family.name}"):
            reference = answer(keras, family)
        if family.asked_before is None:
            found.append(other.share(_known_of, family, reference, network))
        else:
            found.append(functools.partial(_known_before, family, reference, found[0]))
    return [each() for each in found]


def _known_of(family: Family, reference: np.ndarray, network: Network) -> Known:
    exact = oracle.probabilities(network, *family.inputs)
    limit = rounding.limit(network, family.x, exact, reference, family.lengths)
    return Known(family, exact, reference, limit)


def _known_before(family: Family, reference: np.ndarray, whole: Callable[[], Known]) -> Known:
    """The same of examples of the test split."""
    return Known(family, whole().exact[family.asked_before], reference, whole().limit)


def _rows_of(
    opened: Mapping[str, tuple[Open, OpenStep | None]],
    asked: Sequence[Known],
    by_step: Sequence[StepFamily],
) -> dict[str, list[Row]]:
    """How each format answers every family, and its step, where it has one, those of steps."""
    found = {}
    for name, (open_, step) in opened.items():
        found[name] = _rows(name, _answers(name, open_, asked), asked)
        if step is not None:
            found[name] += step_rows(name, step, by_step)
    return found


def _answers(name: str, open_: Open, asked: Sequence[Known]) -> list[np.ndarray]:
    """What a runtime says of each family; it is open only for so long."""
    with named(name):
        runtime = open_()
    found = []
    for each in asked:
        with named(f"{name}, {each.family.name}"):
            found.append(answer(runtime, each.family))
    return found


def _rows(name: str, answers: Sequence[np.ndarray], asked: Sequence[Known]) -> list[Row]:
    rows = []
    for each, got in zip(asked, answers, strict=True):
        known = (each.exact, each.reference)
        ideal = compare("oracle", each.family, each.exact, *known, asked[0].exact, each.limit)
        row = compare(name, each.family, got, *known, answers[0], each.limit)
        rows.append(replace(row, failures=failures(row, ideal, quantized=name in QUANTIZED)))
    return rows


def step_rows(name: str, open_: OpenStep, asked: Sequence[StepFamily]) -> list[Row]:
    """How a step answers each family; every answer on the way is held against the formulas."""
    rows: list[Row] = []
    first: np.ndarray | None = None
    quantized = name in QUANTIZED
    with named(name):
        runtime = open_()
    for each in asked:
        if quantized and each.of_these_weights:
            continue
        with named(f"{name}, {each.family.name}"):
            got = answer_by_step(open_, runtime, each)
        first = got if first is None else first
        exact, limit = each.exact, each.limit
        ideal = compare("oracle", each.family, exact, exact, None, asked[0].exact, limit)
        row = compare(name, each.family, got, exact, None, first, limit)
        rows.append(replace(row, failures=failures(row, ideal, quantized=quantized)))
    return rows


def verify_bundle(
    bundle: Bundle, source: str | None = None, say: Say = lambda line: None
) -> Report:
    """Check a bundle's files, then compare its formats on its data set, or on `source`.

    Where PyTorch is installed and the bundle has no file for it, the reference's weights in PyTorch
    answer too, as `pytorch`.

    Raises `InputError` for files that are missing or altered, and data that do not fit.
    """
    bundle.check()
    witnessed = "torch" not in bundle.formats and all(map(find_spec, ("torch", "safetensors")))
    with beside(functools.partial(_import_runtimes, torch=witnessed)) as other:
        loaded = other.share(load_test, bundle, source)
        other.start_tensorflow()
        keras = open_runtime(bundle, "keras")
        network = read_model(load_keras(bundle.artefact("keras")), bundle.spec)
        runtimes: dict[str, Open] = {
            name: functools.partial(open_runtime, bundle, name) for name in bundle.formats
        }
        if witnessed:
            runtimes[WITNESS] = functools.partial(_in_pytorch, network)
        steps = {name: functools.partial(open_step, bundle, name) for name in bundle.steppers}
        return verify(runtimes, keras, network, loaded(), say, steps, other)


def _import_runtimes(*, torch: bool) -> None:
    """Import what runs a bundle without TensorFlow."""
    for name in ("onnxruntime", "ai_edge_litert.interpreter", *(["torch"] if torch else [])):
        if find_spec(name.partition(".")[0]):
            importlib.import_module(name)


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
        f"{'':<14} {'':<{width}} examples  max |dp|    limit  mean |dp|  from Keras  agreement  "
        "accuracy"
    ]
    shown = None
    for row in report.rows:
        name, shown = ("" if row.format == shown else row.format), row.format
        accuracy = "" if row.accuracy is None else f"{row.accuracy:.2%}"
        keras = row.max_difference_from_keras
        limit = "" if row.format in QUANTIZED else f"{row.limit:.1e}"
        lines.append(
            f"{name:<14} {row.family:<{width}} {row.examples:>8,}  {row.max_difference:8.1e}  "
            f"{limit:>7}  {row.mean_difference:9.1e}  "
            f"{'' if keras is None else f'{keras:.1e}':>10}  "
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
        bundle.write_verification(report.to_json())
    print(report.to_json() if command.json else table(report))
    if report.failures():
        raise CheckFailed(f"{report.worst()}. {AGAIN}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
