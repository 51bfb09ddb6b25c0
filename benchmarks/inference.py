"""`python -m benchmarks.inference`: latency and throughput, beside what a user would run instead.

Each format and peer runs in a process of its own, in turn, round after round, as in
`export.benchmark`, whose measuring this is. A call is from a NumPy array to a NumPy array.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import tyro

from benchmarks import documents, frames
from export import peers
from export.benchmark import BATCHES, Measured, check_positive, loaded, measure
from export.bundle import Bundle, find_bundle, load_test
from export.readme import layers_of
from rnn_tf.command import arguments, parse
from rnn_tf.config import PRESETS
from rnn_tf.errors import InputError, one_line_errors
from rnn_tf.files.writing import write_text
from rnn_tf.model.cells import CELLS
from rnn_tf.startup import stderr

# What is trained, for one epoch, when no bundle is named: speed does not depend on the weights.
MODELS = {
    "best": PRESETS["best"],
    "tutorial": PRESETS["tutorial"],
    "lstm": replace(PRESETS["best"], cell="lstm"),
    "gru": replace(PRESETS["best"], cell="gru"),
}
# What is measured only when it is named.
SHAPES: dict[str, dict[str, Any]] = {
    "stacked": {"layers": 2},
    "bidirectional": {"bidirectional": True},
}
STACKS = {
    f"{cell}-{shape}": replace(PRESETS["best"], cell=cell, **options)
    for cell in CELLS
    for shape, options in SHAPES.items()
}


@dataclass(frozen=True)
class Found:
    """One model, and what each of its formats and peers took."""

    model: str
    measured: list[Measured]  # the formats first
    left_out: dict[str, str]  # peers that cannot run, and why
    # One frame at a time; none of a model of several layers.
    by_frame: list[frames.Timed] = field(default_factory=list)
    stacked: bool = False  # more than one layer or direction

    @property
    def own(self) -> list[str]:
        return [each.name for each in self.measured if each.bytes is not None]

    def best(self, batch: int) -> float:
        """Seconds of the fastest of our formats."""
        return min(median(each, batch) for each in self.measured if each.name in self.own)


@dataclass(frozen=True)
class Command:
    """Time one sequence and many, and one frame: this project's artefacts, Keras, PyTorch, ONNX."""

    paths: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Bundles, or runs that have one. Default: each of --models, trained for one epoch on MNIST."""
    models: tuple[str, ...] = tuple(MODELS)
    """Some of best, tutorial (SimpleRNN with elu, and with tanh), lstm, gru, and <cell>-stacked
    (two layers) or <cell>-bidirectional, such as gru-stacked."""
    threads: int = 1
    """CPU threads of each runtime."""
    rounds: int = 5
    """How often each is measured in turn."""
    seconds: float = 0.2
    """Time of one measurement: many calls of one format with one batch size."""
    json: Path | None = None
    """Also write every figure here."""
    chart: Path | None = None
    """Also draw a bar chart here, a PNG."""
    markdown: bool = False
    """Print the tables in Markdown."""
    write: bool = False
    """Write the table into the documents of this checkout."""


@one_line_errors
def main(argv: Sequence[str] | None = None, prog: str = "python -m benchmarks.inference") -> int:
    command = parse(Command, arguments(argv), prog)
    check_positive(command, "threads", "rounds", "seconds")
    for name in command.models:
        if name not in MODELS | STACKS:
            known = ", ".join(MODELS | STACKS)
            raise InputError(f"unknown model {name!r}", expected=f"some of {known}")
    with tempfile.TemporaryDirectory() as folder:
        found = [
            compare(bundle, command.threads, command.rounds, command.seconds)
            for bundle in bundles(command.paths, command.models, Path(folder))
        ]
    show = markdown if command.markdown else text
    print("\n\n".join(show(each) for each in found))
    if command.write:
        single = [markdown(each) for each in found if not each.stacked]
        stacked = [each for each in found if each.stacked]
        if single:
            documents.put("docs/inference.md", "benchmarks.inference", "\n\n".join(single))
        if stacked:
            table = of_onnx(stacked)
            documents.put("docs/inference.md", "benchmarks.inference, stacks", table)
    if command.json:
        write_text(command.json, json.dumps([as_json(each) for each in found], indent=2) + "\n")
    if command.chart:
        draw(found, command.chart)
        print(f"\nchart  {command.chart}")
    return 0


def bundles(paths: Sequence[Path], models: Sequence[str], folder: Path) -> Iterator[Bundle]:
    """Those in `paths`, or one of each of `models`, made in `folder`."""
    found = [find_bundle(path) for path in paths]
    for bundle in found:
        bundle.check()  # all, before the first is measured
    yield from found
    for name in () if paths else models:
        yield trained(name, folder / name)


def trained(name: str, path: Path) -> Bundle:
    """A model by its name after one epoch, in every format that can be had here."""
    from export.formats.registry import DEFAULTS
    from export.publish import export_run
    from rnn_tf import train

    print(f"training {name}", file=sys.stderr)
    torch = ["torch"] if all(map(find_spec, ("torch", "safetensors"))) else []
    # TensorFlow warns of the fourth model in one process that it compiles too often.
    with stderr.muted():
        run = train(replace((MODELS | STACKS)[name], epochs=1), path, progress=False)
        return export_run(run, formats=(*DEFAULTS, *torch))


def compare(bundle: Bundle, threads: int, rounds: int, seconds: float) -> Found:
    """Measure every format of a bundle and every peer."""
    model = bundle.manifest["model"]
    name = f"{layers_of(model)}, {model['activation']}"
    with loaded(bundle, load_test(bundle), peers.PEERS, threads) as (workers, left_out):
        measured = measure(workers, rounds, seconds)
    single = model["layers"] == 1 and not model["bidirectional"]
    by_frame = frames.compare(bundle, rounds, seconds) if single and threads == 1 else []
    return Found(name, measured, left_out, by_frame, stacked=not single)


def median(each: Measured, batch: int) -> float:
    """Seconds of a call: the median of the rounds, so that one that was disturbed does not count.

    Within a round it is the median of its calls.
    """
    return statistics.median(each.medians[batch])


def cells(found: Found, each: Measured) -> list[str]:
    """A row: latency and throughput with the lowest and highest round, and ratios to our best."""
    times = each.medians[1]
    row = [f"{1e6 * median(each, 1):,.0f} us ({1e6 * min(times):,.0f}-{1e6 * max(times):,.0f})"]
    for batch in BATCHES[1:]:
        rates = [batch / seconds for seconds in each.medians[batch]]
        rate = batch / median(each, batch)
        row.append(f"{rate:,.0f} ({min(rates):,.0f}-{max(rates):,.0f})")
    return row + [f"{median(each, batch) / found.best(batch):.2f}" for batch in BATCHES]


HEAD = (
    *("batch 1", *(f"batch {batch:,}: examples/s" for batch in BATCHES[1:])),
    *(f"x at {batch:,}" for batch in BATCHES),
)


def text(found: Found) -> str:
    """The table of a model; `x` is the time of a call, that of our fastest format being 1."""
    rows = [[found.model, *HEAD]]
    rows += [[each.name, *cells(found, each)] for each in found.measured]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    left_out = [f"left out: {k}: {why}" for k, why in found.left_out.items()]
    return "\n".join([*lines, *left_out, *_by_frame(found)])


def _by_frame(found: Found) -> list[str]:
    return ["", frames.markdown(found.model, found.by_frame)] if found.by_frame else []


def markdown(found: Found) -> str:
    """The same for a README."""
    rows = [[found.model, *HEAD], ["---"] * (1 + len(HEAD))]
    rows += [[each.name, *cells(found, each)] for each in found.measured]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    left_out = [f"\nLeft out: {k}: {why}" for k, why in found.left_out.items()]
    return "\n".join([*lines, *left_out, *_by_frame(found)])


# What else an ONNX file is made with, and what it is often compared with.
OF_ONNX = ("ONNX by PyTorch", "ONNX by Keras", "ONNX by tf2onnx", "PyTorch eager")


def of_onnx(found: Sequence[Found]) -> str:
    """A row for each model: what our ONNX file takes, and how many times that others take."""
    head = ["", *(f"batch {batch:,}" for batch in BATCHES), *OF_ONNX]
    rows = []
    for model in found:
        measured = {each.name: each for each in model.measured}
        ours = {batch: median(measured["onnx"], batch) for batch in BATCHES}
        row = [model.model, *(f"{1e6 * seconds:,.0f} us" for seconds in ours.values())]
        for name in OF_ONNX:
            times = (
                f"{median(measured[name], batch) / ours[batch]:.2f}x" if name in measured else "-"
                for batch in BATCHES
            )
            row.append(", ".join(times))
        rows.append(row)
    return documents.table(head, rows)


def as_json(found: Found) -> dict[str, Any]:
    measured = [each.summary() for each in found.measured]
    by_frame = {each.name: each.seconds for each in found.by_frame}
    return {
        "model": found.model,
        "measured": measured,
        "left_out": found.left_out,
        "by_frame": by_frame,
    }


def draw(found: Sequence[Found], path: Path) -> None:
    from rnn_tf.plots import plot_latencies

    models = {
        of.model: {
            each.name: {batch: 1e6 * median(each, batch) / batch for batch in BATCHES}
            for each in of.measured
        }
        for of in found
    }
    plot_latencies(models, {name for each in found for name in each.own}, path)


if __name__ == "__main__":
    raise SystemExit(main())
