"""From a run to a bundle: build every format, prove it, and only then put it in its place."""

from __future__ import annotations

import functools
import importlib.metadata
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

from export import example, readme, signatures
from export.beside import Beside, BesideProcess, beside
from export.bundle import (
    README,
    Bundle,
    check_place,
    default_path,
    publishing,
    write_manifest,
)  # fmt: skip
from export.check.compare import Report
from export.check.steps import OpenStep
from export.formats.format import OPSET, Options, Writer
from export.formats.onnx import EXAMPLES, check_opset
from export.formats.quantize import enough
from export.formats.registry import CHOICES, DEFAULTS, FORMATS, REFERENCE, file_of
from export.network import Network, read_model
from export.runtimes import open_file, open_step_file
from export.signatures import CLASSIFY, STEP
from export.verify import QUANTIZED, Open, Say, in_tensorflow, verify
from rnn_tf import __version__
from rnn_tf.data import SequenceData, Split, load
from rnn_tf.errors import CheckFailed, InputError
from rnn_tf.evaluate import as_read, check_fits
from rnn_tf.files.writing import write_text
from rnn_tf.run import PROFILE, Run
from rnn_tf.startup import process
from rnn_tf.streams.job import kept_early

Quantize = Literal["none", "int8", "float16"]

# Why there may be none, in a line.
NO_STEP = (
    "the model reads in both directions, and backward it begins with the last frame; train without "
    "--bidirectional for answers while a sequence is still coming"
)


def export_run(
    run: Run,
    out: Path | None = None,
    *,
    data: SequenceData | None = None,
    formats: Sequence[str] = DEFAULTS,
    quantize: Quantize = "int8",
    opset: int = OPSET,
    say: Say = lambda line: None,
) -> Bundle:
    """Export a finished run's best model, verified, to `out`, by default `bundle/` in the run.

    Its formats are verified on the test split of `data`, without them of what it was trained on; of
    data in shards, on a sample.
    `say` is told what is being done, and what is not shipped and why. Raises `InputError` for bad
    input, and `CheckFailed` when a converter fails or a format is not the same function; what
    was in `out` before is then as it was.
    """
    _check_choices(formats, quantize, opset)
    run.require_finished()
    out = out or default_path(run)
    check_place(out.resolve())
    wanted = {*formats, f"tflite_{quantize}" if "tflite" in formats else ""}
    names = [name for name in FORMATS if name in wanted]
    with beside() as other:  # while TensorFlow is imported
        read = other.share(_read, run, data, opset)
        process.start(devices=False)
        test, options = read()
    # Converters need no GPU.
    start = functools.partial(BesideProcess.start_tensorflow, gpus=False)
    with beside(start) as other, publishing(out) as folder:
        other.start_tensorflow()
        network = read_model(run.load_model(), run.spec)
        _fill(folder, run, network, test, names, options, say, other)
    return Bundle.open(out)


def _read(run: Run, data: SequenceData | None, opset: int) -> tuple[Split, Options]:
    """The test split, and what writers need: no more of the training split than they look at."""
    data = (data or load(run.config)).sampled()
    check_fits(run.spec, data.spec, run.config.dataset)
    examples = enough(len(data.train.y), run.spec.longest, data.train.lengths)
    few = data.train.take(slice(max(examples, EXAMPLES)))
    return as_read(data, run.spec), Options(few.x, few.lengths, opset)


def _fill(
    folder: Path,
    run: Run,
    network: Network,
    test: Split,
    names: Sequence[str],
    options: Options,
    say: Say,
    other: Beside,
) -> None:
    """Write everything that a bundle holds, and verify it."""
    _write_reference(run, network, folder / REFERENCE)
    written = {}
    for name in sorted(names, key=in_tensorflow):  # first what is left to the other process
        say(f"writing {name}")
        place = Beside() if in_tensorflow(name) else other
        written[name] = place.leave(_write, name, network, folder, options)
    no_step = {STEP: NO_STEP} if network.bidirectional else {}
    if no_step:
        say(f"no step: {NO_STEP}")
    try:
        report = _verified(network, test, folder, names, say, other)
    except (InputError, CheckFailed):
        for result in written.values():
            result()  # that a file could not be written is why it could not be opened
        raise
    details = {name: written[name]() for name in names}
    left_out = _left_out(report, folder, names)
    for name, reason in left_out.items():
        say(f"{name} is not shipped: {reason}")
        for file in details.pop(name)["answers"].values():
            (folder / file).unlink()
    report = report.without(list(left_out))
    if report.failures():
        raise _broken(report, names)
    manifest = _manifest(run, network, details, left_out | no_step)
    profile = run.profile_file.exists()
    if profile:
        shutil.copyfile(run.profile_file, folder / PROFILE)
    example.write(network, test.x, report.rows[0].limit, folder, test.lengths)
    write_text(folder / README, readme.text(manifest, report, profile=profile))
    write_manifest(folder, manifest)
    Bundle.open(folder).write_verification(report.to_json())


def _check_choices(formats: Sequence[str], quantize: str, opset: int) -> None:
    for name in formats:
        if name not in CHOICES:
            raise InputError(f"unknown format {name!r}", expected=f"some of {', '.join(CHOICES)}")
        _check_extra(name)
    if not formats:
        raise InputError("no format to export", expected=f"some of {', '.join(CHOICES)}")
    if quantize not in get_args(Quantize):
        raise InputError(
            f"cannot quantize to {quantize!r}", expected=f"one of {', '.join(get_args(Quantize))}"
        )
    check_opset(opset)


def _check_extra(name: str) -> None:
    """Raise `InputError` when what a format needs is not installed."""
    extra = FORMATS[name].extra
    for package in FORMATS[name].packages if extra else ():
        if find_spec(package) is None:
            raise InputError(
                f"the format {name} needs {package}",
                fix=f'Install it: pip install "rnn-tf[{extra}]"',
            )


def _write_reference(run: Run, network: Network, path: Path) -> None:
    """The run's model in float32, whatever it was trained in: what the formats must equal.

    Raises `InputError` when the model file, read as `network`, is not what `config.json` says.
    """
    from rnn_tf.model.classifier import build_model

    model = build_model(run.config, run.spec)
    try:
        model.set_weights(run.load_model().get_weights())
    except ValueError as error:
        raise InputError(
            f"not the model that config.json describes: {run.model_file}",
            got=_in_words(describe(network)),
            fix="Train the run again with --overwrite.",
        ) from error
    expected, got = describe(read_model(model, run.spec)), describe(network)
    if expected != got:  # of the same sizes
        raise InputError(
            f"not the model that config.json describes: {run.model_file}",
            expected=_in_words(expected),
            got=_in_words(got),
            fix="Train the run again with --overwrite.",
        )
    model.save(path)


def _in_words(described: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in described.items())


def _write(name: str, network: Network, folder: Path, options: Options) -> dict[str, Any]:
    """Write the files of one format. Gives what the manifest says about it."""
    made = FORMATS[name]
    details = _converted(name, made.write, network, folder / made.file, options)
    answered = {CLASSIFY: made.file}
    if made.step is not None and not network.bidirectional:
        answered[STEP] = made.step.file
        if made.step.write is not None:
            details |= _converted(name, made.step.write, network, folder / made.step.file, options)
    return {**details, "answers": answered}


def _converted(
    name: str, write: Writer, network: Network, path: Path, options: Options
) -> dict[str, Any]:
    """What a writer says of the file that it has written.

    A converter that fails is named, whatever it raises: they share no kind of error.
    """
    try:
        return write(network, path, options)
    except (InputError, CheckFailed, OSError):
        raise
    except Exception as error:
        raise CheckFailed(f"the {name} converter failed: {error}") from error


def _left_out(report: Report, folder: Path, names: Sequence[str]) -> dict[str, str]:
    """The quantized formats that are not worth shipping, and why."""
    left_out = {}
    for name in set(names) & set(QUANTIZED):
        small, large = ((folder / file_of(each)).stat().st_size for each in (name, "tflite"))
        broken = report.failures(name)
        if small >= large:
            broken.append(f"{small:,} bytes, and float32 has {large:,}")
        if broken:
            left_out[name] = "; ".join(broken)
    return left_out


def _verified(
    network: Network, test: Split, folder: Path, names: Sequence[str], say: Say, other: Beside
) -> Report:
    def opener(name: str) -> Open:
        return functools.partial(open_file, name, folder / file_of(name), network.spec)

    keras = open_file("keras", folder / REFERENCE, network.spec)

    def step_opener(name: str, file: str) -> OpenStep:
        return functools.partial(open_step_file, name, folder / file, network.spec)

    steps = {
        name: step_opener(name, step.file)
        for name in names
        if (step := FORMATS[name].step) is not None and not network.bidirectional
    }
    runtimes = {name: opener(name) for name in names}
    return verify(runtimes, keras, network, test, say, steps, other)


def _broken(report: Report, names: Sequence[str]) -> CheckFailed:
    """What is wrong, and what to do."""
    failed = {row.format for row in report.rows if row.failures}
    right = [name for name in names if name in CHOICES and name not in failed]
    if "keras" in failed:
        advice = "Keras itself differs from the formulas: train the model again with another seed"
    elif right:
        advice = f"Export the others: --formats {' '.join(right)}"
    else:
        advice = "Export another format"
    return CheckFailed(f"nothing exported; {report.worst()}. {advice}.")


def _manifest(
    run: Run, network: Network, details: dict[str, dict[str, Any]], left_out: dict[str, str]
) -> dict[str, Any]:
    packages = dict.fromkeys(each for name in details for each in FORMATS[name].packages)
    return {
        "model": describe(network) | {"fingerprint": network.fingerprint},
        "spec": network.spec.to_dict(),
        "dataset": run.config.dataset,
        "source": run.config.source(),
        "metrics": run.metrics,
        **_early(run),
        "signatures": [each.to_dict() for each in signatures.of(network).values()],
        "formats": details,
        "not_shipped": left_out,
        "versions": {
            "rnn-tf": __version__,
            **{name: importlib.metadata.version(name) for name in packages},
        },
    }


def _early(run: Run) -> dict[str, Any]:
    """When an answer of a step is final, where the run knows it (`rnn-tf evaluate --early`)."""
    found = kept_early(run)
    return {} if found is None else {"early": found.to_dict()}


def describe(network: Network) -> dict[str, Any]:
    """What a manifest says of the model itself."""
    return {
        "cell": network.cell,
        "units": network.units,
        "layers": len(network.layers),
        "bidirectional": network.bidirectional,
        "activation": network.activation,
        "parameters": network.parameters,
    }
