"""The console script `rnn-tf`: one subcommand for each `python -m` command."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from rnn_tf import __version__
from rnn_tf.command import arguments
from rnn_tf.errors import InputError, one_line_errors

# Known by name only: a subcommand is imported when it is called.
COMMANDS = {
    "train": ("rnn_tf.train", "train a classifier and keep everything about it as a run"),
    "evaluate": ("rnn_tf.evaluate", "score a run on the test split, class by class"),
    "predict": ("rnn_tf.predict", "classify pictures or sequences with a run or a bundle"),
    "stream": ("export.stream", "answer frame by frame, from lines of numbers, with a bundle"),
    "tune": ("tuning.search", "search for better settings"),
    "export": ("export.__main__", "turn a run into SavedModel, TFLite and ONNX, proven equal"),
    "verify": ("export.verify", "show that every format of a bundle is the trained function"),
    "benchmark": ("export.benchmark", "measure every format of a bundle beside its peers"),
    "convert": ("rnn_tf.data.convert", "write data into shards, for sets larger than memory"),
}


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Hand the arguments to the subcommand that the first of them names."""
    name, *rest = arguments(argv) or ["--help"]
    if name in ("-h", "--help"):
        print(usage())
        return 0
    if name == "--version":
        print(f"rnn-tf {__version__}")
        return 0
    if name not in COMMANDS:
        raise InputError(
            f"unknown command {name!r}", expected=f"one of {', '.join(COMMANDS)}",
            fix="See rnn-tf --help.",
        )  # fmt: skip
    module_name = _module(name, rest)
    _refuse_namesake(module_name)
    module = importlib.import_module(module_name)
    code: int = module.main(rest, prog=f"rnn-tf {name}")
    return code


def _module(name: str, rest: Sequence[str]) -> str:
    # A bundle needs no TensorFlow to answer, a run does.
    if name == "predict" and any((Path(argument) / "manifest.json").is_file() for argument in rest):
        return "export.predict"
    return COMMANDS[name][0]


def _refuse_namesake(module: str) -> None:
    """Raise `InputError` if Python would import a user's own module instead of ours."""
    package = module.partition(".")[0]
    spec = importlib.util.find_spec(package)
    ours = Path(__file__).resolve().parent.parent / package / "__init__.py"
    if spec is not None and spec.origin is not None and Path(spec.origin).resolve() != ours:
        raise InputError(
            f"another module hides the package {package!r} of rnn-tf", expected=str(ours),
            got=spec.origin, fix="Rename that one, or work in another folder.",
        )  # fmt: skip


def usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(
        (
            "usage: rnn-tf COMMAND [OPTIONS]",
            "",
            "Small recurrent classifiers, trained fast and ready to ship.",
            "",
            *lines,
            "",
            "rnn-tf COMMAND --help tells the options of each; rnn-tf --version the version.",
        )
    )


if __name__ == "__main__":
    raise SystemExit(main())
