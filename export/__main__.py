"""`rnn-tf export RUN`: SavedModel, TFLite, ONNX and more from a trained run, proven equal."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from export.bundle import Bundle
from export.check.questions import TEST_SPLIT
from export.formats.registry import file_of
from rnn_tf.command import arguments, parse
from rnn_tf.errors import one_line_errors
from rnn_tf.run import Run


@dataclass(frozen=True)
class Command:
    """Export a run as a bundle: every format verified against the trained model, then published.

    Nothing is published that is not the same function; a bundle that was there stays as it was.
    """

    run: tyro.conf.Positional[Path]
    """The folder of a finished run."""
    out: Path | None = None
    """Where the bundle goes. Default: bundle/ in the run."""
    formats: tuple[str, ...] = ("saved_model", "tflite", "onnx")
    """Which formats to make: saved_model, tflite, onnx, and torch if PyTorch is installed."""
    quantize: Literal["none", "int8", "float16"] = "int8"
    """A second, smaller TFLite file; not shipped if it loses accuracy or is not smaller."""
    opset: int = 17
    """Operator set of the ONNX file, 16 to 21. The default runs on the oldest runtimes."""


@one_line_errors
def main(argv: Sequence[str] | None = None, prog: str = "python -m export") -> int:
    command = parse(Command, arguments(argv), prog)
    run = Run.open(command.run)
    run.require_finished()
    # Not before: it brings onnx and others, which --help need not wait for.
    from export.publish import export_run

    try:
        bundle = export_run(
            run,
            command.out,
            formats=command.formats,
            quantize=command.quantize,
            opset=command.opset,
            say=lambda line: print(line, file=sys.stderr),
        )
    except KeyboardInterrupt:
        print("\nstopped; nothing was exported", file=sys.stderr)
        return 130
    print(summary(bundle))
    return 0


def summary(bundle: Bundle) -> str:
    """A line for each format: its size, and how it answered the test split."""
    rows: list[dict[str, Any]] = json.loads(bundle.verification_file.read_text())["rows"]
    on_test = {row["format"]: row for row in rows if row["family"] == TEST_SPLIT}
    lines = []
    for name in bundle.formats:
        row = on_test[name]
        lines.append(
            f"{file_of(name):<18} {bundle.size(name):>8,} bytes   "
            f"{row['accuracy']:.2%} right, {row['agreement']:.2%} as the formulas, "
            f"max |dp| {row['max_difference']:.1e}"
        )
    return "\n".join([*lines, f"bundle             {bundle.path}"])


if __name__ == "__main__":
    raise SystemExit(main())
